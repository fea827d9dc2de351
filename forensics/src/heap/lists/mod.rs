//! The lists by which a manager finds its free fragments again, by size class.
//!
//! They are followed from their heads, apart from the walk: a free fragment that stands in no list
//! is lost to the program, a list that leads astray crashes it. Damage in one list leaves the
//! others whole, and every list ends: after a loop, a wild link, or as many fragments as the pool
//! can have.

mod classes;

use std::collections::BTreeMap;
use std::fmt;
use std::iter::Peekable;

use rustc_hash::FxHashSet;

pub(super) use classes::{ROW, SizeClasses};

use super::Fragment;
use crate::addr::{Addr, AddrRange};
use crate::memory::{Absent, Known};
use crate::num::wide;

/// Faults that are kept; the rest is counted.
const FAULTS_KEPT: usize = 1000;

/// What a manager's free lists say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FreeLists {
    classes: SizeClasses,
    members: Vec<Member>,
    /// Where a link leads to a header that is none (any more).
    broken: Vec<Member>,
    cut: FxHashSet<u32>,
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

/// Something wrong with one list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListFault {
    /// Which list, counted as the manager does.
    pub list: u32,
    /// The free fragment, or the list's head.
    pub at: Addr,
    /// What.
    pub what: ListDamage,
}

/// What can be wrong with a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListDamage {
    /// A link leads to where no free fragment of the pool can be.
    WildLink {
        /// Where it leads.
        to: Addr,
    },
    /// A link leads back to a fragment that the list has already passed.
    Loop {
        /// Where it leads.
        to: Addr,
    },
    /// A link leads to a fragment that is in use.
    Used {
        /// Where it leads.
        to: Addr,
    },
    /// Its link backwards does not lead to the fragment before it in the list.
    BackLink {
        /// Where it leads.
        found: Addr,
    },
    /// A fragment stands in a list for other sizes.
    WrongList {
        /// Its payload, in bytes.
        size: u64,
        /// The list for that size.
        belongs: u32,
    },
    /// The list's own count is wrong.
    Count {
        /// What it says.
        said: u64,
        /// Fragments that were found.
        found: u64,
    },
    /// The bitmap of lists that are not empty is wrong.
    Bitmap {
        /// Whether the bitmap says that the list has fragments.
        said: bool,
    },
    /// It leads to a place inside another fragment.
    NoFragment,
    /// A free fragment stands in no list.
    Unlisted,
    /// Free fragments that the list no longer leads to, behind a bad link.
    CutOff {
        /// How many.
        fragments: u64,
    },
    /// The bytes are not known.
    Absent(Absent),
}

impl fmt::Display for ListFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { list, at, what } = self;
        match what {
            ListDamage::WildLink { to } => {
                write!(f, "free list {list}: the link at {at} leads to {to}, no free fragment")
            }
            ListDamage::Loop { to } => {
                write!(f, "free list {list}: the link at {at} leads back to {to}: it never ends")
            }
            ListDamage::Used { to } => {
                write!(f, "free list {list}: the link at {at} leads to {to}, which is in use")
            }
            ListDamage::BackLink { found } => {
                write!(f, "free list {list}: the link backwards of {at} leads to {found}")
            }
            ListDamage::WrongList { size, belongs } => write!(
                f,
                "free list {list}: the fragment at {at} has {size} bytes and belongs into list \
                 {belongs}"
            ),
            ListDamage::Count { said, found } => {
                write!(f, "free list {list}: it counts {said} fragments, and leads to {found}")
            }
            ListDamage::Bitmap { said: true } => {
                write!(f, "free list {list}: the bitmap says that it has fragments; it is empty")
            }
            ListDamage::Bitmap { said: false } => {
                write!(f, "free list {list}: the bitmap says that it is empty; it has fragments")
            }
            ListDamage::NoFragment => {
                write!(f, "free list {list}: it leads to {at}, which is inside another fragment")
            }
            ListDamage::Unlisted => {
                write!(f, "the free fragment at {at} is in no free list: nobody can allocate it")
            }
            ListDamage::CutOff { fragments } => {
                write!(f, "free list {list}: {fragments} free fragments behind the bad link")
            }
            ListDamage::Absent(absent) => write!(f, "free list {list}: {absent}"),
        }
    }
}

