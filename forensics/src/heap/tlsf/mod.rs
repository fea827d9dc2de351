//! `tlsf_malloc`: two-level segregated fit. Fragments touch one another; each has a header whose
//! first word (`prev_phys_block`) belongs to the fragment before it and means something only while
//! that one is free. There are no check words and no trailers.
//!
//! Facts about it, checked on live 5.6.3 and on recorded dumps of 5.2 to 6.1:
//! - the first header stands 8 bytes before the end of the control structure;
//! - bit 0 of `size` says that the fragment is free, bit 1 that the one before it is;
//! - a header with size 0 ends the pool;
//! - `real_used` is the control structure and the used fragments with a header each, less the
//!   shared word; free fragments cost nothing in it.

mod shape;
mod walk;

use super::infer::AtBreak;
use super::pool::{Block, Known, Manager};
use super::{BreakCause, Counters, NotAnArena, Step, Tally};
use crate::addr::Addr;
use crate::layout::{Layout, NoField};
use crate::memory::{Cursor, Memory};

use shape::Shape;

/// The allocator.
#[derive(Clone, Copy, Debug)]
pub struct Tlsf;

/// `prev_phys_block`, which lies in the payload of the fragment before.
const SHARED_WORD: u64 = 8;
/// More than the overhead that `total_size` leaves out in any build: the header with size 0 is what
/// ends a walk, and it lies no further than this behind the size.
const SLACK: u64 = 512;

impl Manager for Tlsf {
    type Shape = Shape;

    const NAME: &'static str = "tlsf_malloc";
    const KNOWN: &'static [Known] = shape::KNOWN;

    fn bind(layouts: &[Layout]) -> Result<Shape, NoField> {
        Shape::bind(layouts)
    }

    fn block(at: Addr, shape: &Shape, memory: &dyn Memory) -> Result<Block, NotAnArena> {
        let field = |offset: u64| memory.word(Addr(at.0.saturating_add(offset)));
        let size = field(shape.control.total_size)?;
        let counters = Counters {
            size,
            used: field(shape.control.allocated)?,
            real_used: field(shape.control.real_used)?,
            max_real_used: field(shape.control.max_used)?,
            free_fragments: field(shape.control.fragments)?,
            // The control structure does not say whose memory it is.
            private: None,
        };
        let first = at.0.saturating_add(shape.control.length).saturating_sub(SHARED_WORD);
        let end = at.checked_add(size).and_then(|end| end.checked_add(SLACK));
        let (Some(end), true) = (end, size > shape.control.length && counters.used <= size) else {
            let what = format!("total_size {size} ({size:#x}), allocated {}", counters.used);
            return Err(NotAnArena::Contradiction { block: at, allocator: Self::NAME, what });
        };
        Ok(Block { at, counters, first: Addr(first), last: end, end })
    }

    /// Always ends at a break: without check words and trailers no later boundary is sure.
    fn walk<'a>(
        memory: &'a dyn Memory,
        shape: Shape,
        block: &Block,
        _: AtBreak,
    ) -> Box<dyn Iterator<Item = Step> + 'a> {
        Box::new(walk::Walk::new(Cursor::new(memory), shape, block.first, block.end))
    }

    /// The control structure and the used fragments, each with a header less the shared word.
    fn real_used(shape: &Shape, _: &Block, fragments: Tally) -> u64 {
        let each = shape.header_length.saturating_sub(SHARED_WORD);
        let headers = fragments.used_fragments.saturating_mul(each);
        shape.control.length.saturating_add(headers).saturating_add(fragments.used_bytes)
    }

    fn expected_fragments(shape: &Shape, block: &Block) -> Option<u64> {
        let each = shape.header_length.checked_sub(SHARED_WORD)?;
        let used = block.overheads(shape.control.length, each)?;
        let free = block.counters.free_fragments;
        let room = block.counters.size.checked_div(each)?;
        used.checked_add(free).filter(|&all| all <= room)
    }

    /// The list head `block_null`, at the start of the control structure, points at itself.
    fn landmark(shape: &Shape) -> u64 {
        shape.next_free
    }

    fn is_block(at: Addr, distance: u64, shape: &Shape, memory: &dyn Memory) -> bool {
        let Some(block) = (distance == 0).then(|| Self::block(at, shape, memory).ok()).flatten()
        else {
            return false;
        };
        // What is behind a cut does not speak against the fragments before it.
        let mut steps = Self::walk(memory, *shape, &block, AtBreak::Stop);
        matches!(steps.next(), Some(Step::Fragment(_)))
            && steps.all(|step| match step {
                Step::Fragment(_) => true,
                Step::Break(found) => matches!(found.why, BreakCause::Absent(_)),
            })
    }
}
