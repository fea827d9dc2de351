//! Tables and prose in lines of a terminal.

use std::io::{self, Write};

use comfy_table::{CellAlignment, Table, presets};

/// Columns that prose may take.
const WIDTH: usize = 100;

/// A plain table whose columns before `left_from` are aligned to the right.
pub(in crate::report) fn table(header: &[&str], left_from: usize) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header.to_vec());
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if index < left_from {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// Prose in lines of at most [`WIDTH`] columns; lines after the first are indented as far.
pub(in crate::report) fn wrapped(start: &str, text: &str, out: &mut dyn Write) -> io::Result<()> {
    let indent = start.len();
    let mut line = start.to_owned();
    for word in text.split(' ') {
        let fits = line.chars().count().saturating_add(word.chars().count()) < WIDTH;
        if !fits && line.len() > indent {
            writeln!(out, "{}", line.trim_end())?;
            line = " ".repeat(indent);
        }
        line.push_str(word);
        line.push(' ');
    }
    writeln!(out, "{}", line.trim_end())
}

/// A table without the blanks at the ends of its lines.
pub(in crate::report) fn lines(indent: &str, table: &Table, out: &mut dyn Write) -> io::Result<()> {
    table.lines().try_for_each(|line| writeln!(out, "{indent}{}", line.trim_end()))
}
