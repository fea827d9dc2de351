//! The headers of TLSF, from the first to the one with size 0.

use super::shape::Shape;
use super::{SHARED_WORD, Tlsf};
use crate::addr::{Addr, AddrRange};
use crate::heap::chain::{Before, Expected, Header, Headers};
use crate::heap::islands::{self, Link, MOST_PLACES};
use crate::heap::lists::FreeLists;
use crate::heap::pool::Pool;
use crate::heap::references::References;
use crate::heap::run;
use crate::heap::{BreakCause, Damage, Fragment, Owner, word};
use crate::memory::{Cursor, Known};
use crate::num::narrow;

/// In `size`: this fragment is free.
pub(super) const FREE: u64 = 1;
/// In `size`: the fragment before this one is free.
const PREVIOUS_FREE: u64 = 2;
/// The bits of `size` that are none of it.
pub(super) const FLAGS: u64 = FREE | PREVIOUS_FREE;

/// Source files are shorter, in lines.
const LINES: u64 = 1 << 17;

pub(super) struct TlsfHeaders<'p> {
    pool: &'p Pool<'p, Tlsf>,
    cursor: Cursor<'p>,
}

/// The fields of one header.
#[derive(Clone, Copy, Debug)]
struct Fields {
    size: u64,
    free: bool,
    previous_free: bool,
    /// Means something only while the fragment before is free.
    previous: Addr,
    owner: Option<Owner>,
}

impl<'p> TlsfHeaders<'p> {
    pub(super) fn new(pool: &'p Pool<'_, Tlsf>) -> Self {
        Self { pool, cursor: Cursor::new(pool.memory) }
    }

    fn shape(&self) -> Shape {
        self.pool.shape
    }

    #[inline]
    fn fields(&mut self, at: Addr) -> Known<Fields> {
        let shape = self.shape();
        let bytes = self.cursor.bytes(at, narrow(shape.next_free))?;
        let field = word(bytes, shape.size);
        Ok(Fields {
            size: field & !FLAGS,
            free: field & FREE != 0,
            previous_free: field & PREVIOUS_FREE != 0,
            previous: Addr(word(bytes, 0)),
            owner: shape.owner.map(|owner| owner.read(bytes)),
        })
    }

    /// Whether a fragment with these fields can stand at `at`.
    #[inline]
    fn can_stand(&self, at: Addr, fields: &Fields) -> bool {
        let fits = fields.size > 0
            && fields.size.is_multiple_of(8)
            && self.behind(at, fields.size) <= self.pool.block.last;
        // A free fragment that was split off has no owner of its own.
        fits && (fields.free || fields.owner.is_none_or(|owner| self.is_owner(owner)))
    }

    /// Pointers to texts lie in user space and not in the pool.
    #[inline]
    fn is_owner(&self, owner: Owner) -> bool {
        let block = &self.pool.block;
        let is_text =
            |at: Addr| at.0 >= 1 << 16 && at.0 < 1 << 47 && !(block.at <= at && at < block.end);
        is_text(owner.file)
            && is_text(owner.function)
            && is_text(owner.module)
            && owner.line < LINES
    }

    /// Whether a header that fits the fragment at `at` follows at `next`.
    fn is_followed(&mut self, at: Addr, free: bool, next: Addr) -> Known<bool> {
        let follower = self.fields(next)?;
        let linked = follower.previous_free == free && (!free || follower.previous == at);
        if next == self.pool.block.last {
            return Ok(linked && follower.size == 0);
        }
        // Free neighbours are merged at once.
        let fits = linked && !(free && follower.free) && self.can_stand(next, &follower);
        Ok(fits && (!follower.free || self.is_free_header(next, follower.size)))
    }

