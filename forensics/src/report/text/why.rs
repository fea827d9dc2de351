//! `forensics why` and `forensics refs` as text.

use std::io::{self, Write};

use super::paper::wrapped;
use crate::addr::Addr;
use crate::report::{Held, NodeReport, RefsReport, RootReport, WayPoint, WhyReport};
use crate::units::{count, size};

/// References that are told one by one.
const SHOWN: usize = 100;

/// The report of `forensics why` for an address.
///
/// # Errors
/// Those of `out`.
pub fn why(report: &WhyReport, at: Addr, out: &mut dyn Write) -> io::Result<()> {
    for kept in &report.fragments {
        heading(&kept.fragment, at, out)?;
        let held = match kept.held {
            Held::Data => "held: the program can still reach it",
            Held::Stack => "held by stacks and registers only: in use right now, or lost on return",
            Held::Nothing => "unreachable: no known root leads to it",
        };
        writeln!(out, "  {held}")?;
        if let Some(head) = &kept.head {
            let text = format!(
                "begin at {}, {}, {}, {}: it leads here and is lost, too",
                head.payload,
                head.pool,
                size(head.bytes),
                head.owner
            );
            wrapped("  ", &text, out)?;
        }
        for path in &kept.paths {
            writeln!(out)?;
            root(&path.root, out)?;
            for step in &path.steps {
                self::step("-> ", step, out)?;
            }
        }
        writeln!(out)?;
    }
    Ok(())
}

/// The report of `forensics refs` for an address.
///
/// # Errors
/// Those of `out`.
pub fn refs(report: &RefsReport, at: Addr, out: &mut dyn Write) -> io::Result<()> {
    for referred in &report.fragments {
        heading(&referred.fragment, at, out)?;
        if referred.roots.is_empty() && referred.references.is_empty() {
            writeln!(out, "  nothing points at it")?;
        }
        for word in referred.roots.iter().take(SHOWN) {
            root(word, out)?;
        }
        for reference in referred.references.iter().take(SHOWN) {
            step("", reference, out)?;
        }
        let hidden = referred.roots.len().saturating_sub(SHOWN);
        let hidden = hidden.saturating_add(referred.references.len().saturating_sub(SHOWN));
        if hidden > 0 {
            writeln!(out, "  … {hidden} more (--json has all)")?;
        }
        writeln!(out)?;
    }
    Ok(())
}

fn heading(fragment: &NodeReport, at: Addr, out: &mut dyn Write) -> io::Result<()> {
    let inside = match at.offset_from(fragment.payload) {
        Some(0) | None => String::new(),
        Some(offset) => format!(" + {offset:#x}"),
    };
    writeln!(
        out,
        "{at} = {}{inside}, {}, {}: {}",
        fragment.payload,
        fragment.pool,
        size(fragment.bytes),
        fragment.owner
    )
}

fn root(root: &RootReport, out: &mut dyn Write) -> io::Result<()> {
    let role = root.role.as_ref().map(|role| format!(" ({role})")).unwrap_or_default();
    let process = root.pid.map_or_else(|| "a process".to_owned(), |pid| format!("process {pid}"));
    let at = root.at.map(|at| format!("{at} ")).unwrap_or_default();
    let others = match root.also_in.len() {
        0 => String::new(),
        others => format!(", and the same in {} other processes", count(crate::num::wide(others))),
    };
    let text = format!("{at}= {}  {} of {process}{role}{others}", root.value, root.place);
    wrapped("  ", &text, out)
}

fn step(arrow: &str, step: &WayPoint, out: &mut dyn Write) -> io::Result<()> {
    let NodeReport { pool, payload, bytes, owner } = &step.fragment;
    let text = format!("{arrow}{payload} {pool}, {}, {owner}", size(*bytes));
    wrapped("    ", &text, out)?;
    let (Some(at), Some(value)) = (step.at, step.value) else { return Ok(()) };
    let offset = at.offset_from(*payload).unwrap_or_default();
    writeln!(out, "       at {at} (+{offset:#x}) = {value}")
}
