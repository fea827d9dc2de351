//! The chain of fragments, from the first to the end mark, and over damaged places.
//!
//! After a break the walk goes on only where it is sure of a boundary: at the end of the broken
//! fragment, if a trailer says so itself, or where the chain that can be followed backwards from
//! the pool's end by the trailers begins. A header that merely looks right is never believed:
//! merged and reused memory is full of old ones.

use super::shape::Shape;
use crate::addr::{Addr, AddrRange};
use crate::heap::infer::AtBreak;
use crate::heap::{Break, BreakCause, Damage, Fragment, Step, word};
use crate::memory::Cursor;
use crate::num::{narrow, wide};

/// In the header of every fragment, used or free.
const START_CHECK: u64 = 0xf0f0_f0f0;
/// In the trailer of every fragment, used or free.
const END_CHECKS: [u64; 2] = [0xc0c0_c0c0, 0xabcd_efed];

/// Bytes that may be searched for trailers in one walk: damage in many places must not make the
/// work grow with their number.
const SEARCHED: u64 = 1 << 30;

/// Steps through a pool. Each step moves to a higher address, so it ends on any bytes.
pub(super) struct Walk<'a> {
    cursor: Cursor<'a>,
    shape: Shape,
    first: Addr,
    at: Addr,
    end: Addr,
    /// Start of the chain that ends at the pool's end; found at the first break.
    tail: Option<Addr>,
    /// Bytes that may still be searched for trailers.
    budget: u64,
    at_break: AtBreak,
}

/// What a header and its trailer say, the header at a place that is known or assumed.
struct Read {
    fragment: Fragment,
    next: Addr,
    /// Header and trailer are as the allocator leaves them.
    sound: bool,
}

impl<'a> Walk<'a> {
    /// From the header of the first fragment to `end`, the first address behind the last trailer.
    pub(super) fn new(cursor: Cursor<'a>, shape: Shape, first: Addr, end: Addr) -> Self {
        let at_break = AtBreak::Resume;
        Self { cursor, shape, first, at: first, end, tail: None, budget: SEARCHED, at_break }
    }

    /// The same walk, ending at the first break or going on behind it.
    pub(super) fn at_break(self, at_break: AtBreak) -> Self {
        Self { at_break, ..self }
    }

    /// Reads the fragment whose header is at `header`.
    fn read(&mut self, header: Addr) -> Result<Read, BreakCause> {
        let shape = self.shape;
        let bytes = self.cursor.bytes(header, narrow(shape.header)).map_err(BreakCause::Absent)?;
        let size = word(bytes, shape.size);
        let link = word(bytes, shape.link);
        let owner = shape.owner.map(|fields| fields.read(bytes));
        let start_check = shape.checks.map(|checks| word(bytes, checks.start));

        let payload = AddrRange::new(Addr(header.0.saturating_add(shape.header)), size);
        let next = payload.end.checked_add(shape.trailer).filter(|&next| next <= self.end);
        // The smallest payload is 8 bytes; memory that is all zero is no chain of empty fragments.
        let Some(next) = next.filter(|_| size > 0 && size.is_multiple_of(8)) else {
            return Err(BreakCause::BadSize { size });
        };
        let bytes =
            self.cursor.bytes(payload.end, narrow(shape.trailer)).map_err(BreakCause::Absent)?;
        let trailer_size = word(bytes, shape.trailer_size);
        let end_checks = shape.checks.map(|checks| checks.end.map(|offset| word(bytes, offset)));

        let mut damage = Vec::new();
        if let Some(found) = start_check.filter(|&found| found != START_CHECK) {
            damage.push(Damage::StartCheck { found });
        }
        if let Some(found) = end_checks.filter(|&found| found != END_CHECKS) {
            damage.push(Damage::EndCheck { found });
        }
        if trailer_size != size {
            damage.push(Damage::TrailerSize { found: trailer_size });
        }
        let sound = damage.is_empty();
        let fragment = Fragment { header, payload, used: link == 0, owner, damage };
        Ok(Read { fragment, next, sound })
    }

    /// The fragment at the place that the chain has reached.
    fn fragment(&mut self) -> Result<(Fragment, Addr), BreakCause> {
        let read = self.read(self.at)?;
        if read.sound || self.is_believed(&read) {
            return Ok((read.fragment, read.next));
        }
        Err(BreakCause::NoTrailer { size: read.fragment.payload.length() })
    }

    /// Whether a damaged fragment is as long as its header says. Its trailer may say so, or what
    /// lies behind it: an overrun often takes a trailer and the next header together.
    fn is_believed(&mut self, read: &Read) -> bool {
        let has = |wanted: fn(&Damage) -> bool| read.fragment.damage.iter().any(wanted);
        let sizes_agree = !has(|damage| matches!(damage, Damage::TrailerSize { .. }));
        let header_is_whole = self.shape.checks.is_some()
            && !has(|damage| matches!(damage, Damage::StartCheck { .. }));
        let end_is_whole =
            self.shape.checks.is_some() && !has(|damage| matches!(damage, Damage::EndCheck { .. }));
        if sizes_agree && (header_is_whole || end_is_whole) {
            return true;
        }
        if self.is_sound(read.next) {
            return header_is_whole || end_is_whole;
        }
        if !header_is_whole || self.at_break == AtBreak::Stop {
            return false;
        }
        self.claimed_end(read.next).is_some()
            || (self.end_behind(self.at, read.next).is_none() && read.next <= self.tail())
    }

    /// Whether a whole fragment begins at `at`, or the pool ends there.
    fn is_sound(&mut self, at: Addr) -> bool {
        at == self.end || self.read(at).is_ok_and(|read| read.sound)
    }

