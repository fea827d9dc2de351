//! `f_malloc`: a chain of fragments that touch one another, each with a header and no trailer.
//!
//! Facts about it, checked on live 5.6.3 and on recorded dumps of 5.2 to 6.1:
//! - the chain begins at `first_frag` and ends at `*last_frag`, a header of its own at the pool's
//!   end with size 0 and the check word `c0c0c0c0`;
//! - a header's check word is `f0f0f0f0`, used or free, also in builds without memory debugging;
//! - `real_used` is the block, every header, that of `last_frag` included, and the used payload.

mod shape;
mod walk;

use super::{Allocator, Arena, Counters, NotAnArena, Step, Tally, from_debug, infer};
use crate::addr::{Addr, AddrRange};
use crate::layout::LayoutSource;
use crate::memory::{Cursor, Memory};
use crate::modules::ModuleFile;

use shape::{KNOWN, Shape};

/// The allocator.
#[derive(Clone, Copy, Debug)]
pub struct FMalloc;

impl Allocator for FMalloc {
    fn name(&self) -> &'static str {
        "f_malloc"
    }

    fn arena<'a>(
        &self,
        block: Addr,
        memory: &'a dyn Memory,
        program: Option<&ModuleFile>,
    ) -> Result<Box<dyn Arena + 'a>, NotAnArena> {
        let (shape, source) = match from_debug(program, &["fm_block", "fm_frag"], Shape::bind) {
            Some(known) => known,
            None => infer_shape(block, memory)?,
        };
        let header = Block::read(block, &shape, memory)?;
        Ok(Box::new(Pool { memory, header, shape, source }))
    }

    fn scan(&self, memory: &dyn Memory, places: &[AddrRange]) -> Vec<Addr> {
        let mut found = Vec::new();
        for (_, shape) in shapes() {
            found.extend(infer::scan(memory, places, shape.block.first_frag, |block, distance| {
                distance == shape.block.length
                    && Block::read(block, &shape, memory).is_ok_and(|header| {
                        let end = header.last.0.saturating_add(shape.header);
                        end == block.0.saturating_add(header.counters.size)
                    })
            }));
        }
        found.sort_unstable();
        found.dedup();
        found
    }
}

fn shapes() -> Vec<(&'static str, Shape)> {
    KNOWN.iter().filter_map(|known| Some((known.name, known.shape()?))).collect()
}

fn infer_shape(block: Addr, memory: &dyn Memory) -> Result<(Shape, LayoutSource), NotAnArena> {
    let nothing_chains = NotAnArena::Contradiction {
        block,
        allocator: FMalloc.name(),
        what: "its fragments chain under no known layout".to_owned(),
    };
    let walk = |shape: Shape, _| {
        let header = Block::read(block, &shape, memory)?;
        Ok(walk::Walk::new(Cursor::new(memory), shape, header.first, header.last))
    };
    infer::choose(&shapes(), walk, nothing_chains)
}

/// `struct fm_block` without its free lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Block {
    at: Addr,
    counters: Counters,
    first: Addr,
    last: Addr,
}

impl Block {
    /// Reads a block and checks that its numbers can be true together.
    fn read(at: Addr, shape: &Shape, memory: &dyn Memory) -> Result<Self, NotAnArena> {
        let field = |offset: u64| memory.word(Addr(at.0.saturating_add(offset)));
        let layout = &shape.block;
        let size = field(layout.size)?;
        let first = Addr(field(layout.first_frag)?);
        let last = Addr(field(layout.last_frag)?);
        let pool_end = at.checked_add(size);
        let last_end = last.checked_add(shape.header);
        let fits = first > at && first <= last && pool_end.is_some() && last_end <= pool_end;
        if !fits {
            return Err(NotAnArena::Contradiction {
                block: at,
                allocator: FMalloc.name(),
                what: format!(
                    "size {size} ({size:#x}), first_frag {first}, last_frag {last} \
                     do not describe one pool"
                ),
            });
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
        Ok(Self { at, counters, first, last })
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
        let end = Addr(self.header.last.0.saturating_add(self.shape.header));
        AddrRange { start: self.header.at, end }
    }

    fn real_used(&self, fragments: Tally) -> u64 {
        let all = fragments.used_fragments.saturating_add(fragments.free_fragments);
        let headers = all.saturating_add(1).saturating_mul(self.shape.header);
        let block = self.header.first.0.saturating_sub(self.header.at.0);
        block.saturating_add(headers).saturating_add(fragments.used_bytes)
    }

    fn source(&self) -> LayoutSource {
        self.source.clone()
    }

    fn walk(&self) -> Box<dyn Iterator<Item = Step> + '_> {
        let cursor = Cursor::new(self.memory);
        Box::new(walk::Walk::new(cursor, self.shape, self.header.first, self.header.last))
    }
}
