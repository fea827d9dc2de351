//! Every thread of every process: its stack with names, its system call, what `/proc` says of it.
//!
//! Reads: a process's registers, memory and modules, and the text of a bundle. Promises: a thread
//! that cannot be unwound is in the list with the reason. Not for locks: that is [`crate::locks`].

#[cfg(test)]
pub(crate) mod testing;
mod waits;

use std::time::Duration;

use rayon::prelude::*;

use crate::activity::{Activity, Progress, SystemCall, ThreadActivity};
use crate::addr::Addr;
use crate::core::Thread;
use crate::memory::Memory as _;
use crate::modules::Module;
use crate::process::Process;
use crate::symbols::{CodePlace, Symbols, vdso};
use crate::unwind::{End, Frame, Stack, Unwinder};

pub use waits::Waits;

/// A thread of the case.
#[derive(Clone, Debug)]
pub struct ThreadView {
    /// Index of its process in [`crate::case::Case::members`].
    pub member: usize,
    /// Its thread ID, as the core counts it.
    pub tid: u32,
    /// Its thread ID in its own PID namespace, as glibc keeps it: the number that it writes into the
    /// locks that it takes.
    pub own_id: Option<u32>,
    /// Its name (`comm`), where the snapshot tells it.
    pub name: Option<String>,
    /// The signal that it died of (`pr_cursig`); 0 if it did not.
    pub signal: u16,
    /// Its frames, innermost first.
    pub frames: Vec<NamedFrame>,
    /// Why they end.
    pub end: End,
    /// The system call in which it waits, or gives up its turn, by its registers.
    pub call: Option<SystemCall>,
    /// What `/proc` said of it.
    pub activity: Option<ThreadActivity>,
    /// From the first sample of `/proc` to the second.
    pub between: Option<Duration>,
}

/// A frame with its names.
#[derive(Clone, Debug)]
pub struct NamedFrame {
    /// The frame.
    pub frame: Frame,
    /// File name of the module that holds its code.
    pub module: Option<String>,
    /// The program counter as an address in that file (`p_vaddr`, `st_value`).
    pub address_in_file: Option<u64>,
    /// Its functions: inlined ones first, the one that was called last; empty without a name.
    pub places: Vec<CodePlace>,
}

impl NamedFrame {
    /// The function that was called, or the one that names its code.
    pub fn function(&self) -> Option<&str> {
        self.places.iter().rev().find_map(|place| place.function.as_deref())
    }

    /// All names, inlined functions first.
    pub fn functions(&self) -> impl Iterator<Item = &str> {
        self.places.iter().filter_map(|place| place.function.as_deref())
    }

    /// `qm_malloc`, or `ctl.so+0x2f10`, or the address.
    pub fn words(&self) -> String {
        match (self.function(), &self.module, self.address_in_file) {
            (Some(function), ..) => function.to_owned(),
            (None, Some(module), Some(offset)) => format!("{module}+{offset:#x}"),
            _ => self.frame.pc.to_string(),
        }
    }

    /// Whether its code belongs to the C library or the loader.
    pub fn is_c_library(&self) -> bool {
        self.module.as_deref().is_some_and(is_c_library)
    }
}

/// File names of glibc's parts: `libc.so.6`, `libc-2.31.so`, `libpthread.so.0`, the loader.
pub(crate) fn is_c_library(module: &str) -> bool {
    ["libc.so", "libc-2", "libpthread", "ld-linux", "ld-2"]
        .iter()
        .any(|start| module.starts_with(start))
}

impl ThreadView {
    /// The names of all functions on its stack, innermost first.
    pub fn functions(&self) -> impl Iterator<Item = &str> {
        self.frames.iter().flat_map(NamedFrame::functions)
    }

    /// For how long at least it has waited in the call that the snapshot finds it in: the time
    /// between the samples if both show that call and it did nothing else, zero if it did, `None`
    /// without two samples.
    pub fn waited(&self) -> Option<Duration> {
        let activity = self.activity.as_ref()?;
        let between = self.between.filter(|_| activity.samples.iter().all(Option::is_some))?;
        let same = activity.waits_in().zip(self.call).is_some_and(|(a, b)| a.is_same_wait(&b));
        let switches = activity.switches.map_or(0, |switches| switches.voluntary);
        let still = same && switches <= SWITCHES_OF_FREEZE;
        Some(if still { between } else { Duration::ZERO })
    }

