//! The instruction at which a thread stopped: its text, and the memory that it uses.

use iced_x86::{
    Decoder, DecoderOptions, FlowControl, Formatter as _, GasFormatter, InstructionInfoFactory,
    OpAccess, OpKind, Register,
};
use serde::Serialize;

use crate::addr::Addr;
use crate::unwind::Registers;

/// The longest instruction of x86-64, in bytes.
pub(super) const LONGEST: usize = 15;

/// What a program does with memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// It reads.
    Read,
    /// It writes, or reads and writes.
    Write,
    /// It runs what is there.
    Jump,
}

impl Access {
    /// For a person.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Jump => "jump",
        }
    }
}

/// Memory that an instruction uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operand {
    /// Its address, by the registers.
    pub address: Addr,
    /// Its length in bytes; 0 where the instruction does not fix it.
    pub length: u64,
    /// What is done.
    pub access: Access,
}

impl Operand {
    /// Whether an address lies in it.
    fn holds(&self, at: Addr) -> bool {
        at.offset_from(self.address).is_some_and(|inside| inside < self.length.max(1))
    }
}

/// A decoded instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// As gdb shows it (AT&T syntax).
    pub text: String,
    /// The memory that it uses, as far as the registers tell.
    pub operands: Vec<Operand>,
    /// The registers whose values it uses, each with its value.
    pub registers: Vec<(&'static str, u64)>,
    /// Whether it goes on elsewhere, by a register or a word in memory: calls, jumps, returns.
    pub jumps: bool,
    /// Where it jumps to by a register's value.
    pub target: Option<Addr>,
}

impl Instruction {
    /// Decodes the instruction at `at`; `None` where the bytes are none.
    pub(super) fn decode(
        at: Addr,
        code: &[u8],
        registers: &Registers,
        bases: &Bases,
    ) -> Option<Self> {
        let mut decoder = Decoder::with_ip(64, code, at.0, DecoderOptions::NONE);
        let decoded = decoder.decode();
        if decoded.is_invalid() {
            return None;
        }
        let value = |register: Register| match register {
            Register::None | Register::DS | Register::ES | Register::SS | Register::CS => Some(0),
            Register::FS => bases.fs,
            Register::GS => bases.gs,
            Register::RIP => Some(decoded.next_ip()),
            _ => by_name(register, registers).map(|(_, value)| value),
        };
        let mut factory = InstructionInfoFactory::new();
        let info = factory.info(&decoded);
        let operands = info.used_memory().iter().filter_map(|used| {
            let address = used.virtual_address(0, |register, _, _| value(register))?;
            let length = u64::try_from(used.memory_size().size()).unwrap_or(0);
            let access = access(used.access())?;
            Some(Operand { address: Addr(address), length, access })
        });
        let operands = operands.collect();
        let mut used = Vec::new();
        for register in info.used_registers() {
            let reads = access(register.access()).is_some()
                && !matches!(register.access(), OpAccess::Write | OpAccess::CondWrite);
            let known = by_name(register.register(), registers).filter(|_| reads);
            if let Some(known) = known.filter(|known| !used.contains(known)) {
                used.push(known);
            }
        }
        let jumps = matches!(
            decoded.flow_control(),
            FlowControl::IndirectBranch | FlowControl::IndirectCall | FlowControl::Return
        );
        let target = (jumps && decoded.op0_kind() == OpKind::Register)
            .then(|| value(decoded.op0_register()).map(Addr))
            .flatten();
        Some(Self {
            bytes: code.get(..decoded.len()).unwrap_or_default().to_vec(),
            text: text(&decoded),
            operands,
            registers: used,
            jumps,
            target,
        })
    }

    /// The operand in which an address lies.
    pub fn operand_at(&self, at: Addr) -> Option<&Operand> {
        self.operands.iter().find(|operand| operand.holds(at))
    }
}

/// Where the segments of `fs` and `gs` begin.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bases {
    /// `fs_base`
    pub(super) fs: Option<u64>,
    /// `gs_base`
    pub(super) gs: Option<u64>,
}

/// The name and the value of the 64-bit register that a register is part of.
fn by_name(register: Register, registers: &Registers) -> Option<(&'static str, u64)> {
    let name = format!("{:?}", register.full_register()).to_lowercase();
    let (name, value) = registers.known().find(|(known, _)| *known == name)?;
    let value = match register.size() {
        4 if register != register.full_register() => value & 0xffff_ffff,
        _ => value,
    };
    Some((name, value))
}

/// `None` for what is only computed (`lea`, `nop`).
fn access(access: OpAccess) -> Option<Access> {
    match access {
        OpAccess::Read | OpAccess::CondRead => Some(Access::Read),
        OpAccess::Write | OpAccess::CondWrite | OpAccess::ReadWrite | OpAccess::ReadCondWrite => {
            Some(Access::Write)
        }
        OpAccess::None | OpAccess::NoMemAccess => None,
    }
}

