//! The chain of fragments, from the first to the end mark, and over damaged places.
//!
//! After a break the walk goes on only where it is sure of a boundary: at the end of the broken
//! fragment, if a trailer says so itself, or where a chain begins that leads to the pool's end. A
//! header that merely looks right is never believed: merged and reused memory is full of old ones.
//! An old header's chain never joins the true one, because a merge writes the new size into the
//! last trailer.

use super::QMalloc;
use super::shape::{CheckShape, Shape};
use crate::addr::{Addr, AddrRange};
use crate::heap::infer::AtBreak;
use crate::heap::islands::{self, Islands, Link, MOST_PLACES};
use crate::heap::pool::Pool;
use crate::heap::{Break, BreakCause, Damage, Fragment, Step, word};
use crate::memory::Cursor;
use crate::num::narrow;

/// In the header of every fragment, used or free.
pub(super) const START_CHECK: u64 = 0xf0f0_f0f0;
/// In the trailer of every fragment, used or free.
pub(super) const END_CHECKS: [u64; 2] = [0xc0c0_c0c0, 0xabcd_efed];

/// Steps through a pool. Each step moves to a higher address, so it ends on any bytes.
pub(super) struct Walk<'p> {
    pool: &'p Pool<'p, QMalloc>,
    cursor: Cursor<'p>,
    shape: Shape,
    at: Addr,
    end: Addr,
    /// Start of the chain that ends at the pool's end; found at the first break.
    tail: Option<Addr>,
    /// What stands between the first break and there.
    islands: Option<Islands>,
    at_break: AtBreak,
}

/// What a header and its trailer say, the header at a place that is known or assumed.
struct Read {
    fragment: Fragment,
    next: Addr,
    /// Header and trailer are as the allocator leaves them.
    sound: bool,
}

impl Read {
    fn has(&self, wanted: fn(&Damage) -> bool) -> bool {
        self.fragment.damage.iter().any(wanted)
    }

    /// Whether the same size stands at both ends, and one of them has its check words.
    fn ends_agree(&self) -> bool {
        let start = self.has(|damage| matches!(damage, Damage::StartCheck { .. }));
        let end = self.has(|damage| matches!(damage, Damage::EndCheck { .. }));
        let sizes = self.has(|damage| matches!(damage, Damage::TrailerSize { .. }));
        !(sizes || start && end)
    }
}

impl<'p> Walk<'p> {
    /// From the header of the first fragment to the end of the last trailer.
    pub(super) fn new(pool: &'p Pool<'_, QMalloc>, at_break: AtBreak) -> Self {
        Self {
            pool,
            cursor: Cursor::new(pool.memory),
            shape: pool.shape,
            at: pool.block.first,
            end: pool.block.end,
            tail: None,
            islands: None,
            at_break,
        }
    }

    /// Reads the fragment whose header is at `header`.
    fn read(&mut self, header: Addr) -> Result<Read, BreakCause> {
        let shape = self.shape;
        self.pool.visit();
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
        let checked = self.shape.checks.is_some();
        if checked && read.ends_agree() {
            return true;
        }
        let header_is_whole =
            checked && !read.has(|damage| matches!(damage, Damage::StartCheck { .. }));
        let end_is_whole = checked && !read.has(|damage| matches!(damage, Damage::EndCheck { .. }));
        if self.is_sound(read.next) {
            return header_is_whole || end_is_whole;
        }
        if !header_is_whole || self.at_break == AtBreak::Stop {
            return false;
        }
        let tail = self.tail();
        if self.islands().at(read.next).is_some_and(|place| place.is_sure()) {
            return true;
        }
        self.claimed_end().is_none() && read.next <= tail
    }

    /// Whether a whole fragment begins at `at`, or the pool ends there.
    fn is_sound(&mut self, at: Addr) -> bool {
        at == self.end || self.read(at).is_ok_and(|read| read.sound)
    }

    /// Where the chain goes on behind the fragment at `self.at`, which cannot be followed.
    fn resume(&mut self) -> Option<Addr> {
        if let Some(end) = self.claimed_end() {
            return Some(end);
        }
        let behind = Addr(self.at.0.saturating_add(8));
        let islands = self.islands();
        let place = islands.from(behind).find(|place| place.whole && place.is_sure());
        let place = place.map(|place| place.at);
        let tail = self.tail();
        place.or_else(|| (tail > self.at && tail < self.end).then_some(tail))
    }

    /// Where the fragment at `self.at` ends by a trailer that names it and that leads on to the
    /// pool's end.
    fn claimed_end(&mut self) -> Option<Addr> {
        let at = self.at;
        let place = self.islands().at(at).filter(|place| place.leads);
        place.map(|place| place.next)
    }

