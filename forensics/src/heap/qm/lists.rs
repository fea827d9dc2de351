//! The free lists of `q_malloc`: in each bucket of `free_hash` a head and a tail, made like the
//! ends of a fragment, and a circle through them. Links forwards stand in headers (`u.nxt_free`),
//! links backwards in trailers (`prev_free`); an empty list points at its own head.

use super::shape::{ListShape, Shape};
use super::walk::START_CHECK;
use crate::addr::Addr;
use crate::heap::lists::{Entry, Head, Lists, SizeClasses};
use crate::heap::word;
use crate::memory::{Cursor, Known, Memory};
use crate::num::narrow;

pub(super) struct QmLists<'a> {
    cursor: Cursor<'a>,
    shape: Shape,
    lists: ListShape,
    block: Addr,
    end: Addr,
}

impl<'a> QmLists<'a> {
    /// The lists of the block at `block`, whose fragments end at `end`; `None` where the layout
    /// does not tell where they are.
    pub(super) fn new(
        memory: &'a dyn Memory,
        shape: Shape,
        block: Addr,
        end: Addr,
    ) -> Option<Self> {
        Some(Self { cursor: Cursor::new(memory), shape, lists: shape.lists?, block, end })
    }
}

impl Lists for QmLists<'_> {
    fn classes(&self) -> SizeClasses {
        self.lists.classes
    }

    fn head(&mut self, index: u32) -> Known<Head> {
        let place = u64::from(index).saturating_mul(self.lists.bucket);
        let at = Addr(self.block.0.saturating_add(self.lists.start).saturating_add(place));
        let (link, back, said) = (self.shape.link, self.lists.tail_back, self.lists.said);
        let bytes = self.cursor.bytes(at, narrow(self.lists.bucket))?;
        Ok(Head {
            at,
            first: Addr(word(bytes, link)),
            last: Some(Addr(word(bytes, back))),
            end: at,
            start: at,
            said: Some(word(bytes, said)),
            marked: None,
        })
    }

    fn entry(&mut self, at: Addr) -> Known<Entry> {
        let shape = self.shape;
        let bytes = self.cursor.bytes(at, narrow(shape.header))?;
        let (size, next) = (word(bytes, shape.size), Addr(word(bytes, shape.link)));
        let whole = shape.checks.is_none_or(|checks| word(bytes, checks.start) == START_CHECK);
        let trailer = at.checked_add(shape.header).and_then(|at| at.checked_add(size));
        let fits = trailer
            .and_then(|at| at.checked_add(shape.trailer))
            .is_some_and(|next| next <= self.end && size > 0 && size.is_multiple_of(8));
        let previous = match trailer.filter(|_| fits) {
            Some(trailer) => {
                let back = Addr(trailer.0.saturating_add(self.lists.back));
                let bytes = self.cursor.bytes(back, 8)?;
                Some(Addr(word(bytes, 0)))
            }
            None => None,
        };
        Ok(Entry { size, free: !next.is_null(), sound: whole && fits, next, previous })
    }
}
