//! The loader's own list of libraries, in the process's memory: `struct link_map` of glibc.
//!
//! For cores whose list of mapped files is lost. The list's head is in the loader, near the end of
//! the address space and so behind most cuts, but the entries of plug-ins are on the heap, near its
//! start. They are searched for by their shape, and believed only if a neighbour points back.

use std::collections::BTreeMap;

use crate::addr::{Addr, AddrRange};
use crate::memory::{Cursor, Memory};
use crate::num::{narrow, wide};

/// `struct link_map`: `l_addr` at 0, `l_name` 8, `l_ld` 16, `l_next` 24, `l_prev` 32.
const NAME: u64 = 8;
const DYNAMIC: u64 = 16;
const NEXT: u64 = 24;
const PREVIOUS: u64 = 32;

/// No library is longer: from its start to its dynamic section.
const LONGEST: u64 = 256 << 20;
/// Longest path.
const LONGEST_NAME: usize = 4096;
/// Bytes that are searched: heaps come before pools of shared memory.
const SEARCHED: u64 = 1 << 30;
/// Libraries that are listed; no process has so many.
const MOST: usize = 4096;

/// A library by the loader's list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Library {
    /// Its path.
    pub(super) path: String,
    /// Its first address (`l_addr`), which is also what is added to an address in its file.
    pub(super) start: Addr,
    /// Its dynamic section, behind its texts and code.
    pub(super) dynamic: Addr,
}

/// The libraries whose entries lie in `places`, by first address.
pub(super) fn libraries(places: &[AddrRange], memory: &dyn Memory) -> BTreeMap<Addr, Library> {
    let mut found = BTreeMap::new();
    let mut left = SEARCHED;
    let mut cursor = Cursor::new(memory);
    for place in places {
        let mut at = place.start;
        while at < place.end && left > 0 && found.len() < MOST {
            let Ok(piece) = memory.peek(at, narrow(place.end.0.saturating_sub(at.0).min(left)))
            else {
                break;
            };
            for (number, words) in piece.windows(24).step_by(8).enumerate() {
                let entry = Addr(at.0.saturating_add(wide(number).saturating_mul(8)));
                let known = word(words, 0).is_some_and(|at| found.contains_key(&Addr(at)));
                if known || found.len() >= MOST {
                    continue;
                }
                if let Some(library) = library(entry, words, &mut cursor, memory) {
                    found.entry(library.start).or_insert(library);
                }
            }
            left = left.saturating_sub(wide(piece.len()));
            at = Addr(at.0.saturating_add(wide(piece.len())));
        }
    }
    found
}

/// The entry at an address, if its first three words and its neighbours are those of one.
fn library(
    at: Addr,
    words: &[u8],
    cursor: &mut Cursor<'_>,
    memory: &dyn Memory,
) -> Option<Library> {
    let start = Addr(word(words, 0)?);
    let dynamic = Addr(word(words, DYNAMIC)?);
    let length = dynamic.offset_from(start)?;
    if start.is_null() || start.0 & 0xfff != 0 || length == 0 || length > LONGEST {
        return None;
    }
    let field = |cursor: &mut Cursor<'_>, at: Addr, offset: u64| {
        let bytes = cursor.bytes(at.checked_add(offset)?, 8).ok()?;
        word(bytes, 0).map(Addr)
    };
    let next = field(cursor, at, NEXT)?;
    let previous = field(cursor, at, PREVIOUS)?;
    let linked =
        field(cursor, next, PREVIOUS) == Some(at) || field(cursor, previous, NEXT) == Some(at);
    if !linked {
        return None;
    }
    let path = memory.text(Addr(word(words, NAME)?), LONGEST_NAME).ok()?;
    let plain = path.starts_with('/') && path.chars().all(|c| c.is_ascii_graphic() || c == ' ');
    plain.then_some(Library { path, start, dynamic })
}

fn word(bytes: &[u8], at: u64) -> Option<u64> {
    bytes.get(narrow(at)..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bytes::Blob;
    use crate::memory::{Content, Segment, SegmentMap};

    const HEAP: u64 = 0x5000_0000;

    /// A heap with two entries that point at one another, and one that nobody points at.
    fn heap() -> Vec<u8> {
        let mut bytes = vec![0; 0x400];
        let mut put = |at: usize, words: [u64; 5]| {
            for (number, word) in words.iter().enumerate() {
                bytes[at + number * 8..at + number * 8 + 8].copy_from_slice(&word.to_le_bytes());
            }
        };
        let (one, other) = (HEAP + 0x40, HEAP + 0x100);
        put(0x40, [0x7f00_0000_0000, HEAP + 0x300, 0x7f00_0002_0d80, other, 0]);
        put(0x100, [0x7f00_0010_0000, HEAP + 0x320, 0x7f00_0011_0d80, 0x7fff_0000_0000, one]);
        put(0x200, [0x7f00_0020_0000, HEAP + 0x300, 0x7f00_0021_0d80, 0, one]);
        bytes[0x300..0x309].copy_from_slice(b"/lib/a.so");
        bytes[0x320..0x329].copy_from_slice(b"/lib/b.so");
        bytes
    }

    #[test]
    fn entries_are_believed_if_a_neighbour_points_back() {
        let range = AddrRange::new(Addr(HEAP), 0x400);
        let content = Content::Bytes { blob: Blob::from_bytes(heap()), offset: 0 };
        let memory = SegmentMap::new(vec![Segment { range, writable: Some(true), content }]);
        let found = libraries(&[range], &memory);
        let paths: Vec<_> = found.values().map(|library| library.path.as_str()).collect();
        assert_eq!(paths, ["/lib/a.so", "/lib/b.so"]);
        assert_eq!(found[&Addr(0x7f00_0010_0000)].dynamic, Addr(0x7f00_0011_0d80));
    }
}
