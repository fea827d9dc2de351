//! Used fragments by exact payload size, for pools whose build records no owners: fragments of one
//! kind of object have one size.

use rustc_hash::FxHashMap;

use crate::addr::AddrRange;
use crate::heap::{Arena, Step};

/// Fragments of a size whose payloads are kept for a look at their content.
const SAMPLE: usize = 16;

/// The used fragments of one size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PayloadSize {
    /// Payload of each, in bytes.
    pub payload: u64,
    /// How many there are.
    pub fragments: u64,
    /// Payloads of some of them, spread over the pool.
    pub sample: Vec<AddrRange>,
    /// Every so many fragments one is taken into the sample.
    stride: u64,
}

impl PayloadSize {
    /// Payload of all of them, in bytes.
    pub fn bytes(&self) -> u64 {
        self.payload.saturating_mul(self.fragments)
    }

    fn new(payload: u64) -> Self {
        Self { payload, fragments: 0, sample: Vec::new(), stride: 1 }
    }

    /// A sample that is full loses every second fragment and grows half as fast from then on.
    fn add(&mut self, payload: AddrRange) {
        if self.sample.len() >= SAMPLE {
            let mut keep = false;
            self.sample.retain(|_| {
                keep = !keep;
                keep
            });
            self.stride = self.stride.saturating_mul(2);
        }
        if self.fragments.is_multiple_of(self.stride) {
            self.sample.push(payload);
        }
        self.fragments = self.fragments.saturating_add(1);
    }
}

/// Walks a pool and gathers the used fragments without an owner behind the first `skip` used ones,
/// most bytes first.
pub fn payload_sizes(arena: &dyn Arena, skip: u64) -> Vec<PayloadSize> {
    let mut sizes: FxHashMap<u64, PayloadSize> = FxHashMap::default();
    let mut used = 0_u64;
    for step in arena.walk() {
        let Step::Fragment(fragment) = step else { continue };
        if !fragment.used {
            continue;
        }
        used = used.saturating_add(1);
        if used > skip && fragment.owner.is_none() {
            let length = fragment.payload.length();
            sizes.entry(length).or_insert_with(|| PayloadSize::new(length)).add(fragment.payload);
        }
    }
    let mut sizes: Vec<PayloadSize> = sizes.into_values().collect();
    sizes.sort_by_key(|size| (std::cmp::Reverse(size.bytes()), size.payload));
    sizes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Addr;

    #[test]
    fn a_sample_is_small_and_spread_over_all_fragments() {
        let mut size = PayloadSize::new(64);
        for index in 0..1000 {
            size.add(AddrRange::new(Addr(index * 0x100), 64));
        }
        assert_eq!((size.fragments, size.bytes()), (1000, 64_000));
        assert!((8..=16).contains(&size.sample.len()), "{:?}", size.sample);
        let places: Vec<u64> = size.sample.iter().map(|range| range.start.0 / 0x100).collect();
        assert_eq!(places.first(), Some(&0));
        assert!(places.last().is_some_and(|last| *last >= 800), "{places:?}");
        assert!(places.is_sorted_by(|one, next| one < next), "{places:?}");
    }
}
