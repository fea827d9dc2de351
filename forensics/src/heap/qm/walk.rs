//! The chain of fragments, from the first to the end mark.

use super::shape::Shape;
use crate::addr::{Addr, AddrRange};
use crate::heap::{Break, BreakCause, Damage, Fragment, Step, word};
use crate::memory::Cursor;
use crate::num::narrow;

/// In the header of every fragment, used or free.
const START_CHECK: u64 = 0xf0f0_f0f0;
/// In the trailer of every fragment, used or free.
const END_CHECKS: [u64; 2] = [0xc0c0_c0c0, 0xabcd_efed];

/// Steps through a pool. Each step moves to a higher address, so it ends on any bytes.
pub(super) struct Walk<'a> {
    cursor: Cursor<'a>,
    shape: Shape,
    at: Addr,
    end: Addr,
    broken: bool,
}

impl<'a> Walk<'a> {
    /// From the header of the first fragment to `end`, the first address behind the last trailer.
    pub(super) fn new(cursor: Cursor<'a>, shape: Shape, first: Addr, end: Addr) -> Self {
        Self { cursor, shape, at: first, end, broken: false }
    }

    fn fragment(&mut self) -> Result<Fragment, BreakCause> {
        let shape = self.shape;
        let header = self.at;
        let bytes = self.cursor.bytes(header, narrow(shape.header)).map_err(BreakCause::Absent)?;
        let size = word(bytes, shape.size);
        let link = word(bytes, shape.link);
        let owner = shape.owner.map(|fields| fields.read(bytes));
        let start_check = shape.checks.map(|checks| word(bytes, checks.start));

        let payload = AddrRange::new(Addr(header.0.saturating_add(shape.header)), size);
        let next = payload.end.checked_add(shape.trailer);
        if !size.is_multiple_of(8) || next.is_none_or(|next| next > self.end) {
            return Err(BreakCause::BadSize { size });
        }
        let bytes =
            self.cursor.bytes(payload.end, narrow(shape.trailer)).map_err(BreakCause::Absent)?;
        let trailer_size = word(bytes, shape.trailer_size);
        let end_checks = shape.checks.map(|checks| checks.end.map(|offset| word(bytes, offset)));
        let end_is_whole = end_checks.is_none_or(|found| found == END_CHECKS);
        if trailer_size != size && (shape.checks.is_none() || !end_is_whole) {
            return Err(BreakCause::NoTrailer { size });
        }

        let mut damage = Vec::new();
        if let Some(found) = start_check.filter(|&found| found != START_CHECK) {
            damage.push(Damage::StartCheck { found });
        }
        if let Some(found) = end_checks.filter(|_| !end_is_whole) {
            damage.push(Damage::EndCheck { found });
        }
        if trailer_size != size {
            damage.push(Damage::TrailerSize { found: trailer_size });
        }
        Ok(Fragment { header, payload, used: link == 0, owner, damage })
    }
}

impl Iterator for Walk<'_> {
    type Item = Step;

    #[inline]
    fn next(&mut self) -> Option<Step> {
        if self.broken || self.at >= self.end {
            return None;
        }
        match self.fragment() {
            Ok(fragment) => {
                self.at = Addr(fragment.payload.end.0.saturating_add(self.shape.trailer));
                Some(Step::Fragment(fragment))
            }
            Err(why) => {
                self.broken = true;
                let lost = self.end.0.saturating_sub(self.at.0);
                Some(Step::Break(Break { at: self.at, why, lost, resumed_at: None }))
            }
        }
    }
}
