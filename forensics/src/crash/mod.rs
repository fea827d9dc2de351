//! The death of a process, from the core that the kernel wrote of it.
//!
//! Reads: the signal and what the kernel said of it, the registers and the stack of the thread that
//! died, its code. Promises: a live snapshot (a bundle, gcore) has no crash; what is said of the
//! fault rests on the registers and the bytes; a core that came after the real failure is told
//! from one of the failure itself. Not for fragments of the pools: [`crate::case`] adds them.
//!
//! `cause` has the words of `si_code`, `instruction` decodes what the thread was about to do,
//! `address` says what the address of the fault is, `standing` whether something else came before,
//! `interrupted` what the handler of a time-out interrupted.

mod address;
mod cause;
mod instruction;
mod interrupted;
mod standing;
#[cfg(test)]
mod tests;

pub use address::Meaning;
pub use instruction::{Access, Instruction, Operand};
pub use interrupted::Interrupted;
pub use standing::Standing;
pub(crate) use standing::is_manager;

use address::is_canonical;
use instruction::{Bases, LONGEST};

use crate::addr::Addr;
use crate::core::{SI_KERNEL, SignalInfo, names_address, signal_name};
use crate::memory::Memory as _;
use crate::places::Places;
use crate::process::Process;
use crate::threads::ThreadView;
use crate::unwind::Registers;

const SIGSEGV: u16 = 11;
const SIGBUS: u16 = 7;

/// A process that died.
#[derive(Clone, Debug)]
pub struct Crash {
    /// Index of the thread in [`crate::case::Case::threads`].
    pub thread: usize,
    /// The signal.
    pub signal: u16,
    /// What the kernel said of it; `None` where the core has lost that.
    pub info: Option<SignalInfo>,
    /// The address that could not be used.
    pub fault: Option<Fault>,
    /// The instruction at which the thread stopped, or why it is not known.
    pub instruction: Result<Instruction, String>,
    /// Whether it is the failure itself.
    pub standing: Standing,
    /// What makes it so; `None` for a primary one of which nothing is to be said.
    pub why: Option<String>,
    /// Whether damage of a heap explains it.
    pub is_heap_damage: bool,
    /// What the alarm of a shutdown interrupted.
    pub interrupted: Option<Interrupted>,
}

/// An access that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The address: the kernel's word, or the registers' where the kernel has none.
    pub address: Addr,
    /// Whether the kernel names the address.
    pub is_from_kernel: bool,
    /// What was done there, if the instruction tells.
    pub access: Option<Access>,
    /// Length of the access in bytes, if the instruction tells.
    pub length: Option<u64>,
    /// What the address is.
    pub meaning: Meaning,
}

impl Crash {
    /// Of a thread that died of a signal; `None` for others.
    pub fn of(
        index: usize,
        view: &ThreadView,
        process: &Process,
        places: &Places<'_>,
    ) -> Option<Self> {
        if view.signal == 0 {
            return None;
        }
        let info = process.core.notes.signals.get(&view.tid).copied();
        let info = info.filter(|info| info.signal == view.signal);
        let registers = view.frames.first().map(|frame| frame.frame.registers);
        let registers = registers.unwrap_or_default();
        let instruction = instruction(view, process, &registers);
        let pids = [process.pid, process.inner_pid, process.core.pid()];
        let pids: Vec<u32> = pids.into_iter().flatten().collect();
        let judged = standing::judge(view, info.as_ref(), &pids, &process.memory);
        let found = fault(view, info.as_ref(), instruction.as_ref().ok(), &registers, process);
        let fault = found.map(|found| Fault {
            meaning: Meaning::of(
                found.address,
                registers.named("rsp"),
                &process.memory,
                places.of(view.member, found.address.0),
            ),
            address: found.address,
            is_from_kernel: found.is_from_kernel,
            access: found.access,
            length: found.length.filter(|length| *length > 0),
        });
        Some(Self {
            thread: index,
            signal: view.signal,
            info,
            fault,
            instruction,
            standing: judged.standing,
            why: judged.why,
            is_heap_damage: judged.is_heap_damage,
            interrupted: judged.interrupted,
        })
    }

    /// `SIGSEGV`
    pub fn signal_name(&self) -> String {
        signal_name(self.signal)
    }

    /// Why the kernel sent it, for a person.
    pub fn cause(&self) -> Option<&'static str> {
        self.info.as_ref().and_then(cause::cause)
    }
}