/// How one manager keeps its lists.
pub(super) trait Lists {
    /// Which sizes stand in which list.
    fn classes(&self) -> SizeClasses;
    /// What stands at the start of list `index`.
    ///
    /// # Errors
    /// [`Absent`].
    fn head(&mut self, index: u32) -> Known<Head>;
    /// What stands in the fragment whose header is at `at`.
    ///
    /// # Errors
    /// [`Absent`].
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
            faults: Vec::new(),
            fault_count: 0,
            visits: 0,
        };
        let mut gathered = Gather { lists, fragments, seen: FxHashSet::default(), found };
        for index in 0..classes.count() {
            gathered.follow(index);
        }
        let mut found = gathered.found;
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
        self.contain(at) || list_with(&self.broken, at).is_some()
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
        let list = list_with(&self.members, at).or_else(|| list_with(&self.broken, at))?;
        let exact = self.classes.exact(list).is_none_or(|exact| exact == size);
        Some(exact && self.classes.list_of(size) == list)
    }

    /// The payload, in bytes, of the fragment at `at` if a list leads there in which all have the
    /// same, though its header may be overwritten.
    pub(super) fn exact_size(&self, at: Addr) -> Option<u64> {
        let list = list_with(&self.members, at).or_else(|| list_with(&self.broken, at))?;
        self.classes.exact(list)
    }

    /// The least payload, in bytes, of the fragment at `at` if a list leads there, though its
    /// header may be overwritten.
    pub(super) fn least_size(&self, at: Addr) -> Option<u64> {
        let list = list_with(&self.members, at).or_else(|| list_with(&self.broken, at))?;
        Some(self.classes.smallest(list))
    }

    /// A roll call of the fragments that a walk meets.
    pub(crate) fn roll_call(&self) -> RollCall<'_> {
        RollCall {
            lists: self,
            members: self.members.iter().peekable(),
            inside: None,
            cut_off: BTreeMap::new(),
        }
    }

    fn fault(&mut self, fault: ListFault) {
        self.fault_count = self.fault_count.saturating_add(1);
        if self.faults.len() < FAULTS_KEPT {
            self.faults.push(fault);
        }
    }
}

/// Compares the lists with the fragments of a walk, by rising address.
pub(crate) struct RollCall<'a> {
    lists: &'a FreeLists,
    members: Peekable<std::slice::Iter<'a, Member>>,
    /// The fragment before.
    inside: Option<AddrRange>,
    /// Free fragments that a broken list no longer leads to: the first, and how many.
    cut_off: BTreeMap<u32, (Addr, u64)>,
}

impl RollCall<'_> {
    /// Takes the next fragment; what the lists have wrong about it or the one before it.
    pub(crate) fn fragment(&mut self, fragment: &Fragment) -> Option<ListFault> {
        let before =
            self.inside.replace(AddrRange { start: fragment.header, end: fragment.payload.end });
        let mut stranger = None;
        while let Some(member) = self.members.next_if(|member| member.header < fragment.header) {
            // In what the walk could not see anything may stand.
            if before.is_some_and(|before| before.contains(member.header)) {
                let what = ListDamage::NoFragment;
                stranger = Some(ListFault { list: member.list, at: member.header, what });
            }
        }
        let listed = self.members.next_if(|member| member.header == fragment.header).is_some();
        if fragment.used || listed || stranger.is_some() {
            return stranger;
        }
        let list = self.lists.classes.list_of(fragment.payload.length());
        if self.lists.cut.contains(&list) {
            let entry = self.cut_off.entry(list).or_insert((fragment.header, 0));
            entry.1 = entry.1.saturating_add(1);
            return None;
        }
        Some(ListFault { list, at: fragment.header, what: ListDamage::Unlisted })
    }

    /// What only the whole walk shows.
    pub(crate) fn finish(self) -> impl Iterator<Item = ListFault> {
        self.cut_off.into_iter().map(|(list, (at, fragments))| ListFault {
            list,
            at,
            what: ListDamage::CutOff { fragments },
        })
    }
}

