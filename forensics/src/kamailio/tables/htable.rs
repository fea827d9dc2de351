//! Entries of the htable module: `_ht_root` leads to a list of tables, each with slots that are
//! doubly linked lists of cells sorted by hash.
//!
//! An entry's end is a `time_t`. In a table without `autoexpire` none ends, whatever the field
//! holds. Entries do not record when they were made.

use std::collections::BTreeMap;

use super::held::{Held, PastEnd, TableLayout};
use super::view::{Doubt, Record, View, ensure};
use super::{Described, Table, agreeing};
use crate::addr::Addr;
use crate::layout::{Layout, NoField};
use crate::memory::Memory as _;
use crate::process::Process;

pub(super) struct Htable;

/// Offsets in `struct _ht` and `struct _ht_cell`.
struct Shape {
    /// `htsize`, an `unsigned int`: slots.
    slots: u64,
    /// `entries`
    entries: u64,
    /// `next`
    next: u64,
    cell: Cell,
}

struct Cell {
    /// `sizeof`; the name follows at once.
    size: u64,
    prev: u64,
    next: u64,
}

const CELL: Cell = Cell { size: 72, prev: 56, next: 64 };

/// Debian's 5.4.4 has the first, its 5.6.3 and 6.0.1 the second. Later ones, whose cells have a
/// `last_modified`, are known by their debug information only.
const KNOWN: [(&str, Shape); 2] = [
    ("htable of 312 bytes", Shape { slots: 204, entries: 296, next: 304, cell: CELL }),
    ("htable of 320 bytes", Shape { slots: 212, entries: 304, next: 312, cell: CELL }),
];

// The same in all builds seen, 5.2 to 6.2.
const NAME: u64 = 0;
const NAME_LENGTH: u64 = 8;
const EXPIRE_AFTER: u64 = 20;
const SLOT: u64 = 32;
const SLOT_FIRST: u64 = 8;
const SLOT_LOCK: u64 = 16;
const CELL_HASH: u64 = 0;
const CELL_LENGTH: u64 = 4;
const CELL_NAME: u64 = 16;
const CELL_NAME_LENGTH: u64 = 24;
const CELL_EXPIRE: u64 = 48;

impl Table for Htable {
    fn module(&self) -> &'static str {
        "htable"
    }

    fn root(&self) -> &'static str {
        "_ht_root"
    }

    fn structures(&self) -> &'static [&'static str] {
        &["_ht", "_ht_cell"]
    }

    fn read(&self, view: &View<'_>, root: Addr, described: &Described) -> Result<Vec<Held>, Doubt> {
        agreeing(described, Shape::bind, &KNOWN, view, |shape, layout| {
            let mut held = Vec::new();
            let mut at = root;
            while !at.is_null() {
                let table = view.whole(at, shape.next.saturating_add(8))?;
                held.push(shape.table(view, &table, layout)?);
                at = table.pointer(shape.next)?;
            }
            // The list's last is the configuration's first.
            held.reverse();
            Ok(held)
        })
    }
}

/// More hash tables than any configuration has.
const MOST_TABLES: usize = 1000;

/// More slots than any table has.
const MOST_SLOTS: u64 = 1 << 24;

/// The slot that a lock belongs to, for a person: it stands in one of the module's tables, where slots
/// have their locks.
pub fn slot_of(process: &Process, lock: Addr) -> Option<String> {
    let module = process.modules.iter().find(|module| module.name() == "htable.so")?;
    let memory = &process.memory;
    let first = memory.pointer(module.symbol("_ht_root")?).ok()?;
    let field = |table: Addr, offset: u64| memory.pointer(table.checked_add(offset)?).ok();
    let number =
        |table: Addr, offset: u64| u64::try_from(memory.int(table.checked_add(offset)?).ok()?).ok();
    KNOWN.iter().find_map(|(_, shape)| {
        let slot = |table: Addr| {
            let slots = number(table, shape.slots).filter(|slots| slots.is_power_of_two())?;
            let inside = lock.offset_from(field(table, shape.entries)?)?;
            let slot = inside / SLOT;
            let its_lock = inside % SLOT == SLOT_LOCK && slot < slots && slots <= MOST_SLOTS;
            its_lock.then_some(slot)
        };
        let next = |table: &Addr| field(*table, shape.next).filter(|next| !next.is_null());
        let mut tables = std::iter::successors(Some(first), next).take(MOST_TABLES);
        let (table, slot) = tables.find_map(|table| Some((table, slot(table)?)))?;
        let length = number(table, NAME_LENGTH)?.min(64);
        let name = memory.text(field(table, NAME)?, usize::try_from(length).ok()?).ok()?;
        Some(format!("the lock of slot {slot} of hash table {name}"))
    })
}

