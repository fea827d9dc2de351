//! Where the pools are: by the exported `_pkg_root` and `_shm_root`, by the globals of 4.x, or by
//! the shape of their blocks where no module file is at hand.

use serde::Serialize;

use crate::addr::{Addr, AddrRange};
use crate::heap;
use crate::memory::{Content, Known, Memory, Segment, Why};
use crate::modules::Module;
use crate::process::Process;

/// Whose memory a pool is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PoolKind {
    /// Private to one process.
    Pkg,
    /// Shared by the whole group.
    Shm,
}

impl PoolKind {
    /// As Kamailio's users write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pkg => "PKG",
            Self::Shm => "SHM",
        }
    }
}

/// How a pool was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "by")]
pub enum FoundBy {
    /// Through an exported variable.
    Symbol {
        /// Its name.
        name: &'static str,
        /// The module that exports it.
        module: String,
    },
    /// By the shape of its block.
    BlockShape,
}

impl std::fmt::Display for FoundBy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Symbol { name, module } => write!(f, "{name} in {module}"),
            Self::BlockShape => write!(f, "the shape of its block"),
        }
    }
}

/// A pool, before anyone walked it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolRoot {
    /// Private or shared.
    pub kind: PoolKind,
    /// Its block.
    pub block: Addr,
    /// Name of its manager, for instance `q_malloc`; not known where its text is not.
    pub manager: Option<String>,
    /// How it was found.
    pub found_by: FoundBy,
}

/// The pools of one process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roots {
    /// Its pools.
    pub pools: Vec<PoolRoot>,
    /// The pools that were not found.
    pub missing: Vec<Missing>,
}

/// A pool that was not found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// Private or shared.
    pub kind: PoolKind,
    /// What kept it from being found, for a person.
    pub why: String,
    /// The process had it, as far as can be told.
    pub existed: bool,
}

/// Offset of `mname` and `mem_block` in `sr_pkg_api` and `sr_shm_api`: stable from 5.2 to 6.2.
const MNAME: u64 = 0;
const MEM_BLOCK: u64 = 16;

/// Finds the pools of a process: what its symbols do not lead to is searched for. A process that
/// exports no roots, holds no block and has no file of Kamailio's is none, and gets neither pools
/// nor complaints.
pub fn find(process: &Process) -> Roots {
    let mut roots = Roots::default();
    let mut wanted = Vec::new();
    for (kind, root, global) in
        [(PoolKind::Pkg, "_pkg_root", "mem_block"), (PoolKind::Shm, "_shm_root", "shm_block")]
    {
        match by_symbol(process, kind, root, global) {
            Some(Ok(Some(pool))) => roots.pools.push(pool),
            Some(Ok(None)) => roots.missing.push(Missing {
                kind,
                why: "its root is a null pointer: not set up yet".to_owned(),
                existed: false,
            }),
            Some(Err(why)) => wanted.push((kind, Some(why))),
            None => wanted.push((kind, None)),
        }
    }
    if wanted.is_empty() {
        return roots;
    }
    let no_trace = wanted.len() == 2 && wanted.iter().all(|(_, why)| why.is_none());
    if no_trace && has_every_file(process) && !looks_like_kamailio(process) {
        return roots;
    }
    let found = by_shape(process);
    let is_wanted = |root: &PoolRoot| wanted.iter().any(|(kind, _)| *kind == root.kind);
    roots.pools.extend(found.into_iter().filter(is_wanted));
    let any_symbol = wanted.len() < 2 || wanted.iter().any(|(_, why)| why.is_some());
    if any_symbol || !roots.pools.is_empty() || looks_like_kamailio(process) {
        wanted.retain(|(kind, _)| !roots.pools.iter().any(|root| root.kind == *kind));
        let missing = wanted.into_iter().map(|(kind, why)| {
            let why = why.unwrap_or_else(|| why_not_found(process, kind));
            Missing { kind, why, existed: true }
        });
        roots.missing.extend(missing);
    }
    roots
}