fn list_with(members: &[Member], at: Addr) -> Option<u32> {
    let index = members.binary_search_by_key(&at, |member| member.header).ok()?;
    members.get(index).map(|member| member.list)
}

/// The lists while they are followed.
struct Gather<'a, L> {
    lists: &'a mut L,
    fragments: AddrRange,
    seen: FxHashSet<Addr>,
    found: FreeLists,
}

/// Where one direction of a list ended.
enum End {
    /// Where it should.
    Reached,
    /// At something broken.
    Broken,
}

impl<L: Lists> Gather<'_, L> {
    fn follow(&mut self, list: u32) {
        let head = match self.lists.head(list) {
            Ok(head) => head,
            Err(absent) => {
                let at = absent.at;
                self.cut(ListFault { list, at, what: ListDamage::Absent(absent) });
                return;
            }
        };
        let before = self.found.members.len();
        let end = self.forwards(list, &head);
        if let (End::Broken, Some(last)) = (&end, head.last) {
            self.backwards(list, &head, last);
        }
        let found = wide(self.found.members.len().saturating_sub(before));
        // A list that was cut has said enough.
        if let End::Broken = end {
            return;
        }
        if let Some(said) = head.said.filter(|&said| said != found) {
            self.fault(list, head.at, ListDamage::Count { said, found });
        }
        if let Some(said) = head.marked.filter(|&said| said != (found > 0)) {
            self.fault(list, head.at, ListDamage::Bitmap { said });
        }
    }

    fn forwards(&mut self, list: u32, head: &Head) -> End {
        let (mut from, mut at, mut expected) = (head.at, head.first, head.start);
        while at != head.end {
            let entry = match self.step(list, at) {
                Ok(entry) => entry,
                Err(what) => {
                    self.cut(ListFault { list, at: from, what });
                    return End::Broken;
                }
            };
            if let Some(found) = entry.previous.filter(|&found| found != expected) {
                self.fault(list, at, ListDamage::BackLink { found });
            }
            (from, expected) = (at, at);
            at = entry.next;
        }
        End::Reached
    }

    /// From the last fragment to the bad link that the way forwards met. What is broken on this
    /// way too was told already, or is the same place.
    fn backwards(&mut self, list: u32, head: &Head, last: Addr) {
        let mut at = last;
        while at != head.start {
            let Ok(entry) = self.step(list, at) else { return };
            let Some(previous) = entry.previous else { return };
            at = previous;
        }
    }

    /// Takes the fragment at `at`, to which a link led, into the list.
    fn step(&mut self, list: u32, at: Addr) -> Result<Entry, ListDamage> {
        let wild = ListDamage::WildLink { to: at };
        if !self.fragments.contains(at) || !at.0.is_multiple_of(8) {
            return Err(wild);
        }
        if self.seen.contains(&at) {
            return Err(ListDamage::Loop { to: at });
        }
        self.found.visits = self.found.visits.saturating_add(1);
        let entry = self.lists.entry(at).map_err(ListDamage::Absent)?;
        if !entry.sound {
            self.found.broken.push(Member { header: at, list });
            return Err(wild);
        }
        if !entry.free {
            return Err(ListDamage::Used { to: at });
        }
        self.seen.insert(at);
        self.found.members.push(Member { header: at, list });
        let belongs = self.found.classes.list_of(entry.size);
        if belongs != list {
            self.fault(list, at, ListDamage::WrongList { size: entry.size, belongs });
        }
        Ok(entry)
    }

    fn fault(&mut self, list: u32, at: Addr, what: ListDamage) {
        self.found.fault(ListFault { list, at, what });
    }

    fn cut(&mut self, fault: ListFault) {
        self.found.cut.insert(fault.list);
        self.found.fault(fault);
    }
}
