//! Whether a process stands inside one of Kamailio's memory managers: a call that is not finished
//! leaves a pool half changed, and a snapshot can be taken at any instruction.

use crate::core::{Thread, is_crash};
use crate::process::Process;
use crate::unwind::{FrameTrust, Unwinder};

/// How the managers' functions are named; those that are static have no name in a stripped program.
const MANAGERS: [&str; 3] = ["qm_", "fm_", "tlsf_"];
/// A manager may have called others when it is met: nameless helpers, and what writes its log.
const FRAMES: usize = 16;

/// Whether a function belongs to a memory manager.
pub fn is_manager_function(name: &str) -> bool {
    MANAGERS.iter().any(|start| name.starts_with(start))
}

/// Whether a function works on the shared pool, with its lock held or waiting for it:
/// `qm_shm_malloc`, `fm_shm_free`, `tlsf_shm_malloc_unsafe`…; all are exported, so they have names in
/// a stripped program, too.
pub fn works_on_shared_pool(name: &str) -> bool {
    is_manager_function(name) && name.contains("_shm_")
}

/// Looks at the innermost frames of each thread (x86-64). What a process left behind that died of its
/// own fault is no unfinished call.
pub fn is_allocating(process: &Process) -> bool {
    let unwinder = Unwinder::new(process);
    let threads = process.core.notes.threads.iter().filter(|thread| !is_crash(thread.signal));
    threads.into_iter().any(|thread| stands_in_manager(process, &unwinder, thread))
}

fn stands_in_manager(process: &Process, unwinder: &Unwinder<'_>, thread: &Thread) -> bool {
    let frames = unwinder.innermost(thread, FRAMES).frames;
    // A word that was found by searching may be left over from a call long ago.
    let sure = frames.iter().take_while(|frame| frame.trust != FrameTrust::Scan);
    sure.map(crate::unwind::Frame::lookup).any(|at| {
        let symbol = process.modules.at(at).and_then(|module| module.spot(at).symbol);
        symbol.is_some_and(|symbol| is_manager_function(&symbol.name))
    })
}
