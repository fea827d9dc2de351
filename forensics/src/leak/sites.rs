//! Damaged places of a pool, each with what stands around it.

use std::array;

use crate::heap::Neighbour;

/// Fragments that are kept on either side.
const NEIGHBOURS: usize = 3;
/// Places of one kind that are kept; the rest is counted.
const KEPT: usize = 1000;

/// Something damaged, and the fragments around it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site<T> {
    /// What is damaged.
    pub what: T,
    /// The fragments that end right before it, nearest first; at most three.
    pub before: Vec<Neighbour>,
    /// The fragments behind it, nearest first; at most three.
    pub after: Vec<Neighbour>,
}

/// All sites of one kind, by rising address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sites<T> {
    /// The first 1,000.
    pub kept: Vec<Site<T>>,
    /// How many there are.
    pub count: u64,
}

impl<T> Default for Sites<T> {
    fn default() -> Self {
        Self { kept: Vec::new(), count: 0 }
    }
}

impl<T> Sites<T> {
    /// Adds a place that follows the `recent` fragments.
    pub(super) fn push(&mut self, what: T, recent: &Recent) {
        self.count = self.count.saturating_add(1);
        if self.kept.len() < KEPT {
            self.kept.push(Site { what, before: recent.nearest_first(), after: Vec::new() });
        }
    }

    /// Tells the last sites what stands behind them.
    #[inline]
    pub(super) fn followed_by(&mut self, fragment: &Neighbour) {
        let open = self.kept.iter_mut().rev().take_while(|site| site.after.len() < NEIGHBOURS);
        for site in open {
            site.after.push(*fragment);
        }
    }
}

/// The last fragments of a walk.
#[derive(Clone, Debug, Default)]
pub(super) struct Recent {
    last: [Option<Neighbour>; NEIGHBOURS],
    count: usize,
}

impl Recent {
    #[inline]
    pub(super) fn push(&mut self, fragment: Neighbour) {
        if let Some(place) = self.last.get_mut(self.count.wrapping_rem(NEIGHBOURS)) {
            *place = Some(fragment);
        }
        self.count = self.count.wrapping_add(1);
    }

    /// Behind a break nothing is a neighbour.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// The last fragment.
    pub(super) fn nearest(&self) -> Option<Neighbour> {
        self.back(0)
    }

    fn nearest_first(&self) -> Vec<Neighbour> {
        let all = array::from_fn::<_, NEIGHBOURS, _>(|steps| self.back(steps));
        all.into_iter().flatten().collect()
    }

    fn back(&self, steps: usize) -> Option<Neighbour> {
        let index = self.count.checked_sub(steps.saturating_add(1))?;
        self.last.get(index.wrapping_rem(NEIGHBOURS)).copied().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::{Addr, AddrRange};

    fn fragment(number: u64) -> Neighbour {
        let header = Addr(number * 0x100);
        Neighbour { header, payload: AddrRange::new(header, 8), used: true, owner: None }
    }

    #[test]
    fn a_site_has_three_neighbours_on_either_side() {
        let (mut recent, mut sites) = (Recent::default(), Sites::default());
        for number in 1..=5 {
            recent.push(fragment(number));
        }
        sites.push("damage", &recent);
        for number in 6..=9 {
            sites.followed_by(&fragment(number));
        }
        let site = &sites.kept[0];
        assert_eq!(site.before, [5, 4, 3].map(fragment));
        assert_eq!(site.after, [6, 7, 8].map(fragment));
        recent.clear();
        sites.push("at the start", &recent);
        assert_eq!(sites.kept[1].before, []);
    }
}
