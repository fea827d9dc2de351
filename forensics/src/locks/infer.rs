//! Holders of locks that name nobody, by what stands on stacks.
//!
//! Promises: of each answer the words say what it rests on; where two processes could be it, none
//! is named. Threads that wait for the lock themselves are never candidates.

use crate::addr::{Addr, AddrRange};
use crate::memory::Memory;
use crate::threads::{NamedFrame, ThreadView};

/// More of a stack is not searched, in bytes.
const SEARCHED: u64 = 1 << 20;

/// A thread that seems to hold a lock, and why.
pub(super) type Candidate = (usize, String);

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
