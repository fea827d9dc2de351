//! Which of the known layouts a pool has, and where pools are, told by the bytes alone.
//!
//! A layout holds if the fragments chain under it all the way to the pool's own end mark. No
//! version number is asked.

use super::{NotAnArena, Step};
use crate::addr::{Addr, AddrRange};
use crate::layout::LayoutSource;
use crate::memory::Memory;
use crate::num::{narrow, wide};

/// Fragments that must chain before a layout is preferred without walking to the end. Wrong
/// layouts fail at the first or second fragment.
const ENOUGH: u64 = 4096;

/// How a walk behaves where the chain breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AtBreak {
    /// It ends.
    Stop,
    /// It goes on behind the damage where it can.
    Resume,
}

/// Chooses the shape under which most fragments chain. `trial` gives how many do under a shape
/// ([`chain`]), or why its block contradicts itself. Only where nothing chains from the first
/// fragment on is the costly search behind damage made under every shape.
///
/// # Errors
/// The contradiction that the first shape met, or `nothing_chains` if none was met.
pub(super) fn choose<S: Copy>(
    known: &[(&'static str, S)],
    trial: impl Fn(S, AtBreak) -> Result<(u64, bool), NotAnArena>,
    nothing_chains: NotAnArena,
) -> Result<(S, LayoutSource), NotAnArena> {
    let tried = u32::try_from(known.len()).unwrap_or(u32::MAX);
    let mut first_error = None;
    for at_break in [AtBreak::Stop, AtBreak::Resume] {
        let mut best: Option<(S, LayoutSource, u64)> = None;
        for &(name, shape) in known {
            let (agreeing, to_the_end) = match trial(shape, at_break) {
                Ok(chained) => chained,
                Err(error) => {
                    first_error.get_or_insert(error);
                    continue;
                }
            };
            if agreeing > best.as_ref().map_or(0, |(_, _, most)| *most) {
                let layout = name.to_owned();
                let source = LayoutSource::Inferred { layout, agreeing, tried, to_the_end };
                best = Some((shape, source, agreeing));
            }
        }
        if let Some((shape, source, _)) = best {
            return Ok((shape, source));
        }
    }
    Err(first_error.unwrap_or(nothing_chains))
}

/// How many sound fragments there are (up to [`ENOUGH`]), and whether they chain to the end mark
/// without a break or damage.
pub(super) fn chain(steps: impl Iterator<Item = Step>) -> (u64, bool) {
    let (mut agreeing, mut whole) = (0_u64, true);
    for step in steps {
        match step {
            Step::Fragment(fragment) if fragment.damage.is_empty() => {
                agreeing = agreeing.saturating_add(1);
            }
            // One damaged fragment does not disprove a layout that many others agree with.
            Step::Fragment(_) | Step::Break(_) => whole = false,
        }
        if agreeing >= ENOUGH {
            return (agreeing, false);
        }
    }
    (agreeing, whole)
}

/// Looks for blocks in runs of bytes: `is_block` is asked for each place whose word at `offset`
/// points at most 1 MiB behind it, as a block's pointer to its first fragment does.
pub(super) fn scan(
    memory: &dyn Memory,
    places: &[AddrRange],
    offset: u64,
    is_block: impl Fn(Addr, u64) -> bool,
) -> Vec<Addr> {
    let mut found = Vec::new();
    for place in places {
        let mut at = place.start;
        while at < place.end {
            let Ok(bytes) = memory.peek(at, narrow(place.end.0.saturating_sub(at.0))) else {
                // Damaged compression: the next frame may be whole.
                at = Addr((at.0 | 0xffff).saturating_add(1));
                continue;
            };
            for (number, word) in bytes.chunks_exact(8).enumerate() {
                let Some(value) = word.first_chunk().map(|word| u64::from_le_bytes(*word)) else {
                    continue;
                };
                let here = at.0.saturating_add(wide(number).saturating_mul(8));
                let Some(block) = here.checked_sub(offset) else { continue };
                let distance = value.wrapping_sub(block);
                if distance < 1 << 20 && is_block(Addr(block), distance) {
                    found.push(Addr(block));
                }
            }
            at = Addr(at.0.saturating_add(wide(bytes.len())));
        }
    }
    found
}
