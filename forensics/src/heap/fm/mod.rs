//! `f_malloc`: a chain of fragments that touch one another, each with a header and no trailer.
//!
//! Facts about it, checked on live 5.6.3 and on recorded dumps of 5.2 to 6.1:
//! - the chain begins at `first_frag` and ends at `*last_frag`, a header of its own at the pool's
//!   end with size 0 and the check word `c0c0c0c0`;
//! - a header's check word is `f0f0f0f0`, used or free, also in builds without memory debugging;
//! - when free neighbours are merged, the second one's header stays behind inside the first, its
//!   flag and links cleared: it looks like one in use, and its size leads to a true header;
//! - `real_used` is the block, every header, that of `last_frag` included, and the used payload.

mod lists;
mod shape;
#[cfg(test)]
mod tests;
mod walk;

use super::infer::AtBreak;
use super::lists::FreeLists;
use super::pool::{Block, Known, Manager, Pool};
use super::{Counters, Landmark, NotAnArena, Step, Tally, chain};
use crate::addr::{Addr, AddrRange};
use crate::layout::{Layout, NoField};
use crate::memory::Memory;

use shape::Shape;

/// The allocator.
#[derive(Clone, Copy, Debug)]
pub struct FMalloc;

impl Manager for FMalloc {
    type Shape = Shape;

    const NAME: &'static str = "f_malloc";
    const KNOWN: &'static [Known] = shape::KNOWN;

    fn bind(layouts: &[Layout]) -> Result<Shape, NoField> {
        Shape::bind(layouts)
    }

    fn block(at: Addr, shape: &Shape, memory: &dyn Memory) -> Result<Block, NotAnArena> {
        shape.block.read(at, shape.header, Self::NAME, memory)
    }

    fn walk<'p>(
        pool: &'p Pool<'_, Self>,
        at_break: AtBreak,
    ) -> Box<dyn Iterator<Item = Step> + 'p> {
        let Block { first, last, .. } = pool.block;
        Box::new(chain::Walk::new(walk::FmHeaders::new(pool), first, last, at_break))
    }

    fn free_lists(memory: &dyn Memory, shape: &Shape, block: &Block) -> Option<FreeLists> {
        let mut lists = lists::FmLists::new(memory, *shape, block.at, block.last)?;
        Some(FreeLists::gather(&mut lists, AddrRange { start: block.first, end: block.last }))
    }

    /// The block, every header, that of `last_frag` included, and the used payload.
    fn real_used(shape: &Shape, block: &Block, fragments: Tally) -> u64 {
        let all = fragments.used_fragments.saturating_add(fragments.free_fragments);
        let headers = all.saturating_add(1).saturating_mul(shape.header);
        block.length().saturating_add(headers).saturating_add(fragments.used_bytes)
    }

    fn expected_fragments(shape: &Shape, block: &Block) -> Option<u64> {
        let Counters { used, real_used, .. } = block.counters;
        let headers = real_used.checked_sub(block.length())?.checked_sub(used)?;
        let all = headers.is_multiple_of(shape.header).then(|| headers.checked_div(shape.header));
        all.flatten()?.checked_sub(1)
    }

    fn landmarks(shape: &Shape) -> Vec<Landmark> {
        let offset = 0_i64.saturating_add_unsigned(shape.check);
        vec![Landmark { offset, value: walk::CHECK, mask: 0xffff_ffff }]
    }

    fn landmark(shape: &Shape) -> u64 {
        shape.block.first
    }

    fn is_block(at: Addr, distance: u64, shape: &Shape, memory: &dyn Memory) -> bool {
        distance == shape.block.length
            && Self::block(at, shape, memory).is_ok_and(|block| block.is_exact())
    }
}
