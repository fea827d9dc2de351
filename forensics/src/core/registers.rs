//! The general registers of a thread, by name.

use bundle::notes::RegisterSource;

use super::Thread;
use crate::addr::Addr;

/// `struct user_regs_struct` of x86-64: the order of `pr_reg`.
const X86_64: [&str; 27] = [
    "r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi",
    "rdi", "orig_rax", "rip", "cs", "eflags", "rsp", "ss", "fs_base", "gs_base", "ds", "es", "fs",
    "gs",
];
/// What `/proc/PID/task/TID/syscall` tells: the call's number and arguments, and where it was made.
const OF_SYSTEM_CALL: [&str; 9] =
    ["orig_rax", "rdi", "rsi", "rdx", "r10", "r8", "r9", "rip", "rsp"];
/// Segment selectors, flags and the number of a system call are never addresses.
const NO_ADDRESS: [&str; 8] = ["cs", "ss", "ds", "es", "fs", "gs", "eflags", "orig_rax"];

/// The order of aarch64's `pr_reg`, without the flags behind them.
const AARCH64: [&str; 33] = [
    "x0", "x1", "x2", "x3", "x4", "x5", "x6", "x7", "x8", "x9", "x10", "x11", "x12", "x13", "x14",
    "x15", "x16", "x17", "x18", "x19", "x20", "x21", "x22", "x23", "x24", "x25", "x26", "x27",
    "x28", "x29", "x30", "sp", "pc",
];
/// Index of `sp` in it.
const AARCH64_SP: usize = 31;

/// One register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Register {
    /// Its name, for instance `rsp`.
    pub name: &'static str,
    /// What it holds.
    pub value: u64,
    /// Whether that may be an address.
    pub may_point: bool,
}

impl Thread {
    /// Its general registers, those only that the snapshot knows; `None` for machines whose
    /// registers this program has no names for (all but `x86-64`).
    pub fn general_registers(&self, machine: &str) -> Option<Vec<Register>> {
        if machine != "x86-64" {
            return None;
        }
        let source = self.record.as_ref().map(|record| record.registers);
        let known = |name: &&str| match source {
            Some(RegisterSource::None) => false,
            Some(RegisterSource::SystemCallFile) => OF_SYSTEM_CALL.contains(name),
            Some(RegisterSource::Stopped) | None => true,
        };
        let named = X86_64.iter().zip(&self.registers).filter(|(name, _)| known(name));
        let register = |(name, value): (&&'static str, &u64)| Register {
            name,
            value: *value,
            may_point: !NO_ADDRESS.contains(name),
        };
        Some(named.map(register).collect())
    }

    /// The known registers that may hold an address: their names and values.
    pub fn addresses(&self, machine: &str) -> Vec<(&'static str, u64)> {
        match self.general_registers(machine) {
            Some(registers) => registers
                .into_iter()
                .filter(|register| register.may_point)
                .map(|register| (register.name, register.value))
                .collect(),
            None if machine == "aarch64" => {
                AARCH64.iter().copied().zip(self.registers.iter().copied()).collect()
            }
            None => Vec::new(),
        }
    }

    /// Whether the snapshot has all of them. Of a thread that did not stop it has those at most that
    /// the kernel tells of its system call.
    pub fn has_all_registers(&self) -> bool {
        let source = self.record.as_ref().map(|record| record.registers);
        matches!(source, Some(RegisterSource::Stopped) | None)
    }

    /// Its stack pointer.
    pub fn stack_pointer(&self, machine: &str) -> Option<Addr> {
        let value = match machine {
            "aarch64" => *self.registers.get(AARCH64_SP)?,
            _ => self.general_registers(machine)?.iter().find(|r| r.name == "rsp")?.value,
        };
        (value != 0).then_some(Addr(value))
    }
}

#[cfg(test)]
mod tests {
    use bundle::notes::ThreadRecord;

    use super::*;

    fn thread(registers: Vec<u64>, source: Option<RegisterSource>) -> Thread {
        let name = "kamailio".to_owned();
        let record = source.map(|registers| ThreadRecord { tid: 7, state: b'S', registers, name });
        Thread { tid: 7, signal: 0, registers, record }
    }

    #[test]
    fn registers_have_the_kernels_order() {
        let thread = thread((100..127).collect(), None);
        let registers = thread.general_registers("x86-64").unwrap();
        let value = |name: &str| registers.iter().find(|r| r.name == name).unwrap().value;
        assert_eq!(registers.len(), 27);
        assert_eq!([value("r15"), value("rdi"), value("rip"), value("rsp")], [100, 114, 116, 119]);
        assert_eq!([value("fs_base"), value("gs")], [121, 126]);
        assert_eq!(thread.stack_pointer("x86-64"), Some(Addr(119)));
        assert_eq!(thread.general_registers("aarch64"), None);
        let named = |machine| thread.addresses(machine).into_iter().map(|(name, _)| name);
        assert!(named("x86-64").eq([
            "r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx",
            "rdx", "rsi", "rdi", "rip", "rsp", "fs_base", "gs_base",
        ]));
        assert_eq!(thread.addresses("aarch64").get(9), Some(&("x9", 109)));
    }

    #[test]
    fn what_was_not_read_is_not_told() {
        let registers: Vec<u64> = (100..127).collect();
        let of_call = thread(registers.clone(), Some(RegisterSource::SystemCallFile));
        let names: Vec<&str> =
            of_call.general_registers("x86-64").unwrap().iter().map(|r| r.name).collect();
        assert!(!of_call.has_all_registers());
        assert_eq!(names, ["r10", "r9", "r8", "rdx", "rsi", "rdi", "orig_rax", "rip", "rsp"]);
        let none = thread(registers, Some(RegisterSource::None));
        assert_eq!(none.general_registers("x86-64"), Some(vec![]));
        assert_eq!(none.stack_pointer("x86-64"), None);
    }
}
