//! One section of call frame entries, and how the entry of an address is found in it.

use std::collections::HashMap;
use std::sync::OnceLock;

use gimli::{
    BaseAddresses, CieOrFde, DebugFrame, EhFrame, EndianSlice, LittleEndian, UnwindOffset,
    UnwindSection,
};

use super::rules::{self, FrameRules, Scratch, Slice};
use crate::bytes::Blob;
use crate::num::{narrow, wide};

/// Bytes of a section, and its address in the file.
#[derive(Clone, Debug)]
pub(super) struct Section {
    pub(super) bytes: Blob,
    pub(super) address: u64,
}

impl Section {
    fn slice(&self) -> &[u8] {
        self.bytes.all_in_place().unwrap_or_default()
    }
}

/// Which of the two forms a section has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `.eh_frame`
    Eh,
    /// `.debug_frame`
    Debug,
}

/// One section of entries.
#[derive(Debug)]
pub(super) struct Table {
    kind: Kind,
    entries: Section,
    /// The linker's search table, where there is one in the usual form.
    linked: Option<SearchTable>,
    /// Else our own: made when first asked for.
    made: OnceLock<Vec<Covered>>,
}

/// What an entry covers: half-open addresses in the file, and where it is in the section.
#[derive(Clone, Copy, Debug)]
struct Covered {
    start: u64,
    end: u64,
    offset: usize,
}

impl Table {
    /// A section and, for `.eh_frame`, its header section.
    pub(super) fn new(kind: Kind, entries: Section, header: Option<Section>) -> Self {
        let linked = header.and_then(SearchTable::read);
        Self { kind, entries, linked, made: OnceLock::new() }
    }

    /// The rules at an address; `None` where no entry covers it.
    pub(super) fn at(
        &self,
        address: u64,
        scratch: &mut Scratch,
    ) -> Result<Option<FrameRules>, String> {
        let offset = match &self.linked {
            Some(table) => {
                table.entry(address).and_then(|entry| entry.checked_sub(self.entries.address))
            }
            None => self.search(address),
        };
        let Some(offset) = offset.map(narrow) else { return Ok(None) };
        let (bases, slice) = (self.bases(), EndianSlice::new(self.entries.slice(), LittleEndian));
        match self.kind {
            Kind::Eh => rules::read(&EhFrame::from(slice), &bases, offset.into(), address, scratch),
            Kind::Debug => {
                rules::read(&DebugFrame::from(slice), &bases, offset.into(), address, scratch)
            }
        }
    }

    fn bases(&self) -> BaseAddresses {
        BaseAddresses::default().set_eh_frame(self.entries.address)
    }

    fn search(&self, address: u64) -> Option<u64> {
        let made = self.made.get_or_init(|| {
            let slice = EndianSlice::new(self.entries.slice(), LittleEndian);
            match self.kind {
                Kind::Eh => covered(&EhFrame::from(slice), &self.bases()),
                Kind::Debug => covered(&DebugFrame::from(slice), &self.bases()),
            }
        });
        let behind = made.partition_point(|entry| entry.start <= address);
        let entry = made.get(behind.checked_sub(1)?)?;
        (address < entry.end).then(|| wide(entry.offset))
    }
}

/// All entries of a section by address, up to the first that cannot be read.
fn covered<'a, S: UnwindSection<Slice<'a>>>(section: &S, bases: &BaseAddresses) -> Vec<Covered> {
    let mut found = Vec::new();
    let mut shared = HashMap::new();
    let mut entries = section.entries(bases);
    while let Ok(Some(entry)) = entries.next() {
        let CieOrFde::Fde(partial) = entry else { continue };
        let entry = partial.parse(|section, bases, offset| {
            let place: usize = UnwindOffset::into(offset);
            let known = shared.entry(place);
            known.or_insert_with(|| section.cie_from_offset(bases, offset)).clone()
        });
        if let Ok(entry) = entry {
            let (start, end) = (entry.initial_address(), entry.end_address());
            found.push(Covered { start, end, offset: entry.offset() });
        }
    }
    found.sort_by_key(|entry| entry.start);
    found
}

/// `.eh_frame_hdr` in the form that every linker of x86-64 writes: behind 12 bytes, pairs of 4-byte
/// numbers by rising first number, the start of a function and its entry, both from the section's
/// own address.
#[derive(Debug)]
struct SearchTable {
    section: Section,
    count: usize,
}

/// Version 1; then how the address of `.eh_frame` (relative to its own place), the number of pairs
/// and the pairs (relative to the section) are written: 4 bytes each.
const USUAL: [u8; 4] = [1, 0x1b, 0x03, 0x3b];
const PAIRS_AT: usize = 12;
const PAIR: usize = 8;

impl SearchTable {
    fn read(section: Section) -> Option<Self> {
        let bytes = section.slice();
        let count = bytes.strip_prefix(&USUAL)?.get(4..)?.first_chunk();
        let count = count.map(|count| u32::from_le_bytes(*count))?;
        let held = bytes.len().checked_sub(PAIRS_AT)?.checked_div(PAIR)?;
        let count = usize::try_from(count).ok()?.min(held);
        (count > 0).then_some(Self { section, count })
    }

    /// Address of the last entry that does not begin behind `address`.
    fn entry(&self, address: u64) -> Option<u64> {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low.midpoint(high);
            if self.number(middle, 0)? <= address {
                low = middle.saturating_add(1);
            } else {
                high = middle;
            }
        }
        self.number(low.checked_sub(1)?, 4)
    }

    fn number(&self, pair: usize, at: usize) -> Option<u64> {
        let at = pair.checked_mul(PAIR)?.checked_add(PAIRS_AT)?.checked_add(at)?;
        let bytes = self.section.slice().get(at..)?.first_chunk()?;
        let distance = i64::from(i32::from_le_bytes(*bytes));
        Some(self.section.address.wrapping_add_signed(distance))
    }
}

/// Address of `.eh_frame` as a header section in the usual form says it.
pub(super) fn entries_address(header: &Section) -> Option<u64> {
    let distance = header.slice().strip_prefix(&USUAL)?.first_chunk()?;
    let distance = i64::from(i32::from_le_bytes(*distance));
    header.address.checked_add(4).map(|place| place.wrapping_add_signed(distance))
}
