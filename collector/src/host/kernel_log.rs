//! The kernel's log: its times as those of the day, and who was killed or faulted.
//!
//! Two forms are read: records of `/dev/kmsg` (`PRIORITY,NUMBER,MICROSECONDS,FLAGS;TEXT`, then
//! lines that begin with a blank) and the text of `syslog(2)` (`<PRIORITY>[SECONDS] TEXT`).

use std::fmt::Write as _;

use jiff::{SignedDuration, Timestamp};

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message<'a> {
    /// Microseconds of the kernel's clock, which begins at boot and does not run during a sleep;
    /// `None` where the kernel prints no times.
    pub(crate) micros: Option<i64>,
    /// Its text, without the record's further lines.
    pub(crate) text: &'a str,
}

/// Something that the kernel did to a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// Killed for want of memory.
    OomKill { pid: u32, name: String },
    /// A fault that no handler took.
    Fault { pid: u32, name: String },
}

impl Event {
    /// PID of the process, as the kernel counts.
    pub(crate) fn pid(&self) -> u32 {
        match self {
            Self::OomKill { pid, .. } | Self::Fault { pid, .. } => *pid,
        }
    }

    /// Its name, at most 15 bytes.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::OomKill { name, .. } | Self::Fault { name, .. } => name,
        }
    }
}

/// The messages of either form.
pub(crate) fn messages(text: &str) -> impl Iterator<Item = Message<'_>> {
    text.lines().filter_map(|line| {
        if line.starts_with(' ') {
            return None;
        }
        Some(
            record(line)
                .or_else(|| ring_line(line))
                .unwrap_or(Message { micros: None, text: line }),
        )
    })
}

fn record(line: &str) -> Option<Message<'_>> {
    let (head, text) = line.split_once(';')?;
    let mut fields = head.split(',');
    fields.next()?.parse::<u32>().ok()?;
    fields.next()?.parse::<u64>().ok()?;
    let micros = fields.next()?.parse().ok()?;
    fields.next()?;
    Some(Message { micros: Some(micros), text })
}

fn ring_line(line: &str) -> Option<Message<'_>> {
    let (priority, rest) = line.strip_prefix('<')?.split_once('>')?;
    priority.parse::<u32>().ok()?;
    let timed = rest.strip_prefix('[').and_then(|rest| rest.split_once("] "));
    let Some((time, text)) = timed else { return Some(Message { micros: None, text: rest }) };
    // `[   12.345678]`, or with the thread behind it: `[   12.345678][  T123]`.
    let time = time.split(']').next().unwrap_or(time).trim();
    let micros = time.split_once('.').and_then(|(seconds, micros)| {
        let seconds: i64 = seconds.parse().ok()?;
        let micros: i64 = micros.parse().ok().filter(|_| micros.len() == 6)?;
        seconds.checked_mul(1_000_000)?.checked_add(micros)
    });
    Some(Message { micros, text })
}

/// The messages, a line each, with the time of the day in front. `boot` is when the kernel's clock
/// was 0.
pub(crate) fn with_times(text: &str, boot: Timestamp) -> String {
    let mut lines = String::with_capacity(text.len().saturating_mul(2));
    for Message { micros, text } in messages(text) {
        let written = match micros.and_then(|micros| Some((micros, at(boot, micros)?))) {
            Some((micros, time)) => {
                let (seconds, rest) = (micros / 1_000_000, micros % 1_000_000);
                writeln!(lines, "{time:.6} [{seconds:5}.{rest:06}] {text}")
            }
            None => writeln!(lines, "{text}"),
        };
        written.unwrap_or_default();
    }
    lines
}

/// The time of the day of a moment of the kernel's clock.
pub(crate) fn at(boot: Timestamp, micros: i64) -> Option<Timestamp> {
    boot.checked_add(SignedDuration::from_micros(micros)).ok()
}

/// What the kernel did to which process, oldest first; each process once for each kind.
pub(crate) fn events(text: &str) -> Vec<(Option<i64>, Event)> {
    let mut found: Vec<(Option<i64>, Event)> = Vec::new();
    for message in messages(text) {
        let event = oom_kill(message.text)
            .map(|(pid, name)| Event::OomKill { pid, name })
            .or_else(|| fault(message.text).map(|(pid, name)| Event::Fault { pid, name }));
        if let Some(event) = event.filter(|event| found.iter().all(|(_, known)| known != event)) {
            found.push((message.micros, event));
        }
    }
    found
}

