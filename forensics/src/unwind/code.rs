//! What the bytes of code tell: where code may lie, whether a call stands before an address, and
//! the few instructions that show where a function without unwind information has its return
//! address.

use crate::addr::{Addr, AddrRange};
use crate::memory::{Memory as _, SegmentMap};
use crate::process::Process;

/// The longest call instruction, in bytes, prefixes aside.
const LONGEST_CALL: u64 = 7;

/// `mov $15, %rax; syscall`: the code that a signal handler returns to, in every C library.
const SIGNAL_RETURN: [u8; 9] = [0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05];

/// The code of a process.
#[derive(Debug)]
pub(super) struct Code<'a> {
    memory: &'a SegmentMap,
    /// Where it may run code, by rising address, none overlapping.
    executable: Vec<AddrRange>,
}

/// Where a function without unwind information has its return address, as its next instructions
/// show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hint {
    /// So many bytes above the stack pointer: it has not begun yet, or is about to return.
    AtStackPointer(u64),
    /// Nothing is known.
    None,
}

impl<'a> Code<'a> {
    pub(super) fn of(process: &'a Process) -> Self {
        let modules = process.modules.iter().flat_map(|module| {
            let code = module.segments.iter().filter(|segment| segment.executable);
            let pages = code.filter_map(|segment| Some(segment.pages(module.bias)?.0));
            // Of a module whose headers are lost any part may be code.
            pages.chain(module.segments.is_empty().then_some(module.range))
        });
        let loads = process.core.loads.iter().filter(|load| load.executable);
        let ranges = modules.chain(loads.map(|load| load.range)).collect();
        Self { memory: &process.memory, executable: joined(ranges) }
    }

    /// Whether the process could run code at an address.
    pub(super) fn is_executable(&self, at: Addr) -> bool {
        let index = self.executable.partition_point(|range| range.end <= at);
        self.executable.get(index).is_some_and(|range| range.contains(at))
    }

    /// Whether an address may be where a call returns to: it is in code, and behind a call
    /// instruction unless that code is not known.
    pub(super) fn may_be_return_address(&self, at: Addr) -> bool {
        let Some(last) = at.checked_sub(1) else { return false };
        self.is_executable(last) && self.follows_a_call(at) != Some(false)
    }

    /// `None` where the code is not known.
    fn follows_a_call(&self, at: Addr) -> Option<bool> {
        let start = at.checked_sub(LONGEST_CALL)?;
        let bytes = self.memory.bytes(start, 7);
        // The first function of a mapping may have less before it.
        let bytes = bytes.or_else(|_| self.memory.bytes(at.checked_sub(2).unwrap_or(at), 2));
        Some(ends_with_call(&bytes.ok()?))
    }

    /// Whether a signal handler returns to here.
    pub(super) fn is_signal_return(&self, at: Addr) -> bool {
        self.starts_with(at, &SIGNAL_RETURN)
    }

    /// What the instruction at an exact program counter tells.
    pub(super) fn hint(&self, at: Addr) -> Hint {
        // ret; push %rbp with or without endbr64 before it; mov %rsp, %rbp behind push %rbp.
        let begins: [&[u8]; 3] = [&[0xc3], &[0x55, 0x48, 0x89, 0xe5], &[0xf3, 0x0f, 0x1e, 0xfa]];
        if begins.iter().any(|bytes| self.starts_with(at, bytes)) {
            return Hint::AtStackPointer(0);
        }
        let pushed =
            at.checked_sub(1).is_some_and(|at| self.starts_with(at, &[0x55, 0x48, 0x89, 0xe5]));
        if pushed { Hint::AtStackPointer(8) } else { Hint::None }
    }

    fn starts_with(&self, at: Addr, expected: &[u8]) -> bool {
        self.memory.bytes(at, expected.len()).is_ok_and(|bytes| *bytes == *expected)
    }
}

