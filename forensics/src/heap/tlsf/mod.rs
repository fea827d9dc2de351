//! `tlsf_malloc`: two-level segregated fit. Fragments touch one another; each has a header whose
//! first word (`prev_phys_block`) belongs to the fragment before it and means something only while
//! that one is free. There are no check words and no trailers.
//!
//! Facts about it, checked on live 5.6.3 and on recorded dumps of 5.2 to 6.1:
//! - the first header stands 8 bytes before the end of the control structure;
//! - bit 0 of `size` says that the fragment is free, bit 1 that the one before it is;
//! - a header with size 0 ends the pool, `next_free` bytes before its last address, which is
//!   `total_size` and two header overheads behind its first;
//! - free neighbours are always merged; the second one's header stays behind inside the first and
//!   says that it is free, while the header that follows names the first;
//! - `real_used` is the control structure and the used fragments with a header each, less the
//!   shared word; free fragments cost nothing in it.

mod lists;
mod shape;
mod walk;

use super::infer::AtBreak;
use super::lists::FreeLists;
use super::pool::{Block, Known, Manager, Pool};
use super::{BreakCause, Counters, Landmark, NotAnArena, Step, Tally, chain};
use crate::addr::{Addr, AddrRange};
use crate::layout::{Layout, NoField};
use crate::memory::Memory;

use shape::Shape;

/// The allocator.
#[derive(Clone, Copy, Debug)]
pub struct Tlsf;

/// `prev_phys_block`, which lies in the payload of the fragment before.
const SHARED_WORD: u64 = 8;
/// What of a header lies in payload: the shared word and the two links of a free fragment.
const IN_PAYLOAD: u64 = 24;
/// Fragments that must chain behind what may be a control structure.
const ENOUGH: usize = 64;

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
        // total_size leaves out two headers, less what of a header lies in payload.
        let overhead = shape.header_length.saturating_sub(IN_PAYLOAD).saturating_mul(2);
        let end = at.checked_add(size).and_then(|end| end.checked_add(overhead));
        let (Some(end), true) = (end, size > shape.control.length && counters.used <= size) else {
            let what = format!("total_size {size} ({size:#x}), allocated {}", counters.used);
            return Err(NotAnArena::Contradiction { block: at, allocator: Self::NAME, what });
        };
        let last = Addr(end.0.saturating_sub(shape.next_free));
        Ok(Block { at, counters, first: Addr(first), last, end })
    }

    fn walk<'p>(
        pool: &'p Pool<'_, Self>,
        at_break: AtBreak,
    ) -> Box<dyn Iterator<Item = Step> + 'p> {
        let Block { first, last, .. } = pool.block;
        Box::new(chain::Walk::new(walk::TlsfHeaders::new(pool), first, last, at_break))
    }

    fn free_lists(memory: &dyn Memory, shape: &Shape, block: &Block) -> Option<FreeLists> {
        let mut lists = lists::TlsfLists::new(memory, *shape, block.at, block.end)?;
        Some(FreeLists::gather(&mut lists, AddrRange { start: block.first, end: block.last }))
    }

    /// The control structure and the used fragments, each with a header less the shared word.
    fn real_used(shape: &Shape, _: &Block, fragments: Tally) -> u64 {
        let each = shape.header_length.saturating_sub(SHARED_WORD);
        let headers = fragments.used_fragments.saturating_mul(each);
        shape.control.length.saturating_add(headers).saturating_add(fragments.used_bytes)
    }

    fn expected_fragments(shape: &Shape, block: &Block) -> Option<u64> {
        let Counters { used, real_used, free_fragments, .. } = block.counters;
        let each = shape.header_length.saturating_sub(SHARED_WORD);
        let headers = real_used.checked_sub(shape.control.length)?.checked_sub(used)?;
        let in_use = headers.is_multiple_of(each).then(|| headers.checked_div(each)).flatten()?;
        in_use.checked_add(free_fragments)
    }

    /// `prev_phys_block` of the next header is the last word of the payload before it.
    fn link_in_tail(shape: &Shape) -> Option<u64> {
        Some(shape.next_free)
    }

    /// TLSF has no check words.
    fn landmarks(_: &Shape) -> Vec<Landmark> {
        Vec::new()
    }

    /// The last list head, that of fragments of 500 GiB, is empty in every pool: it points at
    /// `block_null`, where the control structure starts. (The links of `block_null` itself do so
    /// only until the first fragment leaves a list.)
    fn landmark(shape: &Shape) -> u64 {
        shape.control.length.saturating_sub(8)
    }

    fn is_block(at: Addr, distance: u64, shape: &Shape, memory: &dyn Memory) -> bool {
        if distance != 0 {
            return false;
        }
        let Ok(pool) = Pool::new(at, *shape, memory) else { return false };
        // What is behind a cut does not speak against the fragments before it.
        let fits = |step: Step| match step {
            Step::Fragment(_) => true,
            Step::Break(found) => matches!(found.why, BreakCause::Absent(_)),
        };
        let mut steps = Self::walk(&pool, AtBreak::Stop).take(ENOUGH);
        matches!(steps.next(), Some(Step::Fragment(_))) && steps.all(fits)
    }
}
