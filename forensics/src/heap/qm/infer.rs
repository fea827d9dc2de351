//! Which layout a pool has, and where pools are, told by the bytes alone.
//!
//! A layout holds if the fragments chain under it: header sizes lead to trailers with the same
//! size (and, with memory debugging, to check words) all the way to the pool's own end mark. No
//! version number is asked.

use super::shape::{KNOWN, Shape};
use super::walk::Walk;
use super::{Block, QMalloc};
use crate::addr::{Addr, AddrRange};
use crate::heap::{Allocator as _, NotAnArena, Step};
use crate::layout::LayoutSource;
use crate::memory::{Cursor, Memory};
use crate::num::{narrow, wide};

/// Fragments that must chain before a layout is preferred without walking to the end. Wrong
/// layouts fail at the first or second fragment.
const ENOUGH: u64 = 4096;

/// Tries every known layout on the block at `block`.
///
/// # Errors
/// The contradiction that the most frequent layout met, if none holds.
pub(super) fn shape(block: Addr, memory: &dyn Memory) -> Result<(Shape, LayoutSource), NotAnArena> {
    let tried = u32::try_from(KNOWN.len()).unwrap_or(u32::MAX);
    let mut best: Option<(Shape, LayoutSource, u64)> = None;
    let mut first_error = None;
    for known in KNOWN {
        let Some(shape) = known.shape() else { continue };
        let header = match Block::read(block, &shape, memory) {
            Ok(header) => header,
            Err(error) => {
                first_error.get_or_insert(error);
                continue;
            }
        };
        let (agreeing, to_the_end) = chain(&header, shape, memory);
        if agreeing > best.as_ref().map_or(0, |(_, _, most)| *most) {
            let layout = known.name.to_owned();
            let source = LayoutSource::Inferred { layout, agreeing, tried, to_the_end };
            best = Some((shape, source, agreeing));
        }
    }
    match best {
        Some((shape, source, _)) => Ok((shape, source)),
        None => Err(first_error.unwrap_or(NotAnArena::Contradiction {
            block,
            allocator: QMalloc.name(),
            what: "its fragments chain under no known layout".to_owned(),
        })),
    }
}

/// How many fragments chain without damage from the first on (up to [`ENOUGH`]), and whether they
/// reach the end mark.
fn chain(header: &Block, shape: Shape, memory: &dyn Memory) -> (u64, bool) {
    let walk = Walk::new(Cursor::new(memory), shape, header.first, header.end);
    let mut agreeing = 0;
    for step in walk {
        match step {
            Step::Fragment(fragment) if fragment.damage.is_empty() => {}
            // One damaged fragment does not disprove a layout that many others agree with.
            Step::Fragment(_) if agreeing > 0 => continue,
            _ => return (agreeing, false),
        }
        agreeing = u64::saturating_add(agreeing, 1);
        if agreeing >= ENOUGH {
            return (agreeing, false);
        }
    }
    (agreeing, true)
}

/// Finds blocks by their own numbers: `first_frag` right behind the block, `last_frag_end` at its
/// end, a size that fits both.
pub(super) fn scan(memory: &dyn Memory, places: &[AddrRange]) -> Vec<Addr> {
    let shapes: Vec<Shape> = KNOWN.iter().filter_map(|known| known.shape()).collect();
    let mut found = Vec::new();
    for place in places {
        let mut at = place.start;
        while at < place.end {
            let Ok(bytes) = memory.peek(at, narrow(place.end.0.saturating_sub(at.0))) else {
                at = Addr((at.0 | 0xfff).saturating_add(1));
                continue;
            };
            for (number, words) in bytes.chunks_exact(16).enumerate() {
                // The word that a block would have as `first_frag`, at offset 48.
                let Some(value) = words.first_chunk().map(|word| u64::from_le_bytes(*word)) else {
                    continue;
                };
                let here = at.0.saturating_add(wide(number).saturating_mul(16));
                let Some(block) = here.checked_sub(48) else { continue };
                let distance = value.wrapping_sub(block);
                let fits = |shape: &Shape| {
                    distance == shape.block_length() && ends_agree(Addr(block), shape, memory)
                };
                if distance < 1 << 20 && shapes.iter().any(fits) {
                    found.push(Addr(block));
                }
            }
            at = Addr(at.0.saturating_add(wide(bytes.len())));
        }
    }
    found
}

fn ends_agree(block: Addr, shape: &Shape, memory: &dyn Memory) -> bool {
    let Ok(header) = Block::read(block, shape, memory) else { return false };
    header.end.0 == block.0.saturating_add(header.counters.size)
}
