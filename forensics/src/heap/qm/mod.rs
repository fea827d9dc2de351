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

mod lists;
mod shape;
#[cfg(test)]
mod tests;
mod walk;

use super::infer::AtBreak;
use super::lists::FreeLists;
use super::pool::{Block, Known, Manager, Pool};
use super::{BacktraceShape, Counters, Landmark, NotAnArena, Step, Tally};
use crate::addr::{Addr, AddrRange};
use crate::layout::{Layout, NoField};
use crate::memory::Memory;

use shape::Shape;

/// The allocator.
#[derive(Clone, Copy, Debug)]
pub struct QMalloc;

impl Manager for QMalloc {
    type Shape = Shape;

    const NAME: &'static str = "q_malloc";
    const KNOWN: &'static [Known] = shape::KNOWN;

    fn bind(layouts: &[Layout]) -> Result<Shape, NoField> {
        Shape::bind(layouts)
    }

    fn block(at: Addr, shape: &Shape, memory: &dyn Memory) -> Result<Block, NotAnArena> {
        shape.block.read(at, shape.trailer, Self::NAME, memory)
    }

    fn walk<'p>(
        pool: &'p Pool<'_, Self>,
        at_break: AtBreak,
    ) -> Box<dyn Iterator<Item = Step> + 'p> {
        Box::new(walk::Walk::new(pool, at_break))
    }

    fn free_lists(memory: &dyn Memory, shape: &Shape, block: &Block) -> Option<FreeLists> {
        let mut lists = lists::QmLists::new(memory, *shape, block.at, block.end)?;
        Some(FreeLists::gather(&mut lists, AddrRange { start: block.first, end: block.end }))
    }

    /// The block, every header and trailer, and the used payload: everything but free payload.
    fn real_used(shape: &Shape, block: &Block, fragments: Tally) -> u64 {
        let all = fragments.used_fragments.saturating_add(fragments.free_fragments);
        let overhead = shape.header.saturating_add(shape.trailer);
        let fragments_bytes = all.saturating_mul(overhead).saturating_add(fragments.used_bytes);
        block.length().saturating_add(fragments_bytes)
    }

    fn expected_fragments(shape: &Shape, block: &Block) -> Option<u64> {
        let Counters { used, real_used, .. } = block.counters;
        let overhead = real_used.checked_sub(block.length())?.checked_sub(used)?;
        let each = shape.header.saturating_add(shape.trailer);
        overhead.is_multiple_of(each).then(|| overhead.checked_div(each)).flatten()
    }

    fn landmarks(shape: &Shape) -> Vec<Landmark> {
        let Some(checks) = shape.checks else { return Vec::new() };
        let trailer = 0_i64.saturating_sub_unsigned(shape.trailer);
        let end = checks.end.into_iter().zip(walk::END_CHECKS);
        let end = end.map(|(offset, value)| (trailer.saturating_add_unsigned(offset), value));
        let start = (0_i64.saturating_add_unsigned(checks.start), walk::START_CHECK);
        let landmark = |(offset, value)| Landmark { offset, value, mask: u64::MAX };
        end.chain([start]).map(landmark).collect()
    }

    fn backtrace(shape: &Shape) -> Option<BacktraceShape> {
        shape.backtrace
    }

    fn landmark(shape: &Shape) -> u64 {
        shape.block.first
    }

    fn is_block(at: Addr, distance: u64, shape: &Shape, memory: &dyn Memory) -> bool {
        distance == shape.block.length
            && Self::block(at, shape, memory).is_ok_and(|block| block.is_exact())
    }
}
