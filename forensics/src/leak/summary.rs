//! One walk over a pool, summed: recomputed counters, totals by owner, damage.

use std::cmp::Reverse;
use std::iter::Peekable;

use rustc_hash::FxHashMap;

use super::sites::Recent;
use super::{Sites, Sizes, Used};
use crate::addr::{Addr, AddrRange};
use crate::heap::{
    Arena, Break, BreakCause, Fragment, FreeLists, ListFault, Neighbour, Owner, RollCall, Step,
    Tally,
};
use crate::num::narrow;

/// What a walk is to keep.
#[derive(Clone, Copy, Debug, Default)]
pub struct SummaryOptions {
    /// Leave the first so many used fragments out of the owners' totals, as the vendor's guide
    /// does with what was allocated at start-up.
    pub skip_first: u64,
    /// Keep every fragment, for lists and for comparing processes.
    pub keep_fragments: bool,
    /// Keep every used fragment in short, for following pointers.
    pub keep_used: bool,
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
    /// Payload of the first fragment.
    pub example: Addr,
    /// The fragment that ends right before that one.
    pub before: Option<Neighbour>,
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
    /// How many fragments the block's own counters imply; `None` where they cannot be true.
    pub expected_fragments: Option<u64>,
    /// Fragment headers that were read for all this.
    pub header_visits: u64,
    /// Where the chain is broken.
    pub breaks: Sites<Break>,
    /// Where it cannot be followed because its bytes are not in the input.
    pub holes: Sites<Break>,
    /// Fragments with damage.
    pub damaged: Sites<Fragment>,
    /// What is wrong with the lists of free fragments.
    pub list_faults: Sites<ListFault>,
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
    /// Every used fragment by rising address, its owner an index into `owners`, if they were asked
    /// for.
    pub used: Vec<Used>,
    /// Where the walk lost its way: bytes that lie in no fragment.
    pub unread: Vec<AddrRange>,
}

/// Walks a pool once.
pub fn summarise(arena: &dyn Arena, options: SummaryOptions) -> Summary {
    let mut summary = Summary { complete: true, ..Summary::default() };
    let mut owners = Owners::default();
    let mut recent = Recent::default();
    let mut lists = arena.free_lists().map(|lists| ListCheck::new(lists, arena));
    for step in arena.walk() {
        match step {
            Step::Fragment(fragment) => {
                summary.sizes.add(&fragment);
                let counted = summary.count(&fragment);
                if counted && summary.used_fragments > options.skip_first {
                    let owner = owners.add(&fragment, &recent);
                    if options.keep_used {
                        summary.used.push(Used::new(fragment.payload, owner));
                    }
                }
                let neighbour = Neighbour::from(&fragment);
                summary.followed_by(&neighbour);
                if let Some(lists) = &mut lists {
                    lists.fragment(&fragment, &mut summary.list_faults, &recent);
                }
                if !fragment.damage.is_empty() {
                    summary.damaged.push(fragment.clone(), &recent);
                }
                recent.push(neighbour);
                if options.keep_fragments {
                    summary.fragments.push(fragment);
                }
            }
            Step::Break(found) => {
                summary.complete = false;
                summary.lost_bytes = summary.lost_bytes.saturating_add(found.lost);
                summary.unread.push(AddrRange::new(found.at, found.lost));
                match found.why {
                    BreakCause::Absent(_) => summary.holes.push(found, &recent),
                    _ => summary.breaks.push(found, &recent),
                }
                recent.clear();
            }
        }
    }
    if let Some(lists) = lists {
        lists.finish(&mut summary.list_faults);
    }
    summary.real_used_bytes = arena.real_used(Tally {
        used_fragments: summary.used_fragments,
        used_bytes: summary.used_bytes,
        free_fragments: summary.free_fragments,
    });
    summary.expected_fragments = arena.expected_fragments();
    summary.header_visits = arena.visits();
    summary.skipped_fragments = options.skip_first.min(summary.used_fragments);
    summary.owners = owners.by_bytes(&mut summary.used);
    summary
}

