//! Whether a call that takes locks may be made: what the kernel says of the group just now.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use crate::arch;
use crate::mappings::Mapping;
use crate::procfs::{self, Fields};

/// Between two looks: a lock that is only busy is given back in between.
const BETWEEN: Duration = Duration::from_millis(100);
/// `FUTEX_PRIVATE_FLAG`: a lock of one process's threads, not of the group.
const PRIVATE: u64 = 128;

/// Why the group's locks had better not be touched: somebody waits for one and does not get it, or
/// a process that may have one is stopped.
pub(super) fn trouble(ids: &[u32]) -> Option<String> {
    if let Some(id) = ids.iter().find(|id| is_stopped(**id)) {
        return Some(format!("process {id} is stopped and may hold a lock"));
    }
    let before = waits(ids);
    if before.is_empty() {
        return None;
    }
    std::thread::sleep(BETWEEN);
    let after = waits(ids);
    let wait = after.intersection(&before).find(|wait| is_in_shared_memory(wait))?;
    Some(format!("thread {} waits for a lock at {:#x}", wait.thread, wait.lock))
}

/// A thread in a call that waits for a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Wait {
    process: u32,
    thread: u32,
    lock: u64,
}

/// Threads wait for the end of others of their process in the same way, but in private memory.
fn is_in_shared_memory(wait: &Wait) -> bool {
    let maps = fs::read(format!("/proc/{}/maps", wait.process)).unwrap_or_default();
    let mappings = Mapping::parse_all(&String::from_utf8_lossy(&maps));
    mappings.iter().any(|one| one.shared && (one.span.start..one.span.end).contains(&wait.lock))
}

fn is_stopped(id: u32) -> bool {
    let status = Fields::read(format!("/proc/{id}/status").as_ref()).unwrap_or_default();
    status.text("State").is_some_and(|state| state.starts_with(['T', 't']))
}

/// Threads that wait for a word which processes may share.
fn waits(ids: &[u32]) -> BTreeSet<Wait> {
    let mut found = BTreeSet::new();
    for &process in ids {
        for thread in procfs::numbers_in(format!("/proc/{process}/task")) {
            let path = format!("/proc/{process}/task/{thread}/syscall");
            let call = fs::read_to_string(path).unwrap_or_default();
            found.extend(awaited(&call).map(|lock| Wait { process, thread, lock }));
        }
    }
    found
}

/// `202 0x7f… 0x0 0x2 …`: number, address, operation.
fn awaited(call: &str) -> Option<u64> {
    let mut words = call.split_whitespace();
    let number: u64 = words.next()?.parse().ok()?;
    let mut argument = || u64::from_str_radix(words.next()?.strip_prefix("0x")?, 16).ok();
    let (address, operation) = (argument()?, argument()?);
    (number == arch::FUTEX && operation & PRIVATE == 0).then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_waits_for_shared_words_count() {
        let call =
            |operation| format!("{} 0x7f10 {operation} 0x2 0x0 0x0 0x0 0x1 0x2\n", arch::FUTEX);
        assert_eq!(awaited(&call("0x0")), Some(0x7f10));
        assert_eq!(awaited(&call("0x80")), None);
        assert_eq!(awaited("0 0x4 0x0 0x2"), None);
        assert_eq!(awaited("running"), None);
        assert_eq!(trouble(&[std::process::id()]), None);
    }
}