    /// Where the chain goes on behind the fragment at `self.at`, which cannot be followed. Where
    /// bytes are missing the true trailer may be among them, and an old one would be believed.
    fn resume(&mut self, why: &BreakCause) -> Option<Addr> {
        let is_missing = matches!(why, BreakCause::Absent(_));
        if !is_missing && let Some((end, _)) = self.claim(self.at) {
            return Some(end);
        }
        let tail = self.tail();
        (tail > self.at && tail < self.end).then_some(tail)
    }

    /// Where the fragment at `start` ends by a trailer that names it.
    fn claimed_end(&mut self, start: Addr) -> Option<Addr> {
        self.claim(start).map(|(end, _)| end)
    }

    /// The same, if it contradicts a header that says `own_end`: an old trailer inside the
    /// fragment leads into old headers, whose chain ends before the fragment does.
    fn end_behind(&mut self, start: Addr, own_end: Addr) -> Option<Addr> {
        self.claim(start).filter(|(_, reach)| *reach > own_end).map(|(end, _)| end)
    }

    /// Where a fragment that begins at `start` ends, by a trailer that names it, and how far the
    /// chain goes behind it. Old trailers of smaller fragments at the same place lead into old
    /// headers, whose chain soon breaks: the trailer behind which it goes furthest is the true one.
    fn claim(&mut self, start: Addr) -> Option<(Addr, Addr)> {
        let limit = self.tail();
        let mut best: Option<(Addr, Addr)> = None;
        let mut from = start.checked_add(self.shape.header)?;
        while let Some(end) = self.next_claim(start, from, limit) {
            let reach = self.reach(end);
            if best.is_none_or(|(_, furthest)| reach > furthest) {
                best = Some((end, reach));
            }
            if reach >= limit {
                break;
            }
            from = end;
        }
        best
    }

    /// The end of the next whole trailer, from `from` on and not behind `limit`, that says it
    /// belongs to a header at `start`.
    fn next_claim(&mut self, start: Addr, from: Addr, limit: Addr) -> Option<Addr> {
        let shape = self.shape;
        let payload = start.checked_add(shape.header)?;
        let mut at = from;
        while at.checked_add(shape.trailer)? <= limit && self.budget > 0 {
            // The words in which a trailer at `at`, `at` + 8, … would have its size.
            let place = at.checked_add(shape.trailer_size)?;
            let piece = self.cursor.piece(place).ok()?;
            let claims = |(number, word): (usize, &[u8])| {
                let size = word.first_chunk().map(|word| u64::from_le_bytes(*word))?;
                let trailer = at.0.saturating_add(wide(number).saturating_mul(8));
                (trailer.checked_sub(payload.0) == Some(size)).then_some(Addr(trailer))
            };
            let words = piece.chunks_exact(8).len();
            let found = piece.chunks_exact(8).enumerate().find_map(claims);
            let Some(trailer) = found else {
                let searched = wide(words.max(1)).saturating_mul(8);
                self.budget = self.budget.saturating_sub(searched);
                at = at.checked_add(searched)?;
                continue;
            };
            self.budget = self.budget.saturating_sub(trailer.0.saturating_sub(at.0));
            let end = trailer.checked_add(shape.trailer)?;
            if end <= limit && self.is_trailer(trailer) {
                return Some(end);
            }
            at = trailer.checked_add(8)?;
        }
        None
    }

    fn is_trailer(&mut self, at: Addr) -> bool {
        let Some(checks) = self.shape.checks else { return true };
        let Ok(bytes) = self.cursor.bytes(at, narrow(self.shape.trailer)) else { return false };
        checks.end.map(|offset| word(bytes, offset)) == END_CHECKS
    }

    /// How far sound fragments chain from `start`.
    fn reach(&mut self, start: Addr) -> Addr {
        let tail = self.tail();
        let mut at = start;
        while at < tail {
            match self.read(at) {
                Ok(read) if read.sound => at = read.next,
                _ => return at,
            }
        }
        at
    }

    /// Start of the chain of sound fragments that ends at the pool's end, followed backwards.
    fn tail(&mut self) -> Addr {
        if let Some(tail) = self.tail {
            return tail;
        }
        let shape = self.shape;
        let mut start = self.end;
        while start > self.first {
            let trailer = start.checked_sub(shape.trailer);
            let bytes = trailer.and_then(|at| self.cursor.bytes(at, narrow(shape.trailer)).ok());
            let Some(size) = bytes.map(|bytes| word(bytes, shape.trailer_size)) else { break };
            let header = trailer
                .and_then(|at| at.checked_sub(size))
                .and_then(|at| at.checked_sub(shape.header))
                .filter(|&header| header >= self.first);
            let Some(header) = header else { break };
            let sound = self.read(header).is_ok_and(|read| read.sound && read.next == start);
            if !sound {
                break;
            }
            start = header;
        }
        self.tail = Some(start);
        start
    }
}

impl Iterator for Walk<'_> {
    type Item = Step;

    #[inline]
    fn next(&mut self) -> Option<Step> {
        if self.at >= self.end {
            return None;
        }
        match self.fragment() {
            Ok((fragment, next)) => {
                self.at = next;
                Some(Step::Fragment(fragment))
            }
            Err(why) => {
                let at = self.at;
                let resumed_at = match self.at_break {
                    AtBreak::Stop => None,
                    AtBreak::Resume => self.resume(&why),
                };
                self.at = resumed_at.unwrap_or(self.end);
                let lost = self.at.0.saturating_sub(at.0);
                Some(Step::Break(Break { at, why, lost, resumed_at }))
            }
        }
    }
}
