//! The kernel's log: who was killed for want of memory, who faulted, what disks complained about.
//!
//! Members: `system/kmsg`: the records of `/dev/kmsg` as they are, or where that cannot be read the
//! text of `syslog(2)`, or of `journalctl -k`; `system/kernel-log`: the same messages with the time
//! of the day in front, reckoned from the clocks of now (a clock that was set since, or a sleep,
//! shifts it).

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::time::{Duration, Instant};

use bundle::{Phase, member};
use jiff::{SignedDuration, Timestamp};

use super::{Context, Drawer, Needs, Source};
use crate::board::Fact;
use crate::command;
use crate::host::kernel_log::{self, Event};
use crate::{sys, sys_host};

/// Bytes that are read; rings have some hundred kilobytes.
const CAP: usize = 16 << 20;
/// The longest that reading may take: somebody may write all the time.
const PATIENCE: Duration = Duration::from_secs(3);
/// What is older is not told on the terminal.
const RECENT: SignedDuration = SignedDuration::from_hours(24);

/// So many ends of this run are told, the youngest ones; more are counted as earlier ones.
const TOLD: usize = 5;

/// Whose end is told besides the target's.
const DATABASES: [&str; 4] = ["mysqld", "mariadbd", "postgres", "redis-server"];

#[derive(Debug)]
pub(crate) struct KernelLog;

impl Source for KernelLog {
    fn name(&self) -> &'static str {
        "kernel-log"
    }

    fn about(&self) -> &'static str {
        "the kernel's log: processes killed for want of memory, faults, disks"
    }

    fn phase(&self) -> Phase {
        Phase::AfterThaw
    }

    fn needs(&self) -> Needs {
        Needs::Host
    }

    fn collect(&self, context: &Context, out: &Drawer) -> anyhow::Result<()> {
        let now = Timestamp::now();
        let up = SignedDuration::from_nanos(i64::try_from(sys::monotonic()).unwrap_or(i64::MAX));
        let boot = now.checked_sub(up).unwrap_or(Timestamp::UNIX_EPOCH);
        let (origin, text) = match read() {
            Ok(found) => found,
            Err(why) => {
                out.gap("kernel log", why);
                return Ok(());
            }
        };
        let shown = String::from_utf8_lossy(&text).into_owned();
        out.put(format!("{}/kmsg", member::SYSTEM), Some(origin), text);
        let dated = kernel_log::with_times(&shown, boot);
        out.put(format!("{}/kernel-log", member::SYSTEM), None, dated.into_bytes());
        let (mut ends, mut others) = (Vec::new(), Vec::new());
        for (micros, event) in kernel_log::events(&shown) {
            let at = micros.and_then(|micros| kernel_log::at(boot, micros));
            if at.is_some_and(|at| now.duration_since(at) > RECENT) {
                continue;
            }
            let since_boot = micros.and_then(|micros| u64::try_from(micros).ok());
            let told = is_target(context, event.name()) || DATABASES.contains(&event.name());
            if told && is_of_this_run(context, &event, since_boot) {
                ends.push((event, at));
            } else if is_target(context, event.name()) {
                others.push(at);
            }
        }
        let earlier = ends.len().saturating_sub(TOLD);
        for (event, at) in ends.drain(..earlier) {
            if is_target(context, event.name()) {
                others.push(at);
            }
        }
        others.sort_unstable();
        for (event, at) in ends {
            note(context, event, at);
        }
        if let Some(last) = others.last() {
            context.board.note(Fact::EarlierEnds { count: others.len(), last: words(*last) });
        }
        Ok(())
    }
}

/// Whether a process of this name may be one of the target's. The kernel keeps 15 bytes of a name.
fn is_target(context: &Context, name: &str) -> bool {
    let program = &context.target.program;
    !name.is_empty() && program.get(..15.min(program.len())) == Some(name)
}

/// Whether the process that ended was one of those that we look at, or may have been: it ended after
/// they were started, and Kamailio's table of processes, where there is one, names it.
fn is_of_this_run(context: &Context, event: &Event, micros: Option<u64>) -> bool {
    let target = &context.target;
    if let (Some(micros), Some(started)) = (micros, target.started_micros())
        && micros < started
    {
        return false;
    }
    let table = context.board.kamailio().map(|look| &look.table).filter(|table| !table.is_empty());
    let namespace = target.processes.iter().any(|process| process.pid != process.inner_pid);
    match table {
        Some(table) if !namespace && is_target(context, event.name()) => {
            table.contains(&event.pid())
        }
        _ => true,
    }
}

fn words(at: Option<Timestamp>) -> String {
    let zone = jiff::tz::TimeZone::system();
    let words = |at: Timestamp| at.to_zoned(zone).strftime("%Y-%m-%d %H:%M:%S %:z").to_string();
    at.map_or_else(|| "at a time that is not known".to_owned(), words)
}

