//! The frame of a signal handler's return, where no unwind information describes it: C libraries
//! other than glibc, and programs with a trampoline of their own.
//!
//! The handler returns to `mov $15, %rax; syscall` with the stack pointer at the kernel's
//! `struct ucontext`, which holds the interrupted registers.

use super::registers::Registers;
use super::rules::word;
use crate::addr::Addr;
use crate::memory::{Cursor, Known};

/// Offset of `uc_mcontext.gregs` in `struct ucontext`, in bytes.
const GENERAL_REGISTERS: u64 = 40;

/// The order of `gregs` by DWARF's numbers: r8 to r15, rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip.
const ORDER: [u16; 17] = [8, 9, 10, 11, 12, 13, 14, 15, 5, 4, 6, 3, 1, 0, 2, 7, 16];

/// The registers of the interrupted code.
///
/// # Errors
/// [`Absent`](crate::memory::Absent) where the snapshot lacks one of them.
pub(super) fn interrupted(stack_pointer: Addr, stack: &mut Cursor<'_>) -> Known<Registers> {
    let mut registers = Registers::default();
    for (number, offset) in ORDER.into_iter().zip((GENERAL_REGISTERS..).step_by(8)) {
        let place = Addr(stack_pointer.0.saturating_add(offset));
        registers.set(number, Some(word(stack, place)?));
    }
    Ok(registers)
}
