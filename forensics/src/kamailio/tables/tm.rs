//! Transactions of tm: `_tm_table` leads to 65,536 slots that are rings of cells.
//!
//! A transaction's end is a tick of Kamailio's own counter: the end of its life while it waits for
//! an answer, that of its wait timer once it has one. It does not record when it began.

use std::collections::BTreeMap;

use super::clock::TICKS_PER_SECOND;
use super::held::{Held, PastEnd, TableLayout};
use super::view::{Doubt, Record, View, ensure};
use super::{Described, Table, agreeing};
use crate::addr::Addr;
use crate::layout::{Layout, NoField};

pub(super) struct Tm;

/// Offsets in `struct cell`.
struct Shape {
    /// `wait_timer`, whose `data` points to the cell itself.
    timer: u64,
    /// `fr_timeout`; `fr_inv_timeout` follows it, then the two of the retransmissions.
    timeouts: u64,
    /// `end_of_life`
    end: u64,
}

/// Debian's 5.4.4 and 5.6.3 have the first, its 6.0.1 the second.
const KNOWN: [(&str, Shape); 2] = [
    ("transactions with their end at 608", Shape { timer: 136, timeouts: 596, end: 608 }),
    ("transactions with their end at 656", Shape { timer: 184, timeouts: 644, end: 656 }),
];

const SLOTS: u64 = 65_536;
const SLOT: u64 = 32;
const SLOT_LOCK: u64 = 16;
const NEXT: u64 = 0;
const PREV: u64 = 8;
/// `hash_index`: the slot.
const INDEX: u64 = 16;
// In struct timer_ln.
const EXPIRE: u64 = 16;
const DATA: u64 = 24;
const FLAGS: u64 = 40;
/// `F_TIMER_ACTIVE`
const ACTIVE: u16 = 0x200;

impl Table for Tm {
    fn module(&self) -> &'static str {
        "tm"
    }

    fn root(&self) -> &'static str {
        "_tm_table"
    }

    fn structures(&self) -> &'static [&'static str] {
        &["cell"]
    }

    fn read(&self, view: &View<'_>, root: Addr, described: &Described) -> Result<Vec<Held>, Doubt> {
        agreeing(described, Shape::bind, &KNOWN, view, |shape, layout| {
            shape.table(view, root, layout).map(|held| vec![held])
        })
    }
}

/// What the table adds up to.
#[derive(Default)]
struct Sum {
    entries: u64,
    waiting: u64,
    past: PastEnd,
}

impl Shape {
    fn bind(layouts: &[Layout]) -> Result<Self, NoField> {
        let cell = Layout::find(layouts, "cell")?;
        Ok(Self {
            timer: cell.offset("wait_timer")?,
            timeouts: cell.offset("fr_timeout")?,
            end: cell.offset("end_of_life")?,
        })
    }

    fn table(&self, view: &View<'_>, root: Addr, layout: &TableLayout) -> Result<Held, Doubt> {
        let mut sum = Sum::default();
        for (index, slot) in view.array(root, SLOTS, SLOT)?.iter() {
            self.slot(view, index, &slot?, &mut sum)?;
        }
        let running = sum.entries.saturating_sub(sum.waiting);
        let states = [("in-progress", running), ("waiting", sum.waiting)];
        Ok(Held {
            module: "tm",
            name: None,
            slots: SLOTS,
            entries: sum.entries,
            states: states.into_iter().filter(|(_, count)| *count > 0).collect::<BTreeMap<_, _>>(),
            past_end: view.clock.ticks.map(|_| sum.past),
            oldest_seconds: None,
            layout: layout.clone(),
        })
    }

    /// A ring: an empty slot leads to itself, the last cell back to the slot.
    fn slot(
        &self,
        view: &View<'_>,
        index: u64,
        slot: &Record<'_>,
        sum: &mut Sum,
    ) -> Result<(), Doubt> {
        let locked = slot.int(SLOT_LOCK)? != 0;
        let (mut previous, mut at) = (slot.at, slot.pointer(NEXT)?);
        while at != slot.at {
            sum.entries = sum.entries.saturating_add(1);
            let cell = view.whole(at, self.end.saturating_add(4))?;
            self.check(index, &cell)?;
            let links = cell.pointer(PREV)? == previous || locked;
            ensure(links, at, "a transaction does not lead back to the one before")?;
            self.count(view, &cell, sum)?;
            (previous, at) = (at, cell.pointer(NEXT)?);
        }
        let ends = slot.pointer(PREV)? == previous || locked;
        ensure(ends, slot.at, "a slot's last transaction is another one")
    }

    fn check(&self, index: u64, cell: &Record<'_>) -> Result<(), Doubt> {
        ensure(u64::from(cell.int(INDEX)?) == index, cell.at, "a transaction in the wrong slot")?;
        let timeout = |offset: u64| cell.int(self.timeouts.saturating_add(offset));
        let interval = |offset: u64| cell.short(self.timeouts.saturating_add(offset));
        let own = cell.pointer(self.timer.saturating_add(DATA))? == cell.at
            && timeout(0)? > 0
            && timeout(4)? > 0
            && (1..=interval(10)?).contains(&interval(8)?);
        ensure(own, cell.at, "not a transaction of this layout")
    }

    fn count(&self, view: &View<'_>, cell: &Record<'_>, sum: &mut Sum) -> Result<(), Doubt> {
        let waiting = cell.short(self.timer.saturating_add(FLAGS))? & ACTIVE != 0;
        sum.waiting = sum.waiting.saturating_add(u64::from(waiting));
        let end = if waiting { self.timer.saturating_add(EXPIRE) } else { self.end };
        let late = view.clock.ticks_since(cell.int(end)?);
        // Timers are looked at tick by tick; within a second none is late.
        if let Some(late) = late.filter(|late| *late > TICKS_PER_SECOND) {
            sum.past.add(u64::from(late / TICKS_PER_SECOND));
        }
        Ok(())
    }
}
