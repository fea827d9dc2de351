//! The registers of one frame, as far as they are known.

use gimli::X86_64;

use crate::core::Thread;

/// Names in DWARF's order: the index is the number. The last is the return address column, which
/// stands for `rip`.
const NAMES: [&str; 17] = [
    "rax", "rdx", "rcx", "rbx", "rsi", "rdi", "rbp", "rsp", "r8", "r9", "r10", "r11", "r12", "r13",
    "r14", "r15", "rip",
];

/// DWARF's number of `rbp`.
pub(super) const RBP: u16 = X86_64::RBP.0;
/// DWARF's number of `rsp`.
pub(super) const RSP: u16 = X86_64::RSP.0;
/// DWARF's number of the return address, which stands for `rip`.
pub(super) const RIP: u16 = X86_64::RA.0;

/// What every function gives back as it found it, by the System V calling convention.
const KEPT: [gimli::Register; 6] =
    [X86_64::RBX, X86_64::RBP, X86_64::R12, X86_64::R13, X86_64::R14, X86_64::R15];

/// The sixteen general registers and `rip`, those that are known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registers {
    values: [u64; 17],
    /// Bit N: register N is known.
    known: u32,
}

impl Registers {
    /// Of a stopped thread; none of a machine other than x86-64.
    pub fn of_thread(thread: &Thread, machine: &str) -> Self {
        let mut registers = Self::default();
        for register in thread.general_registers(machine).unwrap_or_default() {
            if let Some(number) = NAMES.iter().position(|name| *name == register.name) {
                registers.set(u16::try_from(number).unwrap_or(u16::MAX), Some(register.value));
            }
        }
        registers
    }

    /// A register by DWARF's number (16 is `rip`).
    pub fn get(&self, number: u16) -> Option<u64> {
        let known = self.known.checked_shr(number.into()).is_some_and(|bits| bits & 1 == 1);
        self.values.get(usize::from(number)).filter(|_| known).copied()
    }

    /// A register by its name, for instance `rsp`.
    pub fn named(&self, name: &str) -> Option<u64> {
        self.known().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// Those that are known: name and value.
    pub fn known(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let numbers = (0_u16..).zip(NAMES);
        numbers.filter_map(|(number, name)| Some((name, self.get(number)?)))
    }

    /// Makes a register known, or unknown.
    pub(super) fn set(&mut self, number: u16, value: Option<u64>) {
        let Some(place) = self.values.get_mut(usize::from(number)) else { return };
        let bit = 1_u32.checked_shl(number.into()).unwrap_or(0);
        match value {
            Some(value) => {
                *place = value;
                self.known |= bit;
            }
            None => self.known &= !bit,
        }
    }

    /// The same with another value of one register.
    pub(super) fn with(mut self, number: u16, value: u64) -> Self {
        self.set(number, Some(value));
        self
    }

    /// Those that a function leaves as they were.
    pub(super) fn kept(&self) -> Self {
        let mut kept = Self::default();
        for register in KEPT {
            kept.set(register.0, self.get(register.0));
        }
        kept
    }
}

/// Name of a register by DWARF's number.
pub(super) fn name(number: u16) -> &'static str {
    NAMES.get(usize::from(number)).copied().unwrap_or("a register that is not kept")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_order_becomes_dwarfs() {
        let thread = Thread { tid: 1, signal: 0, registers: (100..127).collect(), record: None };
        let registers = Registers::of_thread(&thread, "x86-64");
        let by_number: Vec<Option<u64>> =
            [0, 1, 5, RBP, RSP, 15, RIP, 17, u16::MAX].map(|number| registers.get(number)).to_vec();
        let expected =
            [Some(110), Some(112), Some(114), Some(104), Some(119), Some(100), Some(116)];
        assert_eq!(by_number[..7], expected);
        assert_eq!(by_number[7..], [None, None]);
        assert_eq!(registers.named("rip"), Some(116));
        assert_eq!(registers.known().count(), 17);
        assert_eq!(Registers::of_thread(&thread, "aarch64"), Registers::default());
    }

    #[test]
    fn a_function_keeps_six_registers() {
        let mut registers = Registers::default();
        for number in 0..17 {
            registers.set(number, Some(number.into()));
        }
        registers.set(12, None);
        let kept: Vec<&str> = registers.kept().known().map(|(name, _)| name).collect();
        assert_eq!(kept, ["rbx", "rbp", "r13", "r14", "r15"]);
    }
}
