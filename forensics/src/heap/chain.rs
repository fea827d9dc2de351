//! Walks along headers without trailers: `f_malloc` and TLSF.
//!
//! A fragment ends where its own header says, and only the header that follows can confirm it.
//! Where none follows, either this size is wrong or the next header is overwritten; what chains
//! behind, the free lists and the block's own count of fragments decide. Old headers in merged free
//! memory chain into true ones here, so a walk goes on behind a lost free fragment only past the
//! least size that its list tells.

use super::infer::AtBreak;
use super::islands::{Islands, Link, Place};
use super::lists::FreeLists;
use super::{Break, BreakCause, Fragment, Step};
use crate::addr::Addr;

/// Headers that chain without a place in the chain that is known must be so many to be believed.
const RUN: u64 = 2;

/// The headers of one manager.
pub(super) trait Headers {
    /// Reads the header at `at`; `before` is the fragment that leads there, if one does.
    ///
    /// # Errors
    /// [`BreakCause`] where the chain cannot go on.
    fn read(&mut self, at: Addr, before: Option<Before>) -> Result<Header, BreakCause>;

    /// Everything from `from` on that looks like a header which another one follows.
    fn links(&mut self, from: Addr) -> Vec<Link>;

    /// Where the next header stands behind a payload of `size` bytes.
    fn behind(&self, header: Addr, size: u64) -> Addr;

    /// The free lists.
    fn lists(&self) -> Option<&FreeLists>;

    /// How many fragments there should be.
    fn expected(&self) -> Option<u64>;
}

/// The fragment that leads to a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Before {
    pub(super) header: Addr,
    pub(super) free: bool,
}

/// What a header says.
pub(super) struct Header {
    pub(super) fragment: Fragment,
    /// Where the next one should stand.
    pub(super) next: Addr,
    /// One stands there, or the pool ends there.
    pub(super) followed: bool,
    /// It is as the allocator leaves it, as far as that can be told.
    pub(super) whole: bool,
}

/// Steps through a pool. Each step moves to a higher address, so it ends on any bytes.
pub(super) struct Walk<H> {
    headers: H,
    at: Addr,
    last: Addr,
    before: Option<Before>,
    /// Fragments so far.
    seen: u64,
    /// What stands behind the first break.
    islands: Option<Islands>,
    at_break: AtBreak,
}

impl<H: Headers> Walk<H> {
    /// From the first header to `last`, where the pool ends.
    pub(super) fn new(headers: H, first: Addr, last: Addr, at_break: AtBreak) -> Self {
        Self { headers, at: first, last, before: None, seen: 0, islands: None, at_break }
    }

    fn fragment(&mut self) -> Result<Header, BreakCause> {
        let header = self.headers.read(self.at, self.before)?;
        if header.followed || self.is_believed(&header) {
            return Ok(header);
        }
        Err(BreakCause::NoTrailer { size: header.fragment.payload.length() })
    }

    /// Whether the header at `self.at`, which none follows, has its true size.
    fn is_believed(&mut self, header: &Header) -> bool {
        if !header.whole || self.at_break == AtBreak::Stop {
            return false;
        }
        let size = header.fragment.payload.length();
        if let Some(fits) = self.headers.lists().and_then(|lists| lists.fits(self.at, size)) {
            return fits;
        }
        let behind = step(self.at);
        let one_lost = self.place_that_leaves(1, behind).is_some();
        let next_lost = self.place_that_leaves(2, step(header.next)).is_some();
        if one_lost != next_lost {
            return next_lost;
        }
        self.islands();
        let first = self.first_start(behind);
        first.is_none_or(|place| place.at >= header.next)
    }

    /// Where the chain goes on behind the fragment at `self.at`, which cannot be followed.
    fn resume(&mut self) -> Option<Addr> {
        let least = self.headers.lists().and_then(|lists| lists.least_size(self.at));
        let from = match least {
            Some(size) => self.headers.behind(self.at, size),
            None => step(self.at),
        };
        let place = self.place_that_leaves(1, from).or_else(|| self.first_start(from));
        place.map(|place| place.at)
    }

    /// The place from `from` on that leads to the end so that exactly `lost` fragments are missing.
    fn place_that_leaves(&mut self, lost: u64, from: Addr) -> Option<Place> {
        let known = self.seen.saturating_add(lost);
        let run = self.headers.expected()?.checked_sub(known)?;
        let place = self.islands().with_run(run, from)?;
        place.whole.then_some(place)
    }

    /// The first place from `from` on where the walk may go on.
    fn first_start(&mut self, from: Addr) -> Option<Place> {
        let islands = self.islands();
        let is_start = |place: &Place| {
            place.whole && (islands.leads_to_the_end(place) || place.sure || place.run >= RUN)
        };
        islands.from(from).find(is_start)
    }

    fn islands(&mut self) -> &Islands {
        if self.islands.is_none() {
            let links = self.headers.links(step(self.at));
            let lists = self.headers.lists();
            let listed = |at| lists.is_some_and(|lists| lists.contain(at));
            self.islands = Some(Islands::new(links, self.last, listed));
        }
        self.islands.get_or_insert_default()
    }
}

/// Headers stand at multiples of 8.
fn step(at: Addr) -> Addr {
    Addr(at.0.saturating_add(8))
}

impl<H: Headers> Iterator for Walk<H> {
    type Item = Step;

    #[inline]
    fn next(&mut self) -> Option<Step> {
        if self.at >= self.last {
            return None;
        }
        match self.fragment() {
            Ok(header) => {
                self.before = Some(Before { header: self.at, free: !header.fragment.used });
                self.at = header.next;
                self.seen = self.seen.saturating_add(1);
                Some(Step::Fragment(header.fragment))
            }
            Err(why) => {
                let at = self.at;
                let resumed_at = match self.at_break {
                    AtBreak::Stop => None,
                    AtBreak::Resume => self.resume(),
                };
                self.before = None;
                self.at = resumed_at.unwrap_or(self.last);
                let lost = self.at.0.saturating_sub(at.0);
                Some(Step::Break(Break { at, why, lost, resumed_at }))
            }
        }
    }
}
