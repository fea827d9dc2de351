//! Where a process keeps pointers outside its pools: registers, stacks, and everything else that it
//! can write to (data and bss of every module, thread-local storage, the C library's heap).
//!
//! Reads: a process's memory and registers. Promises: each known word of each range is handed out
//! once, whole runs at a time; holes are jumped over. Bytes that are not known are left out: what
//! that means for the answer is the report's to say.

use super::sieve::{Sieve, Word};
use crate::addr::{Addr, AddrRange};
use crate::core::Thread;
use crate::memory::{Cursor, Memory as _, SegmentMap};
use crate::num::{narrow, wide};

/// Below its stack pointer a function may still keep data, in bytes (the red zone of the x86-64
/// ABI).
const RED_ZONE: u64 = 128;

/// A process of the group.
#[derive(Clone, Debug)]
pub struct GroupProcess<'a> {
    /// Its memory.
    pub memory: &'a SegmentMap,
    /// Its threads with their registers.
    pub threads: &'a [Thread],
    /// Their machine, as [`crate::core::CoreFile::machine`] names it.
    pub machine: &'static str,
    /// Its mappings that are stacks.
    pub stacks: Vec<StackMapping>,
}

/// A mapping that holds stacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StackMapping {
    /// The whole mapping.
    pub range: AddrRange,
    /// The lowest stack pointer in it: what lies below is dead.
    pub lowest: Addr,
}

/// Where a word is that may point at a fragment; the more lasting kinds come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RootPlace {
    /// A word of memory that the process can write to, and that is no stack.
    Data(Addr),
    /// A word of a live stack.
    Stack(Addr),
    /// A general register of a thread.
    Register {
        /// The thread.
        tid: u32,
        /// The register's name.
        name: &'static str,
    },
}

/// The ranges of one process that hold roots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Roots {
    /// Writable memory that is neither pool nor stack.
    data: Vec<AddrRange>,
    /// Live parts of stacks.
    stacks: Vec<AddrRange>,
}

impl Roots {
    /// Gathers them; `pools` are the ranges, by rising address, whose words count otherwise.
    pub(super) fn of(process: &GroupProcess<'_>, pools: &[AddrRange]) -> Self {
        let mut roots = Self::default();
        let writable = process.memory.segments().iter().filter(|s| s.writable == Some(true));
        for segment in writable {
            let stack =
                process.stacks.iter().find(|stack| stack.range.contains(segment.range.start));
            match stack {
                Some(stack) => roots.stacks.extend(alive(segment.range, stack.lowest)),
                None => roots.data.extend(without(segment.range, pools)),
            }
        }
        roots
    }

    /// Hands out every root within the window.
    pub(super) fn visit(
        &self,
        process: &GroupProcess<'_>,
        sieve: &Sieve,
        mut visit: impl FnMut(RootPlace, Word),
    ) {
        for thread in process.threads {
            for (name, value) in thread.addresses(process.machine) {
                if sieve.takes(value) {
                    let word = Word { offset: 0, value, aligned: true };
                    visit(RootPlace::Register { tid: thread.tid, name }, word);
                }
            }
        }
        for range in &self.stacks {
            words(process.memory, *range, sieve, |at, word| visit(RootPlace::Stack(at), word));
        }
        for range in &self.data {
            words(process.memory, *range, sieve, |at, word| visit(RootPlace::Data(at), word));
        }
    }
}

/// What of a piece of a stack is alive.
fn alive(range: AddrRange, stack_pointer: Addr) -> Option<AddrRange> {
    let start = Addr(stack_pointer.0.saturating_sub(RED_ZONE) & !7).max(range.start);
    (start < range.end).then_some(AddrRange { start, end: range.end })
}

/// What of a range lies in no pool.
fn without(range: AddrRange, pools: &[AddrRange]) -> Vec<AddrRange> {
    let mut left = Vec::new();
    let mut start = range.start;
    for pool in pools.iter().filter(|pool| pool.start < range.end && range.start < pool.end) {
        if start < pool.start {
            left.push(AddrRange { start, end: pool.start });
        }
        start = start.max(pool.end);
    }
    if start < range.end {
        left.push(AddrRange { start, end: range.end });
    }
    left
}

/// Hands out every known word of a range that may be a pointer, with its address.
pub(super) fn words(
    memory: &SegmentMap,
    range: AddrRange,
    sieve: &Sieve,
    mut visit: impl FnMut(Addr, Word),
) {
    let mut cursor = Cursor::new(memory);
    let mut at = aligned(range.start);
    while at < range.end {
        let Some(saved) = memory.next_saved(at).filter(|saved| *saved < range.end) else { return };
        at = aligned(saved);
        let Ok(piece) = cursor.piece(at) else {
            // Damaged compression: the next page may be whole.
            at = Addr((at.0 | 0xfff).saturating_add(1));
            continue;
        };
        let wanted = narrow(range.end.0.saturating_sub(at.0));
        let piece = piece.get(..wanted).unwrap_or(piece);
        sieve.sift(piece, |word| visit(Addr(at.0.saturating_add(word.offset)), word));
        at = aligned(Addr(at.0.saturating_add(wide(piece.len().max(1)))));
    }
}

/// The first word at an address or behind it.
fn aligned(at: Addr) -> Addr {
    Addr(at.0.checked_next_multiple_of(8).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: u64, end: u64) -> AddrRange {
        AddrRange { start: Addr(start), end: Addr(end) }
    }

    #[test]
    fn pools_are_cut_out_of_what_holds_roots() {
        let pools = [range(0x20, 0x30), range(0x50, 0x80)];
        assert_eq!(without(range(0x10, 0x60), &pools), [range(0x10, 0x20), range(0x30, 0x50)]);
        assert_eq!(without(range(0x54, 0x60), &pools), []);
        assert_eq!(without(range(0x90, 0xa0), &pools), [range(0x90, 0xa0)]);
    }

    #[test]
    fn a_stack_counts_from_the_red_zone_below_its_stack_pointer() {
        let piece = range(0x1000, 0x3000);
        assert_eq!(alive(piece, Addr(0x2088)), Some(range(0x2008, 0x3000)));
        assert_eq!(alive(piece, Addr(0x800)), Some(piece), "a piece above the stack pointer");
        assert_eq!(alive(piece, Addr(0x4000)), None, "a piece below it");
    }
}