    /// For how long at least it has run without a rest: the time between the samples if it wanted a
    /// CPU all the time, zero if not, `None` without two samples.
    pub fn spun(&self) -> Option<Duration> {
        let wanted = self.activity.as_ref()?.cpu.wanted_percent()?;
        let between = self.between?;
        Some(if wanted >= PEGGED_PERCENT { between } else { Duration::ZERO })
    }

    /// Whether both samples found it stopped: by a signal (`T`), or by another tracer (`t`).
    pub fn is_stopped(&self) -> bool {
        let stopped = |state: Option<char>| matches!(state, Some('T' | 't'));
        self.activity.as_ref().is_some_and(|activity| {
            activity.samples.iter().all(|s| s.as_ref().is_some_and(|s| stopped(s.state)))
        })
    }

    /// The innermost frame of the program's own: the C library's and the kernel's code left out.
    pub fn own_frame(&self) -> Option<&NamedFrame> {
        self.frames.iter().find(|frame| frame.module.is_some() && !frame.is_c_library())
    }
}

/// From this share of one CPU on a thread does nothing else, in percent.
pub const PEGGED_PERCENT: f64 = 90.0;

/// A healthy program waits for locks and peers, too, but not for so long.
pub const LONG_WAIT: Duration = Duration::from_millis(500);

/// Voluntary switches that are the freeze's own: it stops a thread, and lets it go on.
pub const SWITCHES_OF_FREEZE: u64 = 2;

/// Unwinds and names every thread of a process.
pub fn threads(
    member: usize,
    process: &Process,
    symbols: &Symbols,
    activity: &Activity,
) -> Vec<ThreadView> {
    let unwinder = Unwinder::new(process);
    let vdso = vdso(process);
    let dead = process.core.dead_thread().map(|thread| thread.tid);
    let view = |thread: &Thread| {
        let Stack { frames, end } = unwinder.stack(thread);
        let known = process.pid.and_then(|pid| activity.thread(pid, thread.tid));
        let recorded = thread.record.as_ref().map(|record| record.name.clone());
        ThreadView {
            member,
            tid: thread.tid,
            own_id: own_id(thread, process),
            name: recorded.or_else(|| known.map(|known| known.name.clone())),
            signal: if dead == Some(thread.tid) { thread.signal } else { 0 },
            frames: frames
                .into_iter()
                .map(|frame| named(frame, process, vdso.as_ref(), symbols))
                .collect(),
            end,
            call: waiting_call(thread, process),
            activity: known.cloned(),
            between: activity.between,
        }
    };
    process.core.notes.threads.par_iter().map(view).collect()
}

/// `struct pthread` of glibc begins where `fs` points, with its own address at 0 and 16 and the
/// thread's ID at 720: so in all releases since 2.11, on x86-64.
fn own_id(thread: &Thread, process: &Process) -> Option<u32> {
    const SELF: [u64; 2] = [0, 16];
    const ID: u64 = 720;
    let registers = thread.general_registers(process.core.machine)?;
    let start = registers.iter().find(|register| register.name == "fs_base")?.value;
    let at = |offset: u64| Addr(start).checked_add(offset);
    let leads_back = |offset: &u64| {
        at(*offset).is_some_and(|at| process.memory.pointer(at).is_ok_and(|value| value.0 == start))
    };
    let id = SELF.iter().all(leads_back).then(|| process.memory.int(at(ID)?).ok()).flatten()?;
    u32::try_from(id).ok().filter(|id| *id != 0)
}

/// The call that a thread was stopped in, if it was still waiting; one that gives up its turn ends at
/// once, and tells all the same.
fn waiting_call(thread: &Thread, process: &Process) -> Option<SystemCall> {
    let call = SystemCall::of_thread(thread, process.core.machine)?;
    let call = call.as_made(&process.memory);
    let waits = !matches!(call.progress, Progress::Returned(_));
    (waits || call.name == Some("sched_yield")).then_some(call)
}

fn named(frame: Frame, process: &Process, vdso: Option<&Module>, symbols: &Symbols) -> NamedFrame {
    let at = frame.lookup();
    let vdso = vdso.filter(|vdso| vdso.range.contains(at));
    let Some(module) = process.modules.covering(at).or(vdso) else {
        return NamedFrame { frame, module: None, address_in_file: None, places: Vec::new() };
    };
    let back = frame.pc.offset_from(at).unwrap_or(0);
    let mut places = symbols.locate(module, at);
    for place in &mut places {
        place.offset = place.offset.map(|offset| offset.saturating_add(back));
    }
    NamedFrame {
        module: Some(module.name().to_owned()),
        address_in_file: Some(module.address_in_file(frame.pc)),
        places,
        frame,
    }
}
