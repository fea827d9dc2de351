//! Registers of x86-64, in the order of `struct user_regs_struct`.

use super::SystemCall;
use crate::spans::Span;

/// Length of `NT_PRSTATUS`'s register set, in bytes: 27 words.
pub const GENERAL_LENGTH: usize = 27 * 8;

/// Note types of the further register sets, each with the owner of its note.
pub const EXTENDED: &[(&str, u32)] = &[("CORE", object::elf::NT_PRFPREG.0), ("LINUX", 0x202)];

/// Number of the `futex` system call.
pub const FUTEX: u64 = 202;

/// The stack pointer.
pub fn stack_pointer(general: &[u8]) -> u64 {
    super::word(general, 19)
}

/// `fs_base`: where the C library keeps what it knows of the thread. `_tls` is of other machines.
pub fn thread_pointer(general: &[u8], _tls: &[u8]) -> u64 {
    super::word(general, 21)
}

/// Number and first argument of the system call that the thread is in, or was in last.
pub fn system_call(general: &[u8]) -> (u64, u64) {
    (super::word(general, 15), super::word(general, 14))
}

/// glibc's `struct pthread` begins at the thread pointer, and a thread's stack ends in the page in
/// which it ends. It has 0x900 bytes in glibc 2.17 and no fewer in later ones.
pub fn thread_block(pointer: u64) -> Span {
    Span::new(pointer, pointer.saturating_add(0x900))
}

/// The registers that the `syscall` file shows; every other one is 0.
pub fn from_system_call(call: &SystemCall) -> Vec<u8> {
    const PLACES: [usize; 6] = [14, 13, 12, 7, 9, 8]; // rdi rsi rdx r10 r8 r9
    let mut words = [0_u64; 27];
    let mut set = |place: usize, value: u64| {
        if let Some(word) = words.get_mut(place) {
            *word = value;
        }
    };
    for (place, value) in PLACES.into_iter().zip(call.arguments) {
        set(place, value);
    }
    set(15, u64::from_le_bytes(call.number.to_le_bytes())); // orig_rax
    set(16, call.program_counter);
    set(19, call.stack_pointer);
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}
