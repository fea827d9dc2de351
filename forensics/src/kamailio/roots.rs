//! Where the pools are: by the exported `_pkg_root` and `_shm_root`, by the globals of 4.x, or by
//! the shape of their blocks where no module file is at hand.

use serde::Serialize;

use crate::addr::{Addr, AddrRange};
use crate::heap;
use crate::memory::{Content, Known, Memory};
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
    /// What kept a pool from being found, for a person.
    pub missing: Vec<(PoolKind, String)>,
}

/// Offset of `mname` and `mem_block` in `sr_pkg_api` and `sr_shm_api`: stable from 5.2 to 6.2.
const MNAME: u64 = 0;
const MEM_BLOCK: u64 = 16;

/// Finds the pools of a process. A process that exports no roots and holds no block is not a
/// Kamailio, and gets neither pools nor complaints.
pub fn find(process: &Process) -> Roots {
    let mut roots = Roots::default();
    let mut any_symbol = false;
    for (kind, root, global) in
        [(PoolKind::Pkg, "_pkg_root", "mem_block"), (PoolKind::Shm, "_shm_root", "shm_block")]
    {
        let found = match process.modules.symbol(root) {
            Some((module, at)) => Some((from_root(process, at), root, module)),
            None => process.modules.symbol(global).map(|(module, at)| {
                (process.memory.pointer(at).map(|block| (block, None)), global, module)
            }),
        };
        let Some((read, name, module)) = found else { continue };
        any_symbol = true;
        match read {
            Ok((block, _)) if block.is_null() => {
                roots.missing.push((kind, format!("{name} is a null pointer: not set up yet")));
            }
            Ok((block, manager)) => roots.pools.push(PoolRoot {
                kind,
                block,
                manager,
                found_by: FoundBy::Symbol { name, module: module.name().to_owned() },
            }),
            Err(absent) => roots.missing.push((kind, format!("{name}: {absent}"))),
        }
    }
    if !any_symbol {
        roots.pools = by_shape(process);
    }
    roots
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
/// structure does not say whose memory it is.
fn in_shared_mapping(process: &Process, block: Addr) -> bool {
    let files = &process.core.notes.files;
    let mapping = files.iter().find(|file| file.range.contains(block));
    mapping.is_some_and(|file| file.path.starts_with("/dev/zero"))
}
