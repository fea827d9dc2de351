//! Where a process keeps pointers outside its pools: registers, stacks, and everything else that it
//! can write to (data and bss of every module, thread-local storage, the C library's heap).

use crate::addr::{Addr, AddrRange};
use crate::memory::{Cursor, Memory as _};
use crate::num::{narrow, wide};
use crate::process::Process;

/// Below its stack pointer a function may still keep data, in bytes (the red zone of the x86-64
/// ABI).
const RED_ZONE: u64 = 128;

/// The ranges of one process that hold roots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roots {
    /// Writable memory that is neither pool nor stack.
    pub data: Vec<AddrRange>,
    /// Stacks, from a red zone below the stack pointer.
    pub stacks: Vec<AddrRange>,
    /// Values of all threads' general registers.
    pub registers: Vec<u64>,
    /// Threads whose registers are not known.
    pub without_registers: u64,
}

impl Roots {
    /// Gathers them; `pools` are the ranges of the process's pools, by rising address.
    pub fn of(process: &Process, pools: &[AddrRange]) -> Self {
        let threads = &process.core.notes.threads;
        let machine = process.core.machine;
        let stack_pointers: Vec<Addr> =
            threads.iter().filter_map(|thread| thread.stack_pointer(machine)).collect();
        let mut roots = Self {
            registers: threads.iter().flat_map(|thread| thread.registers.clone()).collect(),
            without_registers: wide(threads.len().saturating_sub(stack_pointers.len())),
            ..Self::default()
        };
        for segment in process.memory.segments() {
            if segment.writable != Some(true) {
                continue;
            }
            let lowest = stack_pointers.iter().filter(|at| segment.range.contains(**at)).min();
            match lowest {
                Some(at) => {
                    let start = Addr(at.0.saturating_sub(RED_ZONE) & !7).max(segment.range.start);
                    roots.stacks.push(AddrRange { start, end: segment.range.end });
                }
                None => roots.data.extend(without(segment.range, pools)),
            }
        }
        roots
    }
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

/// Hands every known word of a range to `visit`, in whole runs of bytes.
pub(super) fn words(process: &Process, range: AddrRange, mut visit: impl FnMut(u64)) {
    let memory = &process.memory;
    let mut cursor = Cursor::new(memory);
    let mut at = Addr(range.start.0.checked_next_multiple_of(8).unwrap_or(u64::MAX));
    while at < range.end {
        let Some(saved) = memory.next_saved(at).filter(|saved| *saved < range.end) else { return };
        at = Addr(saved.0.checked_next_multiple_of(8).unwrap_or(u64::MAX));
        let Ok(piece) = cursor.piece(at) else {
            // Damaged compression: the next page may be whole.
            at = Addr((at.0 | 0xfff).saturating_add(1));
            continue;
        };
        let wanted = narrow(range.end.0.saturating_sub(at.0));
        let (words, _) = piece.get(..wanted).unwrap_or(piece).as_chunks::<8>();
        words.iter().for_each(|word| visit(u64::from_le_bytes(*word)));
        at = Addr(at.0.saturating_add(wide(words.len().max(1)).saturating_mul(8)));
    }
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
}
