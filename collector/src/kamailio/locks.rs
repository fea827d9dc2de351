//! Whether a call that takes locks may be made: what the kernel says of the group just now.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use crate::arch;
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
    let (thread, lock) = *waits(ids).intersection(&before).next()?;
    Some(format!("thread {thread} waits for a lock at {lock:#x}"))
}

fn is_stopped(id: u32) -> bool {
    let status = Fields::read(format!("/proc/{id}/status").as_ref()).unwrap_or_default();
    status.text("State").is_some_and(|state| state.starts_with(['T', 't']))
}

/// Threads that wait for a word that processes share, and its address.
fn waits(ids: &[u32]) -> BTreeSet<(u32, u64)> {
    let mut found = BTreeSet::new();
    for id in ids {
        for thread in procfs::numbers_in(format!("/proc/{id}/task")) {
            let path = format!("/proc/{id}/task/{thread}/syscall");
            let call = fs::read_to_string(path).unwrap_or_default();
            found.extend(awaited(&call).map(|lock| (thread, lock)));
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
