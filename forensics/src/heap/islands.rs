//! What stands behind a break: places that look like headers, and how far a chain leads from each.
//!
//! A header that merely looks right is never believed: merged and reused memory is full of old
//! ones. What counts is where its chain ends. Every place is read once, from the pool's end
//! backwards, so the work grows with the pool and not with the damage.

use super::lists::FreeLists;
use crate::addr::Addr;
use crate::memory::{Cursor, Memory};
use crate::num::{narrow, wide};

/// Bytes that are searched in one walk; hostile headers can promise any number.
const SEARCHED: u64 = 1 << 34;
const PAGE: u64 = 4096;
/// Places that are kept in one walk; there is no pool of so many fragments.
pub(super) const MOST_PLACES: usize = 1 << 24;

/// From one place to the next, as a header or a trailer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Link {
    /// Where the fragment's header stands.
    pub(super) at: Addr,
    /// Where the next one's does.
    pub(super) next: Addr,
    /// Its payload if it is in use, in bytes.
    pub(super) used: u64,
    /// Whether the fragment is whole, so that a walk may go on with it.
    pub(super) whole: bool,
}

/// A place, and where the chain from it leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) at: Addr,
    /// Where the next header stands.
    pub(super) next: Addr,
    /// Where the chain ends: at the limit, or at something that is no header.
    pub(super) reach: Addr,
    /// Fragments up to there.
    pub(super) run: u64,
    /// Payload of those in use, in bytes.
    pub(super) used: u64,
    /// Whether a walk may go on with it.
    pub(super) whole: bool,
    /// Whether this place is known to be a header.
    pub(super) known: bool,
    /// Whether the chain leads on to a place that is.
    pub(super) leads: bool,
}

impl Place {
    /// Whether its chain passes a place that is known to be a header.
    pub(super) fn is_sure(&self) -> bool {
        self.known || self.leads
    }
}

/// All places behind a break.
#[derive(Debug, Default)]
pub(super) struct Islands {
    /// By falling address.
    places: Vec<Place>,
    /// Those that lead to the limit: fragments up to there, and where.
    by_run: Vec<(u64, Addr)>,
    limit: Addr,
}

impl Islands {
    /// Follows the links up to `limit`, beside the free lists: what lies inside a free fragment that a list names are old
    /// headers, and what a list names is one. `behind` gives the next header behind a payload.
    pub(super) fn beside(
        lists: Option<&FreeLists>,
        mut links: Vec<Link>,
        limit: Addr,
        behind: impl Fn(Addr, u64) -> Addr + Copy,
    ) -> Self {
        if let Some(lists) = lists {
            let is_old = |at| lists.enclose(at, behind);
            links.retain(|link| !is_old(link.at) && !is_old(link.next));
        }
        Self::new(links, limit, |at| lists.is_some_and(|lists| lists.name(at)))
    }

    /// Follows the links up to `limit`, which is known to be the end or a header. `is_header` says
    /// which other places are known to be one.
    pub(super) fn new(mut links: Vec<Link>, limit: Addr, is_header: impl Fn(Addr) -> bool) -> Self {
        links.retain(|link| link.at < link.next && link.next <= limit);
        links.sort_unstable_by(|one, other| other.cmp(one));
        let mut islands =
            Self { places: Vec::with_capacity(links.len()), by_run: Vec::new(), limit };
        for link in links {
            let place = islands.place(link, &is_header);
            match islands.places.last_mut().filter(|last| last.at == place.at) {
                // Several trailers name this header: old ones lead into old headers, whose chain
                // soon ends.
                Some(last) if (last.leads, last.reach) < (place.leads, place.reach) => {
                    *last = place
                }
                Some(_) => {}
                None => islands.places.push(place),
            }
        }
        let to_the_end = islands.places.iter().filter(|place| place.reach == limit);
        islands.by_run = to_the_end.map(|place| (place.run, place.at)).collect();
        islands.by_run.sort_unstable();
        islands
    }

    /// The first place from `from` on with so many fragments up to the limit.
    pub(super) fn with_run(&self, run: u64, from: Addr) -> Option<Place> {
        let index = self.by_run.partition_point(|entry| *entry < (run, from));
        let (_, at) = self.by_run.get(index).filter(|(found, _)| *found == run)?;
        self.at(*at)
    }

    fn place(&self, link: Link, is_header: &impl Fn(Addr) -> bool) -> Place {
        let known = is_header(link.at);
        let Link { at, next, used, whole } = link;
        let Some(follower) = self.at(next) else {
            let leads = next == self.limit || is_header(next);
            return Place { at, next, reach: next, run: 1, used, whole, leads, known };
        };
        Place {
            at,
            next,
            reach: follower.reach,
            run: follower.run.saturating_add(1),
            used: follower.used.saturating_add(used),
            whole,
            known,
            leads: follower.is_sure(),
        }
    }

