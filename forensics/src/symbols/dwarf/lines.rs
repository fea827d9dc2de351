//! The rows of one unit's table of lines, and the paths of its files.

use std::num::NonZeroU64;

use super::sections::Slice;
use super::work::{KEPT, Trouble, Work};

/// Runs of code that may overlap.
const OVERLAPPING: usize = 16;
/// Longest path that is kept, in characters.
const LONGEST: usize = 1024;

/// Which code comes from which line.
#[derive(Debug, Default)]
pub(super) struct Lines {
    runs: Vec<Run>,
    rows: Vec<Row>,
}

/// A run of code without gaps, and where its rows are.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Run {
    start: u64,
    end: u64,
    rows: (usize, usize),
}

/// Code from `address` on.
#[derive(Clone, Copy, Debug)]
struct Row {
    address: u64,
    file: u64,
    line: Option<NonZeroU64>,
    is_statement: bool,
}

impl Lines {
    /// Runs the table's program; a unit without one has no lines.
    pub(super) fn read(unit: &gimli::Unit<Slice<'_>>) -> Result<Self, Trouble> {
        let mut lines = Self::default();
        let Some(program) = unit.line_program.clone() else { return Ok(lines) };
        let mut work = Work::of_unit();
        let mut program = program.rows();
        let mut first = 0;
        while let Some((_, row)) = program.next_row()? {
            work.spend(KEPT)?;
            if row.end_sequence() {
                lines.end_run(first, row.address());
                first = lines.rows.len();
                continue;
            }
            let row = Row {
                address: row.address(),
                file: row.file_index(),
                line: row.line(),
                is_statement: row.is_stmt(),
            };
            lines.add(first, row);
        }
        lines.rows.truncate(first);
        lines.runs.sort_unstable();
        Ok(lines)
    }

    /// Of several rows for one address the last one counts, as for gdb, unless only an earlier one
    /// begins a statement.
    fn add(&mut self, first: usize, row: Row) {
        let same = self.rows.get_mut(first..).and_then(<[Row]>::last_mut);
        match same.filter(|last| last.address == row.address) {
            Some(last) if last.is_statement && !row.is_statement => {}
            Some(last) => *last = row,
            None => self.rows.push(row),
        }
    }

    fn end_run(&mut self, first: usize, end: u64) {
        let start = self.rows.get(first).map_or(0, |row| row.address);
        // Functions that the linker threw away are left at address 0.
        if start == 0 || start >= end {
            self.rows.truncate(first);
            return;
        }
        self.runs.push(Run { start, end, rows: (first, self.rows.len()) });
    }

    /// The file, as the unit numbers it, and the line of an address.
    pub(super) fn at(&self, value: u64) -> Option<(u64, Option<u64>)> {
        let behind = self.runs.partition_point(|run| run.start <= value);
        let before = self.runs.get(..behind)?.iter().rev();
        let run = before.take(OVERLAPPING).find(|run| value < run.end)?;
        let rows = self.rows.get(run.rows.0..run.rows.1)?;
        let row = rows.partition_point(|row| row.address <= value).checked_sub(1)?;
        let row = rows.get(row)?;
        Some((row.file, row.line.map(NonZeroU64::get)))
    }
}

/// The path of a unit's file: below the folder of the compilation where it is relative.
pub(super) fn path(
    dwarf: &gimli::Dwarf<Slice<'_>>,
    unit: &gimli::Unit<Slice<'_>>,
    file: u64,
) -> Option<String> {
    let header = unit.line_program.as_ref()?.header();
    let file = header.file(file)?;
    let text = |value| {
        let text = dwarf.attr_string(unit, value).ok()?;
        Some(text.to_string_lossy().chars().take(LONGEST).collect::<String>())
    };
    let mut path = unit.comp_dir.map(|folder| folder.to_string_lossy().into_owned());
    // Folder 0 is that of the compilation.
    if file.directory_index() != 0
        && let Some(folder) = file.directory(header).and_then(text)
    {
        path = Some(joined(path, &folder));
    }
    let path = joined(path, &text(file.path_name())?);
    Some(path.chars().take(LONGEST).collect())
}

fn joined(folder: Option<String>, name: &str) -> String {
    match folder {
        Some(folder) if !name.starts_with('/') && !folder.is_empty() => {
            format!("{}/{name}", folder.trim_end_matches('/'))
        }
        _ => name.to_owned(),
    }
}
