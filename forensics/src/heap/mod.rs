//! Heaps, fragment by fragment.
//!
//! An allocator turns the bytes of one arena into [`Step`]s by rising address, for code that knows
//! no allocator. It knows nothing of Kamailio: where its blocks lie is told from outside. A walk
//! that meets damage reports it and keeps what it has; it always ends.

pub mod qm;

use serde::Serialize;

use crate::addr::{Addr, AddrRange};
use crate::layout::LayoutSource;
use crate::memory::{Absent, Memory};
use crate::modules::ModuleFile;

/// A memory manager.
pub trait Allocator: Sync {
    /// The name that it gives itself, as in `_shm_root.mname`.
    fn name(&self) -> &'static str;

    /// Reads the block at `block` and decides its layout: from the debug information of `program`
    /// if there is some, else by trying the known ones.
    ///
    /// # Errors
    /// [`NotAnArena`] says what does not fit.
    fn arena<'a>(
        &self,
        block: Addr,
        memory: &'a dyn Memory,
        program: Option<&ModuleFile>,
    ) -> Result<Box<dyn Arena + 'a>, NotAnArena>;

    /// Looks for blocks in runs of bytes without any symbol, by the shape of their headers.
    fn scan(&self, memory: &dyn Memory, places: &[AddrRange]) -> Vec<Addr>;
}

/// All allocators of this program.
pub static ALL: &[&dyn Allocator] = &[&qm::QMalloc];

/// One heap of one process, its layout bound.
pub trait Arena {
    /// What the block says of itself.
    fn counters(&self) -> Counters;
    /// The pool: from the block to the end of its last fragment.
    fn range(&self) -> AddrRange;
    /// From the start of the block to its first fragment, in bytes.
    fn block_size(&self) -> u64;
    /// Bytes that each fragment costs besides its payload.
    fn overhead(&self) -> u64;
    /// Where its layout comes from.
    fn source(&self) -> LayoutSource;
    /// Fragment by fragment, by rising address.
    fn walk(&self) -> Box<dyn Iterator<Item = Step> + '_>;
}

/// What a block says of itself; never trusted, always compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// The whole pool, block included, in bytes.
    pub size: u64,
    /// Payload of used fragments, in bytes.
    pub used: u64,
    /// Everything but the payload of free fragments, in bytes.
    pub real_used: u64,
    /// Highest `real_used` since the start, in bytes.
    pub max_real_used: u64,
    /// Free fragments.
    pub free_fragments: u64,
    /// Whether the block says that it is a private pool; `None` where it says neither.
    #[serde(skip)]
    pub private: Option<bool>,
}

/// What a walk meets. Not a `Result`: collecting the steps must lose nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The next fragment.
    Fragment(Fragment),
    /// The chain cannot be followed from here.
    Break(Break),
}

/// One fragment of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Where its header is.
    pub header: Addr,
    /// What the program was given.
    pub payload: AddrRange,
    /// Whether it is allocated.
    pub used: bool,
    /// Who allocated it; `None` in builds that do not record it.
    pub owner: Option<Owner>,
    /// What is wrong with it.
    pub damage: Vec<Damage>,
}

/// Who allocated a fragment, as pointers to texts in the modules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner {
    /// Name of the module, for instance `core` or `htable`.
    pub module: Addr,
    /// Source file.
    pub file: Addr,
    /// Function.
    pub function: Addr,
    /// Line in the file.
    pub line: u64,
}

/// Something wrong with one fragment; the chain goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// The check word in its header is not the allocator's.
    StartCheck {
        /// What is there.
        found: u64,
    },
    /// The check words in its trailer are not the allocator's.
    EndCheck {
        /// What is there.
        found: [u64; 2],
    },
    /// The size in its trailer is not the one in its header.
    TrailerSize {
        /// Size in the trailer, in bytes.
        found: u64,
    },
}

/// Where a chain cannot be followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Break {
    /// Header of the fragment that does not fit.
    pub at: Addr,
    /// Why.
    pub why: BreakCause,
    /// Bytes from here to where the walk goes on, or to the end of the pool: in no fragment.
    pub lost: u64,
    /// Where the walk goes on; `None`: it ends here.
    pub resumed_at: Option<Addr>,
}

/// Why a chain cannot be followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BreakCause {
    /// The bytes are not known.
    Absent(Absent),
    /// The size leads out of the pool.
    BadSize {
        /// The size in the header, in bytes.
        size: u64,
    },
    /// Where the size leads to there is no trailer of this fragment.
    NoTrailer {
        /// The size in the header, in bytes.
        size: u64,
    },
}

impl std::fmt::Display for BreakCause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Absent(absent) => write!(f, "{absent}"),
            Self::BadSize { size } => {
                write!(f, "its size field holds {size} ({size:#x}), which leads out of the pool")
            }
            Self::NoTrailer { size } => write!(
                f,
                "its size field holds {size} ({size:#x}), and no trailer of it is found there"
            ),
        }
    }
}

/// A block that is not one of the allocator's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAnArena {
    /// Its bytes are not known.
    #[error("{0}")]
    Absent(#[from] Absent),
    /// Its numbers contradict one another.
    #[error("the block at {block} is not one of {allocator}: {what}")]
    Contradiction {
        /// Its address.
        block: Addr,
        /// The allocator that was asked.
        allocator: &'static str,
        /// What does not fit, for a person.
        what: String,
    },
}
