//! Which words of some bytes may be pointers into the pools.
//!
//! Nearly all pointers stand at multiples of 8. Packed structures have others (`cfg_group_t` of
//! Kamailio 5.4 keeps its `next` at an odd address): a word elsewhere is looked at, too, and counts
//! only if it leads exactly to a payload's start, which chance does not.

use memchr::memmem::Finder;

use crate::addr::AddrRange;
use crate::num::wide;

/// A word that may be a pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word {
    /// From the first of the bytes.
    pub(super) offset: u64,
    /// What it holds.
    pub(super) value: u64,
    /// Whether it stands at a multiple of 8.
    pub(super) aligned: bool,
}

/// Takes what lies between the lowest and the highest address of all pools.
#[derive(Debug)]
pub(super) struct Sieve {
    low: u64,
    length: u64,
    /// The three upper bytes of the pools' addresses, of which they are found in any place.
    tops: Vec<Finder<'static>>,
}

/// From the start of a little-endian address to its three upper bytes.
const TOP: usize = 5;

impl Sieve {
    /// For pools with these addresses.
    pub(super) fn new(pools: impl Iterator<Item = AddrRange> + Clone) -> Self {
        let low = pools.clone().map(|pool| pool.start.0).min().unwrap_or(0);
        let high = pools.clone().map(|pool| pool.end.0).max().unwrap_or(0);
        let mut tops: Vec<u64> = pools.flat_map(|pool| [pool.start.0, pool.end.0]).collect();
        tops.iter_mut().for_each(|address| *address >>= 40);
        tops.sort_unstable();
        tops.dedup();
        // Three zeroes are everywhere; memory below 1 TiB is no pool of a program of today.
        tops.retain(|top| *top != 0);
        let finder = |top: u64| {
            let [a, b, c, ..] = top.to_le_bytes();
            Finder::new(&[a, b, c]).into_owned()
        };
        let tops = tops.into_iter().map(finder).collect();
        Self { low, length: high.saturating_sub(low), tops }
    }

    /// Whether a value lies between the pools' ends.
    #[inline]
    pub(super) fn takes(&self, value: u64) -> bool {
        value.wrapping_sub(self.low) < self.length
    }

    /// Hands out the words of some bytes, of which the first stands at a multiple of 8.
    #[inline]
    pub(super) fn sift(&self, bytes: &[u8], mut visit: impl FnMut(Word)) {
        let (words, _) = bytes.as_chunks::<8>();
        for (offset, word) in (0..).step_by(8).zip(words) {
            let value = u64::from_le_bytes(*word);
            if self.takes(value) {
                visit(Word { offset, value, aligned: true });
            }
        }
        for top in &self.tops {
            for found in top.find_iter(bytes) {
                let Some(offset) = found.checked_sub(TOP).filter(|at| at % 8 != 0) else {
                    continue;
                };
                let word = bytes.get(offset..).and_then(<[u8]>::first_chunk);
                let value = word.map_or(0, |word| u64::from_le_bytes(*word));
                if self.takes(value) {
                    visit(Word { offset: wide(offset), value, aligned: false });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Addr;

    fn sifted(bytes: &[u8]) -> Vec<(u64, u64, bool)> {
        let pool = |start| AddrRange::new(Addr(start), 0x1000);
        let sieve = Sieve::new([pool(0x7f12_3400_0000), pool(0x7f12_3400_8000)].into_iter());
        let mut found = Vec::new();
        sieve.sift(bytes, |word| found.push((word.offset, word.value, word.aligned)));
        found
    }

    #[test]
    fn only_values_between_the_pools_are_looked_at() {
        let words = [0x7f12_33ff_ffff_u64, 0x7f12_3400_0000, 0x7f12_3400_8fff, 0x7f12_3400_9000, 0];
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        assert_eq!(sifted(&bytes), [(8, 0x7f12_3400_0000, true), (16, 0x7f12_3400_8fff, true)]);
    }

    #[test]
    fn packed_pointers_are_found_and_marked() {
        let mut bytes = vec![0; 24];
        bytes[1..9].copy_from_slice(&0x7f12_3400_0010_u64.to_le_bytes());
        bytes[16..24].copy_from_slice(&0x7f12_3400_0020_u64.to_le_bytes());
        assert_eq!(sifted(&bytes), [(16, 0x7f12_3400_0020, true), (1, 0x7f12_3400_0010, false)]);
        // Without its last byte it is no pointer.
        assert_eq!(sifted(&bytes[..8]), []);
    }
}