impl Fault {
    /// `read of 8 bytes at 0x28, a null pointer plus 0x28`
    pub fn words(&self) -> String {
        let what = self.access.map_or("access", Access::name);
        let Self { address, meaning, .. } = self;
        match self.length.filter(|_| self.access != Some(Access::Jump)) {
            Some(1) => format!("{what} of 1 byte at {address}, {meaning}"),
            Some(length) => format!("{what} of {length} bytes at {address}, {meaning}"),
            None if self.access == Some(Access::Jump) => format!("jump to {address}, {meaning}"),
            None => format!("{what} at {address}, {meaning}"),
        }
    }
}

/// Decodes what is at the program counter.
fn instruction(
    view: &ThreadView,
    process: &Process,
    registers: &Registers,
) -> Result<Instruction, String> {
    if process.core.machine != "x86-64" {
        return Err(format!("instructions of {} are not decoded", process.core.machine));
    }
    let first = view.frames.first().ok_or("its registers are not known")?;
    let at = first.frame.pc;
    let code = code(process, at).map_err(|absent| absent.to_string())?;
    let thread = process.core.notes.threads.iter().find(|thread| thread.tid == view.tid);
    let all = thread.and_then(|thread| thread.general_registers(process.core.machine));
    let value = |name| all.as_ref()?.iter().find(|r| r.name == name).map(|r| r.value);
    let bases = Bases { fs: value("fs_base"), gs: value("gs_base") };
    Instruction::decode(at, &code, registers, &bases).ok_or_else(|| {
        format!("the bytes at {at} are no instruction: {}", crate::modules::hex(&code))
    })
}

/// As many bytes as one instruction may have, fewer where the mapping ends.
fn code(process: &Process, at: Addr) -> Result<Vec<u8>, crate::memory::Absent> {
    match process.memory.bytes(at, LONGEST) {
        Ok(bytes) => Ok(bytes.to_vec()),
        Err(_) => process.memory.peek(at, LONGEST).map(|bytes| bytes.to_vec()),
    }
}

/// A fault whose address is not judged yet.
struct Found {
    address: Addr,
    is_from_kernel: bool,
    access: Option<Access>,
    length: Option<u64>,
}

fn fault(
    view: &ThreadView,
    info: Option<&SignalInfo>,
    instruction: Option<&Instruction>,
    registers: &Registers,
    process: &Process,
) -> Option<Found> {
    if !names_address(view.signal) || info.is_some_and(|info| info.sender().is_some()) {
        return None;
    }
    let memory_fault = matches!(view.signal, SIGSEGV | SIGBUS);
    let counter = registers.named("rip").map(Addr);
    if let Some(address) = info.and_then(SignalInfo::address) {
        // Of an illegal instruction or a division the address is the instruction's own.
        if !memory_fault {
            return None;
        }
        let jump = (counter == Some(address) && instruction.is_none()).then_some(Access::Jump);
        let operand = instruction.and_then(|instruction| instruction.operand_at(address));
        let code = counter == Some(address) && operand.is_none();
        return Some(Found {
            address,
            is_from_kernel: true,
            access: operand.map(|o| o.access).or(jump).or(code.then_some(Access::Jump)),
            length: operand.map(|operand| operand.length),
        });
    }
    let protection = info.is_none_or(|info| info.code == SI_KERNEL);
    (memory_fault && protection).then(|| by_registers(instruction, counter, process))?
}

/// The address that an instruction cannot have used.
fn by_registers(
    instruction: Option<&Instruction>,
    counter: Option<Addr>,
    process: &Process,
) -> Option<Found> {
    let found = |address, access, length| Found { address, is_from_kernel: false, access, length };
    let Some(instruction) = instruction else {
        let counter = counter.filter(|at| process.memory.find(*at).is_none())?;
        return Some(found(counter, Some(Access::Jump), None));
    };
    let wrong = |at: Addr| !is_canonical(at);
    let unmapped = |at: Addr| process.memory.find(at).is_none();
    let operands = &instruction.operands;
    let operand = operands.iter().find(|operand| wrong(operand.address));
    if let Some(operand) = operand.or_else(|| operands.iter().find(|o| unmapped(o.address))) {
        return Some(found(operand.address, Some(operand.access), Some(operand.length)));
    }
    // A jump to what is no address fails before it is made.
    let through = operands
        .iter()
        .filter(|operand| operand.access == Access::Read && operand.length == 8)
        .filter_map(|operand| process.memory.pointer(operand.address).ok());
    let target = instruction.target.into_iter().chain(through).find(|at| wrong(*at));
    target.filter(|_| instruction.jumps).map(|at| found(at, Some(Access::Jump), None))
}
