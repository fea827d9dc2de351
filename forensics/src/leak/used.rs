//! The used fragments of a pool in short: what reachability and growth need, 16 bytes each.

use crate::addr::{Addr, AddrRange};
use crate::num::{narrow, wide};

/// One used fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    /// First byte of its payload.
    pub start: Addr,
    /// Payload in units of 8 bytes, rounded up; one of over 32 GiB counts as 32 GiB.
    units: u32,
    /// Index of its owner in the pool's list of owners.
    pub owner: u32,
}

impl Used {
    /// A fragment by its payload.
    pub fn new(payload: AddrRange, owner: u32) -> Self {
        let units = payload.length().div_ceil(8);
        Self { start: payload.start, units: u32::try_from(units).unwrap_or(u32::MAX), owner }
    }

    /// Its payload.
    #[inline]
    pub fn payload(&self) -> AddrRange {
        AddrRange::new(self.start, self.bytes())
    }

    /// Its payload in bytes.
    #[inline]
    pub fn bytes(&self) -> u64 {
        u64::from(self.units).saturating_mul(8)
    }
}

/// Cells are worth their memory up to so many for each fragment, or in all.
const CELLS_EACH: u64 = 64;
const CELLS_AT_LEAST: u64 = 1 << 16;

/// Bytes of a pool for which [`Index`] keeps one cell.
const CELL: u64 = 64 * 8;

/// Finds the fragment that an address lies in without a search: one bit for every 8 bytes of the
/// pool, set where a payload starts, and the number of those before each 64. A pool with few
/// fragments for its size, or for the size that a damaged block claims, is searched by halves.
#[derive(Debug)]
pub(super) struct Index<'a> {
    range: AddrRange,
    cells: Vec<Cell>,
    used: &'a [Used],
}

#[derive(Clone, Copy, Debug, Default)]
struct Cell {
    /// Payload starts in these 512 bytes of the pool.
    starts: u64,
    /// Payload starts before them.
    before: u32,
}

impl<'a> Index<'a> {
    /// Of the used fragments of one pool, by rising address.
    pub(super) fn new(range: AddrRange, used: &'a [Used]) -> Self {
        let wanted = range.length().div_ceil(CELL);
        let worth = wide(used.len()).saturating_mul(CELLS_EACH).max(CELLS_AT_LEAST);
        let wanted = if wanted <= worth { narrow(wanted) } else { 0 };
        let mut cells = vec![Cell::default(); wanted];
        for fragment in used {
            let Some(inside) = fragment.start.offset_from(range.start) else { continue };
            if let Some(cell) = cells.get_mut(narrow(inside / CELL)) {
                cell.starts |= 1 << (inside % CELL / 8);
            }
        }
        let mut before = 0_u32;
        for cell in &mut cells {
            cell.before = before;
            before = before.saturating_add(cell.starts.count_ones());
        }
        Self { range, cells, used }
    }

    /// The pool's addresses.
    pub(super) fn range(&self) -> AddrRange {
        self.range
    }

    /// The used fragment whose payload contains an address, or starts there.
    #[inline]
    pub(super) fn find(&self, at: Addr) -> Option<u32> {
        let (number, start) = self.at_or_before(at)?;
        if start {
            return Some(number);
        }
        let fragment = self.used.get(narrow(u64::from(number)))?;
        fragment.payload().contains(at).then_some(number)
    }

    /// The same by halves, for a pool without cells.
    #[cold]
    fn by_halves(&self, at: Addr) -> Option<(u32, bool)> {
        let number = self.used.partition_point(|fragment| fragment.start <= at).checked_sub(1)?;
        let start = self.used.get(number)?.start == at;
        Some((u32::try_from(number).ok()?, start))
    }

    /// The used fragment that an address is the start of.
    #[inline]
    pub(super) fn starting_at(&self, at: Addr) -> Option<u32> {
        let (number, start) = self.at_or_before(at)?;
        start.then_some(number)
    }

    /// The last fragment whose payload starts at an address or before it; whether at it. Looks only
    /// at the cells: the fragments are another place in memory, and most pointers lead to a start.
    #[inline]
    fn at_or_before(&self, at: Addr) -> Option<(u32, bool)> {
        let inside = at.offset_from(self.range.start)?;
        if self.cells.is_empty() {
            return self.by_halves(at);
        }
        let cell = self.cells.get(narrow(inside / CELL))?;
        // All starts up to and including the address's own 8 bytes, the last of them on top.
        let up_to = cell.starts << (63 - inside % CELL / 8);
        let number = cell.before.checked_add(up_to.count_ones())?.checked_sub(1)?;
        Some((number, inside % 8 == 0 && up_to >> 63 == 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(start: u64, length: u64) -> Used {
        Used::new(AddrRange::new(Addr(start), length), 0)
    }

    #[test]
    fn an_address_is_found_from_the_first_to_the_last_byte_of_a_payload() {
        let fragments = [used(0x1040, 24), used(0x1070, 8), used(0x1600, 0x1000), used(0x2700, 0)];
        let index = Index::new(AddrRange::new(Addr(0x1000), 0x2000), &fragments);
        let find = |at| index.find(Addr(at));
        assert_eq!([find(0xfff), find(0x1000), find(0x103f)], [None; 3]);
        assert_eq!([find(0x1040), find(0x1057), find(0x1058)], [Some(0), Some(0), None]);
        assert_eq!([find(0x106f), find(0x1070), find(0x1077)], [None, Some(1), Some(1)]);
        assert_eq!([find(0x1600), find(0x25ff), find(0x2600)], [Some(2), Some(2), None]);
        // An empty payload is held by a pointer to its start.
        assert_eq!([find(0x2700), find(0x2701), find(0x3000)], [Some(3), None, None]);
        let exactly = |at| index.starting_at(Addr(at));
        assert_eq!([exactly(0x1040), exactly(0x1041), exactly(0x2700)], [Some(0), None, Some(3)]);
    }

    #[test]
    fn a_pool_that_claims_to_be_huge_takes_no_memory_for_it() {
        let fragments = [used(0x1040, 24), used(0x1070, 8), used(0x1600, 0x1000)];
        let index = Index::new(AddrRange::new(Addr(0x1000), 1 << 60), &fragments);
        let find = |at| index.find(Addr(at));
        assert!(index.cells.is_empty());
        assert_eq!([find(0xfff), find(0x1000), find(0x103f)], [None; 3]);
        assert_eq!([find(0x1040), find(0x1057), find(0x1058)], [Some(0), Some(0), None]);
        assert_eq!([find(0x1600), find(0x25ff), find(0x2600)], [Some(2), Some(2), None]);
        let exactly = |at| index.starting_at(Addr(at));
        assert_eq!([exactly(0x1070), exactly(0x1071)], [Some(1), None]);
    }

    #[test]
    fn a_payload_of_a_broken_length_is_rounded_up() {
        assert_eq!(used(0x10, 9).bytes(), 16);
        assert_eq!(used(0x10, u64::MAX).bytes(), (u64::from(u32::MAX)) * 8);
    }
}
