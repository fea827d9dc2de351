//! Registers of x86-64, in the order of `struct user_regs_struct`.

use super::SystemCall;

/// Length of `NT_PRSTATUS`'s register set, in bytes: 27 words.
pub const GENERAL_LENGTH: usize = 27 * 8;

/// Note types of the further register sets, each with the owner of its note.
pub const EXTENDED: &[(&str, u32)] = &[("CORE", object::elf::NT_PRFPREG.0), ("LINUX", 0x202)];

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
