//! The functions of one unit, and the calls that were inlined at an address.

use gimli::{AttributeValue, Range, UnitOffset};

use super::sections::Slice;
use super::work::{KEPT, Trouble, Work};

/// Functions that may lie within one another.
const NESTED: usize = 16;
/// Inlined calls at one address that are told.
const MOST_INLINED: usize = 128;

type UnitRef<'a, 'u> = gimli::UnitRef<'u, Slice<'a>>;
type Attribute<'a> = gimli::Attribute<Slice<'a>>;

/// The code of a unit's functions, by address.
#[derive(Debug)]
pub(super) struct Functions {
    spans: Vec<Span>,
}

/// A run of code of a function; one that is split has several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Span {
    start: u64,
    end: u64,
    /// The function's first instruction.
    pub(super) entry: u64,
    /// Offset of the function's entry in its unit.
    pub(super) die: usize,
}

impl Span {
    /// Offset of an address in it from the function's first instruction, in bytes; `None` in a part
    /// that was split off.
    pub(super) fn offset(&self, value: u64) -> Option<u64> {
        (self.start == self.entry).then(|| value.saturating_sub(self.entry))
    }
}

/// A call that was inlined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Inlined {
    /// Offset of its entry in its unit.
    pub(super) die: usize,
    /// The file of the call, as the unit's table of files numbers it.
    pub(super) call_file: Option<u64>,
    /// The line of the call, from 1.
    pub(super) call_line: Option<u64>,
}

impl Functions {
    pub(super) fn read(unit: UnitRef<'_, '_>) -> Result<Self, Trouble> {
        let mut work = Work::of_unit();
        let mut spans = Vec::new();
        let mut attributes = Vec::new();
        let mut entries = unit.entries_raw(None)?;
        while !entries.is_empty() {
            let die = entries.next_offset().0;
            let Some(abbreviation) = entries.read_abbreviation()? else { continue };
            let specified = abbreviation.attributes();
            work.spend(specified.len().saturating_add(1))?;
            if abbreviation.tag() != gimli::DW_TAG_subprogram {
                entries.skip_attributes(specified)?;
                continue;
            }
            entries.read_attributes(specified, &mut attributes)?;
            let own = ranges(unit, &attributes, &mut work)?;
            // Functions that the linker threw away are left at address 0.
            if let Some(entry) = own.first().map(|first| first.begin).filter(|entry| *entry != 0) {
                let span = |range: &Range| Span { start: range.begin, end: range.end, entry, die };
                spans.extend(own.iter().map(span));
            }
        }
        spans.sort_unstable();
        Ok(Self { spans })
    }

    /// The innermost function with code at an address.
    pub(super) fn at(&self, value: u64) -> Option<Span> {
        let behind = self.spans.partition_point(|span| span.start <= value);
        let before = self.spans.get(..behind)?.iter().rev();
        before.take(NESTED).find(|span| value < span.end).copied()
    }
}

/// The calls inlined into a function at an address, the outermost first. Entries are read in the
/// order of the file and without recursion: they may nest as deep as a file is long.
pub(super) fn inlined(
    unit: UnitRef<'_, '_>,
    function: Span,
    value: u64,
) -> Result<Vec<Inlined>, Trouble> {
    let mut work = Work::of_unit();
    let mut chain = Vec::new();
    let mut attributes = Vec::new();
    let mut entries = unit.entries_raw(Some(UnitOffset(function.die)))?;
    let Some(own) = entries.read_abbreviation()? else { return Ok(chain) };
    entries.skip_attributes(own.attributes())?;
    // Depth of the innermost entry that covers the address, and of one whose children are left out.
    let mut inside = 0;
    let mut left_out = None;
    while !entries.is_empty() && entries.next_depth() > inside && chain.len() < MOST_INLINED {
        let (die, depth) = (entries.next_offset().0, entries.next_depth());
        let Some(abbreviation) = entries.read_abbreviation()? else { continue };
        let specified = abbreviation.attributes();
        work.spend(specified.len().saturating_add(1))?;
        left_out = left_out.filter(|above| depth > *above);
        let is_call = abbreviation.tag() == gimli::DW_TAG_inlined_subroutine;
        if left_out.is_some() || !is_call {
            entries.skip_attributes(specified)?;
            if abbreviation.tag() == gimli::DW_TAG_subprogram {
                left_out = left_out.or(Some(depth));
            }
            continue;
        }
        entries.read_attributes(specified, &mut attributes)?;
        let own = ranges(unit, &attributes, &mut work)?;
        if own.iter().any(|range| (range.begin..range.end).contains(&value)) {
            chain.push(call(unit, die, &attributes));
            inside = depth;
        } else {
            left_out = Some(depth);
        }
    }
    Ok(chain)
}

fn call(unit: UnitRef<'_, '_>, die: usize, attributes: &[Attribute<'_>]) -> Inlined {
    let mut call = Inlined { die, ..Inlined::default() };
    for attribute in attributes {
        match (attribute.name(), attribute.value()) {
            // Before DWARF 5, file 0 is none.
            (gimli::DW_AT_call_file, AttributeValue::FileIndex(file)) => {
                call.call_file = (file > 0 || unit.header.version() >= 5).then_some(file);
            }
            (gimli::DW_AT_call_line, _) => {
                call.call_line = attribute.udata_value().filter(|line| *line > 0);
            }
            _ => {}
        }
    }
    call
}

/// The code of an entry, in the order of the file; empty ranges are left out.
fn ranges<'a>(
    unit: UnitRef<'a, '_>,
    attributes: &[Attribute<'a>],
    work: &mut Work,
) -> Result<Vec<Range>, Trouble> {
    let (mut begin, mut end, mut length, mut list) = (None, None, None, None);
    for attribute in attributes {
        match (attribute.name(), attribute.value()) {
            (gimli::DW_AT_low_pc, value) => begin = unit.attr_address(value)?,
            (gimli::DW_AT_high_pc, AttributeValue::Udata(value)) => length = Some(value),
            (gimli::DW_AT_high_pc, value) => end = unit.attr_address(value)?,
            (gimli::DW_AT_ranges, value) => list = unit.attr_ranges_offset(value)?,
            _ => {}
        }
    }
    let mut found = Vec::new();
    if let Some(list) = list {
        let mut ranges = unit.ranges(list)?;
        while let Some(range) = ranges.next()? {
            work.spend(KEPT)?;
            found.push(range);
        }
    } else if let Some(begin) = begin {
        let end = end.or_else(|| begin.checked_add(length?));
        found.extend(end.map(|end| Range { begin, end }));
    }
    found.retain(|range| range.begin < range.end);
    Ok(found)
}
