//! One walk over a pool, summed: recomputed counters, totals by owner, damage.

use rustc_hash::FxHashMap;

use super::Sizes;
use crate::heap::{Arena, Break, Fragment, Neighbour, Owner, Step, Tally};

/// Damaged fragments that are kept for the report; the rest is counted.
const DAMAGED_KEPT: usize = 1000;

/// What a walk is to keep.
#[derive(Clone, Copy, Debug, Default)]
pub struct SummaryOptions {
    /// Leave the first so many used fragments out of the owners' totals, as the vendor's guide
    /// does with what was allocated at start-up.
    pub skip_first: u64,
    /// Keep every fragment, for lists and for comparing processes.
    pub keep_fragments: bool,
}

/// What one owner holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwnerTotals {
    /// Who; all null in builds that do not record it.
    pub owner: Owner,
    /// Used fragments.
    pub fragments: u64,
    /// Their payload, in bytes.
    pub bytes: u64,
    /// Smallest payload, in bytes.
    pub smallest: u64,
    /// Largest payload, in bytes.
    pub largest: u64,
    /// Of `fragments`: those inherited from the main process at fork.
    pub inherited_fragments: u64,
    /// Of `bytes`: those inherited from the main process at fork.
    pub inherited_bytes: u64,
}

/// What a walk found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Fragments in use.
    pub used_fragments: u64,
    /// Their payload, in bytes.
    pub used_bytes: u64,
    /// Free fragments.
    pub free_fragments: u64,
    /// Their payload, in bytes.
    pub free_bytes: u64,
    /// Payload of the largest of them, in bytes.
    pub largest_free: u64,
    /// The used payload with overhead, in bytes, as the manager counts it in `real_used`.
    pub real_used_bytes: u64,
    /// Whether the walk reached the pool's own end mark without a break.
    pub complete: bool,
    /// Bytes of the pool that lie in no fragment the walk saw.
    pub lost_bytes: u64,
    /// Where the chain is broken, each with the fragment before it; at most 1,000.
    pub breaks: Vec<(Break, Option<Neighbour>)>,
    /// How often the chain is broken.
    pub break_count: u64,
    /// Fragments with damage, each with the fragment before it; at most 1,000.
    pub damaged: Vec<(Fragment, Option<Neighbour>)>,
    /// How many fragments have damage.
    pub damaged_count: u64,
    /// Used fragments left out of `owners` by `skip_first`.
    pub skipped_fragments: u64,
    /// The sizes of all fragments.
    pub sizes: Sizes,
    /// Totals by owner, most bytes first.
    pub owners: Vec<OwnerTotals>,
    /// Inherited fragments without an owner, by payload in bytes.
    pub inherited_sizes: FxHashMap<u64, u64>,
    /// Every fragment by rising address, if they were asked for.
    pub fragments: Vec<Fragment>,
}

/// Walks a pool once.
pub fn summarise(arena: &dyn Arena, options: SummaryOptions) -> Summary {
    let mut summary = Summary { complete: true, ..Summary::default() };
    let mut owners: FxHashMap<Owner, OwnerTotals> = FxHashMap::default();
    let mut before: Option<Neighbour> = None;
    for step in arena.walk() {
        match step {
            Step::Fragment(fragment) => {
                summary.sizes.add(&fragment);
                let counted = summary.count(&fragment);
                if counted && summary.used_fragments > options.skip_first {
                    add(&mut owners, &fragment);
                }
                if !fragment.damage.is_empty() {
                    summary.damaged_count = summary.damaged_count.saturating_add(1);
                    if summary.damaged.len() < DAMAGED_KEPT {
                        summary.damaged.push((fragment.clone(), before));
                    }
                }
                before = Some(Neighbour::from(&fragment));
                if options.keep_fragments {
                    summary.fragments.push(fragment);
                }
            }
            Step::Break(found) => {
                summary.complete = false;
                summary.lost_bytes = summary.lost_bytes.saturating_add(found.lost);
                summary.break_count = summary.break_count.saturating_add(1);
                if summary.breaks.len() < DAMAGED_KEPT {
                    summary.breaks.push((found, before));
                }
                before = None;
            }
        }
    }
    summary.real_used_bytes = arena.real_used(Tally {
        used_fragments: summary.used_fragments,
        used_bytes: summary.used_bytes,
        free_fragments: summary.free_fragments,
    });
    summary.skipped_fragments = options.skip_first.min(summary.used_fragments);
    summary.owners = owners.into_values().collect();
    summary.owners.sort_by(|one, other| {
        other.bytes.cmp(&one.bytes).then_with(|| one.owner.cmp(&other.owner))
    });
    summary
}

impl Summary {
    /// Counts a fragment; whether it is used.
    fn count(&mut self, fragment: &Fragment) -> bool {
        let length = fragment.payload.length();
        if fragment.used {
            self.used_fragments = self.used_fragments.saturating_add(1);
            self.used_bytes = self.used_bytes.saturating_add(length);
        } else {
            self.free_fragments = self.free_fragments.saturating_add(1);
            self.free_bytes = self.free_bytes.saturating_add(length);
            self.largest_free = self.largest_free.max(length);
        }
        fragment.used
    }
}

fn add(owners: &mut FxHashMap<Owner, OwnerTotals>, fragment: &Fragment) {
    let owner = fragment.owner.unwrap_or_default();
    let length = fragment.payload.length();
    let totals = owners.entry(owner).or_insert(OwnerTotals {
        owner,
        smallest: u64::MAX,
        ..OwnerTotals::default()
    });
    totals.fragments = totals.fragments.saturating_add(1);
    totals.bytes = totals.bytes.saturating_add(length);
    totals.smallest = totals.smallest.min(length);
    totals.largest = totals.largest.max(length);
}
