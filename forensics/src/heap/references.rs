//! Which places of a pool something points at.
//!
//! A program keeps a pointer to nearly every payload that it uses, and seldom one to a payload that
//! is no more. So where an old header and the true chain fit equally well, pointers tell them
//! apart. No pointer proves nothing by itself: payloads leak.

use super::islands;
use crate::addr::{Addr, AddrRange};
use crate::memory::Memory;
use crate::num::narrow;

/// Longer pools are not looked at, in bytes: one bit is kept for each word.
const LONGEST: u64 = 1 << 34;
/// Bytes of a word.
const WORD: u64 = 8;

/// The places that words of a process's memory point at, at multiples of 8.
#[derive(Debug)]
pub(super) struct References {
    within: AddrRange,
    bits: Vec<u64>,
}

impl References {
    /// Reads all saved memory once. Of a pool that is too long nothing is known to be pointed at.
    pub(super) fn gather(memory: &dyn Memory, within: AddrRange) -> Self {
        let words = within.length().div_ceil(WORD);
        let kept = if within.length() <= LONGEST { words.div_ceil(64) } else { 0 };
        let mut found = Self { within, bits: vec![0; narrow(kept)] };
        if kept > 0 {
            islands::words(memory, Addr(0), Addr(u64::MAX), |_, value| found.set(Addr(value)));
        }
        found
    }

    /// Whether something points at `at`.
    pub(super) fn lead_to(&self, at: Addr) -> bool {
        let bits = self.place(at).and_then(|(index, bit)| Some(self.bits.get(index)? & bit));
        bits.is_some_and(|bits| bits != 0)
    }

    #[inline]
    fn set(&mut self, at: Addr) {
        if let Some((index, bit)) = self.place(at)
            && let Some(bits) = self.bits.get_mut(index)
        {
            *bits |= bit;
        }
    }

    /// Where the bit for `at` stands.
    #[inline]
    fn place(&self, at: Addr) -> Option<(usize, u64)> {
        if !self.within.contains(at) || !at.0.is_multiple_of(WORD) {
            return None;
        }
        let word = at.offset_from(self.within.start)?.wrapping_div(WORD);
        let bit = u32::try_from(word.wrapping_rem(64)).ok()?;
        Some((narrow(word.wrapping_div(64)), 1_u64.checked_shl(bit)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bytes::Blob;
    use crate::memory::{Content, Segment, SegmentMap};

    #[test]
    fn pointers_from_anywhere_count_where_they_lead_to_a_word_of_the_pool() {
        let pool = AddrRange::new(Addr(0x7000_0000), 0x1000);
        let words = [0x7000_0008, 0x7000_0ff8, 0x7000_1000, 0x6fff_fff8, 0x7000_0101, 0x7000_0200];
        let bytes: Vec<u8> = words.iter().flat_map(|word: &u64| word.to_le_bytes()).collect();
        let range = AddrRange::new(Addr(0x1000), 48);
        let content = Content::Bytes { blob: Blob::from_bytes(bytes), offset: 0 };
        let memory = SegmentMap::new(vec![Segment { range, writable: Some(true), content }]);
        let references = References::gather(&memory, pool);
        let places = (0..0x200).map(|word| Addr(0x7000_0000 + word * 8));
        let found: Vec<_> = places.filter(|at| references.lead_to(*at)).map(|at| at.0).collect();
        assert_eq!(found, [0x7000_0008, 0x7000_0200, 0x7000_0ff8]);
        assert!(!references.lead_to(Addr(0x7000_1000)));
    }

    #[test]
    fn a_pool_of_any_length_takes_no_memory_beyond_the_limit() {
        let memory = SegmentMap::new(Vec::new());
        let pool = AddrRange::new(Addr(8), u64::MAX - 8);
        assert!(!References::gather(&memory, pool).lead_to(Addr(16)));
    }
}