/// Whether the last instruction is a near call, direct or through a register or memory.
fn ends_with_call(bytes: &[u8]) -> bool {
    let back =
        |distance: usize| bytes.len().checked_sub(distance).and_then(|at| bytes.get(at)).copied();
    if back(5) == Some(0xe8) {
        return true;
    }
    let indirect = |length: usize| {
        let (opcode, form, index) =
            (back(length), back(length.saturating_sub(1)), back(length.saturating_sub(2)));
        opcode == Some(0xff) && form.and_then(|form| call_length(form, index)) == Some(length)
    };
    [2, 3, 4, 6, 7].into_iter().any(indirect)
}

/// Length of `call *OPERAND` (opcode ff, extension 2) by its ModRM byte and the byte behind it.
fn call_length(form: u8, index: Option<u8>) -> Option<usize> {
    if (form >> 3) & 7 != 2 {
        return None;
    }
    let (mode, operand) = (form >> 6, form & 7);
    let base = (operand == 4).then(|| index.unwrap_or(0) & 7);
    match (mode, operand, base) {
        (3, ..) => Some(2),
        (0, 5, _) => Some(6),
        (0, 4, Some(5)) => Some(7),
        (0, 4, _) => Some(3),
        (0, ..) => Some(2),
        (1, 4, _) => Some(4),
        (1, ..) => Some(3),
        (2, 4, _) => Some(7),
        _ => Some(6),
    }
}

/// Sorted, touching and overlapping ranges made one.
fn joined(mut ranges: Vec<AddrRange>) -> Vec<AddrRange> {
    ranges.retain(|range| range.start < range.end);
    ranges.sort_by_key(|range| range.start);
    let mut joined: Vec<AddrRange> = Vec::new();
    for range in ranges {
        match joined.last_mut().filter(|last| range.start <= last.end) {
            Some(last) => last.end = last.end.max(range.end),
            None => joined.push(range),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_known_by_their_last_bytes() {
        let calls: [&[u8]; 12] = [
            &[0xe8, 1, 2, 3, 4],                   // call rel32
            &[0xff, 0xd0],                         // call *%rax
            &[0x41, 0xff, 0xd4],                   // call *%r12
            &[0xff, 0x13],                         // call *(%rbx)
            &[0xff, 0x50, 0x18],                   // call *0x18(%rax)
            &[0xff, 0x14, 0xc2],                   // call *(%rdx,%rax,8)
            &[0xff, 0x54, 0x24, 0x08],             // call *8(%rsp)
            &[0xff, 0x15, 1, 2, 3, 4],             // call *disp(%rip)
            &[0xff, 0x90, 1, 2, 0, 0],             // call *0x201(%rax)
            &[0xff, 0x94, 0x24, 1, 2, 0, 0],       // call *0x201(%rsp)
            &[0xff, 0x14, 0xc5, 1, 2, 3, 4],       // call *disp(,%rax,8)
            &[0x90, 0x90, 0x41, 0xff, 0x55, 0x00], // call *0(%r13)
        ];
        for call in calls {
            assert!(ends_with_call(call), "{call:x?}");
        }
        let others: [&[u8]; 6] = [
            &[],
            &[0xe8],
            &[0xe9, 1, 2, 3, 4],       // jmp rel32
            &[0xff, 0xe0],             // jmp *%rax
            &[0xff, 0x35, 1, 2, 3, 4], // push disp(%rip)
            &[0xff, 0xd0, 0x90],       // call *%rax; nop
        ];
        for other in others {
            assert!(!ends_with_call(other), "{other:x?}");
        }
    }

    #[test]
    fn ranges_are_joined() {
        let range = |start, end| AddrRange { start: Addr(start), end: Addr(end) };
        let ranges = vec![range(5, 9), range(1, 3), range(3, 4), range(6, 7), range(9, 9)];
        assert_eq!(joined(ranges), [range(1, 4), range(5, 9)]);
    }
}
