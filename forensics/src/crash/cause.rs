//! Why the kernel sent a signal, in words: `si_code`, as `asm-generic/siginfo.h` numbers it.

use crate::core::{SI_KERNEL, SignalInfo};

/// What a signal's code says; `None` where it says nothing that the signal's name does not.
pub(super) fn cause(info: &SignalInfo) -> Option<&'static str> {
    let known = match (info.signal, info.code) {
        (_, 0) => "sent with kill",
        (_, -1) => "sent with sigqueue",
        (_, -2) => "sent by a timer",
        (_, -6) => "sent with tgkill, as abort and raise do",
        (4, 1) => "the processor does not know the instruction",
        (4, 2..=4) => "the instruction's operands are not allowed",
        (4, 5 | 6) => "the instruction is for the kernel only",
        (5, 1) => "a breakpoint",
        (5, 2) => "a step of a debugger",
        (5, SI_KERNEL) => "a breakpoint instruction",
        (7, 1) => "the address is not aligned",
        (7, 2) => "the mapped file has no such page: it was cut short",
        (7, 3) => "the device behind the mapping failed",
        (7, 4 | 5) => "the memory chip has failed there",
        (8, 1) => "integer division by zero, or a quotient that is too large",
        (8, 2) => "integer overflow",
        (8, 3) => "floating-point division by zero",
        (8, 4) => "floating-point overflow",
        (8, 5) => "floating-point underflow",
        (8, 6) => "floating-point result is inexact",
        (8, 7) => "invalid floating-point operation",
        (11, 1) => "nothing is mapped at the address",
        (11, 2) => "the mapping does not allow that access",
        (11, 4) => "a protection key forbids that access",
        (11, SI_KERNEL) => "general protection fault: no canonical address, or not aligned",
        (31, 1) => "a seccomp filter forbids the system call",
        _ => return None,
    };
    Some(known)
}
