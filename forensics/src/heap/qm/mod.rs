//! `q_malloc`, Kamailio's default manager: a chain of fragments that touch one another, each with a
//! header (size, owner, check word) and a trailer (check words, size).
//!
//! Facts about it, checked on live 5.6.3 and on recorded dumps of 5.2 to 6.1:
//! - the block stands at the pool's start, the first fragment right behind it, and the last
//!   fragment's trailer is `*last_frag_end`, so the chain ends at `last_frag_end` + trailer;
//! - a fragment is used exactly if the word at `u` is 0; a used fragment's other link words are
//!   stale and say nothing;
//! - check words are set in free fragments too;
//! - `used` sums the payload of used fragments, `real_used` is everything but free payload.

mod shape;
mod walk;

#[cfg(test)]
mod tests;

use super::{Allocator, Arena, Counters, NotAnArena, Step, Tally, from_debug, infer};
use crate::addr::{Addr, AddrRange};
use crate::layout::LayoutSource;
use crate::memory::{Cursor, Memory};
use crate::modules::ModuleFile;

pub use shape::{KNOWN, Shape};

/// The allocator.
#[derive(Clone, Copy, Debug)]
pub struct QMalloc;

impl Allocator for QMalloc {
    fn name(&self) -> &'static str {
        "q_malloc"
    }

    fn arena<'a>(
        &self,
        block: Addr,
        memory: &'a dyn Memory,
        program: Option<&ModuleFile>,
    ) -> Result<Box<dyn Arena + 'a>, NotAnArena> {
        let from_debug = from_debug(program, &["qm_block", "qm_frag", "qm_frag_end"], Shape::bind);
        let (shape, source) = match from_debug {
            Some(known) => known,
            None => infer_shape(block, memory)?,
        };
        let header = Block::read(block, &shape, memory)?;
        Ok(Box::new(Pool { memory, header, shape, source }))
    }

    fn scan(&self, memory: &dyn Memory, places: &[AddrRange]) -> Vec<Addr> {
        infer::scan(memory, places, FIRST_FRAG, |block, distance| {
            shapes().iter().any(|(_, shape)| {
                distance == shape.block_length()
                    && Block::read(block, shape, memory).is_ok_and(|header| {
                        header.end.0 == block.0.saturating_add(header.counters.size)
                    })
            })
        })
    }
}

/// Offset of `first_frag` in every known block.
const FIRST_FRAG: u64 = 48;

fn shapes() -> Vec<(&'static str, Shape)> {
    KNOWN.iter().filter_map(|known| Some((known.name, known.shape()?))).collect()
}

fn infer_shape(block: Addr, memory: &dyn Memory) -> Result<(Shape, LayoutSource), NotAnArena> {
    let nothing_chains = NotAnArena::Contradiction {
        block,
        allocator: QMalloc.name(),
        what: "its fragments chain under no known layout".to_owned(),
    };
    let walk = |shape: Shape, at_break| {
        let header = Block::read(block, &shape, memory)?;
        let walk = walk::Walk::new(Cursor::new(memory), shape, header.first, header.end);
        Ok(walk.at_break(at_break))
    };
    infer::choose(&shapes(), walk, nothing_chains)
}

/// `struct qm_block` without its free lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Block {
    at: Addr,
    counters: Counters,
    first: Addr,
    end: Addr,
}

impl Block {
    /// Reads a block and checks that its numbers can be true together.
    fn read(at: Addr, shape: &Shape, memory: &dyn Memory) -> Result<Self, NotAnArena> {
        let field = |offset: u64| memory.word(Addr(at.0.saturating_add(offset)));
        let layout = &shape.block;
        let size = field(layout.size)?;
        let first = Addr(field(layout.first_frag)?);
        let last = Addr(field(layout.last_frag_end)?);
        let contradiction =
            |what: String| NotAnArena::Contradiction { block: at, allocator: QMalloc.name(), what };
        let end = last.checked_add(shape.trailer);
        let pool_end = at.checked_add(size);
        let (Some(end), Some(pool_end)) = (end, pool_end) else {
            return Err(contradiction(format!("size {size:#x}, last_frag_end {last}")));
        };
        if first <= at || first >= end || end > pool_end {
            return Err(contradiction(format!(
                "size {size} ({size:#x}), first_frag {first}, last_frag_end {last} \
                 do not describe one pool"
            )));
        }
        let kind = memory.int(Addr(at.0.saturating_add(layout.kind)))?;
        let counters = Counters {
            size,
            used: field(layout.used)?,
            real_used: field(layout.real_used)?,
            max_real_used: field(layout.max_real_used)?,
            free_fragments: field(layout.ffrags)?,
            private: match kind {
                0 => Some(false),
                1 => Some(true),
                _ => None,
            },
        };
        Ok(Self { at, counters, first, end })
    }
}

struct Pool<'a> {
    memory: &'a dyn Memory,
    header: Block,
    shape: Shape,
    source: LayoutSource,
}

impl Arena for Pool<'_> {
    fn counters(&self) -> Counters {
        self.header.counters
    }

    fn range(&self) -> AddrRange {
        AddrRange { start: self.header.at, end: self.header.end }
    }

    /// The block, every header and trailer, and the used payload: everything but free payload.
    fn real_used(&self, fragments: Tally) -> u64 {
        let all = fragments.used_fragments.saturating_add(fragments.free_fragments);
        let overhead = self.shape.header.saturating_add(self.shape.trailer);
        let block = self.header.first.0.saturating_sub(self.header.at.0);
        block.saturating_add(all.saturating_mul(overhead)).saturating_add(fragments.used_bytes)
    }

    fn source(&self) -> LayoutSource {
        self.source.clone()
    }

    fn walk(&self) -> Box<dyn Iterator<Item = Step> + '_> {
        let cursor = Cursor::new(self.memory);
        Box::new(walk::Walk::new(cursor, self.shape, self.header.first, self.header.end))
    }
}
