//! Fragments of private pools that every process got from the main one at fork: they are one
//! allocation seen many times, and would hide what a worker itself holds.
//!
//! A fragment counts as inherited if the main process has one at the same address, of the same
//! size and owner. Without the main process every other pool of the group must have it.

use rustc_hash::FxHashSet;

use super::Summary;
use crate::addr::Addr;
use crate::heap::{Fragment, Owner};
use crate::num::narrow;

/// What makes two fragments of two processes the same allocation.
type Identity = (Addr, u64, Owner);

fn identity(fragment: &Fragment) -> Identity {
    (fragment.header, fragment.payload.length(), fragment.owner.unwrap_or_default())
}

/// Fills in the inherited totals of every private pool. `main` is the index of the main process's
/// pool; it inherits nothing. Needs summaries that kept their fragments.
pub fn mark_inherited(pools: &mut [&mut Summary], main: Option<usize>) {
    let sets: Vec<FxHashSet<Identity>> = pools
        .iter()
        .map(|pool| pool.fragments.iter().filter(|f| f.used).map(identity).collect())
        .collect();
    if sets.len() < 2 {
        return;
    }
    for (index, pool) in pools.iter_mut().enumerate() {
        if Some(index) == main {
            continue;
        }
        let others = |fragment: &Identity| match main {
            Some(main) => sets.get(main).is_some_and(|set| set.contains(fragment)),
            None => sets.iter().all(|set| set.contains(fragment)),
        };
        let inherited: Vec<Identity> = pool
            .fragments
            .iter()
            .filter(|fragment| fragment.used)
            // What `skip_first` left out of the totals must not come back here.
            .skip(narrow(pool.skipped_fragments))
            .map(identity)
            .filter(others)
            .collect();
        for (_, length, owner) in inherited {
            if owner == Owner::default() {
                let count = pool.inherited_sizes.entry(length).or_default();
                *count = count.saturating_add(1);
            }
            if let Some(totals) = pool.owners.iter_mut().find(|totals| totals.owner == owner) {
                totals.inherited_fragments = totals.inherited_fragments.saturating_add(1);
                totals.inherited_bytes = totals.inherited_bytes.saturating_add(length);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::OwnerTotals;
    use super::*;
    use crate::addr::AddrRange;

    fn pool(fragments: &[(u64, u64)]) -> Summary {
        let mut summary = Summary::default();
        let mut totals = OwnerTotals::default();
        for &(at, length) in fragments {
            totals.fragments += 1;
            totals.bytes += length;
            summary.fragments.push(Fragment {
                header: Addr(at),
                payload: AddrRange::new(Addr(at + 64), length),
                used: true,
                owner: Some(Owner::default()),
                damage: Vec::new(),
            });
        }
        summary.owners.push(totals);
        summary
    }

    fn marked(main: Option<usize>) -> Vec<(u64, u64)> {
        let mut main_pool = pool(&[(0x1000, 16), (0x2000, 32), (0x3000, 8)]);
        let mut one = pool(&[(0x1000, 16), (0x2000, 48), (0x4000, 8)]);
        let mut two = pool(&[(0x1000, 16), (0x3000, 8)]);
        mark_inherited(&mut [&mut main_pool, &mut one, &mut two], main);
        [main_pool, one, two]
            .iter()
            .map(|pool| (pool.owners[0].inherited_fragments, pool.owners[0].inherited_bytes))
            .collect()
    }

    #[test]
    fn what_the_main_process_has_too_is_inherited() {
        assert_eq!(marked(Some(0)), [(0, 0), (1, 16), (2, 24)]);
    }

    #[test]
    fn without_owners_they_are_counted_by_size() {
        let mut main = pool(&[(0x1000, 16), (0x2000, 16), (0x3000, 8)]);
        let mut worker = pool(&[(0x1000, 16), (0x2000, 16), (0x4000, 16)]);
        mark_inherited(&mut [&mut main, &mut worker], Some(0));
        assert!(main.inherited_sizes.is_empty());
        assert_eq!(worker.inherited_sizes.into_iter().collect::<Vec<_>>(), [(16, 2)]);
    }

    #[test]
    fn without_the_main_process_all_must_have_it() {
        assert_eq!(marked(None), [(1, 16), (1, 16), (1, 16)]);
    }
}
