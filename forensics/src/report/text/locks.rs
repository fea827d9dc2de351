//! Locks as text.

use std::io::{self, Write};

use super::{findings, gaps, wrapped};
use crate::report::locks::{HolderReport, LockReport, LocksReport, WaitReport};

/// The part of `forensics locks`.
///
/// # Errors
/// Those of `out`.
pub fn locks(report: &LocksReport, out: &mut dyn Write) -> io::Result<()> {
    findings(&report.findings, out)?;
    if report.locks.is_empty() {
        let threads = report.threads;
        match threads {
            0 => writeln!(out, "Locks      not known: no thread's registers are in the input\n")?,
            1 => writeln!(out, "Locks      the thread in the input waits for no lock\n")?,
            _ => writeln!(out, "Locks      none of the {threads} threads waits for a lock\n")?,
        }
    } else {
        writeln!(out, "Locks that threads wait for ({})", report.locks.len())?;
    }
    for lock in &report.locks {
        one(report, lock, out)?;
    }
    gaps(&report.gaps, out)
}

fn one(report: &LocksReport, lock: &LockReport, out: &mut dyn Write) -> io::Result<()> {
    let word = match lock.word {
        Some(word) => format!("its word holds {word}"),
        None => "its word is not in the input".to_owned(),
    };
    wrapped("  ", &format!("{} {}: {}; {word}", lock.lock, lock.kind.words(), lock.name), out)?;
    match &lock.holder {
        Some(holder) => wrapped("    held by ", &holder_line(holder), out)?,
        None if lock.readers > 0 => {
            writeln!(out, "    held for reading {} times; readers are not recorded", lock.readers)?;
        }
        None => writeln!(out, "    held by somebody: neither recorded nor to be inferred")?,
    }
    let same = |wait: &&WaitReport| wait.waiter.lock == lock.lock;
    let own = |wait: &&WaitReport| lock.pid.is_none() || wait.waiter.pid == lock.pid;
    for wait in report.waits.iter().filter(same).filter(own) {
        wrapped("    awaited by ", &wait_line(wait), out)?;
    }
    writeln!(out)
}

fn holder_line(holder: &HolderReport) -> String {
    let role = holder.role.as_ref().map(|role| format!(" ({role})")).unwrap_or_default();
    let state = holder.state.as_ref().map(|state| format!(", {state}")).unwrap_or_default();
    let how = match &holder.because {
        Some(because) => format!("inferred: {because}"),
        None => holder.how.to_owned(),
    };
    let presence = match holder.presence {
        "captured" => "",
        "ended" => ", which has ended",
        _ => ", which is not in the input",
    };
    let thread = thread_of(Some(holder.pid), holder.tid);
    format!("{}{thread}{role}{state}{presence} [{how}]", holder.pid)
}

/// `/TID` behind a PID, for threads other than a process's first.
fn thread_of(pid: Option<u32>, tid: Option<u32>) -> String {
    match tid {
        Some(tid) if pid != Some(tid) => format!("/{tid}"),
        _ => String::new(),
    }
}

fn wait_line(wait: &WaitReport) -> String {
    let pid = wait.waiter.pid.map_or_else(|| "?".to_owned(), |pid| pid.to_string());
    let thread = thread_of(wait.waiter.pid, Some(wait.waiter.tid));
    let role = wait.role.as_ref().map(|role| format!(" ({role})")).unwrap_or_default();
    let function = wait.function.as_ref().map(|name| format!(" in {name}")).unwrap_or_default();
    let lasted = match wait.seconds {
        Some(seconds) if seconds > 0.0 => format!(", for {seconds:.1} s at least"),
        Some(_) => ", not for long".to_owned(),
        None => String::new(),
    };
    format!("{pid}{thread}{role}{function}{lasted}")
}
