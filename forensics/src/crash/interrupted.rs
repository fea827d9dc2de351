//! What a signal handler interrupted.

use crate::addr::Addr;
use crate::memory::Memory;
use crate::threads::NamedFrame;

/// Functions of a stack that are told.
const SHOWN: usize = 6;
/// `syscall`
const SYSTEM_CALL: [u8; 2] = [0x0f, 0x05];
/// Operations of `futex` that wait: `FUTEX_WAIT`, `FUTEX_LOCK_PI`, `FUTEX_WAIT_BITSET`,
/// `FUTEX_LOCK_PI2`; the upper bits are flags.
const WAITS: [u64; 4] = [0, 6, 9, 13];
const OPERATION: u64 = 0x7f;

/// The code that ran, or waited, when a signal came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interrupted {
    /// Its functions of the program's own, innermost first.
    pub functions: Vec<String>,
    /// The futex that it waited for.
    pub lock: Option<Addr>,
}

impl Interrupted {
    /// Of the frames outside the signal's.
    pub(super) fn of(frames: &[&NamedFrame], memory: &dyn Memory) -> Self {
        let own = frames.iter().skip_while(|frame| frame.is_c_library());
        Self {
            functions: own.take(SHOWN).map(|frame| frame.words()).collect(),
            lock: frames.first().and_then(|frame| lock(frame, memory)),
        }
    }
}

/// The address that a futex call waits at: the kernel gives back all registers but rax, rcx, r11.
fn lock(frame: &NamedFrame, memory: &dyn Memory) -> Option<Addr> {
    // A call that is to be made again after the handler (`SA_RESTART`) is the next instruction.
    let is_call = |at: Addr| memory.bytes(at, 2).is_ok_and(|code| *code == SYSTEM_CALL);
    let pc = frame.frame.pc;
    if !is_call(pc) && !pc.checked_sub(2).is_some_and(is_call) {
        return None;
    }
    let register = |name| frame.frame.registers.named(name);
    let at = Addr(register("rdi")?);
    let waits = WAITS.contains(&(register("rsi")? & OPERATION));
    (waits && at.0.is_multiple_of(4) && memory.int(at).is_ok_and(|word| word != 0)).then_some(at)
}
