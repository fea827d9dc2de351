//! What lies at an address: for words found in damage and in registers.
//!
//! Reads: the processes' mappings and modules, and the ranges of the pools that were found.
//! Promises: an answer rests on bytes or on what the snapshot says itself; a value that was not
//! mapped and is no pattern of an allocator gets none. The same address is PKG in every process of
//! a forked group, so the process decides, and where it is not known the answer says so. Not for
//! what a pointer may do there.
//!
//! [`Place`] is the answer, [`Places`] gives it. `mappings` says what a process maps and where its
//! stacks are, `glibc` recognises the C library's heaps.

mod glibc;
mod mappings;
mod place;
#[cfg(test)]
mod tests;

use std::sync::OnceLock;

pub use place::{ModulePlace, Pattern, Place};

use crate::addr::{Addr, AddrRange};
use crate::input::Evidence;
use crate::kamailio::PoolKind;
use crate::modules::Module;
use crate::process::Process;

use mappings::{Mappings, Name};

/// Lower addresses are a null pointer and an offset: nothing is ever mapped there.
const NULL_PAGE: u64 = 4096;

/// A process and its name for a person.
#[derive(Clone, Debug)]
pub struct Named<'a> {
    /// The process.
    pub process: &'a Process,
    /// For instance `process 12 (timer)`.
    pub name: String,
}

/// Where a pool lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolPlace {
    /// Private or shared.
    pub kind: PoolKind,
    /// Index of its process; of a shared pool, of any that maps it.
    pub process: usize,
    /// Its addresses.
    pub range: AddrRange,
}

/// Answers for the processes of one group.
#[derive(Debug)]
pub struct Places<'a> {
    evidence: &'a Evidence,
    processes: Vec<Named<'a>>,
    pools: Vec<PoolPlace>,
    /// By process, made when first asked for.
    mappings: Vec<OnceLock<Mappings>>,
}

impl<'a> Places<'a> {
    /// Places in these processes, whose indexes in `pools` and in questions are those of the list.
    pub fn new(evidence: &'a Evidence, processes: Vec<Named<'a>>, pools: Vec<PoolPlace>) -> Self {
        let mappings = processes.iter().map(|_| OnceLock::new()).collect();
        Self { evidence, processes, pools, mappings }
    }

    /// What `value` is to a process; `None` for what is no pointer.
    pub fn of(&self, process: usize, value: u64) -> Option<Place> {
        if value < NULL_PAGE {
            return Some(Place::Null { offset: value });
        }
        if let Some(pattern) = Pattern::of(value) {
            return Some(Place::Pattern(pattern));
        }
        self.mapped(process, Addr(value))
    }

    /// What a value in shared memory is. Any process of the group may have written it: what is
    /// private is not told apart by process. `seen_by` is one of them.
    pub fn in_shared_memory(&self, seen_by: usize, value: u64) -> Option<Place> {
        Some(match self.of(seen_by, value)? {
            Place::Pkg { .. } => Place::Pkg { process: None },
            Place::Stack { .. } => Place::Stack { thread: None },
            place => place,
        })
    }

    fn mapped(&self, process: usize, at: Addr) -> Option<Place> {
        let Named { process: own, name } = self.processes.get(process)?;
        if let Some(kind) = self.pool(process, at) {
            return Some(match kind {
                PoolKind::Shm => Place::Shm,
                PoolKind::Pkg => Place::Pkg { process: Some(name.clone()) },
            });
        }
        let mappings = self.mappings(process)?;
        let mapping = mappings.at(at);
        if mapping.is_none() && own.memory.find(at).is_none() {
            return None;
        }
        if let Some(module) = own.modules.covering(at) {
            return Some(Place::Module(in_module(module, at)));
        }
        match mapping.and_then(|mapping| mapping.name.as_ref()) {
            Some(Name::Heap) => return Some(Place::CHeap),
            Some(Name::Vdso) => return Some(Place::Vdso),
            Some(Name::Shared) => return Some(Place::Shared),
            Some(Name::File(path)) => return Some(Place::File { path: path.clone() }),
            Some(Name::Stack) | None => {}
        }
        if mappings.heap.is_some_and(|heap| heap.contains(at)) {
            return Some(Place::CHeap);
        }
        if let Some(thread) = mapping.and_then(|mapping| mappings.stack(mapping, at)) {
            return Some(Place::Stack { thread: Some(thread) });
        }
        let anonymous = mapping.is_some_and(|mapping| mapping.is_private_memory());
        if anonymous && glibc::in_arena(&own.memory, at) {
            return Some(Place::CHeap);
        }
        Some(Place::Unknown)
    }

    /// The shared pool is everyone's, a private one only its process's.
    fn pool(&self, process: usize, at: Addr) -> Option<PoolKind> {
        let own = |pool: &&PoolPlace| pool.kind == PoolKind::Shm || pool.process == process;
        self.pools.iter().filter(own).find(|pool| pool.range.contains(at)).map(|pool| pool.kind)
    }

    /// The mappings of a process that hold stacks, each with the lowest stack pointer in it. A stack
    /// pointer in a heap or in a module's data (a signal handler's own stack, or a damaged register)
    /// makes no stack of the rest.
    pub fn stacks(&self, process: usize) -> Vec<(AddrRange, Addr)> {
        let (Some(mappings), Some(Named { process: own, .. })) =
            (self.mappings(process), self.processes.get(process))
        else {
            return Vec::new();
        };
        let in_module = |at: Addr| own.modules.covering(at).is_some();
        let is_stack = |(mapping, pointer): &(AddrRange, Addr)| {
            !in_module(mapping.start)
                && !in_module(*pointer)
                && !glibc::in_arena(&own.memory, *pointer)
        };
        mappings.stacks().into_iter().filter(is_stack).collect()
    }

    fn mappings(&self, process: usize) -> Option<&Mappings> {
        let own = self.processes.get(process)?.process;
        let made = self.mappings.get(process)?;
        Some(made.get_or_init(|| Mappings::of(own, self.evidence)))
    }
}

/// The place of an address within the module whose image covers it.
fn in_module(module: &Module, at: Addr) -> ModulePlace {
    let spot = module.spot(at);
    ModulePlace {
        module: module.name().to_owned(),
        address_in_file: module.address_in_file(at),
        section: spot.section,
        symbol: spot.symbol,
    }
}

/// The place that a call returns to: within the function that made the call, even where the call
/// is its last instruction and what follows it belongs to the next one.
pub fn return_address(process: &Process, at: Addr) -> Option<ModulePlace> {
    let call = at.checked_sub(1)?;
    let mut place = in_module(process.modules.covering(call)?, call);
    place.address_in_file = place.address_in_file.wrapping_add(1);
    if let Some(symbol) = &mut place.symbol {
        symbol.offset = symbol.offset.saturating_add(1);
    }
    Some(place)
}
