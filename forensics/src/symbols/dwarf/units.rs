//! The units of one file's debug information, and which of them describe an address.
//!
//! A unit is read when an address asks for it. The tables of abbreviations do not overlap in any
//! real file; each is cut where the next one begins, so that no file can have the same bytes read
//! once per unit.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use gimli::{Abbreviations, DebugAbbrevOffset, DebugInfoOffset, SectionId, UnitType};

use super::functions::Functions;
use super::lines::Lines;
use super::sections::{Sections, Slice};
use super::work::{KEPT, Trouble, Work};

/// Ranges in front of an address that may overlap it.
const OVERLAPPING: usize = 64;
/// Units of which an address is asked.
const CANDIDATES: usize = 8;

type Dwarf<'a> = gimli::Dwarf<Slice<'a>>;
type Table = OnceLock<Result<Arc<Abbreviations>, gimli::Error>>;

/// One unit, and what was read of it.
#[derive(Debug)]
pub(super) struct Unit {
    /// Offset of its header in `.debug_info`.
    offset: usize,
    is_partial: bool,
    pub(super) functions: OnceLock<Result<Functions, Trouble>>,
    pub(super) lines: OnceLock<Result<Lines, Trouble>>,
}

/// The units of a file, by offset.
#[derive(Debug)]
pub(super) struct Units {
    list: Vec<Unit>,
    /// The tables of abbreviations by offset in `.debug_abbrev`.
    tables: BTreeMap<usize, Table>,
}

impl Units {
    /// Reads the headers up to the first damaged one.
    pub(super) fn read(dwarf: &Dwarf<'_>) -> Self {
        let mut units = Self { list: Vec::new(), tables: BTreeMap::new() };
        let mut headers = dwarf.units();
        while let Ok(Some(header)) = headers.next() {
            let kind = header.type_();
            let is_of_types = matches!(kind, UnitType::Type { .. } | UnitType::SplitType { .. });
            if let Some(offset) = header.debug_info_offset().filter(|_| !is_of_types) {
                units.tables.entry(header.debug_abbrev_offset().0).or_default();
                units.list.push(Unit {
                    offset: offset.0,
                    is_partial: matches!(kind, UnitType::Partial),
                    functions: OnceLock::new(),
                    lines: OnceLock::new(),
                });
            }
        }
        units
    }

    pub(super) fn get(&self, index: usize) -> Option<&Unit> {
        self.list.get(index)
    }

    /// The unit in which an entry lies, by its offset in `.debug_info`.
    pub(super) fn holding(&self, entry: DebugInfoOffset) -> Option<usize> {
        self.list.partition_point(|unit| unit.offset < entry.0).checked_sub(1)
    }

    /// Reads a unit's header, abbreviations and first entry.
    pub(super) fn open<'a>(
        &self,
        dwarf: &Dwarf<'a>,
        sections: &'a Sections,
        index: usize,
    ) -> Result<gimli::Unit<Slice<'a>>, Trouble> {
        let offset = self.list.get(index).map_or(usize::MAX, |unit| unit.offset);
        let header = dwarf.unit_header(DebugInfoOffset(offset))?;
        let abbreviations = self.abbreviations(sections, header.debug_abbrev_offset())?;
        Ok(gimli::Unit::new_with_abbreviations(dwarf, header, abbreviations)?)
    }

    fn abbreviations(
        &self,
        sections: &Sections,
        at: DebugAbbrevOffset,
    ) -> Result<Arc<Abbreviations>, gimli::Error> {
        let mut from = self.tables.range(at.0..);
        let first = from.next().filter(|(offset, _)| **offset == at.0);
        let (start, table) = first.ok_or(gimli::Error::MissingUnitDie)?;
        let bytes = sections.bytes(SectionId::DebugAbbrev);
        let end = from.next().map_or(bytes.len(), |(next, _)| *next);
        let read = || {
            let own = bytes.get(*start..end).unwrap_or_default();
            let section = gimli::DebugAbbrev::new(own, gimli::LittleEndian);
            section.abbreviations(DebugAbbrevOffset(0)).map(Arc::new)
        };
        table.get_or_init(read).clone()
    }
}

/// Which unit describes which addresses.
#[derive(Debug)]
pub(super) struct Ranges {
    /// (first address, first address behind it, unit), by first address.
    list: Vec<(u64, u64, usize)>,
}

impl Ranges {
    /// From `.debug_aranges`, and for units that it leaves out, as those of LLVM, from themselves.
    pub(super) fn read(dwarf: &Dwarf<'_>, sections: &Sections, units: &Units) -> Self {
        let mut list = Vec::new();
        let mut listed = vec![false; units.list.len()];
        let mut headers = dwarf.debug_aranges.headers();
        while let Ok(Some(header)) = headers.next() {
            let offset = header.debug_info_offset().0;
            let found = units.list.binary_search_by_key(&offset, |unit| unit.offset);
            let Ok(index) = found else { continue };
            let mut entries = header.entries();
            while let Ok(Some(entry)) = entries.next() {
                let range = entry.range();
                list.push((range.begin, range.end, index));
            }
            if let Some(listed) = listed.get_mut(index) {
                *listed = true;
            }
        }
        let mut work = Work::of_unit();
        for (index, unit) in units.list.iter().enumerate() {
            if unit.is_partial || listed.get(index) == Some(&true) {
                continue;
            }
            // A damaged unit costs only itself.
            if let Err(Trouble::TooMuch) = own(dwarf, sections, units, index, &mut list, &mut work)
            {
                break;
            }
        }
        // Functions that the linker threw away are left at address 0.
        list.retain(|(start, end, _)| *start != 0 && start < end);
        list.sort_unstable();
        Self { list }
    }

    /// The units that say they describe an address.
    pub(super) fn at(&self, value: u64) -> impl Iterator<Item = usize> {
        let behind = self.list.partition_point(|(start, ..)| *start <= value);
        let before = self.list.get(..behind).unwrap_or_default().iter().rev();
        let covering = before.take(OVERLAPPING).filter(move |(_, end, _)| value < *end);
        covering.map(|(.., unit)| *unit).take(CANDIDATES)
    }
}

/// The ranges that a unit's own first entry names.
fn own(
    dwarf: &Dwarf<'_>,
    sections: &Sections,
    units: &Units,
    index: usize,
    list: &mut Vec<(u64, u64, usize)>,
    work: &mut Work,
) -> Result<(), Trouble> {
    let unit = units.open(dwarf, sections, index)?;
    let header = unit.line_program.as_ref().map(gimli::IncompleteLineProgram::header);
    let files = header.map_or(0, |header| header.file_names().len());
    work.spend(files.saturating_add(1))?;
    let mut ranges = dwarf.unit_ranges(&unit)?;
    while let Some(range) = ranges.next()? {
        work.spend(KEPT)?;
        list.push((range.begin, range.end, index));
    }
    Ok(())
}
