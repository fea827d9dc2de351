//! Registers as tables.

use std::io::{self, Write};

use super::{lines, table};
use crate::report::model::ProcessReport;

/// The registers of a process's threads, if they were asked for.
pub(super) fn show(process: &ProcessReport, out: &mut dyn Write) -> io::Result<()> {
    let Some(threads) = &process.registers else { return Ok(()) };
    let pid = process.pid.map_or_else(|| process.core.clone(), |pid| pid.to_string());
    if threads.is_empty() {
        return writeln!(out, "Registers of {pid}: the core has none\n");
    }
    for thread in threads {
        writeln!(out, "Registers of {pid}, thread {}", thread.tid)?;
        if let Some(why) = &thread.missing {
            writeln!(out, "  {why}")?;
        }
        let mut table = table(&["", "value", "place"], 0);
        for register in &thread.values {
            let place = register.place.as_ref().map(ToString::to_string);
            table.add_row(vec![
                register.name.to_owned(),
                register.value.to_string(),
                place.unwrap_or_default(),
            ]);
        }
        if !thread.values.is_empty() {
            lines("  ", &table, out)?;
        }
        writeln!(out)?;
    }
    Ok(())
}
