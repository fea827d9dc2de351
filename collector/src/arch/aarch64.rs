//! Registers of aarch64, in the order of `struct user_pt_regs`.

use super::SystemCall;

/// Length of `NT_PRSTATUS`'s register set, in bytes: x0 to x30, sp, pc, pstate.
pub const GENERAL_LENGTH: usize = 34 * 8;

/// Note types of the further register sets, each with the owner of its note: floating point, the
/// thread pointer, and the masks of pointer authentication.
pub const EXTENDED: &[(&str, u32)] =
    &[("CORE", object::elf::NT_PRFPREG.0), ("LINUX", 0x401), ("LINUX", 0x406)];

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
