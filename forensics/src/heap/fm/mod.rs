//! `f_malloc`: a chain of fragments that touch one another, each with a header and no trailer.
//!
//! Facts about it, checked on live 5.6.3 and on recorded dumps of 5.2 to 6.1:
//! - the chain begins at `first_frag` and ends at `*last_frag`, a header of its own at the pool's
//!   end with size 0 and the check word `c0c0c0c0`;
//! - a header's check word is `f0f0f0f0`, used or free, also in builds without memory debugging;
//! - `real_used` is the block, every header, that of `last_frag` included, and the used payload.

mod shape;
mod walk;

use super::infer::AtBreak;
use super::pool::{Block, Known, Manager};
use super::{NotAnArena, Step, Tally};
use crate::addr::Addr;
use crate::layout::{Layout, NoField};
use crate::memory::{Cursor, Memory};

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

    /// Always ends at a break: without trailers no later boundary is sure.
    fn walk<'a>(
        memory: &'a dyn Memory,
        shape: Shape,
        block: &Block,
        _: AtBreak,
    ) -> Box<dyn Iterator<Item = Step> + 'a> {
        Box::new(walk::Walk::new(Cursor::new(memory), shape, block.first, block.last))
    }

    /// The block, every header, that of `last_frag` included, and the used payload.
    fn real_used(shape: &Shape, block: &Block, fragments: Tally) -> u64 {
        let all = fragments.used_fragments.saturating_add(fragments.free_fragments);
        let headers = all.saturating_add(1).saturating_mul(shape.header);
        block.length().saturating_add(headers).saturating_add(fragments.used_bytes)
    }

    fn expected_fragments(shape: &Shape, block: &Block) -> Option<u64> {
        block.overheads(block.length(), shape.header)?.checked_sub(1)
    }

    fn landmark(shape: &Shape) -> u64 {
        shape.block.first
    }

    fn is_block(at: Addr, distance: u64, shape: &Shape, memory: &dyn Memory) -> bool {
        distance == shape.block.length
            && Self::block(at, shape, memory).is_ok_and(|block| block.is_exact())
    }
}