/// What a table adds up to.
#[derive(Default)]
struct Sum {
    entries: u64,
    /// As if the table's entries ended.
    past: PastEnd,
}

impl Shape {
    fn bind(layouts: &[Layout]) -> Result<Self, NoField> {
        let table = Layout::find(layouts, "_ht")?;
        let cell = Layout::find(layouts, "_ht_cell")?;
        Ok(Self {
            slots: table.offset("htsize")?,
            entries: table.offset("entries")?,
            next: table.offset("next")?,
            cell: Cell { size: cell.size, prev: cell.offset("prev")?, next: cell.offset("next")? },
        })
    }

    fn table(
        &self,
        view: &View<'_>,
        table: &Record<'_>,
        layout: &TableLayout,
    ) -> Result<Held, Doubt> {
        let slots = table.int(self.slots)?;
        ensure(slots.is_power_of_two(), table.at, "its number of slots is no power of two")?;
        let ends = table.int(EXPIRE_AFTER)? > 0;
        let mut sum = Sum::default();
        let array = view.array(table.pointer(self.entries)?, u64::from(slots), SLOT)?;
        for (index, slot) in array.iter() {
            self.cell.slot(view, &slot?, (index, slots), &mut sum)?;
        }
        let past = if ends { view.clock.now.map(|_| sum.past) } else { Some(PastEnd::default()) };
        Ok(Held {
            module: "htable",
            name: view.name(table.pointer(NAME)?, table.int(NAME_LENGTH)?),
            slots: u64::from(slots),
            entries: sum.entries,
            states: BTreeMap::new(),
            past_end: past,
            oldest_seconds: None,
            layout: layout.clone(),
        })
    }
}

impl Cell {
    /// The cells in one slot.
    fn slot(
        &self,
        view: &View<'_>,
        slot: &Record<'_>,
        (index, slots): (u64, u32),
        sum: &mut Sum,
    ) -> Result<(), Doubt> {
        let locked = slot.int(SLOT_LOCK)? != 0;
        let before = sum.entries;
        let (mut previous, mut hash, mut at) = (Addr::NULL, 0, slot.pointer(SLOT_FIRST)?);
        while !at.is_null() {
            sum.entries = sum.entries.saturating_add(1);
            let cell = self.read(view, at)?;
            let own_hash = cell.int(CELL_HASH)?;
            let of_slot = u64::from(own_hash & slots.saturating_sub(1)) == index;
            ensure(of_slot && own_hash >= hash, at, "an entry in the wrong slot")?;
            let links = cell.pointer(self.prev)? == previous || locked;
            ensure(links, at, "an entry does not lead back to the one before")?;
            let end = cell.time(CELL_EXPIRE)?;
            let late = view.clock.since(end).filter(|late| end != 0 && *late > 0);
            late.into_iter().for_each(|late| sum.past.add(late));
            (previous, hash, at) = (at, own_hash, cell.pointer(self.next)?);
        }
        let counted = u64::from(slot.int(0)?) == sum.entries.saturating_sub(before);
        ensure(counted || locked, slot.at, "a slot counts other entries than it holds")
    }

    /// A cell, whose name lies right behind it.
    fn read<'a>(&self, view: &View<'a>, at: Addr) -> Result<Record<'a>, Doubt> {
        let cell = view.whole(at, self.size)?;
        let length = u64::from(cell.int(CELL_LENGTH)?);
        let needed = self.size.saturating_add(u64::from(cell.int(CELL_NAME_LENGTH)?));
        let fits = view.fragment(at).is_some_and(|held| needed < length && length <= held);
        let named = cell.pointer(CELL_NAME)? == cell.field(self.size);
        ensure(fits && named, at, "not an entry of this layout")?;
        Ok(cell)
    }
}
