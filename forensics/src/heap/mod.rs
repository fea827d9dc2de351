//! Heaps, fragment by fragment.
//!
//! An allocator turns the bytes of one arena into [`Step`]s by rising address, for code that knows
//! no allocator. It knows nothing of Kamailio: where its blocks lie is told from outside. A walk
//! that meets damage reports it and keeps what it has; it always ends.

mod chain;
pub mod fm;
mod infer;
mod islands;
mod lists;
#[cfg(test)]
mod model;
mod pool;
pub mod qm;
mod references;
mod run;
#[cfg(test)]
mod tests;
pub mod tlsf;

use serde::Serialize;

pub(crate) use lists::RollCall;
pub use lists::{FreeLists, ListDamage, ListFault};

use crate::addr::{Addr, AddrRange};
use crate::layout::{Layout, LayoutSource, NoField};
use crate::memory::{Absent, Memory};
use crate::modules::ModuleFile;
use crate::num::narrow;

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
pub static ALL: &[&dyn Allocator] = &[&qm::QMalloc, &fm::FMalloc, &tlsf::Tlsf];

/// One heap of one process, its layout bound.
pub trait Arena {
    /// What the block says of itself.
    fn counters(&self) -> Counters;
    /// The pool: from the block to the end of its last fragment.
    fn range(&self) -> AddrRange;
    /// Header of the first fragment.
    fn first_fragment(&self) -> Addr;
    /// What the manager would count as `real_used` for these fragments, in bytes: each manager
    /// counts its overhead in its own way.
    fn real_used(&self, fragments: Tally) -> u64;
    /// How many fragments, used and free, the block's own counters imply; `None` where they cannot
    /// be true.
    fn expected_fragments(&self) -> Option<u64>;
    /// Where its layout comes from.
    fn source(&self) -> LayoutSource;
    /// Where its fragments keep the calls that led to their allocation; `None` in builds that do
    /// not record them.
    fn backtrace(&self) -> Option<BacktraceShape>;
    /// Fragment by fragment, by rising address.
    fn walk(&self) -> Box<dyn Iterator<Item = Step> + '_>;
    /// The lists of free fragments; `None` where the layout does not tell where they are.
    fn free_lists(&self) -> Option<&FreeLists>;
    /// The words of fixed value around the place where one fragment ends and the next begins.
    fn landmarks(&self) -> Vec<Landmark>;
    /// Where the manager keeps a word of its own in the last 8 bytes of a payload while that is free,
    /// and leaves it there: a link to the fragment's own header, so many bytes before the payload.
    fn link_in_tail(&self) -> Option<u64>;
    /// Fragment headers read so far by walks and lists: the work, which grows with the pool and
    /// not with its damage.
    fn visits(&self) -> u64;
}

/// A word of fixed value near a fragment's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Landmark {
    /// From the header, in bytes; below zero in the trailer of the fragment before.
    pub offset: i64,
    /// What the allocator writes there.
    pub value: u64,
    /// The bits that count.
    pub mask: u64,
}

/// What a block says of itself; never trusted, always compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// The whole pool, block included, in bytes.
    pub size: u64,
    /// Payload of used fragments, in bytes.
    pub used: u64,
    /// The same with overhead, in bytes; each manager counts that in its own way.
    pub real_used: u64,
    /// Highest `real_used` since the start, in bytes.
    pub max_real_used: u64,
    /// Free fragments.
    pub free_fragments: u64,
    /// Whether the block says that it is a private pool; `None` where it says neither.
    #[serde(skip)]
    pub private: Option<bool>,
}

/// Fragments and bytes of a walk, as far as a manager's own counters depend on them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Fragments in use.
    pub used_fragments: u64,
    /// Their payload, in bytes.
    pub used_bytes: u64,
    /// Free fragments.
    pub free_fragments: u64,
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

/// A fragment without its damage: what stood before something broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Where its header is.
    pub header: Addr,
    /// What the program was given.
    pub payload: AddrRange,
    /// Whether it is allocated.
    pub used: bool,
    /// Who allocated it.
    pub owner: Option<Owner>,
}

impl From<&Fragment> for Neighbour {
    fn from(fragment: &Fragment) -> Self {
        let Fragment { header, payload, used, owner, .. } = *fragment;
        Self { header, payload, used, owner }
    }
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

/// Return addresses in a fragment's header, innermost first; a null one ends them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BacktraceShape {
    /// Offset of the first from the start of the header, in bytes.
    pub offset: u64,
    /// How many there is room for, 8 bytes each.
    pub count: u64,
}

/// Offsets of a fragment's owner within its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct OwnerShape {
    file: u64,
    function: u64,
    module: u64,
    line: u64,
    /// The line is an `int`, and what lies behind it is stale.
    short_line: bool,
}

impl OwnerShape {
    /// The fields `file`, `func`, `mname` and `line`; `None` in builds without memory debugging.
    fn bind(fragment: &Layout) -> Result<Option<Self>, NoField> {
        if fragment.optional("file").is_none() {
            return Ok(None);
        }
        Ok(Some(Self {
            file: fragment.offset("file")?,
            function: fragment.offset("func")?,
            module: fragment.offset("mname")?,
            line: fragment.offset("line")?,
            short_line: false,
        }))
    }

    /// Reads them from a header's bytes.
    #[inline]
    fn read(self, header: &[u8]) -> Owner {
        let line = word(header, self.line);
        Owner {
            module: Addr(word(header, self.module)),
            file: Addr(word(header, self.file)),
            function: Addr(word(header, self.function)),
            line: if self.short_line { line & 0xffff_ffff } else { line },
        }
    }
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
    /// It says that the fragment before it is free, and that one says that it is not, or the other
    /// way round.
    StateOfPrevious,
    /// Its pointer back to the free fragment before it points elsewhere.
    LinkToPrevious {
        /// Where it points.
        found: Addr,
    },
}

impl Damage {
    /// Whether it lies in the trailer, where the fragment itself was overrun.
    pub fn is_at_the_end(&self) -> bool {
        matches!(self, Self::EndCheck { .. } | Self::TrailerSize { .. })
    }
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::StartCheck { found } => write!(f, "beginning overwritten ({found:#x})"),
            Self::EndCheck { found: [first, second] } => {
                write!(f, "end overwritten ({first:#x}, {second:#x})")
            }
            Self::TrailerSize { found } => write!(f, "its trailer says {found} bytes"),
            Self::StateOfPrevious => {
                write!(f, "it and the fragment before it disagree on whether that one is free")
            }
            Self::LinkToPrevious { found } => {
                write!(f, "its link to the free fragment before it points at {found}")
            }
        }
    }
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
    /// Where the size leads to there is no trailer of this fragment, or no next fragment.
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
            Self::NoTrailer { size } => {
                write!(f, "its size field holds {size} ({size:#x}), and no fragment ends there")
            }
        }
    }
}

/// A field of a structure whose bytes were all read.
#[inline]
fn word(bytes: &[u8], offset: u64) -> u64 {
    let bytes = bytes.get(narrow(offset)..).and_then(|bytes| bytes.first_chunk());
    bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes))
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