    /// The place at an address.
    pub(super) fn at(&self, at: Addr) -> Option<Place> {
        let index = self.places.binary_search_by(|place| at.cmp(&place.at)).ok()?;
        self.places.get(index).copied()
    }

    /// The places at `from` and behind it, by rising address.
    pub(super) fn from(&self, from: Addr) -> impl Iterator<Item = Place> {
        let end = self.places.partition_point(|place| place.at >= from);
        self.places.iter().take(end).rev().copied()
    }

    /// Whether the chain from a place leads to the limit.
    pub(super) fn leads_to_the_end(&self, place: &Place) -> bool {
        place.reach == self.limit
    }
}

/// Hands every saved word from `from` to `to` to `visit`; both are multiples of 8.
pub(super) fn words(memory: &dyn Memory, from: Addr, to: Addr, mut visit: impl FnMut(Addr, u64)) {
    let mut cursor = Cursor::new(memory);
    let mut at = from;
    let mut budget = SEARCHED;
    while at < to && budget > 0 {
        let Ok(piece) = cursor.piece(at) else {
            // A hole, or damaged compression: behind the page there may be bytes again.
            budget = budget.saturating_sub(PAGE);
            let behind = Addr((at.0 | PAGE.saturating_sub(1)).saturating_add(1));
            let from = memory.next_saved(at).filter(|next| *next > at).unwrap_or(behind);
            match memory.next_saved(from) {
                Some(next) => at = Addr(next.0.checked_next_multiple_of(8).unwrap_or(u64::MAX)),
                None => return,
            }
            continue;
        };
        let wanted = to.0.saturating_sub(at.0).min(budget);
        let piece = piece.get(..narrow(wanted)).unwrap_or(piece);
        let (words, _) = piece.as_chunks::<8>();
        for (number, word) in words.iter().enumerate() {
            let here = at.0.saturating_add(wide(number).saturating_mul(8));
            visit(Addr(here), u64::from_le_bytes(*word));
        }
        let mut read = wide(words.len()).saturating_mul(8);
        if words.is_empty() {
            // The piece ends within a word.
            if let Ok(bytes) = cursor.bytes(at, 8) {
                visit(at, super::word(bytes, 0));
            }
            read = 8;
        }
        budget = budget.saturating_sub(read);
        at = Addr(at.0.saturating_add(read));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(at: u64, next: u64) -> Link {
        Link { at: Addr(at), next: Addr(next), used: 8, whole: true }
    }

    #[test]
    fn a_chain_reaches_as_far_as_its_links() {
        let links = vec![link(8, 24), link(24, 40), link(40, 64), link(32, 48), link(16, 24)];
        let islands = Islands::new(links, Addr(64), |_| false);
        let seen: Vec<_> =
            islands.from(Addr(0)).map(|p| (p.at.0, p.reach.0, p.run, p.is_sure())).collect();
        assert_eq!(
            seen,
            [
                (8, 64, 3, true),
                (16, 64, 3, true),
                (24, 64, 2, true),
                (32, 48, 1, false),
                (40, 64, 1, true)
            ]
        );
        assert!(islands.leads_to_the_end(&islands.at(Addr(8)).unwrap()));
        assert_eq!(islands.from(Addr(25)).next().unwrap().at, Addr(32));
        assert_eq!(islands.at(Addr(48)), None);
    }

    #[test]
    fn a_chain_that_passes_a_known_header_is_sure() {
        let links = vec![link(8, 16), link(16, 24), link(40, 48)];
        let islands = Islands::new(links, Addr(64), |at| at == Addr(16));
        let sure: Vec<_> = islands.from(Addr(0)).map(|place| place.is_sure()).collect();
        assert_eq!(sure, [true, true, false]);
    }

    #[test]
    fn of_two_ends_of_a_fragment_the_one_that_leads_further_counts() {
        let links = vec![link(8, 16), link(8, 32), link(16, 24), link(32, 64)];
        let islands = Islands::new(links, Addr(64), |_| false);
        assert_eq!(islands.at(Addr(8)).unwrap().next, Addr(32));
    }

    #[test]
    fn links_that_lead_nowhere_are_dropped() {
        let links = vec![link(8, 8), link(16, 8), link(24, 72)];
        assert!(Islands::new(links, Addr(64), |_| false).from(Addr(0)).next().is_none());
    }
}
