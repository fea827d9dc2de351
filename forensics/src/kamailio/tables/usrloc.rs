//! Contacts of usrloc: `_ksr_ul_root` leads to a list of domains, each with slots that are lists of
//! addresses of record, each with a list of contacts.
//!
//! A contact's end is a `time_t`: 0 never, 10 deleted and waiting for the timer. Its age counts from
//! its last REGISTER.

use std::collections::BTreeMap;

use super::held::{Held, PastEnd, TableLayout};
use super::view::{Doubt, Record, View, ensure};
use super::{Described, Table, agreeing};
use crate::addr::Addr;
use crate::layout::{Layout, NoField};

pub(super) struct Usrloc;

/// Offsets in `struct ucontact`, and the length of `struct hslot`.
struct Shape {
    /// `expires`
    expires: u64,
    /// `last_modified`
    modified: u64,
    /// `next`
    next: u64,
    /// `prev`
    prev: u64,
    /// `sizeof(struct hslot)`
    slot: u64,
}

/// Debian's 5.4.4, 5.6.3 and 6.0.1 have the first; before it lies that without `uniq`.
const KNOWN: [(&str, Shape); 2] = [
    ("contacts of 248 bytes", Shape { expires: 80, modified: 168, next: 232, prev: 240, slot: 48 }),
    ("contacts of 232 bytes", Shape { expires: 80, modified: 152, next: 216, prev: 224, slot: 48 }),
];

// struct dlist
const DOMAIN: u64 = 32;
const DOMAIN_TABLE: u64 = 16;
const DOMAIN_NEXT: u64 = 24;
// struct udomain
const TABLE: u64 = 24;
const TABLE_SIZE: u64 = 8;
const TABLE_SLOTS: u64 = 16;
// struct hslot
const SLOT_FIRST: u64 = 8;
const SLOT_LAST: u64 = 16;
const SLOT_TABLE: u64 = 24;
const SLOT_LOCK: u64 = 32;
// struct urecord
const RECORD: u64 = 64;
const RECORD_AOR: u64 = 8;
const RECORD_HASH: u64 = 24;
const RECORD_CONTACTS: u64 = 32;
const RECORD_SLOT: u64 = 40;
const RECORD_PREV: u64 = 48;
const RECORD_NEXT: u64 = 56;
// struct ucontact
const CONTACT_AOR: u64 = 24;

/// `UL_EXPIRED_TIME`
const DELETED: i64 = 10;
/// A `last_modified` before this is none: Kamailio did not exist, in seconds since 1970.
const EARLIEST: i64 = 1_000_000_000;
impl Table for Usrloc {
    fn module(&self) -> &'static str {
        "usrloc"
    }

    fn root(&self) -> &'static str {
        "_ksr_ul_root"
    }

    fn structures(&self) -> &'static [&'static str] {
        &["ucontact", "hslot"]
    }

    fn read(&self, view: &View<'_>, root: Addr, described: &Described) -> Result<Vec<Held>, Doubt> {
        agreeing(described, Shape::bind, &KNOWN, view, |shape, layout| {
            let mut held = Vec::new();
            let mut at = root;
            while !at.is_null() {
                let domain = view.whole(at, DOMAIN)?;
                held.push(shape.domain(view, &domain, layout)?);
                at = domain.pointer(DOMAIN_NEXT)?;
            }
            Ok(held)
        })
    }
}

/// What a domain adds up to.
#[derive(Default)]
struct Sum {
    records: u64,
    contacts: u64,
    past: PastEnd,
    oldest: Option<u64>,
}

impl Shape {
    fn bind(layouts: &[Layout]) -> Result<Self, NoField> {
        let contact = Layout::find(layouts, "ucontact")?;
        Ok(Self {
            expires: contact.offset("expires")?,
            modified: contact.offset("last_modified")?,
            next: contact.offset("next")?,
            prev: contact.offset("prev")?,
            slot: Layout::find(layouts, "hslot")?.size,
        })
    }

