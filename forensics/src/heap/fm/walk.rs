//! The headers of `f_malloc`, from the first to `last_frag`.

use super::FMalloc;
use super::shape::Shape;
use crate::addr::{Addr, AddrRange};
use crate::heap::chain::{Before, Expected, Header, Headers};
use crate::heap::islands::{self, Link, MOST_PLACES};
use crate::heap::lists::FreeLists;
use crate::heap::pool::Pool;
use crate::heap::references::References;
use crate::heap::run;
use crate::heap::{BreakCause, Damage, Fragment, word};
use crate::memory::{Cursor, Known};
use crate::num::narrow;

/// In the header of every fragment, used or free.
pub(super) const CHECK: u64 = 0xf0f0_f0f0;
const CHECK_BYTES: [u8; 4] = [0xf0; 4];

pub(super) struct FmHeaders<'p> {
    pool: &'p Pool<'p, FMalloc>,
    cursor: Cursor<'p>,
}

impl<'p> FmHeaders<'p> {
    pub(super) fn new(pool: &'p Pool<'_, FMalloc>) -> Self {
        Self { pool, cursor: Cursor::new(pool.memory) }
    }

    fn shape(&self) -> Shape {
        self.pool.shape
    }

    /// Whether a header stands at `at`, or the pool ends there.
    fn is_boundary(&mut self, at: Addr) -> Known<bool> {
        // The check word was an `int` until 5.7 and is a `long` since.
        let check = Addr(at.0.saturating_add(self.shape().check));
        Ok(at == self.pool.block.last || self.cursor.bytes(check, 4)? == CHECK_BYTES)
    }

    fn link(&mut self, at: Addr) -> Option<Link> {
        let header = self.read(at, None).ok().filter(|header| header.followed && header.whole)?;
        let Fragment { payload, used, .. } = header.fragment;
        // Old headers say that they are in use: a manager clears the flag when it merges.
        let listed = |lists: &FreeLists| lists.may_contain(at, payload.length());
        let whole = used || self.lists().is_none_or(listed);
        let used = if used { payload.length() } else { 0 };
        Some(Link { at, next: header.next, used, whole })
    }
}

impl Headers for FmHeaders<'_> {
    #[inline]
    fn read(&mut self, at: Addr, _: Option<Before>) -> Result<Header, BreakCause> {
        let shape = self.shape();
        self.pool.visit();
        let bytes = self.cursor.bytes(at, narrow(shape.header)).map_err(BreakCause::Absent)?;
        let size = word(bytes, shape.size);
        let is_free = word(bytes, shape.is_free) & 0xffff_ffff;
        let check = word(bytes, shape.check) & 0xffff_ffff;
        let owner = shape.owner.map(|fields| fields.read(bytes));
        let payload = AddrRange::new(Addr(at.0.saturating_add(shape.header)), size);
        if size == 0 || !size.is_multiple_of(8) || payload.end > self.pool.block.last {
            return Err(BreakCause::BadSize { size });
        }
        let whole = check == CHECK;
        // A header that is not known cannot contradict this one.
        let followed = self.is_boundary(payload.end).unwrap_or(whole);
        let damage = match whole {
            true => Vec::new(),
            false => vec![Damage::StartCheck { found: check }],
        };
        let fragment = Fragment { header: at, payload, used: is_free == 0, owner, damage };
        Ok(Header { fragment, next: payload.end, followed, whole })
    }

    /// Unless its header is whole but for the size, and says that it is in use.
    fn may_hold_old_headers(&mut self, at: Addr) -> bool {
        let shape = self.shape();
        let in_use = |bytes: &[u8]| {
            word(bytes, shape.check) & 0xffff_ffff == CHECK
                && word(bytes, shape.is_free) & 0xffff_ffff == 0
        };
        !self.cursor.bytes(at, narrow(shape.header)).is_ok_and(in_use)
    }

    fn leave_old_headers(&self) -> bool {
        true
    }

    fn references(&self, within: AddrRange) -> References {
        References::gather(self.pool.memory, within)
    }

    fn end_of_run(&self, from: Addr, to: Addr) -> Addr {
        run::end_of_run(self.pool.memory, from, to)
    }

    fn payload(&self, header: Addr) -> Addr {
        self.behind(header, 0)
    }

    fn links(&mut self, from: Addr) -> Vec<Link> {
        let check = self.shape().check;
        let mut found = Vec::new();
        let words = Addr(from.0.saturating_add(check));
        islands::words(self.pool.memory, words, self.pool.block.last, |at, value| {
            if value & 0xffff_ffff == CHECK && found.len() < MOST_PLACES {
                found.extend(at.checked_sub(check));
            }
        });
        found.into_iter().filter_map(|at| self.link(at)).collect()
    }

    fn behind(&self, header: Addr, size: u64) -> Addr {
        Addr(header.0.saturating_add(self.shape().header).saturating_add(size))
    }

    fn lists(&self) -> Option<&FreeLists> {
        self.pool.lists()
    }

    fn expected(&self) -> Option<Expected> {
        self.pool.expected()
    }
}