/// `Out of memory: Killed process 12 (name) total-vm:…`, `Memory cgroup out of memory: Kill process
/// 12 (name) score …`, `oom-kill:constraint=…,task=name,pid=12,uid=0`.
fn oom_kill(text: &str) -> Option<(u32, String)> {
    if let Some(fields) = text.strip_prefix("oom-kill:") {
        let (_, rest) = fields.split_once(",task=")?;
        let (name, pid) = rest.split_once(",pid=")?;
        return Some((leading_number(pid)?, name.to_owned()));
    }
    let from = ["Killed process ", "Kill process "]
        .into_iter()
        .find_map(|words| text.split_once(words).map(|(_, rest)| rest))?;
    let (pid, rest) = from.split_once(' ')?;
    let name = rest.trim_start().strip_prefix('(')?;
    let (name, _) = name.split_once(')')?;
    Some((leading_number(pid)?, name.to_owned()))
}

/// `name[12]: segfault at …`, `traps: name[12] general protection …`, `traps: name[12] trap …`.
fn fault(text: &str) -> Option<(u32, String)> {
    let (rest, trap) = match text.strip_prefix("traps: ") {
        Some(rest) => (rest, true),
        None => (text, false),
    };
    let (name, rest) = rest.split_once('[')?;
    let (pid, rest) = rest.split_once(']')?;
    let is_fault = if trap {
        rest.starts_with(" general protection") || rest.starts_with(" trap ")
    } else {
        rest.starts_with(": segfault at ") || rest.starts_with(": unhandled ")
    };
    (is_fault && name.len() <= 16).then_some((pid.parse().ok()?, name.to_owned()))
}

fn leading_number(text: &str) -> Option<u32> {
    let end = text.find(|one: char| !one.is_ascii_digit()).unwrap_or(text.len());
    text.get(..end)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KMSG: &str = "\
6,100,5000000,-;eth0: link up\n SUBSYSTEM=net\n DEVICE=+pci:0000:00:03.0\n\
4,101,6000001,-;oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,\
global_oom,task_memcg=/system.slice/kamailio.service,task=kamailio,pid=812,uid=105\n\
3,102,6000500,-;Out of memory: Killed process 812 (kamailio) total-vm:9000kB, anon-rss:1kB\n\
6,103,7000000,-;kamailio[900]: segfault at c0c0c0c8 ip 00000000006024be sp 00007ffd error 4 in \
kamailio[400000+4af000]\n\
4,104,8000000,-;traps: voipmonitor[31] general protection ip:7f0 sp:7ff error:0 in x.so[7f0+1]\n\
6,105,9000000,-;Code: Bad RIP value.\n";

    fn oom(pid: u32, name: &str) -> Event {
        Event::OomKill { pid, name: name.to_owned() }
    }

    #[test]
    fn kills_and_faults_are_found_once_each() {
        let expected = [
            (Some(6_000_001), oom(812, "kamailio")),
            (Some(7_000_000), Event::Fault { pid: 900, name: "kamailio".into() }),
            (Some(8_000_000), Event::Fault { pid: 31, name: "voipmonitor".into() }),
        ];
        assert_eq!(events(KMSG), expected);
    }

    #[test]
    fn older_kernels_and_the_ring_of_syslog_are_understood() {
        let text = "<3>[ 1234.000017] Out of memory: Kill process 7 (mysqld) score 900 or sacrifice\n\
                    <3>[ 1235.000000][  T99] Memory cgroup out of memory: Killed process 8 (a b) x\n\
                    <4>no time: kamailio[9]: segfault at 0\n\
                    <4>kamailio[9]: segfault at 0 ip 0\n";
        let expected = [
            (Some(1_234_000_017), oom(7, "mysqld")),
            (Some(1_235_000_000), oom(8, "a b")),
            (None, Event::Fault { pid: 9, name: "kamailio".into() }),
        ];
        assert_eq!(events(text), expected);
    }

    #[test]
    fn times_of_the_day_stand_before_the_kernels() {
        let boot = "2026-01-01T00:00:00Z".parse().unwrap();
        let text = with_times("6,1,61000002,-;hello; you\n KEY=1\n<6>no time\n", boot);
        assert_eq!(text, "2026-01-01T00:01:01.000002Z [   61.000002] hello; you\nno time\n");
    }

    #[test]
    fn other_lines_are_no_events() {
        let others = "6,1,1,-;Killed process\n6,2,1,-;Killed process x (y)\n6,3,1,-;a[b]: segfault at\n\
                      \u{0}\n6,4,99999999999999999999,-;x\n;\noom-kill:,task=,pid=\n[[[]]]\n";
        assert_eq!(events(others), []);
    }
}