fn text(instruction: &iced_x86::Instruction) -> String {
    let mut formatter = GasFormatter::new();
    let options = formatter.options_mut();
    options.set_uppercase_hex(false);
    options.set_small_hex_numbers_in_decimal(false);
    options.set_rip_relative_addresses(true);
    options.set_branch_leading_zeros(false);
    let mut text = String::new();
    formatter.format(instruction, &mut text);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Thread;

    /// Register N of the kernel's order holds 0x1000 * (N + 1): r12 0x4000, rbx 0x6000, rax 0xb000,
    /// rcx 0xc000, rdx 0xd000, rsi 0xe000, rdi 0xf000, rsp 0x14000.
    fn registers() -> Registers {
        let registers = (1..28).map(|number| number * 0x1000).collect();
        let thread = Thread { tid: 1, signal: 11, registers, record: None };
        Registers::of_thread(&thread, "x86-64")
    }

    fn decode(code: &[u8]) -> Instruction {
        let bases = Bases { fs: Some(0x7000_0000), gs: None };
        Instruction::decode(Addr(0x40_0000), code, &registers(), &bases).unwrap()
    }

    fn operand(address: u64, length: u64, access: Access) -> Operand {
        Operand { address: Addr(address), length, access }
    }

    #[test]
    fn a_read_through_a_register() {
        // mov 0x28(%rdi),%rax; what follows is another instruction.
        let found = decode(&[0x48, 0x8b, 0x47, 0x28, 0x90]);
        assert_eq!(found.bytes, [0x48, 0x8b, 0x47, 0x28]);
        assert_eq!(found.text.replace(' ', ""), "mov0x28(%rdi),%rax");
        assert_eq!(found.operands, [operand(0xf028, 8, Access::Read)]);
        assert_eq!(found.registers, [("rdi", 0xf000)]);
        let holds = |at| found.operand_at(Addr(at)).is_some();
        assert_eq!(
            [holds(0xf027), holds(0xf028), holds(0xf02f), holds(0xf030)],
            [false, true, true, false]
        );
    }

    #[test]
    fn a_write_with_an_index() {
        // movl $0x0,-0x8(%rbx,%rcx,4)
        let found = decode(&[0xc7, 0x44, 0x8b, 0xf8, 0, 0, 0, 0]);
        assert_eq!(found.operands, [operand(0x6000 + 4 * 0xc000 - 8, 4, Access::Write)]);
        assert_eq!(found.registers, [("rbx", 0x6000), ("rcx", 0xc000)]);
    }

    #[test]
    fn thread_local_and_relative_addresses() {
        // mov %fs:0x28,%rax; mov 0x10(%rip),%eax
        let local = decode(&[0x64, 0x48, 0x8b, 0x04, 0x25, 0x28, 0, 0, 0]);
        assert_eq!(local.operands, [operand(0x7000_0028, 8, Access::Read)]);
        let relative = decode(&[0x8b, 0x05, 0x10, 0, 0, 0]);
        assert_eq!(relative.operands, [operand(0x40_0016, 4, Access::Read)]);
    }

    #[test]
    fn a_push_writes_below_the_stack_pointer() {
        let found = decode(&[0x55]);
        assert_eq!(found.operands, [operand(0x1_4000 - 8, 8, Access::Write)]);
    }

    #[test]
    fn a_call_through_a_register_and_through_memory() {
        // call *%rax; call *0x10(%rax)
        assert_eq!(decode(&[0xff, 0xd0]).target, Some(Addr(0xb000)));
        let through = decode(&[0xff, 0x50, 0x10]);
        assert_eq!(through.target, None);
        let read = through.operands.iter().find(|operand| operand.access == Access::Read);
        assert_eq!(read, Some(&operand(0xb010, 8, Access::Read)));
    }

    #[test]
    fn computing_an_address_is_no_access() {
        // lea 0x8(%rdi),%rax
        assert_eq!(decode(&[0x48, 0x8d, 0x47, 0x08]).operands, []);
    }

    #[test]
    fn bytes_that_are_no_instruction() {
        let none = |code: &[u8]| {
            Instruction::decode(Addr(0), code, &registers(), &Bases::default()).is_none()
        };
        assert!(none(&[]) && none(&[0x48, 0x8b]) && none(&[0x06]));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_decoded_or_not(code: [u8; LONGEST], at: u64) {
            let _ = Instruction::decode(Addr(at), &code, &registers(), &Bases::default());
            let nothing = Registers::default();
            let _ = Instruction::decode(Addr(at), &code, &nothing, &Bases::default());
        }
    }
}
