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

mod infer;
mod shape;
mod walk;

#[cfg(test)]
mod tests;

use super::{Allocator, Arena, Counters, NotAnArena, Step};
use crate::addr::{Addr, AddrRange};
use crate::layout::{LayoutSource, dwarf};
use crate::memory::{Cursor, Memory};
use crate::modules::ModuleFile;
use crate::num::{narrow, wide};

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
        let from_debug = program.and_then(|program| {
            let layouts = dwarf::structures(program, &["qm_block", "qm_frag", "qm_frag_end"]);
            let shape = Shape::bind(&layouts.ok()?).ok()?;
            let build_id = program.build_id.clone().unwrap_or_else(|| "without build ID".into());
            Some((shape, LayoutSource::Dwarf { build_id }))
        });
        let (shape, source) = match from_debug {
            Some(known) => known,
            None => infer::shape(block, memory)?,
        };
        let header = Block::read(block, &shape, memory)?;
        Ok(Box::new(Pool { memory, header, shape, source }))
    }

    fn scan(&self, memory: &dyn Memory, places: &[AddrRange]) -> Vec<Addr> {
        infer::scan(memory, places)
    }
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

    fn block_size(&self) -> u64 {
        self.header.first.0.saturating_sub(self.header.at.0)
    }

    fn overhead(&self) -> u64 {
        self.shape.header.saturating_add(self.shape.trailer)
    }

    fn source(&self) -> LayoutSource {
        self.source.clone()
    }

    fn walk(&self) -> Box<dyn Iterator<Item = Step> + '_> {
        let cursor = Cursor::new(self.memory);
        Box::new(walk::Walk::new(cursor, self.shape, self.header.first, self.header.end))
    }
}

/// Length of a header or trailer as an index.
fn length(bytes: u64) -> usize {
    debug_assert!(wide(narrow(bytes)) == bytes);
    narrow(bytes)
}
