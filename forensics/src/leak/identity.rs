//! What makes a fragment the same one in two snapshots of a run: where it is, how long, and whose.
//!
//! Fragments by the million are kept this way, in 24 bytes each; a whole [`Fragment`] takes several
//! times as much.

use rustc_hash::FxHashMap;

use crate::addr::Addr;
use crate::heap::{Fragment, Owner};

/// A used fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its header.
    pub header: Addr,
    /// Its payload, in bytes.
    pub bytes: u64,
    /// Index of its owner, in a list that stands beside.
    pub owner: u32,
    /// Index of the first snapshot that it was seen in; 0 as long as there is only one.
    pub since: u32,
}

/// The used fragments of one pool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identities {
    /// Their owners, each once.
    pub owners: Vec<Owner>,
    /// The fragments, by rising address.
    pub fragments: Vec<Identity>,
    index: FxHashMap<Owner, u32>,
}

impl Identities {
    /// Adds the next fragment of a walk.
    pub(super) fn push(&mut self, fragment: &Fragment) {
        let owner = fragment.owner.unwrap_or_default();
        let next = u32::try_from(self.owners.len()).unwrap_or(u32::MAX);
        let index = *self.index.entry(owner).or_insert_with(|| {
            self.owners.push(owner);
            next
        });
        let bytes = fragment.payload.length();
        self.fragments.push(Identity { header: fragment.header, bytes, owner: index, since: 0 });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::AddrRange;

    #[test]
    fn fragments_of_one_owner_share_its_index() {
        let mut identities = Identities::default();
        for (at, line) in [(0x1000, 7), (0x2000, 8), (0x3000, 7)] {
            identities.push(&Fragment {
                header: Addr(at),
                payload: AddrRange::new(Addr(at + 64), 32),
                used: true,
                owner: Some(Owner { line, ..Owner::default() }),
                damage: Vec::new(),
            });
        }
        let lines: Vec<u64> = identities.owners.iter().map(|owner| owner.line).collect();
        assert_eq!(lines, [7, 8]);
        let owners: Vec<u32> = identities.fragments.iter().map(|f| f.owner).collect();
        assert_eq!(owners, [0, 1, 0]);
    }
}
