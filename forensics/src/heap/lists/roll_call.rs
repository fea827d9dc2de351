//! The lists beside the fragments of a walk.

use std::collections::BTreeMap;
use std::iter::Peekable;

use super::{FreeLists, ListDamage, ListFault, Member};
use crate::addr::{Addr, AddrRange};
use crate::heap::Fragment;

/// Compares the lists with the fragments of a walk, by rising address.
pub(crate) struct RollCall<'a> {
    lists: &'a FreeLists,
    members: Peekable<std::slice::Iter<'a, Member>>,
    /// The fragment before.
    inside: Option<AddrRange>,
    /// Free fragments that a broken list no longer leads to: the first, and how many.
    cut_off: BTreeMap<u32, (Addr, u64)>,
}

impl<'a> RollCall<'a> {
    pub(super) fn new(lists: &'a FreeLists) -> Self {
        let members = lists.members.iter().peekable();
        Self { lists, members, inside: None, cut_off: BTreeMap::new() }
    }

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
        if self.lists.unknown.contains(&list) {
            return None;
        }
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