fn note(context: &Context, event: Event, at: Option<Timestamp>) {
    let is_target = |name: &str| is_target(context, name);
    let when = words(at);
    match event {
        Event::OomKill { pid, name } if is_target(&name) || DATABASES.contains(&&*name) => {
            context.board.note(Fact::OomKill { program: name, pid, when });
        }
        Event::Fault { pid, name } if is_target(&name) => {
            context.board.note(Fact::Segfault { program: name, pid, when });
        }
        Event::OomKill { .. } | Event::Fault { .. } => {}
    }
}

/// The log, and where it is from; or all reasons why there is none.
fn read() -> Result<(String, Vec<u8>), String> {
    let kmsg = "/dev/kmsg";
    let records = read_records(kmsg).map(|text| (kmsg.to_owned(), text));
    records
        .or_else(|error| {
            let first = format!("{kmsg}: {error}");
            sys_host::kernel_ring(CAP)
                .map(|text| ("syslog(2)".to_owned(), text))
                .map_err(|error| format!("{first}; syslog(2): {error}"))
        })
        .or_else(|first| {
            let arguments = ["-k", "-q", "-b", "--no-pager", "-o", "short-monotonic"];
            let output = command::run_tail("journalctl", &arguments, PATIENCE, CAP)
                .map_err(|error| format!("{first}; {error}"))?;
            match output.complaint() {
                None if !output.stdout.is_empty() => {
                    Ok(("journalctl -k".to_owned(), output.stdout))
                }
                None => Err(format!("{first}; journalctl -k knows nothing")),
                Some(complaint) => Err(format!("{first}; journalctl -k: {complaint}")),
            }
        })
}

/// One read gives one record; what is overwritten meanwhile gives `EPIPE`, and the next read goes
/// on behind it.
fn read_records(path: &str) -> io::Result<Vec<u8>> {
    let mut file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let begun = Instant::now();
    let mut text = Vec::new();
    let mut record = vec![0; 16 << 10];
    while text.len() < CAP && begun.elapsed() < PATIENCE {
        match file.read(&mut record) {
            Ok(0) => break,
            Ok(read) => text.extend_from_slice(record.get(..read).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error)
                if error.kind() == io::ErrorKind::Interrupted
                    || error.raw_os_error() == Some(libc::EPIPE) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::board::ShmLock;
    use crate::kamailio::memory::Look;
    use crate::procfs::{Stat, ThreadFacts};
    use crate::target::Process;

    #[test]
    fn of_this_run_is_who_ended_after_its_start_and_was_in_its_table() {
        let mut context = Context::default();
        context.target.program = "kamailio".into();
        let stat = Stat { started: 500, ..Stat::default() };
        let mut main = Process { pid: 7, inner_pid: 7, ..Process::default() };
        main.facts.threads.insert(7, ThreadFacts { stat, ..ThreadFacts::default() });
        context.target.processes.push(main);
        let fault = |pid| Event::Fault { pid, name: "kamailio".into() };
        let of_this_run =
            |context: &Context, pid, micros| is_of_this_run(context, &fault(pid), Some(micros));
        assert!(of_this_run(&context, 9, 5_000_001));
        assert!(!of_this_run(&context, 9, 4_999_999));
        let look = Look { table: BTreeSet::from([7, 8]), ..Look::default() };
        context.board.note_kamailio(look, ShmLock::Free);
        assert!(of_this_run(&context, 8, 5_000_001));
        assert!(!of_this_run(&context, 9, 5_000_001), "of another instance");
    }

    #[test]
    fn ends_of_the_target_and_of_databases_are_noted_and_others_are_not() {
        let mut context = Context::default();
        context.target.program = "a-very-long-program-name".into();
        let oom = |name: &str| Event::OomKill { pid: 7, name: name.into() };
        for name in ["a-very-long-pro", "mysqld", "stress", ""] {
            note(&context, oom(name), None);
        }
        note(
            &context,
            Event::Fault { pid: 8, name: "a-very-long-pro".into() },
            Some(Timestamp::UNIX_EPOCH),
        );
        note(&context, Event::Fault { pid: 8, name: "mysqld".into() }, None);
        let names: Vec<String> = context
            .board
            .facts()
            .into_iter()
            .map(|fact| match fact {
                Fact::OomKill { program, .. } => format!("killed {program}"),
                Fact::Segfault { program, when, .. } => format!("faulted {program} {}", when.len()),
                other => format!("{other:?}"),
            })
            .collect();
        let expected = ["killed a-very-long-pro", "killed mysqld", "faulted a-very-long-pro 26"];
        assert_eq!(names, expected);
    }
}
