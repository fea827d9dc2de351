//! The free lists of TLSF: 32 rows of 32 list heads, a bitmap of rows, and one of lists for each
//! row. Every end of a list, and an empty list, points at `block_null`, the control structure's
//! first field.

use super::shape::{ListShape, Shape};
use super::walk::{FLAGS, FREE};
use crate::addr::Addr;
use crate::heap::lists::{Entry, Head, Lists, ROW, SizeClasses};
use crate::heap::word;
use crate::memory::{Cursor, Known, Memory};
use crate::num::narrow;

pub(super) struct TlsfLists<'a> {
    cursor: Cursor<'a>,
    shape: Shape,
    lists: ListShape,
    control: Addr,
    end: Addr,
}

impl<'a> TlsfLists<'a> {
    /// The lists of the control structure at `control`, whose fragments end before `end`; `None`
    /// where the layout does not tell where they are.
    pub(super) fn new(
        memory: &'a dyn Memory,
        shape: Shape,
        control: Addr,
        end: Addr,
    ) -> Option<Self> {
        Some(Self { cursor: Cursor::new(memory), shape, lists: shape.lists?, control, end })
    }

    fn bits(&mut self, offset: u64) -> Known<u32> {
        let at = Addr(self.control.0.saturating_add(offset));
        let bytes = self.cursor.bytes(at, 4)?;
        Ok(bytes.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes)))
    }
}

impl Lists for TlsfLists<'_> {
    fn classes(&self) -> SizeClasses {
        SizeClasses::TwoLevels
    }

    fn head(&mut self, index: u32) -> Known<Head> {
        let (row, place) = (index.wrapping_div(ROW), index.wrapping_rem(ROW));
        let rows = self.bits(self.lists.rows)?;
        let places =
            self.bits(self.lists.places.saturating_add(u64::from(row).saturating_mul(4)))?;
        let set = |bits: u32, bit: u32| bits.checked_shr(bit).unwrap_or(0) & 1 == 1;
        let offset = self.lists.heads.saturating_add(u64::from(index).saturating_mul(8));
        let at = Addr(self.control.0.saturating_add(offset));
        let first = Addr(word(self.cursor.bytes(at, 8)?, 0));
        Ok(Head {
            at,
            first,
            last: None,
            end: self.control,
            start: self.control,
            said: None,
            marked: Some(set(rows, row) && set(places, place)),
        })
    }

    fn entry(&mut self, at: Addr) -> Known<Entry> {
        let (shape, lists) = (self.shape, self.lists);
        let bytes = self.cursor.bytes(at, narrow(shape.header_length))?;
        let field = word(bytes, shape.size);
        let size = field & !FLAGS;
        let end = at.checked_add(shape.next_free).and_then(|at| at.checked_add(size));
        let fits = end.is_some_and(|end| end < self.end) && size > 0 && size.is_multiple_of(8);
        Ok(Entry {
            size,
            free: field & FREE != 0,
            sound: fits,
            next: Addr(word(bytes, shape.next_free)),
            previous: Some(Addr(word(bytes, lists.previous))),
        })
    }
}
