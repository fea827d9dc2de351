//! What makes a fragment the same one in two snapshots of a run: where it is, how long, and whose;
//! and a hash of what it holds, which tells a fragment that stayed from one that was given back and
//! taken again.
//!
//! Fragments by the million are kept this way, in 32 bytes each; a whole [`Fragment`] takes several
//! times as much.

use std::hash::Hasher as _;

use rustc_hash::{FxHashMap, FxHasher};

use crate::addr::{Addr, AddrRange};
use crate::heap::{Fragment, Owner};
use crate::memory::{Cursor, Memory};
use crate::num::narrow;

/// Bytes of each payload that are looked at.
const LOOK: u64 = 256;

/// A used fragment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Its payload's address: in one pool always as far behind its header.
    pub payload: Addr,
    /// Its payload, in bytes.
    pub bytes: u64,
    /// Hash of its content; 0 where that is not known.
    pub content: u64,
    /// Index of its owner, in a list that stands beside.
    pub owner: u32,
    /// Index of the first snapshot that it was seen in; 0 as long as there is only one.
    pub since: u16,
    /// Index of the first snapshot that it was seen in with this content.
    pub unchanged_since: u16,
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
        let (payload, bytes) = (fragment.payload.start, fragment.payload.length());
        self.fragments.push(Identity { payload, bytes, owner: index, ..Identity::default() });
    }

    /// Reads what the fragments hold; `pool` is where they lie.
    ///
    /// Words that point into the pool, or nowhere, are left out: the links of a list change when a
    /// neighbour comes or goes, while what the fragment itself is for stays as it was.
    pub fn read_content(&mut self, memory: &dyn Memory, pool: AddrRange) {
        let mut cursor = Cursor::new(memory);
        for fragment in &mut self.fragments {
            let length = narrow(fragment.bytes.min(LOOK));
            if let Ok(bytes) = cursor.bytes(fragment.payload, length) {
                fragment.content = hash(bytes, pool);
            }
        }
    }
}

/// Never 0.
fn hash(bytes: &[u8], pool: AddrRange) -> u64 {
    let mut hasher = FxHasher::default();
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        let word = u64::from_le_bytes(*word);
        hasher.write_u64(if pool.contains(Addr(word)) { 0 } else { word });
    }
    hasher.write(rest);
    hasher.finish().max(1)
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

    #[test]
    fn links_to_neighbours_are_no_content() {
        let pool = AddrRange::new(Addr(0x7f00_0000_0000), 0x1000);
        let payload = |link: u64, text: &[u8; 5]| {
            let mut bytes = link.to_le_bytes().to_vec();
            bytes.extend_from_slice(text);
            hash(&bytes, pool)
        };
        let one = payload(0x7f00_0000_0100, b"alice");
        assert_eq!(one, payload(0x7f00_0000_0200, b"alice"), "another neighbour");
        assert_eq!(one, payload(0, b"alice"), "none");
        assert_ne!(one, payload(0x7f00_0000_0100, b"bob\0\0"));
        assert_ne!(one, payload(0x7f00_0000_1000, b"alice"), "not a link into this pool");
    }
}
