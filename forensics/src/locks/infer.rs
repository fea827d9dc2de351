//! Holders of locks that name nobody, by what stands on stacks.
//!
//! Promises: of each answer the words say what it rests on; where two processes could be it, none
//! is named.

use super::Wait;
use crate::addr::{Addr, AddrRange};
use crate::memory::Memory;
use crate::threads::{NamedFrame, ThreadView, Waits};

/// More of a stack is not searched, in bytes.
const SEARCHED: u64 = 1 << 20;

/// A thread that seems to hold a lock, and why.
pub(super) type Candidate = (usize, String);

/// Who may hold a lock that others wait for: neither those that wait for it nor those that wait for
/// work, which have no function of theirs to leave a lock in. A module's own process is inside that
/// module all the time, and idle there.
pub(super) fn candidates<'a>(
    threads: &'a [ThreadView],
    waits: &'a [Wait],
) -> impl Iterator<Item = usize> + use<'a> {
    let waiting = |index: usize| waits.iter().any(|wait| wait.thread == index);
    let threads = threads.iter().enumerate();
    let busy = threads.filter(|(_, thread)| thread.waits() != Some(Waits::ForWork));
    busy.map(|(index, _)| index).filter(move |index| !waiting(*index))
}

/// The one of the threads for which `sign` gives a reason; `None` for several.
pub(super) fn only(
    threads: impl Iterator<Item = usize>,
    mut sign: impl FnMut(usize) -> Option<String>,
) -> Option<Candidate> {
    let mut found = threads.filter_map(|thread| Some((thread, sign(thread)?)));
    let first = found.next()?;
    found.next().is_none().then_some(first)
}

/// The function on whose part of the stack, or in whose registers, a lock's address stands: of
/// `module` only, since other functions leave old words.
pub(super) fn mentions(
    thread: &ThreadView,
    memory: &dyn Memory,
    lock: Addr,
    module: &str,
) -> Option<String> {
    let own = |frame: &&NamedFrame| frame.module.as_deref() == Some(module);
    let mut below = thread.frames.first()?.frame.registers.named("rsp").map(Addr)?;
    let first = below;
    for frame in &thread.frames {
        let above = frame.frame.cfa?;
        let in_registers = || frame.frame.registers.known().any(|(_, value)| value == lock.0);
        let near = above.offset_from(first)? <= SEARCHED;
        let on_stack = || holds(memory, AddrRange { start: below, end: above }, lock);
        if near && own(&frame) && (in_registers() || on_stack()) {
            return Some(frame.words());
        }
        below = above;
    }
    None
}

fn holds(memory: &dyn Memory, part: AddrRange, word: Addr) -> bool {
    let mut at = part.start;
    while let Some(next) = at.checked_add(8).filter(|next| *next <= part.end) {
        if memory.pointer(at).is_ok_and(|value| value == word) {
            return true;
        }
        at = next;
    }
    false
}

/// The innermost function of a module on a thread's stack.
pub(super) fn inside(thread: &ThreadView, module: &str) -> Option<String> {
    let frame = thread.frames.iter().find(|frame| frame.module.as_deref() == Some(module))?;
    Some(frame.words())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bytes::Blob;
    use crate::memory::{Content, Segment, SegmentMap};
    use crate::threads::testing::{call, frame, registers, view};

    const EPOLL_WAIT: u64 = 232;
    const LOCK: Addr = Addr(0x7000);

    fn wait(thread: usize) -> Wait {
        Wait { thread, lock: 0, function: None, lasted: None, spins: false, has_limit: false }
    }

    #[test]
    fn neither_waiters_nor_idle_threads_hold_a_lock() {
        let waits = view(&[("libc.so.6", "syscall"), ("dmq.so", "dmq_send")]);
        let own_worker = ThreadView {
            call: Some(call(EPOLL_WAIT, [5, 0])),
            ..view(&[("libc.so.6", "epoll_wait"), ("dmq.so", "worker_loop")])
        };
        let runs = view(&[("dmq.so", "dmq_handle_message"), ("kamailio", "receive_msg")]);
        let threads = [waits, own_worker, runs];
        let waits = [wait(0)];
        let found: Vec<usize> = candidates(&threads, &waits).collect();
        assert_eq!(found, [2]);
        let holder = only(candidates(&threads, &waits), |index| inside(&threads[index], "dmq.so"));
        assert_eq!(holder, Some((2, "dmq_handle_message".to_owned())));
    }

    #[test]
    fn of_two_that_could_be_it_none_is_named() {
        assert_eq!(only([3, 5].into_iter(), |_| Some(String::new())), None);
        assert_eq!(
            only([3, 5].into_iter(), |index| (index == 5).then(String::new)),
            Some((5, String::new()))
        );
    }

    /// A stack from 0x2000 on: two frames of 16 bytes, the lock's address in the second.
    fn mentioned(modules: [&str; 2]) -> Option<String> {
        let words = [0, 0, LOCK.0, 0];
        let bytes: Vec<u8> = words.iter().flat_map(|word: &u64| word.to_le_bytes()).collect();
        let stack = SegmentMap::new(vec![Segment {
            range: AddrRange::new(Addr(0x2000), 32),
            writable: Some(true),
            content: Content::Bytes { blob: Blob::from_bytes(bytes), offset: 0 },
        }]);
        let mut thread = view(&[]);
        for (module, end) in modules.into_iter().zip([0x2010, 0x2020]) {
            let mut named = frame(module, "function", registers(&[(19, 0x2000)]));
            named.frame.cfa = Some(Addr(end));
            thread.frames.push(named);
        }
        mentions(&thread, &stack, LOCK, "dialog.so")
    }

    #[test]
    fn the_address_of_a_lock_counts_in_functions_of_the_module_that_takes_it() {
        assert_eq!(mentioned(["tm.so", "dialog.so"]).as_deref(), Some("function"));
        assert_eq!(mentioned(["dialog.so", "tm.so"]), None, "old words stand in other frames");
    }
}
