//! Walks along headers without trailers: `f_malloc` and TLSF.
//!
//! A fragment ends where its own header says, and only the header that follows can confirm it.
//! Where none follows, either this size is wrong or the next header is overwritten; what chains
//! behind, the free lists and the block's own count of fragments decide. Old headers in merged free
//! memory chain into true ones here, so a walk goes on behind a lost free fragment only past the
//! least size that its list tells. Merged memory that was allocated again keeps them, too: where an
//! old header would fit as well as the true chain, what the program points at decides, and where
//! that says nothing either, both are given up.

use super::infer::AtBreak;
use super::islands::{Islands, Link, Place};
use super::lists::FreeLists;
use super::references::References;
use super::{Break, BreakCause, Fragment, Step};
use crate::addr::{Addr, AddrRange};

/// So many headers in a row are believed though their chain ends at something broken and no free
/// list names one of them.
const RUN: u64 = 2;
/// So many headers in a row may be old ones. Where nothing points at any of them, nothing points at
/// true payloads either, and pointers say nothing.
const OLD_HEADERS: usize = 8;

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

    /// Whether merges leave headers behind that chain into true ones from inside a fragment in use.
    fn leave_old_headers(&self) -> bool;

    /// What points at which place.
    fn references(&self, within: AddrRange) -> References;

    /// How far the bytes at `from` go on like this, at most to `to`.
    fn end_of_run(&self, from: Addr, to: Addr) -> Addr;

    /// Where the payload begins.
    fn payload(&self, header: Addr) -> Addr;

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
    /// What points there.
    references: Option<References>,
    at_break: AtBreak,
}

impl<H: Headers> Walk<H> {
    /// From the first header to `last`, where the pool ends.
    pub(super) fn new(headers: H, first: Addr, last: Addr, at_break: AtBreak) -> Self {
        Self {
            headers,
            at: first,
            last,
            before: None,
            seen: NONE,
            islands: None,
            references: None,
            at_break,
        }
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
            // A chain that breaks before this fragment ends is one of old headers inside: else there
            // were two damages, not one.
            let ends_inside = place.reach < header.next && !place.is_sure();
            return place.at == header.next || ends_inside;
        }
        // If nothing but this fragment is missing up to there, it is longer than its header says,
        // or the next one's header is lost, and the place is an old one inside.
        let fits_a_longer_one =
            self.islands().leads_to_the_end(&place) && self.only_this_is_lost(&place);
        !fits_a_longer_one || self.is_lost_header(header.next, &place)
    }

    /// Whether a header stood at `at` whose fragment reaches beyond `place`.
    fn is_lost_header(&mut self, at: Addr, place: &Place) -> bool {
        self.headers.leave_old_headers()
            && !place.known
            && self.has_room(at, place.at)
            && self.is_pointed_at(at)
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
        let place = self.place_behind_one(from).or_else(|| self.first_start(from))?;
        match self.may_be_old(&place) {
            true => self.past_old_headers(place),
            false => Some(place.at),
        }
    }

    /// Whether `place` may lie inside a fragment whose header is lost, too.
    fn may_be_old(&mut self, place: &Place) -> bool {
        if !self.headers.leave_old_headers() || self.is_sure(place) {
            return false;
        }
        if !self.headers.may_hold_old_headers(self.at) {
            // Only its size can be wrong. If it is not, the next header is lost.
            let header = self.headers.read(self.at, self.before);
            return header.is_ok_and(|header| self.has_room(header.next, place.at));
        }
        // As many more as the counters miss, and the first one, which is sure.
        let missing = self.left().and_then(|left| left.fragments.checked_sub(place.run));
        self.lost_headers(place.at) >= missing.unwrap_or(1).max(1)
    }

    /// How many headers may have stood behind `self.at` and before `to` that are overwritten like
    /// the one at `self.at`: something points at the payload.
    fn lost_headers(&mut self, to: Addr) -> u64 {
        let end = self.headers.end_of_run(self.at, to);
        let least = self.least_length();
        let mut at = Addr(self.at.0.saturating_add(least));
        let mut count = 0_u64;
        while at <= end && self.has_room(at, to) {
            let is_lost = self.is_pointed_at(at) && self.islands().at(at).is_none();
            count = count.saturating_add(u64::from(is_lost));
            at = if is_lost { Addr(at.0.saturating_add(least)) } else { step(at) };
        }
        count
    }

    /// Where the chain from `place` meets a header that is no old one; `None` for the pool's end.
    fn past_old_headers(&mut self, place: Place) -> Option<Addr> {
        let mut old = place;
        for _ in 0..OLD_HEADERS {
            let Some(next) = self.islands().at(old.next) else {
                return (old.next != self.last).then_some(place.at);
            };
            if next.whole && self.is_sure(&next) {
                return Some(next.at);
            }
            old = next;
        }
        Some(place.at)
    }

    /// Whether a place is no old header: a free list names it, or something points at its payload.
    fn is_sure(&mut self, place: &Place) -> bool {
        place.known || self.is_pointed_at(place.at)
    }

    /// Whether something points at the payload of the header at `at`.
    fn is_pointed_at(&mut self, at: Addr) -> bool {
        let payload = self.headers.payload(at);
        let within = AddrRange { start: self.at, end: self.last };
        let headers = &self.headers;
        self.references.get_or_insert_with(|| headers.references(within)).lead_to(payload)
    }

    /// Whether a fragment fits between two places.
    fn has_room(&self, from: Addr, to: Addr) -> bool {
        to.offset_from(from).is_some_and(|room| room >= self.least_length())
    }

    /// The length of the shortest fragment with its header, in bytes.
    fn least_length(&self) -> u64 {
        self.headers.behind(Addr(0), 8).0
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
