//! Whether a process stands inside one of Kamailio's memory managers: a call that is not finished
//! leaves a pool half changed, and a snapshot can be taken at any instruction.

use crate::addr::Addr;
use crate::core::Thread;
use crate::memory::Memory as _;
use crate::process::Process;

/// How the managers' functions are named; those that are static have no name in a stripped program.
const NAMES: [&str; 3] = ["qm_", "fm_", "tlsf_"];
/// Words above the stack pointer in which the manager's function that called a nameless one is
/// looked for.
const WORDS: u64 = 32;
/// Signals of a process that crashed: what it left behind is no unfinished call. SIGTRAP is none: a
/// debugger stops with it.
const CRASHES: [u16; 5] = [4, 6, 7, 8, 11];

/// Looks at the instruction pointer of each thread (x86-64), and at the return addresses next to
/// its stack pointer.
pub fn is_allocating(process: &Process) -> bool {
    process.core.notes.threads.iter().any(|thread| stands_in_manager(process, thread))
}

fn stands_in_manager(process: &Process, thread: &Thread) -> bool {
    let (Some(stack), Some(&at)) =
        (thread.stack_pointer(process.core.machine), thread.registers.get(INSTRUCTION))
    else {
        return false;
    };
    if CRASHES.contains(&thread.signal) {
        return false;
    }
    let on_stack = (0..WORDS).filter_map(|number| {
        let place = stack.checked_add(number.saturating_mul(8))?;
        process.memory.word(place).ok()
    });
    std::iter::once(at).chain(on_stack).any(|word| is_manager(process, Addr(word)))
}

/// `rip` in `pr_reg`.
const INSTRUCTION: usize = 16;

fn is_manager(process: &Process, at: Addr) -> bool {
    let symbol = process.modules.at(at).and_then(|module| module.spot(at).symbol);
    symbol.is_some_and(|symbol| NAMES.iter().any(|name| symbol.name.starts_with(name)))
}