/// The lists of free fragments beside the walk.
struct ListCheck<'a> {
    roll_call: RollCall<'a>,
    /// Faults that the lists show by themselves, at fragments of the pool, by rising address.
    in_pool: Peekable<std::vec::IntoIter<ListFault>>,
    /// The others: at the lists' heads.
    elsewhere: Vec<ListFault>,
}

impl<'a> ListCheck<'a> {
    fn new(lists: &'a FreeLists, arena: &dyn Arena) -> Self {
        let first = arena.first_fragment();
        let (mut in_pool, elsewhere): (Vec<ListFault>, Vec<ListFault>) =
            lists.faults.iter().cloned().partition(|fault| fault.at >= first);
        in_pool.sort_by_key(|fault| fault.at);
        Self { roll_call: lists.roll_call(), in_pool: in_pool.into_iter().peekable(), elsewhere }
    }

    #[inline]
    fn fragment(&mut self, fragment: &Fragment, found: &mut Sites<ListFault>, recent: &Recent) {
        // A header of TLSF begins in the last word of the payload before it.
        let end = Addr(fragment.payload.end.0.saturating_sub(8));
        while let Some(fault) = self.in_pool.next_if(|fault| fault.at < end) {
            found.push(fault, recent);
        }
        if let Some(fault) = self.roll_call.fragment(fragment) {
            found.push(fault, recent);
        }
    }

    fn finish(self, found: &mut Sites<ListFault>) {
        let nowhere = Recent::default();
        let rest = self.in_pool.chain(self.elsewhere).chain(self.roll_call.finish());
        rest.for_each(|fault| found.push(fault, &nowhere));
    }
}

impl Summary {
    /// Tells the damaged places before it of a fragment.
    #[inline]
    fn followed_by(&mut self, fragment: &Neighbour) {
        self.breaks.followed_by(fragment);
        self.damaged.followed_by(fragment);
        self.list_faults.followed_by(fragment);
    }

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

/// The owners met so far.
#[derive(Default)]
struct Owners {
    /// Index in `totals`.
    numbers: FxHashMap<Owner, u32>,
    totals: Vec<OwnerTotals>,
    /// The owner before: the next fragment is often its, too.
    last: Option<(Owner, u32)>,
}

impl Owners {
    /// Counts a used fragment; the number of its owner.
    #[inline]
    fn add(&mut self, fragment: &Fragment, recent: &Recent) -> u32 {
        let owner = fragment.owner.unwrap_or_default();
        let number = match self.last {
            Some((last, number)) if last == owner => number,
            _ => self.number(owner, fragment, recent),
        };
        self.last = Some((owner, number));
        let length = fragment.payload.length();
        if let Some(totals) = self.totals.get_mut(narrow(u64::from(number))) {
            totals.fragments = totals.fragments.saturating_add(1);
            totals.bytes = totals.bytes.saturating_add(length);
            totals.smallest = totals.smallest.min(length);
            totals.largest = totals.largest.max(length);
        }
        number
    }

    fn number(&mut self, owner: Owner, fragment: &Fragment, recent: &Recent) -> u32 {
        *self.numbers.entry(owner).or_insert_with(|| {
            let number = u32::try_from(self.totals.len()).unwrap_or(u32::MAX);
            self.totals.push(OwnerTotals {
                owner,
                smallest: u64::MAX,
                example: fragment.payload.start,
                before: recent.nearest(),
                ..OwnerTotals::default()
            });
            number
        })
    }

    /// The owners, most bytes first, and their new numbers in `used`.
    fn by_bytes(self, used: &mut [Used]) -> Vec<OwnerTotals> {
        let mut order: Vec<(u32, OwnerTotals)> = (0..).zip(self.totals).collect();
        order.sort_by_key(|(_, totals)| (Reverse(totals.bytes), totals.owner));
        let mut numbers = vec![0_u32; order.len()];
        for (new, (old, _)) in (0..).zip(&order) {
            if let Some(number) = numbers.get_mut(narrow(u64::from(*old))) {
                *number = new;
            }
        }
        for fragment in used {
            let new = numbers.get(narrow(u64::from(fragment.owner)));
            fragment.owner = new.copied().unwrap_or(fragment.owner);
        }
        order.into_iter().map(|(_, totals)| totals).collect()
    }
}
