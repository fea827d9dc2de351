//! A hash table built byte by byte: 100,000 is now, three entries in 16 slots.

use proptest::prelude::*;

use super::view::View;
use super::{Clock, Described, Held, PastEnd, Table, TableLayout, htable::Htable};
use crate::addr::{Addr, AddrRange};
use crate::bytes::Blob;
use crate::layout::Layout;
use crate::leak::Used;
use crate::memory::{Content, Segment, SegmentMap};

const BASE: u64 = 0x10_0000;
/// Where the fragments lie, and how long they are: the table, its slots, three entries.
const TABLE: (u64, u64) = (0x0, 0x140);
const SLOTS: (u64, u64) = (0x200, 0x200);
const CELLS: [(u64, u64); 3] = [(0x400, 80), (0x500, 80), (0x600, 80)];

struct Pool(Vec<u8>);

impl Pool {
    fn word(&mut self, at: u64, value: u64) {
        let at = usize::try_from(at).unwrap();
        self.0[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }

    fn int(&mut self, at: u64, value: u32) {
        let at = usize::try_from(at).unwrap();
        self.0[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }

    /// Two entries in slot 1, one in slot 0.
    fn sound() -> Self {
        let mut pool = Self(vec![0; 0x700]);
        pool.int(20, 60);
        pool.int(212, 16);
        pool.word(304, BASE + SLOTS.0);
        let slot = |number: u64| SLOTS.0 + number * 32;
        pool.int(slot(0), 1);
        pool.word(slot(0) + 8, BASE + CELLS[0].0);
        pool.int(slot(1), 2);
        pool.word(slot(1) + 8, BASE + CELLS[1].0);
        for ((at, hash), end) in
            [(0x400, 0x10), (0x500, 0x11), (0x600, 0x21)].into_iter().zip([0, 99_000, 100_001])
        {
            pool.int(at, hash);
            pool.int(at + 4, 74);
            pool.word(at + 16, BASE + at + 72);
            pool.int(at + 24, 1);
            pool.word(at + 48, end);
        }
        pool.word(0x500 + 64, BASE + 0x600);
        pool.word(0x600 + 56, BASE + 0x500);
        pool
    }

    fn read(&self, clock: Clock, described: &Described) -> Result<Vec<Held>, String> {
        let range = AddrRange::new(Addr(BASE), 0x700);
        let content = Content::Bytes { blob: Blob::from_bytes(self.0.clone()), offset: 0 };
        let memory = SegmentMap::new(vec![Segment { range, writable: Some(true), content }]);
        let fragment =
            |(at, length): (u64, u64)| Used::new(AddrRange::new(Addr(BASE + at), length), 0);
        let fragments: Vec<Used> = [TABLE, SLOTS].into_iter().chain(CELLS).map(fragment).collect();
        let view = View::new(&memory, &fragments, clock);
        Htable.read(&view, Addr(BASE), described).map_err(|doubt| doubt.to_string())
    }
}

const CLOCK: Clock = Clock { now: Some(100_000), ticks: None };

#[test]
fn entries_past_their_end_are_counted() {
    let held = Pool::sound().read(CLOCK, &Described::default()).unwrap();
    let [held] = &held[..] else { panic!("one table: {held:?}") };
    assert_eq!((held.slots, held.entries), (16, 3));
    assert_eq!(held.past_end, Some(PastEnd { entries: 1, longest_seconds: 1000 }));
    assert_eq!(held.layout, TableLayout::Agreed { layout: "htable of 320 bytes", tried: 2 });
}

#[test]
fn without_a_clock_or_an_end_none_is_past_it() {
    let mut pool = Pool::sound();
    let read = |pool: &Pool, clock| pool.read(clock, &Described::default()).unwrap()[0].past_end;
    assert_eq!(read(&pool, Clock::default()), None);
    pool.int(20, 0);
    assert_eq!(read(&pool, CLOCK), Some(PastEnd::default()));
}

#[test]
fn debug_information_is_asked_first() {
    let fields = [("htsize", 212), ("entries", 304), ("next", 312)];
    let table = Layout::new("_ht", 320, &fields);
    let cell = |prev, next| Layout::new("_ht_cell", 72, &[("prev", prev), ("next", next)]);
    let read = |cell: Layout| {
        let layouts = vec![table.clone(), cell];
        Pool::sound().read(CLOCK, &Described { build_id: "ab".to_owned(), layouts })
    };
    let held = read(cell(56, 64)).unwrap();
    assert_eq!(held[0].layout, TableLayout::Dwarf { build_id: "ab".to_owned() });
    // No other layout is tried where that one does not fit.
    assert!(read(cell(64, 56)).is_err());
}

#[test]
fn a_slot_that_is_being_changed_may_count_otherwise() {
    let mut pool = Pool::sound();
    pool.int(SLOTS.0, 2);
    let error = pool.read(CLOCK, &Described::default()).unwrap_err();
    assert!(error.contains("a slot counts other entries than it holds"), "{error}");
    pool.int(SLOTS.0 + 16, 1);
    assert_eq!(pool.read(CLOCK, &Described::default()).unwrap()[0].entries, 3);
}

#[test]
fn a_list_that_leads_back_into_itself_is_not_counted() {
    let mut pool = Pool::sound();
    pool.word(0x600 + 64, BASE + 0x500);
    assert!(pool.read(CLOCK, &Described::default()).is_err());
    // Even where nobody minds the links.
    pool.int(SLOTS.0 + 32 + 16, 1);
    assert!(pool.read(CLOCK, &Described::default()).is_err());
    // A table that follows itself.
    let mut pool = Pool::sound();
    pool.word(312, BASE);
    let error = pool.read(CLOCK, &Described::default()).unwrap_err();
    assert!(error.contains("a list does not end"), "{error}");
}

proptest! {
    /// Whatever a byte is changed to, the count is the true one or there is none.
    #[test]
    fn a_wrong_byte_never_gives_a_wrong_count(at in 0_usize..0x700, byte: u8) {
        let mut pool = Pool::sound();
        pool.0[at] = byte;
        if let Ok(held) = pool.read(CLOCK, &Described::default()) {
            prop_assert_eq!(held.iter().map(|held| held.entries).collect::<Vec<_>>(), [3]);
        }
    }
}
