//! Dialogs of the dialog module: `d_table` leads to slots that are doubly linked lists.
//!
//! A dialog's end is a second of Kamailio's own counter, not of the wall clock; requests inside the
//! dialog move it. A dialog in state `deleted` is past its end too: something still refers to it.
//! Its age counts from its first request.

use std::collections::BTreeMap;

use super::held::{Held, PastEnd, TableLayout};
use super::view::{Doubt, Record, View, ensure};
use super::{Described, Table, agreeing};
use crate::addr::Addr;
use crate::layout::{Layout, NoField};

pub(super) struct Dialog;

/// Offsets in `struct dlg_cell`.
struct Shape {
    next: u64,
    prev: u64,
    /// `h_entry`: the slot.
    slot: u64,
    state: u64,
    /// `init_ts`
    made: u64,
    /// `end_ts`
    ended: u64,
    /// `tl`, whose `next` and `prev` are null for a dialog without a timer.
    timer: u64,
    /// `callid`, whose text lies behind the structure in the same fragment.
    call_id: u64,
}

/// Debian's 5.4.4, 5.6.3 and 6.0.1.
const KNOWN: [(&str, Shape); 1] = [(
    "dialogs with a timer at 96",
    Shape { next: 8, prev: 16, slot: 28, state: 32, made: 40, ended: 48, timer: 96, call_id: 120 },
)];

/// The slots follow in the same fragment.
const TABLE: u64 = 16;
const TABLE_SLOTS: u64 = 8;
const SLOT: u64 = 32;
const SLOT_LAST: u64 = 8;
const SLOT_LOCK: u64 = 20;
/// In `struct dlg_tl`.
const TIMEOUT: u64 = 16;
/// The timer looks once a second.
const SLACK: u32 = 1;

const STATES: [&str; 5] = ["unconfirmed", "early", "confirmed-without-ack", "confirmed", DELETED];
const DELETED: &str = "deleted";

impl Table for Dialog {
    fn module(&self) -> &'static str {
        "dialog"
    }

    fn root(&self) -> &'static str {
        "d_table"
    }

    fn structures(&self) -> &'static [&'static str] {
        &["dlg_cell"]
    }

    fn read(&self, view: &View<'_>, root: Addr, described: &Described) -> Result<Vec<Held>, Doubt> {
        agreeing(described, Shape::bind, &KNOWN, view, |shape, layout| {
            shape.table(view, &view.whole(root, TABLE)?, layout).map(|held| vec![held])
        })
    }
}

/// What a table adds up to.
#[derive(Default)]
struct Sum {
    states: BTreeMap<&'static str, u64>,
    entries: u64,
    past: PastEnd,
    oldest: Option<u64>,
}

impl Shape {
    fn bind(layouts: &[Layout]) -> Result<Self, NoField> {
        let cell = Layout::find(layouts, "dlg_cell")?;
        Ok(Self {
            next: cell.offset("next")?,
            prev: cell.offset("prev")?,
            slot: cell.offset("h_entry")?,
            state: cell.offset("state")?,
            made: cell.offset("init_ts")?,
            ended: cell.offset("end_ts")?,
            timer: cell.offset("tl")?,
            call_id: cell.offset("callid")?,
        })
    }

    fn table(
        &self,
        view: &View<'_>,
        table: &Record<'_>,
        layout: &TableLayout,
    ) -> Result<Held, Doubt> {
        let slots = u64::from(table.int(0)?);
        let behind = table.pointer(TABLE_SLOTS)? == table.field(TABLE);
        ensure(behind, table.at, "its slots do not follow it")?;
        let mut sum = Sum::default();
        for (index, slot) in view.array_behind(table.at, TABLE, slots, SLOT)?.iter() {
            self.slot(view, index, &slot?, &mut sum)?;
        }
        Ok(Held {
            module: "dialog",
            name: None,
            slots,
            entries: sum.entries,
            states: sum.states,
            past_end: view.clock.ticks.map(|_| sum.past),
            oldest_seconds: sum.oldest,
            layout: layout.clone(),
        })
    }

    fn slot(
        &self,
        view: &View<'_>,
        index: u64,
        slot: &Record<'_>,
        sum: &mut Sum,
    ) -> Result<(), Doubt> {
        let locked = slot.int(SLOT_LOCK)? != 0;
        let (mut previous, mut at) = (Addr::NULL, slot.pointer(0)?);
        while !at.is_null() {
            sum.entries = sum.entries.saturating_add(1);
            let dialog = view.whole(at, self.call_id.saturating_add(16))?;
            self.check(view, index, &dialog)?;
            let links = dialog.pointer(self.prev)? == previous || locked;
            ensure(links, at, "a dialog does not lead back to the one before")?;
            self.count(view, &dialog, sum)?;
            (previous, at) = (at, dialog.pointer(self.next)?);
        }
        let ends = slot.pointer(SLOT_LAST)? == previous || locked;
        ensure(ends, slot.at, "a slot's last dialog is another one")
    }

    /// It belongs to its slot, and its Call-ID lies behind it in its own fragment.
    fn check(&self, view: &View<'_>, index: u64, dialog: &Record<'_>) -> Result<(), Doubt> {
        let behind = dialog.pointer(self.call_id)?.offset_from(dialog.at);
        let length = u64::from(dialog.int(self.call_id.saturating_add(8))?);
        let end = behind.and_then(|behind| behind.checked_add(length));
        let inside =
            end.is_some_and(|end| view.fragment(dialog.at).is_some_and(|held| end <= held));
        let behind = behind.is_some_and(|behind| behind >= self.call_id.saturating_add(16));
        ensure(inside && behind, dialog.at, "not a dialog of this layout")?;
        ensure(u64::from(dialog.int(self.slot)?) == index, dialog.at, "a dialog in the wrong slot")
    }

    fn count(&self, view: &View<'_>, dialog: &Record<'_>, sum: &mut Sum) -> Result<(), Doubt> {
        let number = usize::try_from(dialog.int(self.state)?).unwrap_or(0);
        let state = number.checked_sub(1).and_then(|number| STATES.get(number)).copied();
        let state = state.ok_or_else(|| Doubt::new(format!("at {}: in no state", dialog.at)))?;
        let count = sum.states.entry(state).or_insert(0);
        *count = count.saturating_add(1);
        let made = i64::from(dialog.int(self.made)?);
        sum.oldest = sum.oldest.max(view.clock.since(made));
        if state == DELETED {
            let ended = i64::from(dialog.int(self.ended)?);
            sum.past.add(view.clock.since(ended).filter(|_| ended != 0).unwrap_or(0));
        } else if !dialog.pointer(self.timer)?.is_null() {
            let end = dialog.int(self.timer.saturating_add(TIMEOUT))?;
            let late = view.clock.tick_seconds_since(end).filter(|late| *late > SLACK);
            late.into_iter().for_each(|late| sum.past.add(u64::from(late)));
        }
        Ok(())
    }
}
