//! The chain of fragments, from the first to the header with size 0.

use super::SHARED_WORD;
use super::shape::Shape;
use crate::addr::{Addr, AddrRange};
use crate::heap::{Break, BreakCause, Damage, Fragment, Step, word};
use crate::memory::Cursor;
use crate::num::narrow;

/// In `size`: this fragment is free.
const FREE: u64 = 1;
/// In `size`: the fragment before this one is free.
const PREVIOUS_FREE: u64 = 2;

/// Steps through a pool. Each step moves to a higher address, so it ends on any bytes.
pub(super) struct Walk<'a> {
    cursor: Cursor<'a>,
    shape: Shape,
    at: Addr,
    end: Addr,
    /// The fragment before: its header, and whether it is free.
    previous: Option<(Addr, bool)>,
    done: bool,
}

impl<'a> Walk<'a> {
    /// From the first header; no header lies at `end` or behind it.
    pub(super) fn new(cursor: Cursor<'a>, shape: Shape, first: Addr, end: Addr) -> Self {
        Self { cursor, shape, at: first, end, previous: None, done: false }
    }

    /// `None` is the end mark.
    fn fragment(&mut self) -> Result<Option<Fragment>, BreakCause> {
        let shape = self.shape;
        let header = self.at;
        let bytes =
            self.cursor.bytes(header, narrow(shape.next_free)).map_err(BreakCause::Absent)?;
        let field = word(bytes, shape.size);
        let link = Addr(word(bytes, 0));
        let owner = shape.owner.map(|fields| fields.read(bytes));
        let size = field & !(FREE | PREVIOUS_FREE);
        let free = field & FREE != 0;

        let mut damage = Vec::new();
        if let Some((previous, was_free)) = self.previous {
            if was_free != (field & PREVIOUS_FREE != 0) {
                damage.push(Damage::StateOfPrevious);
            } else if was_free && link != previous {
                damage.push(Damage::LinkToPrevious { found: link });
            }
        }
        if size == 0 {
            // An overwritten size is 0 as easily as any other: the end mark agrees with its
            // neighbour.
            return if damage.is_empty() { Ok(None) } else { Err(BreakCause::BadSize { size }) };
        }
        let payload = AddrRange::new(Addr(header.0.saturating_add(shape.next_free)), size);
        if !size.is_multiple_of(8) || payload.end >= self.end || damage.len() > 1 {
            return Err(BreakCause::BadSize { size });
        }
        self.previous = Some((header, free));
        Ok(Some(Fragment { header, payload, used: !free, owner, damage }))
    }
}

impl Iterator for Walk<'_> {
    type Item = Step;

    #[inline]
    fn next(&mut self) -> Option<Step> {
        if self.done {
            return None;
        }
        match self.fragment() {
            Ok(Some(fragment)) => {
                self.at = Addr(fragment.payload.end.0.saturating_sub(SHARED_WORD));
                Some(Step::Fragment(fragment))
            }
            Ok(None) => {
                self.done = true;
                None
            }
            Err(why) => {
                self.done = true;
                let lost = self.end.0.saturating_sub(self.at.0);
                Some(Step::Break(Break { at: self.at, why, lost, resumed_at: None }))
            }
        }
    }
}
