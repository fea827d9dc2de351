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

/// So many headers in a row are believed though their chain ends at something broken and no free
/// list names one of them.
const RUN: u64 = 2;

/// What a block's counters say that there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Expected {
    /// Fragments, used and free.
    pub(super) fragments: u64,
    /// Payload of those in use, in bytes.
    pub(super) used: u64,
}

/// The headers of one manager.
pub(super) trait Headers {
    /// Reads the header at `at`; `before` is the fragment that leads there, if one does.
    ///
    /// # Errors
    /// [`BreakCause`] where the chain cannot go on.
    fn read(&mut self, at: Addr, before: Option<Before>) -> Result<Header, BreakCause>;

    /// Whether the fragment at `at`, whose size is not known, may be a free one that holds headers
    /// which merges left behind and which chain into true ones.
    fn may_hold_old_headers(&mut self, at: Addr) -> bool;

    /// Everything from `from` on that looks like a header which another one follows.
    fn links(&mut self, from: Addr) -> Vec<Link>;

    /// Where the next header stands behind a payload of `size` bytes.
    fn behind(&self, header: Addr, size: u64) -> Addr;

    /// The free lists.
    fn lists(&self) -> Option<&FreeLists>;

    /// What there should be; `None` where the block's counters contradict themselves.
    fn expected(&self) -> Option<Expected>;
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
    /// Fragments so far, and the payload of those in use.
    seen: Expected,
    /// What stands behind the first break.
    islands: Option<Islands>,
    at_break: AtBreak,
}

impl<H: Headers> Walk<H> {
    /// From the first header to `last`, where the pool ends.
    pub(super) fn new(headers: H, first: Addr, last: Addr, at_break: AtBreak) -> Self {
        Self { headers, at: first, last, before: None, seen: NONE, islands: None, at_break }
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
        let lists = self.headers.lists();
        let exact = lists.and_then(|lists| lists.exact_size(self.at)).is_some();
        match lists.and_then(|lists| lists.fits(self.at, size)) {
            Some(fits) if exact || !fits => return fits,
            _ => {}
        }
        let unlisted = |lists: &FreeLists| !lists.may_contain(self.at, size);
        if !header.fragment.used && lists.is_some_and(unlisted) {
            return false;
        }
        let from = self.least_end();
        let Some(place) = self.first_start(from) else { return true };
        if place.at <= header.next {
            return place.at == header.next;
        }
        // If nothing but this fragment is missing up to there, it is longer than its header says.
        !self.islands().leads_to_the_end(&place) || !self.only_this_is_lost(&place)
    }

    /// Where the chain goes on behind the fragment at `self.at`, which cannot be followed.
    fn resume(&mut self) -> Option<Addr> {
        let lists = self.headers.lists();
        let exact = lists.and_then(|lists| lists.exact_size(self.at));
        if let Some(next) = exact.map(|size| self.headers.behind(self.at, size))
            && self.islands().at(next).is_some_and(|place| place.whole)
        {
            return Some(next);
        }
        let from = self.least_end();
        let place = self.place_behind_one(from).or_else(|| self.first_start(from));
        place.map(|place| place.at)
    }

    /// The first place where the fragment at `self.at` can end.
    fn least_end(&self) -> Addr {
        let least = self.headers.lists().and_then(|lists| lists.least_size(self.at));
        least.map_or_else(|| step(self.at), |size| self.headers.behind(self.at, size))
    }

    /// The place from `from` on that leads to the end so that one fragment is missing.
    fn place_behind_one(&mut self, from: Addr) -> Option<Place> {
        let left = self.left()?;
        let run = left.fragments.checked_sub(1)?;
        let place = self.islands().with_run(run, from)?;
        (place.whole && self.only_this_is_lost(&place)).then_some(place)
    }

    /// Whether one fragment, from `self.at` to a place that leads to the end, makes up for all that
    /// the counters miss.
    fn only_this_is_lost(&self, place: &Place) -> bool {
        let Some(left) = self.left() else { return false };
        let payload = place.at.offset_from(self.headers.behind(self.at, 0));
        let used = left.used.checked_sub(place.used);
        place.run.checked_add(1) == Some(left.fragments) && (used == Some(0) || used == payload)
    }

    /// The first place from `from` on where the walk may go on.
    fn first_start(&mut self, from: Addr) -> Option<Place> {
        let left = self.left();
        self.islands();
        // What a broken list no longer names may be a free fragment with old headers inside.
        let named = self.headers.lists().is_none_or(FreeLists::is_cut)
            && self.headers.may_hold_old_headers(self.at);
        let islands = self.islands();
        let is_start = |place: &Place| match islands.leads_to_the_end(place) {
            // One fragment at least is lost.
            true => left.is_none_or(|left| place.run < left.fragments && place.used <= left.used),
            false if named => place.known,
            false => place.is_sure() || place.run >= RUN,
        };
        islands.from(from).find(|place| place.whole && is_start(place))
    }

    /// What the counters leave behind what was seen so far.
    fn left(&self) -> Option<Expected> {
        let expected = self.headers.expected()?;
        Some(Expected {
            fragments: expected.fragments.checked_sub(self.seen.fragments)?,
            used: expected.used.checked_sub(self.seen.used)?,
        })
    }

    fn islands(&mut self) -> &Islands {
        if self.islands.is_none() {
            let links = self.headers.links(step(self.at));
            let behind = |header, size| self.headers.behind(header, size);
            let lists = self.headers.lists();
            self.islands = Some(Islands::beside(lists, links, self.last, behind));
        }
        self.islands.get_or_insert_default()
    }
}

const NONE: Expected = Expected { fragments: 0, used: 0 };

impl Expected {
    #[inline]
    fn count(&mut self, fragment: &Fragment) {
        self.fragments = self.fragments.saturating_add(1);
        if fragment.used {
            self.used = self.used.saturating_add(fragment.payload.length());
        }
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
                self.seen.count(&header.fragment);
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
