//! What the kernel said of the program's processes: a process that it killed leaves no core.

use crate::board::Fact;
use crate::files::Root;
use crate::host::kernel_log::{self, Event};

/// Logs that the kernel's words are copied to, and what is read of each: its end, in bytes.
const LOGS: [&str; 3] = ["/var/log/kern.log", "/var/log/syslog", "/var/log/messages"];
const TAIL: u64 = 8 << 20;
/// Longer words before the kernel's own are no time and host.
const LONGEST_TIME: usize = 80;
/// Of one log the last so many events are told.
const MOST: usize = 20;

/// What a source noted of it while it read the kernel's own log.
pub(super) fn noted(facts: &[Fact], names: &[String]) -> Vec<String> {
    let words = |fact: &Fact| match fact {
        Fact::OomKill { program, pid, when } if is_one(program, names) => {
            Some(killed(*pid, program, when))
        }
        Fact::Segfault { program, pid, when } if is_one(program, names) => {
            Some(faulted(*pid, program, when))
        }
        _ => None,
    };
    let mut found: Vec<String> = facts.iter().filter_map(words).collect();
    found.split_off(found.len().saturating_sub(MOST))
}

/// The same from the log files of a system: of the first that tells anything.
pub(super) fn in_logs(root: &Root, names: &[String]) -> Vec<String> {
    for path in LOGS {
        let Ok(part) = root.read_tail(path, TAIL) else { continue };
        let text = String::from_utf8_lossy(&part.content).into_owned();
        let mut found: Vec<String> = text.lines().filter_map(|line| of_line(line, names)).collect();
        found.dedup();
        if !found.is_empty() {
            return found.split_off(found.len().saturating_sub(MOST));
        }
    }
    Vec::new()
}

/// `Nov 23 06:00:01 pbx kernel: [   12.345678] Out of memory: Killed process 812 (kamailio) …`
fn of_line(line: &str, names: &[String]) -> Option<String> {
    let (before, words) = line.split_once(" kernel: ")?;
    let timed = words.strip_prefix('[').and_then(|rest| rest.split_once("] "));
    let words = timed.map_or(words, |(_, words)| words).trim_start();
    // Each kill is told twice; the other line is the one that people know.
    if words.starts_with("oom-kill:") {
        return None;
    }
    let when = before.get(..LONGEST_TIME).unwrap_or(before);
    let (_, event) = kernel_log::events(words).into_iter().next()?;
    match event {
        Event::OomKill { pid, name } if is_one(&name, names) => Some(killed(pid, &name, when)),
        Event::Fault { pid, name } if is_one(&name, names) => Some(faulted(pid, &name, when)),
        Event::OomKill { .. } | Event::Fault { .. } => None,
    }
}

/// The kernel keeps 15 bytes of a name.
fn is_one(name: &str, names: &[String]) -> bool {
    names.iter().any(|one| one.get(..15).unwrap_or(one) == name)
}

fn killed(pid: u32, name: &str, when: &str) -> String {
    format!(
        "it killed process {pid} ({name}) for want of memory ({when}); that is SIGKILL, which leaves \
         no core"
    )
}

fn faulted(pid: u32, name: &str, when: &str) -> String {
    format!(
        "process {pid} ({name}) faulted ({when}); that leaves a core unless something forbids it"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_systems_logs_tell_of_kills_and_faults() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("var/log");
        std::fs::create_dir_all(&log).unwrap();
        let nothing = "Nov 23 05:00:00 pbx kernel: [ 1.000000] hello\n";
        std::fs::write(log.join("kern.log"), nothing).unwrap();
        std::fs::write(
            log.join("syslog"),
            "2026-11-23T06:00:01.5+00:00 pbx kernel: [  12.345678] oom-kill:constraint=CONSTRAINT_NONE,task=kamailio,pid=812,uid=0\n\
             2026-11-23T06:00:01.5+00:00 pbx kernel: [  12.345679] Out of memory: Killed process 812 (kamailio) total-vm:1kB\n\
             Nov 23 06:00:02 pbx kernel: kamailio[900]: segfault at 28 ip 00005c sp 00007f error 4 in kamailio[5c0+1]\n\
             Nov 23 06:00:03 pbx kernel: other[901]: segfault at 28 ip 00005c sp 00007f error 4\n\
             Nov 23 06:00:03 pbx other: Out of memory: Killed process 1 (kamailio)\n",
        )
        .unwrap();
        let found = in_logs(&Root::at(folder.path()).unwrap(), &["kamailio".to_owned()]);
        assert_eq!(
            found,
            [
                killed(812, "kamailio", "2026-11-23T06:00:01.5+00:00 pbx"),
                faulted(900, "kamailio", "Nov 23 06:00:02 pbx"),
            ]
        );
    }
}