    /// What stands between the first break and the tail.
    fn islands(&mut self) -> &Islands {
        if self.islands.is_none() {
            let tail = self.tail();
            let links = self.links(tail);
            let overhead = self.shape.header.saturating_add(self.shape.trailer);
            let behind = |header: Addr, size: u64| {
                Addr(header.0.saturating_add(overhead).saturating_add(size))
            };
            self.islands = Some(Islands::beside(self.pool.lists(), links, tail, behind));
        }
        self.islands.get_or_insert_default()
    }

    /// Everything from `self.at` to `limit` that is a whole fragment, or that a trailer says is
    /// one.
    fn links(&mut self, limit: Addr) -> Vec<Link> {
        match self.shape.checks {
            Some(checks) => self.links_by_checks(limit, checks),
            None => self.links_by_sizes(limit),
        }
    }

    fn links_by_checks(&mut self, limit: Addr, checks: CheckShape) -> Vec<Link> {
        let shape = self.shape;
        let (mut headers, mut trailers) = (Vec::new(), Vec::new());
        islands::words(self.pool.memory, self.at, limit, |at, value| {
            if headers.len().max(trailers.len()) >= MOST_PLACES {
                return;
            }
            if value == START_CHECK {
                headers.extend(at.checked_sub(checks.start).filter(|header| *header >= self.at));
            } else if value == END_CHECKS[0] {
                trailers.push(at);
            }
        });
        let mut links = Vec::with_capacity(headers.len());
        for at in headers {
            if let Ok(read) = self.read(at)
                && read.ends_agree()
            {
                links.push(Link { at, next: read.next, used: 0, whole: true });
            }
        }
        for trailer in trailers {
            let Ok(bytes) = self.cursor.bytes(trailer, narrow(shape.trailer)) else { continue };
            let size = word(bytes, shape.trailer_size);
            let whole = checks.end.map(|offset| word(bytes, offset)) == END_CHECKS;
            let header = trailer.checked_sub(size).and_then(|at| at.checked_sub(shape.header));
            let next = trailer.checked_add(shape.trailer);
            if let (true, Some(at), Some(next)) = (whole, header, next)
                && at >= self.at
            {
                links.push(Link { at, next, used: 0, whole: false });
            }
        }
        links
    }

    /// Without check words: a size that stands at both ends.
    fn links_by_sizes(&mut self, limit: Addr) -> Vec<Link> {
        let overhead = self.shape.header.saturating_add(self.shape.trailer);
        let mut trailers = Cursor::new(self.pool.memory);
        let mut links = Vec::new();
        let shape = self.shape;
        islands::words(self.pool.memory, self.at, limit, |at, size| {
            let room = limit.0.saturating_sub(at.0);
            if size == 0 || !size.is_multiple_of(8) || size.saturating_add(overhead) > room {
                return;
            }
            let trailer = at.0.saturating_add(shape.header).saturating_add(size);
            let place = Addr(trailer.saturating_add(shape.trailer_size));
            if trailers.bytes(place, 8).is_ok_and(|bytes| word(bytes, 0) == size) {
                self.pool.visit();
                let next = Addr(trailer.saturating_add(shape.trailer));
                links.push(Link { at, next, used: 0, whole: true });
            }
        });
        links
    }

    /// Start of the chain of fragments that ends at the pool's end, followed backwards. One whose
    /// check words alone are overwritten does not end it: what stands before it would be lost.
    fn tail(&mut self) -> Addr {
        if let Some(tail) = self.tail {
            return tail;
        }
        let shape = self.shape;
        let checked = shape.checks.is_some();
        let mut start = self.end;
        while start > self.pool.block.first {
            let trailer = start.checked_sub(shape.trailer);
            let bytes = trailer.and_then(|at| self.cursor.bytes(at, narrow(shape.trailer)).ok());
            let Some(size) = bytes.map(|bytes| word(bytes, shape.trailer_size)) else { break };
            let header = trailer
                .and_then(|at| at.checked_sub(size))
                .and_then(|at| at.checked_sub(shape.header))
                .filter(|&header| header >= self.pool.block.first);
            let Some(header) = header else { break };
            let read = self.read(header).ok().filter(|read| read.next == start);
            if !read.is_some_and(|read| read.sound || (checked && read.ends_agree())) {
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
                    AtBreak::Resume => self.resume(),
                };
                self.at = resumed_at.unwrap_or(self.end);
                let lost = self.at.0.saturating_sub(at.0);
                Some(Step::Break(Break { at, why, lost, resumed_at }))
            }
        }
    }
}
