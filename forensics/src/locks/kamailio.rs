//! Kamailio's own locks: `gen_lock_t` is one `int`. Whoever takes a recursive one writes its PID
//! into the next `int` and counts how often it took it again in the one behind (`rec_lock_t`, the
//! slots of htable, tm's and dialog's tables: all the same).

use crate::addr::Addr;
use crate::kamailio::works_on_shared_pool;
use crate::memory::Memory;
use crate::threads::ThreadView;

const LOCKER_PID: u64 = 4;
const RECURSION: u64 = 8;
/// The largest number that a lock's own word holds.
const LOCK_WORDS: u32 = 2;
/// Nothing takes one lock more often within itself: a larger number is something else.
const DEEPEST: u32 = 1000;

/// What stands beside a lock's word, if it is a recursive lock that is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Recorded {
    /// The holder's PID, in the group's own namespace.
    pub(super) pid: u32,
}

/// Reads the words beside a lock. Beside a plain lock stands anything: only the PID of a process
/// that the group has or had is one. In an array of plain locks the next one stands there, with 0, 1
/// or 2: so small a PID, as a container has them, counts only in a lock that is known to be
/// recursive.
pub(super) fn recorded(
    memory: &dyn Memory,
    lock: Addr,
    is_pid: impl Fn(u32) -> bool,
    is_recursive: impl Fn() -> bool,
) -> Option<Recorded> {
    let word = |offset: u64| {
        let value = memory.int(lock.checked_add(offset)?).ok()?;
        u32::try_from(value).ok()
    };
    let pid = word(LOCKER_PID).filter(|pid| *pid > 0)?;
    let plausible = word(RECURSION)? <= DEEPEST && is_pid(pid);
    (plausible && (pid > LOCK_WORDS || is_recursive())).then_some(Recorded { pid })
}

/// The function of a thread's stack that has the shared pool's lock, for a thread that does not
/// wait for that lock.
pub(super) fn holds_shared_pool(thread: &ThreadView) -> Option<&str> {
    thread.functions().find(|function| works_on_shared_pool(function))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::AddrRange;
    use crate::bytes::Blob;
    use crate::memory::{Content, Segment, SegmentMap};

    fn memory(words: &[u32]) -> SegmentMap {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let range = AddrRange::new(Addr(0x1000), u64::try_from(bytes.len()).unwrap());
        let content = Content::Bytes { blob: Blob::from_bytes(bytes), offset: 0 };
        SegmentMap::new(vec![Segment { range, writable: Some(true), content }])
    }

    fn read(words: &[u32]) -> Option<u32> {
        let is_pid = |pid| [1, 2, 4711].contains(&pid);
        let found = recorded(&memory(words), Addr(0x1000), is_pid, || false);
        found.map(|recorded| recorded.pid)
    }

    #[test]
    fn the_pid_beside_a_lock_is_its_holder() {
        assert_eq!(read(&[2, 4711, 0]), Some(4711));
        assert_eq!(read(&[2, 4711, 3]), Some(4711));
    }

    #[test]
    fn other_words_beside_a_lock_are_none() {
        // tlsf leaves old pointers beside the lock of the shared pool.
        assert_eq!(read(&[2, 0x7f6f, 0x605d_7000]), None);
        assert_eq!(read(&[2, 4711, 0x605d_7000]), None);
        assert_eq!(read(&[2, 0, 0]), None);
        assert_eq!(read(&[2, 4711]), None);
    }

    #[test]
    fn in_an_array_of_plain_locks_the_next_one_is_no_pid() {
        // cfgutils keeps its locks so; PIDs 1 and 2 are a container's.
        assert_eq!(read(&[2, 1, 0]), None);
        assert_eq!(read(&[2, 2, 2]), None);
        let of_slot = recorded(&memory(&[2, 2, 0]), Addr(0x1000), |pid| pid == 2, || true);
        assert_eq!(of_slot, Some(Recorded { pid: 2 }));
    }
}
