//! The free lists of `f_malloc`: each bucket of `free_hash` has a first fragment and a count, a
//! bitmap says which are not empty, and null ends a list in both directions.

use super::shape::{ListShape, Shape};
use super::walk::CHECK;
use crate::addr::Addr;
use crate::heap::lists::{Entry, Head, Lists, SizeClasses};
use crate::heap::word;
use crate::memory::{Cursor, Known, Memory};
use crate::num::narrow;

pub(super) struct FmLists<'a> {
    cursor: Cursor<'a>,
    shape: Shape,
    lists: ListShape,
    block: Addr,
    last: Addr,
}

impl<'a> FmLists<'a> {
    /// The lists of the block at `block`, whose fragments end at `last`; `None` where the layout
    /// does not tell where they are.
    pub(super) fn new(
        memory: &'a dyn Memory,
        shape: Shape,
        block: Addr,
        last: Addr,
    ) -> Option<Self> {
        Some(Self { cursor: Cursor::new(memory), shape, lists: shape.lists?, block, last })
    }
}

impl Lists for FmLists<'_> {
    fn classes(&self) -> SizeClasses {
        self.lists.classes
    }

    fn head(&mut self, index: u32) -> Known<Head> {
        let field = |offset: u64| Addr(self.block.0.saturating_add(offset));
        let (number, bit) = (u64::from(index.wrapping_div(64)), index.wrapping_rem(64));
        let marks = field(self.lists.bitmap.saturating_add(number.saturating_mul(8)));
        let place = u64::from(index).saturating_mul(self.lists.bucket);
        let at = field(self.lists.start.saturating_add(place));
        let marks = word(self.cursor.bytes(marks, 8)?, 0);
        let said = self.lists.said;
        let bytes = self.cursor.bytes(at, narrow(self.lists.bucket))?;
        Ok(Head {
            at,
            first: Addr(word(bytes, 0)),
            last: None,
            end: Addr::NULL,
            start: Addr::NULL,
            said: Some(word(bytes, said)),
            marked: Some(marks.checked_shr(bit).unwrap_or(0) & 1 == 1),
        })
    }

    fn entry(&mut self, at: Addr) -> Known<Entry> {
        let (shape, lists) = (self.shape, self.lists);
        let bytes = self.cursor.bytes(at, narrow(shape.header))?;
        let size = word(bytes, shape.size);
        let end = at.checked_add(shape.header).and_then(|at| at.checked_add(size));
        let fits = end.is_some_and(|end| end <= self.last) && size > 0 && size.is_multiple_of(8);
        Ok(Entry {
            size,
            free: word(bytes, shape.is_free) & 0xffff_ffff != 0,
            sound: fits && word(bytes, shape.check) & 0xffff_ffff == CHECK,
            next: Addr(word(bytes, lists.next)),
            previous: Some(Addr(word(bytes, lists.previous))),
        })
    }
}
