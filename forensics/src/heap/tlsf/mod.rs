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

use super::{Allocator, Arena, Counters, NotAnArena, Step, Tally, from_debug, infer};
use crate::addr::{Addr, AddrRange};
use crate::layout::LayoutSource;
use crate::memory::{Cursor, Memory};
use crate::modules::ModuleFile;

use shape::{KNOWN, Shape};

/// The allocator.
#[derive(Clone, Copy, Debug)]
pub struct Tlsf;

impl Allocator for Tlsf {
    fn name(&self) -> &'static str {
        "tlsf_malloc"
    }

    fn arena<'a>(
        &self,
        block: Addr,
        memory: &'a dyn Memory,
        program: Option<&ModuleFile>,
    ) -> Result<Box<dyn Arena + 'a>, NotAnArena> {
        let structures = ["control_t", "block_header_t"];
        let (shape, source) = match from_debug(program, &structures, Shape::bind) {
            Some(known) => known,
            None => infer_shape(block, memory)?,
        };
        let control = Control::read(block, &shape, memory)?;
        Ok(Box::new(Pool { memory, control, shape, source }))
    }

    fn scan(&self, memory: &dyn Memory, places: &[AddrRange]) -> Vec<Addr> {
        let mut found = Vec::new();
        for (_, shape) in shapes() {
            // The list head `block_null` at the start of the control structure points at itself.
            found.extend(infer::scan(memory, places, shape.next_free, |block, distance| {
                let Some(control) =
                    (distance == 0).then(|| Control::read(block, &shape, memory).ok()).flatten()
                else {
                    return false;
                };
                let cursor = Cursor::new(memory);
                let mut walk = walk::Walk::new(cursor, shape, control.first, control.end);
                matches!(walk.next(), Some(Step::Fragment(_)))
                    && walk.all(|step| matches!(step, Step::Fragment(_)))
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
        allocator: Tlsf.name(),
        what: "its fragments chain under no known layout".to_owned(),
    };
    let walk = |shape: Shape, _| {
        let control = Control::read(block, &shape, memory)?;
        Ok(walk::Walk::new(Cursor::new(memory), shape, control.first, control.end))
    };
    infer::choose(&shapes(), walk, nothing_chains)
}

/// `control_t` without its free lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Control {
    at: Addr,
    counters: Counters,
    first: Addr,
    /// No fragment begins here or behind it. `total_size` leaves out some words of overhead that
    /// differ between builds, so the header with size 0 is what ends a walk.
    end: Addr,
}

/// More than the overhead that `total_size` leaves out in any build.
const SLACK: u64 = 512;

impl Control {
    /// Reads the control structure and checks that its numbers can be true together.
    fn read(at: Addr, shape: &Shape, memory: &dyn Memory) -> Result<Self, NotAnArena> {
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
            return Err(NotAnArena::Contradiction {
                block: at,
                allocator: Tlsf.name(),
                what: format!("total_size {size} ({size:#x}), allocated {}", counters.used),
            });
        };
        Ok(Self { at, counters, first: Addr(first), end })
    }
}

/// `prev_phys_block`, which lies in the payload of the fragment before.
const SHARED_WORD: u64 = 8;

struct Pool<'a> {
    memory: &'a dyn Memory,
    control: Control,
    shape: Shape,
    source: LayoutSource,
}

impl Arena for Pool<'_> {
    fn counters(&self) -> Counters {
        self.control.counters
    }

    fn range(&self) -> AddrRange {
        AddrRange { start: self.control.at, end: self.control.end }
    }

    fn real_used(&self, fragments: Tally) -> u64 {
        let each = self.shape.header_length.saturating_sub(SHARED_WORD);
        let headers = fragments.used_fragments.saturating_mul(each);
        self.shape.control.length.saturating_add(headers).saturating_add(fragments.used_bytes)
    }

    fn source(&self) -> LayoutSource {
        self.source.clone()
    }

    fn walk(&self) -> Box<dyn Iterator<Item = Step> + '_> {
        let cursor = Cursor::new(self.memory);
        Box::new(walk::Walk::new(cursor, self.shape, self.control.first, self.control.end))
    }
}
