//! The lists by which a manager finds its free fragments again, by size class.
//!
//! They are followed from their heads, apart from the walk: a free fragment that stands in no list
//! is lost to the program, a list that leads astray crashes it. Damage in one list leaves the
//! others whole, and every list ends: after a loop, a wild link, or as many fragments as the pool
//! can have.

mod classes;
mod fault;
mod gather;
mod roll_call;

use rustc_hash::FxHashSet;

pub(super) use classes::{ROW, SizeClasses};
pub use fault::{ListDamage, ListFault};
pub(crate) use roll_call::RollCall;

use gather::Gather;

use crate::addr::{Addr, AddrRange};
use crate::memory::Known;

/// Faults that are kept; the rest is counted.
const FAULTS_KEPT: usize = 1000;

/// What a manager's free lists say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FreeLists {
    classes: SizeClasses,
    members: Vec<Member>,
    /// Where a link leads to a header that is none (any more).
    broken: Vec<Member>,
    /// Lists that could not be followed to their end.
    cut: FxHashSet<u32>,
    /// Those of them whose bytes are not in the input.
    unknown: FxHashSet<u32>,
    /// What is wrong with the lists themselves; at most 1,000.
    pub faults: Vec<ListFault>,
    /// How much is wrong with them.
    pub fault_count: u64,
    /// Headers read.
    pub visits: u64,
}

/// A free fragment that a list leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Member {
    header: Addr,
    list: u32,
}

/// How one manager keeps its lists.
pub(super) trait Lists {
    /// Which sizes stand in which list.
    fn classes(&self) -> SizeClasses;
    /// What stands at the start of list `index`.
    ///
    /// # Errors
    /// [`crate::memory::Absent`].
    fn head(&mut self, index: u32) -> Known<Head>;
    /// What stands in the fragment whose header is at `at`.
    ///
    /// # Errors
    /// [`crate::memory::Absent`].
    fn entry(&mut self, at: Addr) -> Known<Entry>;
}

/// The start of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// Where it stands.
    pub(super) at: Addr,
    /// The first fragment, or `end` for an empty list.
    pub(super) first: Addr,
    /// The last fragment, if the list can be followed backwards.
    pub(super) last: Option<Addr>,
    /// What the last fragment's link holds.
    pub(super) end: Addr,
    /// What the first fragment's link backwards holds.
    pub(super) start: Addr,
    /// How many fragments it says it has.
    pub(super) said: Option<u64>,
    /// Whether a bitmap says that it has fragments.
    pub(super) marked: Option<bool>,
}

/// A free fragment as its list needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Its payload, in bytes.
    pub(super) size: u64,
    /// It says that it is free.
    pub(super) free: bool,
    /// Its header is one (check word, where there is one; a size that fits the pool).
    pub(super) sound: bool,
    pub(super) next: Addr,
    /// `None` where it cannot be known.
    pub(super) previous: Option<Addr>,
}

impl FreeLists {
    /// Follows all lists. `fragments` is where headers of the pool can stand.
    pub(super) fn gather(lists: &mut impl Lists, fragments: AddrRange) -> Self {
        let classes = lists.classes();
        let found = Self {
            classes,
            members: Vec::new(),
            broken: Vec::new(),
            cut: FxHashSet::default(),
            unknown: FxHashSet::default(),
            faults: Vec::new(),
            fault_count: 0,
            visits: 0,
        };
        let mut found = Gather::new(lists, fragments, found).follow_all();
        found.members.sort_unstable();
        found.broken.sort_unstable();
        found
    }

    /// Whether a list could not be followed to its end.
    pub(super) fn is_cut(&self) -> bool {
        !self.cut.is_empty()
    }

    /// Whether a list leads to the free fragment whose header is at `at`.
    pub(super) fn contain(&self, at: Addr) -> bool {
        list_with(&self.members, at).is_some()
    }

    /// The same, or the link leads to a header that is overwritten.
    pub(super) fn name(&self, at: Addr) -> bool {
        self.list_naming(at).is_some()
    }

    fn list_naming(&self, at: Addr) -> Option<u32> {
        list_with(&self.members, at).or_else(|| list_with(&self.broken, at))
    }

    /// Whether `at` lies inside a free fragment that a list names, so that what looks like a header
    /// there is an old one. `behind` gives the next header behind a payload of so many bytes.
    pub(super) fn enclose(&self, at: Addr, behind: impl Fn(Addr, u64) -> Addr) -> bool {
        [&self.members, &self.broken].into_iter().any(|members| {
            let before = members.partition_point(|member| member.header < at);
            let member = before.checked_sub(1).and_then(|index| members.get(index));
            member.is_some_and(|member| {
                at < behind(member.header, self.classes.smallest(member.list))
            })
        })
    }

    /// Whether a list leads to the free fragment of `size` bytes at `at`, or may have done so before
    /// it was broken.
    pub(super) fn may_contain(&self, at: Addr, size: u64) -> bool {
        self.contain(at) || self.cut.contains(&self.classes.list_of(size))
    }

    /// Whether the list that leads to the fragment at `at` is one for payloads of `size` bytes;
    /// `None` if none leads there.
    pub(super) fn fits(&self, at: Addr, size: u64) -> Option<bool> {
        let list = self.list_naming(at)?;
        let exact = self.classes.exact(list).is_none_or(|exact| exact == size);
        Some(exact && self.classes.list_of(size) == list)
    }

    /// The payload, in bytes, of the fragment at `at` if a list leads there in which all have the
    /// same, though its header may be overwritten.
    pub(super) fn exact_size(&self, at: Addr) -> Option<u64> {
        let list = self.list_naming(at)?;
        self.classes.exact(list)
    }

    /// The least payload, in bytes, of the fragment at `at` if a list leads there, though its
    /// header may be overwritten.
    pub(super) fn least_size(&self, at: Addr) -> Option<u64> {
        let list = self.list_naming(at)?;
        Some(self.classes.smallest(list))
    }

    /// A roll call of the fragments that a walk meets.
    pub(crate) fn roll_call(&self) -> RollCall<'_> {
        RollCall::new(self)
    }

    fn fault(&mut self, fault: ListFault) {
        self.fault_count = self.fault_count.saturating_add(1);
        if self.faults.len() < FAULTS_KEPT {
            self.faults.push(fault);
        }
    }
}

fn list_with(members: &[Member], at: Addr) -> Option<u32> {
    let index = members.binary_search_by_key(&at, |member| member.header).ok()?;
    members.get(index).map(|member| member.list)
}
