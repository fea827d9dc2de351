//! Following the lists from their heads.

use rustc_hash::FxHashSet;

use super::{Entry, FreeLists, Head, ListDamage, ListFault, Lists, Member};
use crate::addr::{Addr, AddrRange};
use crate::num::wide;

/// The lists while they are followed.
pub(super) struct Gather<'a, L> {
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

impl<'a, L: Lists> Gather<'a, L> {
    /// Starts with nothing followed; `fragments` is where headers of the pool can stand.
    pub(super) fn new(lists: &'a mut L, fragments: AddrRange, found: FreeLists) -> Self {
        Self { lists, fragments, seen: FxHashSet::default(), found }
    }

    /// Follows every list.
    pub(super) fn follow_all(mut self) -> FreeLists {
        for list in 0..self.found.classes.count() {
            self.follow(list);
        }
        self.found
    }

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
        if let ListDamage::Absent(_) = fault.what {
            // What the input lacks is no fault of the list.
            self.found.unknown.insert(fault.list);
            return;
        }
        self.found.fault(fault);
    }
}