/// The pool that exported variables lead to: `None` if there are none, else the pool, if it was set
/// up, or why they could not be read.
fn by_symbol(
    process: &Process,
    kind: PoolKind,
    root: &'static str,
    global: &'static str,
) -> Option<Result<Option<PoolRoot>, String>> {
    let (read, name, module) = match process.modules.symbol(root) {
        Some((module, at)) => (from_root(process, at), root, module),
        None => {
            let (module, at) = process.modules.symbol(global)?;
            (process.memory.pointer(at).map(|block| (block, None)), global, module)
        }
    };
    let (block, manager) = match read {
        Ok(found) => found,
        Err(absent) => return Some(Err(format!("{name}: {absent}"))),
    };
    let found_by = FoundBy::Symbol { name, module: module.name().to_owned() };
    let pool = PoolRoot { kind, block, manager, found_by };
    Some(Ok((!block.is_null()).then_some(pool)))
}

/// Why neither a symbol nor the shape of a block led to a pool.
fn why_not_found(process: &Process, kind: PoolKind) -> String {
    let shared = |segment: &&Segment| match &segment.content {
        Content::Absent(Why::NotSaved(why)) => why.starts_with("shared memory"),
        _ => false,
    };
    let not_dumped = process.memory.segments().iter().find(shared);
    match not_dumped.filter(|_| kind == PoolKind::Shm) {
        Some(Segment { range, content: Content::Absent(why), .. }) => {
            format!("{} is {why}", range.start)
        }
        _ if process.core.is_cut() => {
            "no symbol leads to it, and what is left of the core holds no such block".to_owned()
        }
        _ => {
            "no symbol leads to it, and no such block is in the core (coredump_filter?)".to_owned()
        }
    }
}

/// Whether the files of all modules are at hand: then no symbol is missing by chance, and a program
/// without roots need not be searched.
fn has_every_file(process: &Process) -> bool {
    let mut modules = process.modules.iter().peekable();
    let whole = |module: &Module| module.file.as_ref().is_ok_and(|file| !file.debug_only);
    modules.peek().is_some() && modules.all(whole)
}

/// Whether the process has a name or a file of Kamailio's.
fn looks_like_kamailio(process: &Process) -> bool {
    let is_name = |name: &str| matches!(name, "kamailio" | "openser" | "ser" | "sip-router");
    let named = process.core.notes.process.as_ref().is_some_and(|own| is_name(&own.name));
    named || process.modules.iter().any(|module| is_name(module.name()))
}

fn from_root(process: &Process, root: Addr) -> Known<(Addr, Option<String>)> {
    let memory = &process.memory;
    let block = memory.pointer(Addr(root.0.saturating_add(MEM_BLOCK)))?;
    let name = memory.pointer(Addr(root.0.saturating_add(MNAME)));
    let name = name.and_then(|at| memory.text(at, 64)).ok().filter(|name| !name.is_empty());
    Ok((block, name))
}

/// Without any module file: every writable run of bytes is searched for blocks.
fn by_shape(process: &Process) -> Vec<PoolRoot> {
    let places: Vec<AddrRange> = process
        .memory
        .segments()
        .iter()
        .filter(|segment| segment.writable == Some(true))
        .filter_map(|segment| match &segment.content {
            // Only what the file holds: a hostile core may claim the whole address space.
            Content::Bytes { blob, offset } => {
                let held = blob.length().saturating_sub(*offset).min(segment.range.length());
                Some(AddrRange::new(segment.range.start, held))
            }
            Content::Zero | Content::Absent(_) => None,
        })
        .collect();
    let mut pools = Vec::new();
    for allocator in heap::ALL {
        for block in allocator.scan(&process.memory, &places) {
            let private = allocator
                .arena(block, &process.memory, None)
                .ok()
                .map(|arena| arena.counters().private);
            let Some(private) = private else { continue };
            let private = private.unwrap_or_else(|| !in_shared_mapping(process, block));
            pools.push(PoolRoot {
                kind: if private { PoolKind::Pkg } else { PoolKind::Shm },
                block,
                manager: Some(allocator.name().to_owned()),
                found_by: FoundBy::BlockShape,
            });
        }
    }
    pools
}

/// Whether a block lies in a mapping that only shared anonymous memory has. TLSF's control
/// structure does not say whose memory it is. Where the core has lost its list of mappings, a block
/// at the very start of a page tells: in private memory the header of `malloc` stands before it.
fn in_shared_mapping(process: &Process, block: Addr) -> bool {
    let files = &process.core.notes.files;
    if files.is_empty() {
        return block.0.is_multiple_of(4096);
    }
    let mapping = files.iter().find(|file| file.range.contains(block));
    mapping.is_some_and(|file| file.path.starts_with("/dev/zero"))
}