    /// Whether what looks like the header of a free fragment is one: any odd number in a payload
    /// does, so the header behind it must name it, or a list.
    fn is_free_header(&mut self, at: Addr, size: u64) -> bool {
        let named = match self.fields(self.behind(at, size)) {
            Ok(behind) => behind.previous_free && behind.previous == at,
            Err(_) => true,
        };
        named || self.lists().is_some_and(|lists| lists.contain(at))
    }

    fn link(&mut self, at: Addr) -> Option<Link> {
        let fields = self.fields(at).ok().filter(|fields| self.can_stand(at, fields))?;
        self.pool.visit();
        let next = self.behind(at, fields.size);
        self.is_followed(at, fields.free, next).ok().filter(|followed| *followed)?;
        let listed = |at| self.lists().is_some_and(|lists| lists.contain(at));
        // Without owners payload looks like a header too easily: only the lists tell one.
        let whole = fields.owner.is_some()
            || (fields.free && listed(at))
            || (fields.previous_free && listed(fields.previous));
        let used = if fields.free { 0 } else { fields.size };
        Some(Link { at, next, used, whole })
    }
}

impl Headers for TlsfHeaders<'_> {
    #[inline]
    fn read(&mut self, at: Addr, before: Option<Before>) -> Result<Header, BreakCause> {
        self.pool.visit();
        let fields = self.fields(at).map_err(BreakCause::Absent)?;
        let Fields { size, free, previous_free, previous, owner } = fields;
        let mut damage = Vec::new();
        if let Some(before) = before {
            if before.free != previous_free {
                damage.push(Damage::StateOfPrevious);
            } else if before.free && previous != before.header {
                damage.push(Damage::LinkToPrevious { found: previous });
            }
        }
        let payload = AddrRange::new(Addr(at.0.saturating_add(self.shape().next_free)), size);
        let next = self.behind(at, size);
        if size == 0 || !size.is_multiple_of(8) || next > self.pool.block.last {
            return Err(BreakCause::BadSize { size });
        }
        let whole = damage.is_empty() && self.can_stand(at, &fields);
        // A header that is not known cannot contradict this one.
        let followed = self.is_followed(at, free, next).unwrap_or(whole);
        let fragment = Fragment { header: at, payload, used: !free, owner, damage };
        Ok(Header { fragment, next, followed, whole })
    }

    /// Old headers say that they are free, and the header that follows names another one.
    fn may_hold_old_headers(&mut self, _: Addr) -> bool {
        false
    }

    /// They say that they are free, which the header behind a fragment in use denies.
    fn leave_old_headers(&self) -> bool {
        false
    }

    fn references(&self, within: AddrRange) -> References {
        References::gather(self.pool.memory, within)
    }

    fn end_of_run(&self, from: Addr, to: Addr) -> Addr {
        run::end_of_run(self.pool.memory, from, to)
    }

    fn payload(&self, header: Addr) -> Addr {
        Addr(header.0.saturating_add(self.shape().next_free))
    }

    fn links(&mut self, from: Addr) -> Vec<Link> {
        let size_at = self.shape().size;
        let last = self.pool.block.last;
        let longest = last.0.saturating_sub(from.0);
        let mut found = Vec::new();
        let words = Addr(from.0.saturating_add(size_at));
        islands::words(self.pool.memory, words, last, |at, value| {
            let size = value & !FLAGS;
            let room = found.len() < MOST_PLACES;
            if room && size > 0 && size <= longest && size.is_multiple_of(8) {
                found.extend(at.checked_sub(size_at));
            }
        });
        found.into_iter().filter_map(|at| self.link(at)).collect()
    }

    /// The next header's first word lies in the payload's last.
    fn behind(&self, header: Addr, size: u64) -> Addr {
        let payload = header.0.saturating_add(self.shape().next_free);
        Addr(payload.saturating_add(size).saturating_sub(SHARED_WORD))
    }

    fn lists(&self) -> Option<&FreeLists> {
        self.pool.lists()
    }

    fn expected(&self) -> Option<Expected> {
        self.pool.expected()
    }
}
