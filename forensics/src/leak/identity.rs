//! What makes a fragment the same one in two snapshots of a run: where it is, how long, and whose;
//! and a hash of what it holds, which tells a fragment that stayed from one that was given back and
//! taken again.
//!
//! Fragments by the million are kept this way, in 32 bytes each.

use std::hash::Hasher as _;

use rustc_hash::FxHasher;

use super::Used;
use crate::addr::{Addr, AddrRange};
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
    /// Index of its owner in the pool's list of owners.
    pub owner: u32,
    /// Index of the first snapshot that it was seen in; 0 as long as there is only one.
    pub since: u16,
    /// Index of the first snapshot that it was seen in with this content.
    pub unchanged_since: u16,
}

/// The used fragments of one pool with a hash of what they hold; `pool` is where they lie.
///
/// Words that point into the pool are left out: the links of a list change when a neighbour comes or
/// goes, while what the fragment itself is for stays as it was.
pub fn identities(used: &[Used], memory: &dyn Memory, pool: AddrRange) -> Vec<Identity> {
    let mut cursor = Cursor::new(memory);
    let mut identity = |fragment: &Used| {
        let length = narrow(fragment.bytes().min(LOOK));
        Identity {
            payload: fragment.start,
            bytes: fragment.bytes(),
            content: cursor.bytes(fragment.start, length).map_or(0, |bytes| hash(bytes, pool)),
            owner: fragment.owner,
            since: 0,
            unchanged_since: 0,
        }
    };
    used.iter().map(&mut identity).collect()
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
