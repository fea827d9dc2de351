//! The chain of fragments, from the first to `last_frag`.

use super::shape::Shape;
use crate::addr::{Addr, AddrRange};
use crate::heap::{Break, BreakCause, Damage, Fragment, Step, word};
use crate::memory::Cursor;
use crate::num::narrow;

/// In the header of every fragment, used or free.
const CHECK: u64 = 0xf0f0_f0f0;
/// In the header at the pool's end.
const LAST_CHECK: u64 = 0xc0c0_c0c0;

/// Steps through a pool. Each step moves to a higher address, so it ends on any bytes.
pub(super) struct Walk<'a> {
    cursor: Cursor<'a>,
    shape: Shape,
    at: Addr,
    last: Addr,
    broken: bool,
}

impl<'a> Walk<'a> {
    /// From the header of the first fragment to that at the pool's end, which is no fragment.
    pub(super) fn new(cursor: Cursor<'a>, shape: Shape, first: Addr, last: Addr) -> Self {
        Self { cursor, shape, at: first, last, broken: false }
    }

    fn fragment(&mut self) -> Result<Fragment, BreakCause> {
        let shape = self.shape;
        let header = self.at;
        let bytes = self.cursor.bytes(header, narrow(shape.header)).map_err(BreakCause::Absent)?;
        let size = word(bytes, shape.size);
        let is_free = word(bytes, shape.is_free) & 0xffff_ffff;
        let check = word(bytes, shape.check) & 0xffff_ffff;
        let owner = shape.owner.map(|fields| fields.read(bytes));

        let payload = AddrRange::new(Addr(header.0.saturating_add(shape.header)), size);
        if size == 0 || !size.is_multiple_of(8) || payload.end > self.last {
            return Err(BreakCause::BadSize { size });
        }
        // There is no trailer: where the next header is not one, this size cannot be trusted.
        let expected = if payload.end == self.last { LAST_CHECK } else { CHECK };
        let next_fits = self.check_at(payload.end)? == expected;
        let damage = match (check == CHECK, next_fits) {
            (true, _) => Vec::new(),
            (false, true) => vec![Damage::StartCheck { found: check }],
            (false, false) => return Err(BreakCause::NoTrailer { size }),
        };
        Ok(Fragment { header, payload, used: is_free == 0, owner, damage })
    }

    fn check_at(&mut self, header: Addr) -> Result<u64, BreakCause> {
        let at = Addr(header.0.saturating_add(self.shape.check));
        let bytes = self.cursor.bytes(at, 4).map_err(BreakCause::Absent)?;
        let bytes = bytes.first_chunk();
        Ok(bytes.map_or(0, |bytes| u64::from(u32::from_le_bytes(*bytes))))
    }
}

impl Iterator for Walk<'_> {
    type Item = Step;

    #[inline]
    fn next(&mut self) -> Option<Step> {
        if self.broken || self.at >= self.last {
            return None;
        }
        match self.fragment() {
            Ok(fragment) => {
                self.at = fragment.payload.end;
                Some(Step::Fragment(fragment))
            }
            Err(why) => {
                self.broken = true;
                let lost = self.last.0.saturating_sub(self.at.0);
                Some(Step::Break(Break { at: self.at, why, lost, resumed_at: None }))
            }
        }
    }
}
