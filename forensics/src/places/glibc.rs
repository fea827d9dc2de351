//! The heaps of glibc's `malloc`, recognised by their own structures (2.26 to 2.41, 64-bit).
//!
//! A chunk is `prev_size` at 0 and `size` at 8, whose three lowest bits are flags; the next chunk
//! follows `size` bytes further. The main arena's chunks lie in the brk heap, and the last one
//! (`top`) ends where that ends. Another arena lies in 64-MiB aligned reservations that each begin
//! with a `heap_info`: the arena at 0, the reservation before it at 8, bytes in use at 16, bytes
//! made accessible at 24.

use crate::addr::{Addr, AddrRange};
use crate::memory::{Cursor, Memory};

/// Flags that no chunk of the main arena has: `IS_MMAPPED`, `NON_MAIN_ARENA`.
const FOREIGN: u64 = 0b110;
const FLAGS: u64 = 0b111;
const SMALLEST_CHUNK: u64 = 32;
/// Chunks in a row that no other memory has by chance; behind them the heap may be damaged.
const ENOUGH: u32 = 16;
/// Chunks that are looked at.
const MOST: u32 = 4096;

/// Length and alignment of an arena's reservation, in bytes (`HEAP_MAX_SIZE`).
const RESERVATION: u64 = 64 << 20;
const PAGE: u64 = 4096;

/// Whether `heap` holds chunks of the main arena from its start on: to its very end, or so many
/// that it cannot be chance.
pub(super) fn is_main_heap(memory: &dyn Memory, heap: AddrRange) -> bool {
    let mut cursor = Cursor::new(memory);
    let mut at = heap.start;
    for number in 0..MOST {
        if at == heap.end {
            return number > 0;
        }
        let Some(next) = next_chunk(&mut cursor, at, heap.end) else { return number >= ENOUGH };
        at = next;
    }
    true
}

fn next_chunk(cursor: &mut Cursor<'_>, at: Addr, end: Addr) -> Option<Addr> {
    let word = cursor.bytes(at.checked_add(8)?, 8).ok()?;
    let word = u64::from_le_bytes(*word.first_chunk()?);
    let size = word & !FLAGS;
    let fits = word & FOREIGN == 0 && size >= SMALLEST_CHUNK && size.is_multiple_of(16);
    at.checked_add(size).filter(|next| fits && *next <= end)
}

/// Whether `at` lies in an arena of its own, as threads get them.
pub(super) fn in_arena(memory: &dyn Memory, at: Addr) -> bool {
    let Some(own) = HeapInfo::read(memory, at) else { return false };
    let inside = at.0.saturating_sub(own.base.0) < own.size;
    if own.previous.is_null() {
        return inside && own.begins_arena();
    }
    // A further reservation names the arena that the first one holds.
    let first = HeapInfo::read(memory, own.arena);
    let known = first.is_some_and(|first| first.begins_arena() && first.arena == own.arena);
    inside && known && own.previous.0.is_multiple_of(RESERVATION)
}

/// `struct heap_info` of a reservation.
struct HeapInfo {
    base: Addr,
    arena: Addr,
    previous: Addr,
    size: u64,
}

impl HeapInfo {
    /// Of the reservation that would hold `at`.
    fn read(memory: &dyn Memory, at: Addr) -> Option<Self> {
        let base = Addr(at.0 & !RESERVATION.wrapping_sub(1));
        let word = |offset| memory.word(base.checked_add(offset)?).ok();
        let (arena, previous) = (Addr(word(0)?), Addr(word(8)?));
        let (size, accessible) = (word(16)?, word(24)?);
        let whole = size > 0 && size.is_multiple_of(PAGE) && accessible.is_multiple_of(PAGE);
        let fits = whole && size <= accessible && accessible <= RESERVATION;
        fits.then_some(Self { base, arena, previous, size })
    }

    /// The arena itself follows the first reservation's `heap_info`, which has been 32 or 48 bytes
    /// long.
    fn begins_arena(&self) -> bool {
        let behind = self.arena.offset_from(self.base);
        self.previous.is_null() && matches!(behind, Some(32 | 48))
    }
}