    fn domain(
        &self,
        view: &View<'_>,
        domain: &Record<'_>,
        layout: &TableLayout,
    ) -> Result<Held, Doubt> {
        let table = view.whole(domain.pointer(DOMAIN_TABLE)?, TABLE)?;
        let size = table.int(TABLE_SIZE)?;
        ensure(size.is_power_of_two(), table.at, "its number of slots is no power of two")?;
        ensure(table.pointer(0)? == domain.at, table.at, "a table of another domain")?;
        let mut sum = Sum::default();
        let array = view.array(table.pointer(TABLE_SLOTS)?, u64::from(size), self.slot)?;
        for (index, slot) in array.iter() {
            let slot = slot?;
            ensure(slot.pointer(SLOT_TABLE)? == table.at, slot.at, "a slot of another domain")?;
            self.slot(view, domain.at, &slot, (index, size), &mut sum)?;
        }
        Ok(Held {
            module: "usrloc",
            name: view.name(domain.pointer(0)?, domain.int(8)?),
            slots: u64::from(size),
            entries: sum.contacts,
            states: BTreeMap::new(),
            past_end: view.clock.now.map(|_| sum.past),
            oldest_seconds: sum.oldest,
            layout: layout.clone(),
        })
    }

    /// The addresses of record in one slot.
    fn slot(
        &self,
        view: &View<'_>,
        domain: Addr,
        slot: &Record<'_>,
        (index, size): (u64, u32),
        sum: &mut Sum,
    ) -> Result<(), Doubt> {
        let locked = slot.int(SLOT_LOCK)? != 0;
        let before = sum.records;
        let (mut previous, mut at) = (Addr::NULL, slot.pointer(SLOT_FIRST)?);
        while !at.is_null() {
            sum.records = sum.records.saturating_add(1);
            let record = view.whole(at, RECORD)?;
            let of_slot = u64::from(record.int(RECORD_HASH)? & size.saturating_sub(1)) == index
                && record.pointer(RECORD_SLOT)? == slot.at
                && record.pointer(0)? == domain;
            ensure(of_slot, at, "an address in the wrong slot")?;
            let links = record.pointer(RECORD_PREV)? == previous || locked;
            ensure(links, at, "an address does not lead back to the one before")?;
            self.contacts(view, domain, &record, locked, sum)?;
            (previous, at) = (at, record.pointer(RECORD_NEXT)?);
        }
        let counted = u64::from(slot.int(0)?) == sum.records.saturating_sub(before);
        let ends = slot.pointer(SLOT_LAST)? == previous;
        ensure((counted && ends) || locked, slot.at, "a slot counts other addresses than it holds")
    }

    /// The contacts of one address.
    fn contacts(
        &self,
        view: &View<'_>,
        domain: Addr,
        record: &Record<'_>,
        locked: bool,
        sum: &mut Sum,
    ) -> Result<(), Doubt> {
        let (mut previous, mut at) = (Addr::NULL, record.pointer(RECORD_CONTACTS)?);
        while !at.is_null() {
            sum.contacts = sum.contacts.saturating_add(1);
            let contact = view.whole(at, self.next.max(self.prev).saturating_add(8))?;
            let own = contact.pointer(0)? == domain
                && contact.pointer(CONTACT_AOR)? == record.field(RECORD_AOR);
            ensure(own, at, "a contact of another address")?;
            let links = contact.pointer(self.prev)? == previous || locked;
            ensure(links, at, "a contact does not lead back to the one before")?;
            let modified = contact.time(self.modified)?;
            // A replicated contact brings the other host's time: clocks differ by less than a day.
            let latest = view.clock.now.map_or(i64::MAX, |now| now.saturating_add(86_400));
            ensure((EARLIEST..=latest).contains(&modified), at, "not a contact of this layout")?;
            sum.oldest = sum.oldest.max(view.clock.since(modified));
            let end = contact.time(self.expires)?;
            match view.clock.since(end).filter(|_| end != 0) {
                Some(_) if end == DELETED => sum.past.add(0),
                Some(seconds) => sum.past.add(seconds),
                None => {}
            }
            (previous, at) = (at, contact.pointer(self.next)?);
        }
        Ok(())
    }
}
