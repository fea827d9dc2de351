//! Processes that died, as text: signal, fault, instruction, nearest memory.

use std::io::{self, Write};

use super::wrapped;
use crate::report::crashes::{CrashReport, NearbyReport};

/// Nothing where nobody died.
pub(super) fn crashes(crashes: &[CrashReport], out: &mut dyn Write) -> io::Result<()> {
    if crashes.is_empty() {
        return Ok(());
    }
    writeln!(out, "Crashes ({})", crashes.len())?;
    crashes.iter().try_for_each(|crash| show(crash, out))?;
    writeln!(out)
}

fn show(crash: &CrashReport, out: &mut dyn Write) -> io::Result<()> {
    let pid = crash.pid.map_or_else(|| "?".to_owned(), |pid| pid.to_string());
    let thread =
        if crash.pid == Some(crash.tid) { String::new() } else { format!("/{}", crash.tid) };
    let role = crash.role.as_ref().map(|role| format!(" ({role})")).unwrap_or_default();
    let cause = crash.cause.map(|cause| format!(": {cause}")).unwrap_or_default();
    let standing = crash.standing.name().to_uppercase();
    let head = format!("{standing}  {pid}{thread}{role} died of {}{cause}", crash.signal_name);
    wrapped("  ", &head, out)?;
    if let Some(why) = &crash.why {
        wrapped("    why          ", why, out)?;
    }
    if let Some(fault) = &crash.fault {
        let source = if fault.from_kernel { "" } else { " (by the registers)" };
        wrapped("    fault        ", &format!("{}{source}", fault.words), out)?;
        crash.nearby.iter().filter(|n| n.what == "fault").try_for_each(|n| memory(n, out))?;
    }
    if let Some(found) = &crash.instruction {
        let text = format!("{}: {}  [{}]", found.address, found.text, found.bytes);
        wrapped("    instruction  ", &text, out)?;
    }
    if let Some(why) = &crash.no_instruction {
        wrapped("    instruction  ", &format!("not known: {why}"), out)?;
    }
    if let Some(functions) = &crash.interrupted {
        wrapped("    interrupted  ", &functions.join(" ← "), out)?;
    }
    crash.nearby.iter().filter(|n| n.what != "fault").try_for_each(|n| memory(n, out))
}

fn memory(nearby: &NearbyReport, out: &mut dyn Write) -> io::Result<()> {
    // What the fault's address is stands in the line above.
    if nearby.what != "fault" {
        let place = nearby.place.as_deref().unwrap_or("no pointer");
        wrapped("    ", &format!("{:<12} {}: {place}", nearby.what, nearby.address), out)?;
    }
    for word in &nearby.words {
        let place = word.place.as_ref().map(|place| format!("  {place}")).unwrap_or_default();
        writeln!(out, "      {:#018x}  {:#018x}{place}", word.address.0, word.value.0)?;
    }
    for neighbour in &nearby.neighbours {
        let side = if neighbour.range.start > nearby.address { "above" } else { "below" };
        wrapped("      ", &format!("next {side}: {} {}", neighbour.range, neighbour.place), out)?;
    }
    Ok(())
}
