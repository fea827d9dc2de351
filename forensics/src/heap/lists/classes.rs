//! Which list a free fragment of a size belongs into.

/// How a manager sorts free fragments by size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::heap) enum SizeClasses {
    /// `q_malloc` and `f_malloc`: 2,048 lists of equal steps, then one for each power of two.
    Hash {
        /// How many lists: 2,099 until 5.7 (steps of 8 bytes up to 16 KiB), 2,098 since (16 bytes
        /// up to 32 KiB).
        lists: u32,
    },
    /// TLSF: 32 rows of 32 lists. The first row has steps of 8 bytes up to 256; each other row
    /// halves a power of two into 32 steps.
    TwoLevels,
}

/// Lists of equal steps of [`SizeClasses::Hash`].
const STEPS: u64 = 2048;
/// Lists in a row, and rows, of [`SizeClasses::TwoLevels`].
pub(in crate::heap) const ROW: u32 = 32;
/// Sizes below stand in the first row.
const SMALL: u64 = 256;

impl SizeClasses {
    /// Classes for so many hashed lists; `None` for a number that no release has.
    pub(in crate::heap) fn hash(lists: u64) -> Option<Self> {
        let lists = u32::try_from(lists).ok()?;
        matches!(lists, 2098 | 2099).then_some(Self::Hash { lists })
    }

    /// How many lists there are.
    pub(in crate::heap) fn count(self) -> u32 {
        match self {
            Self::Hash { lists } => lists,
            Self::TwoLevels => ROW.saturating_mul(ROW),
        }
    }

    /// The list for a payload of `size` bytes.
    pub(in crate::heap) fn list_of(self, size: u64) -> u32 {
        let log = size.checked_ilog2().unwrap_or(0);
        match self {
            Self::Hash { lists } => {
                let largest = log_of_largest(lists);
                let list = match size <= power(largest) {
                    true => size.checked_div(step(lists)).unwrap_or(0),
                    false => STEPS
                        .saturating_add(u64::from(log.saturating_sub(largest)))
                        .saturating_add(1),
                };
                u32::try_from(list).unwrap_or(u32::MAX)
            }
            Self::TwoLevels => {
                let (row, place) = match size < SMALL {
                    true => (0, size >> 3_u32),
                    // The five bits below the highest one.
                    false => (log.saturating_sub(7), (size >> log.saturating_sub(5)) & 31),
                };
                let place = u32::try_from(place).unwrap_or(u32::MAX);
                row.saturating_mul(ROW).saturating_add(place)
            }
        }
    }

    /// The smallest payload of a list, in bytes.
    pub(in crate::heap) fn smallest(self, list: u32) -> u64 {
        match self {
            Self::Hash { lists } => match u64::from(list).checked_sub(STEPS.saturating_add(1)) {
                Some(above) => {
                    let above = u32::try_from(above).unwrap_or(u32::MAX);
                    power(log_of_largest(lists).saturating_add(above))
                }
                None => u64::from(list).saturating_mul(step(lists)),
            },
            Self::TwoLevels => {
                let (row, place) = (list.wrapping_div(ROW), u64::from(list.wrapping_rem(ROW)));
                match row {
                    0 => place.saturating_mul(8),
                    row => {
                        let unit = power(row.saturating_add(2));
                        unit.saturating_mul(place.saturating_add(32))
                    }
                }
            }
        }
    }
}

/// The largest size with a step of its own, as a power of two: 14 or 15.
fn log_of_largest(lists: u32) -> u32 {
    2113_u32.saturating_sub(lists)
}

fn step(lists: u32) -> u64 {
    power(log_of_largest(lists)).wrapping_div(STEPS)
}

fn power(log: u32) -> u64 {
    1_u64.checked_shl(log).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_sizes_have_a_list_each_and_large_ones_share_by_power_of_two() {
        let old = SizeClasses::hash(2099).unwrap();
        let seen =
            [8, 16, 16_384, 16_392, 32_767, 32_768, 60_123_496].map(|size| old.list_of(size));
        assert_eq!(seen, [1, 2, 2048, 2049, 2049, 2050, 2060]);
        let new = SizeClasses::hash(2098).unwrap();
        let seen = [16, 32_768, 32_784, 65_536].map(|size| new.list_of(size));
        assert_eq!(seen, [1, 2048, 2049, 2050]);
        assert_eq!(SizeClasses::hash(2100), None);
    }

    #[test]
    fn rows_of_tlsf_begin_at_powers_of_two() {
        let lists = [24, 248, 256, 264, 511, 512, 4096].map(|s| SizeClasses::TwoLevels.list_of(s));
        assert_eq!(lists, [3, 31, 32, 33, 63, 64, 160]);
    }

    #[test]
    fn the_smallest_size_of_a_list_belongs_into_it() {
        let old = SizeClasses::hash(2099).unwrap();
        let new = SizeClasses::hash(2098).unwrap();
        for classes in [old, new, SizeClasses::TwoLevels] {
            for list in [1, 7, 31, 33, 64, 320, 1000] {
                assert_eq!(classes.list_of(classes.smallest(list)), list, "{classes:?} {list}");
            }
        }
        for list in [2047, 2048, 2050, 2060] {
            assert_eq!(old.list_of(old.smallest(list)), list, "{list}");
        }
    }
}
