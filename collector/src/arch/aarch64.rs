//! Registers of aarch64, in the order of `struct user_pt_regs`.

use super::SystemCall;
use crate::spans::Span;

/// Length of `NT_PRSTATUS`'s register set, in bytes: x0 to x30, sp, pc, pstate.
pub const GENERAL_LENGTH: usize = 34 * 8;

/// Note types of the further register sets, each with the owner of its note: floating point, the
/// thread pointer, and the masks of pointer authentication.
pub const EXTENDED: &[(&str, u32)] =
    &[("CORE", object::elf::NT_PRFPREG.0), ("LINUX", 0x401), ("LINUX", 0x406)];

/// Number of the `futex` system call.
pub const FUTEX: u64 = 98;

/// The stack pointer.
pub fn stack_pointer(general: &[u8]) -> u64 {
    super::word(general, 31)
}

/// `tpidr_el0`, the first word of register set 0x401.
pub fn thread_pointer(_general: &[u8], tls: &[u8]) -> u64 {
    super::word(tls, 0)
}

/// Number and first argument of the system call that the thread is in, or was in last.
pub fn system_call(general: &[u8]) -> (u64, u64) {
    (super::word(general, 8), super::word(general, 0))
}

/// glibc's `struct pthread` ends at the thread pointer; thread-local variables follow it, and with
/// them a thread's stack ends.
pub fn thread_block(pointer: u64) -> Span {
    Span::new(pointer.saturating_sub(0x900), pointer.saturating_add(0x1000))
}

/// The registers that the `syscall` file shows; every other one is 0.
pub fn from_system_call(call: &SystemCall) -> Vec<u8> {
    let mut words = [0_u64; 34];
    for (word, value) in words.iter_mut().zip(call.arguments) {
        *word = value;
    }
    let number = u64::from_le_bytes(call.number.to_le_bytes());
    for (place, value) in [(8, number), (31, call.stack_pointer), (32, call.program_counter)] {
        if let Some(word) = words.get_mut(place) {
            *word = value;
        }
    }
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}
