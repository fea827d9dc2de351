//! How large a pool's fragments are, and what its free memory is good for.

use crate::addr::Addr;
use crate::heap::Fragment;
use crate::num::{ratio, wide};

/// Used and free fragments of about one size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SizeClass {
    /// Used fragments.
    pub used_fragments: u64,
    /// Their payload, in bytes.
    pub used_bytes: u64,
    /// Free fragments.
    pub free_fragments: u64,
    /// Their payload, in bytes.
    pub free_bytes: u64,
}

/// The sizes of a pool's fragments, gathered during its walk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// One class for each power of two; class `n` holds sizes from 2^n to 2^(n+1) - 1.
    classes: Vec<SizeClass>,
    /// Payload of every free fragment, in bytes.
    free: Vec<u64>,
    run: FreeRun,
    /// Free fragments that directly follow another one.
    pub joinable: u64,
    /// Payload that the largest free fragment would have if free neighbours were joined, in bytes.
    pub largest_if_joined: u64,
}

/// Free fragments that touch one another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct FreeRun {
    /// Payload of the first.
    start: Addr,
    /// End of the last one's payload; null outside a run.
    end: Addr,
}

/// More than any manager's trailer and header together, in bytes: what lies further apart are no
/// neighbours, but something broken is between them.
const OVERHEAD: u64 = 256;

impl Sizes {
    /// Takes the next fragment in, by rising address.
    pub(super) fn add(&mut self, fragment: &Fragment) {
        let length = fragment.payload.length();
        let class = usize::try_from(length.checked_ilog2().unwrap_or(0)).unwrap_or(0);
        if self.classes.len() <= class {
            self.classes.resize(class.saturating_add(1), SizeClass::default());
        }
        if let Some(class) = self.classes.get_mut(class) {
            let (fragments, bytes) = match fragment.used {
                true => (&mut class.used_fragments, &mut class.used_bytes),
                false => (&mut class.free_fragments, &mut class.free_bytes),
            };
            *fragments = fragments.saturating_add(1);
            *bytes = bytes.saturating_add(length);
        }
        if fragment.used {
            self.run = FreeRun::default();
            return;
        }
        self.free.push(length);
        let follows = !self.run.end.is_null()
            && fragment.payload.start.offset_from(self.run.end).is_some_and(|gap| gap < OVERHEAD);
        if follows {
            self.joinable = self.joinable.saturating_add(1);
        } else {
            self.run.start = fragment.payload.start;
        }
        self.run.end = fragment.payload.end;
        let joined = self.run.end.0.saturating_sub(self.run.start.0);
        self.largest_if_joined = self.largest_if_joined.max(joined);
    }

    /// The classes that hold something: (smallest size, largest size, class), both inclusive.
    pub fn classes(&self) -> impl Iterator<Item = (u64, u64, SizeClass)> + '_ {
        self.classes.iter().enumerate().filter_map(|(power, class)| {
            let from = 1_u64.checked_shl(u32::try_from(power).ok()?)?;
            let to = from.saturating_mul(2).saturating_sub(1);
            (*class != SizeClass::default()).then_some((from, to, *class))
        })
    }

    /// Share of the free bytes, 0 to 1, that lie in fragments too small for a request of so many
    /// bytes.
    pub fn unusable_for(&self, request: u64) -> f64 {
        let all: u64 = self.free.iter().sum();
        let small: u64 = self.free.iter().filter(|size| **size < request).sum();
        ratio(small, all)
    }

    /// Free fragments seen.
    pub fn free_fragments(&self) -> u64 {
        wide(self.free.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::AddrRange;

    fn sizes(fragments: &[(u64, bool)]) -> Sizes {
        let mut sizes = Sizes::default();
        let mut at = 0x1000;
        for &(length, used) in fragments {
            sizes.add(&Fragment {
                header: Addr(at),
                payload: AddrRange::new(Addr(at + 56), length),
                used,
                owner: None,
                damage: Vec::new(),
            });
            at += 56 + length + 48;
        }
        sizes
    }

    #[test]
    fn free_memory_is_judged_by_what_it_can_serve() {
        let sizes =
            sizes(&[(64, true), (96, false), (32, false), (100, true), (1000, false), (8, true)]);
        assert_eq!(sizes.free_fragments(), 3);
        assert_eq!(sizes.joinable, 1);
        assert_eq!(sizes.largest_if_joined, 1000);
        assert!((sizes.unusable_for(33) - 32.0 / 1128.0).abs() < 1e-9);
        assert!((sizes.unusable_for(1000) - 128.0 / 1128.0).abs() < 1e-9);
        assert!((sizes.unusable_for(1001) - 1.0).abs() < 1e-9);
        let classes: Vec<_> =
            sizes.classes().map(|(from, to, class)| (from, to, class.free_bytes)).collect();
        assert_eq!(classes, [(8, 15, 0), (32, 63, 32), (64, 127, 96), (512, 1023, 1000)]);
    }

    #[test]
    fn joined_neighbours_count_what_lies_between_them() {
        let sizes = sizes(&[(96, false), (32, false), (40, false), (8, true)]);
        assert_eq!(sizes.joinable, 2);
        assert_eq!(sizes.largest_if_joined, 96 + 32 + 40 + 2 * 104);
    }
}
