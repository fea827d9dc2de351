//! The report as text for a terminal.

mod crashes;
mod leaks;
mod locks;
mod paper;
mod pools;
mod registers;
mod threads;
mod why;

use std::io::{self, Write};

use super::model::{ProcessReport, Report};
use crate::diagnose::Finding;
use crate::gap::Gap;
use crate::units::{milliseconds, size};

pub use leaks::leaks;
pub use locks::locks;
pub(in crate::report) use paper::{lines, table, wrapped};
pub use pools::NO_HEAP;
use pools::pools;
pub use threads::threads;
pub use why::{refs, why};

/// Owners shown of each pool where the user asked for no number.
pub const DEFAULT_TOP: usize = 10;

/// Gaps that are told one by one.
const GAPS_SHOWN: usize = 50;

/// The whole report.
///
/// # Errors
/// Those of `out`.
pub fn report(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    heading(report, out)?;
    processes(report, out)?;
    if !report.stacks.is_empty() {
        threads::cpu(&report.stacks, out)?;
    }
    crashes::crashes(&report.crashes, out)?;
    findings(&report.findings, out)?;
    if !report.stacks.is_empty() {
        threads::summary(&report.stacks, out)?;
    }
    pools(report, out)?;
    gaps(&report.gaps, out)
}

/// The part of `forensics heap`: pools and gaps.
///
/// # Errors
/// Those of `out`.
pub fn heap(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    cut(report, out)?;
    pools(report, out)?;
    let heap = report.findings.iter().filter(|finding| finding.rule != "process-not-captured");
    findings(&heap.cloned().collect::<Vec<_>>(), out)?;
    gaps(&report.gaps, out)
}

/// The part of `forensics info`: what the input is.
///
/// # Errors
/// Those of `out`.
pub fn info(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    heading(report, out)?;
    processes(report, out)?;
    for process in &report.processes {
        let pid = process.pid.map_or_else(|| process.core.clone(), |pid| pid.to_string());
        writeln!(out, "Memory of {pid}: {} known, of which", size(process.known_bytes))?;
        writeln!(out, "  {} never existed and read as zero", size(process.zero_bytes))?;
        for (why, bytes) in &process.absent_bytes {
            writeln!(out, "  not known: {} {why}", size(*bytes))?;
        }
    }
    writeln!(out)?;
    for process in &report.processes {
        registers::show(process, out)?;
    }
    gaps(&report.gaps, out)
}

fn cut(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    for line in &report.cut {
        writeln!(out, "INCOMPLETE  {line}")?;
    }
    if !report.cut.is_empty() {
        writeln!(out)?;
    }
    Ok(())
}

fn heading(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    cut(report, out)?;
    for input in &report.inputs {
        writeln!(out, "Input      {input}")?;
    }
    if let Some(header) = &report.bundle {
        writeln!(out, "Taken      {} on {} by {}", header.created, header.host, header.tool)?;
        writeln!(out, "System     {} {}", header.kernel, header.machine)?;
        if !header.mode.is_live() {
            writeln!(out, "Post mortem: the program was gone when this was taken")?;
        }
        if !header.reason.is_empty() {
            writeln!(out, "Reason     {}", header.reason)?;
        }
        if let Some(series) = &header.series {
            let every = match series.every_ms % 1000 {
                0 => format!("{} s", series.every_ms / 1000),
                _ => format!("{} ms", series.every_ms),
            };
            let (number, of, id) = (series.number, series.of, &series.id);
            writeln!(out, "Series     sample {number} of {of}, every {every} ({id})")?;
        }
        for scope in &header.scope {
            wrapped("Scope      ", scope, out)?;
        }
    }
    writeln!(
        out,
        "Program    {}",
        report
            .program
            .as_deref()
            .unwrap_or("(no version string: not Kamailio, or its file is missing)")
    )?;
    writeln!(out)
}

fn processes(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    if report.processes.is_empty() {
        return writeln!(out, "No process: the input holds no readable core.\n");
    }
    let with_pause = report.processes.iter().any(|process| process.pause_micros.is_some());
    let mut table = table(&["PID", "threads", "memory known", "modules", "paused", "role"], 5);
    for process in &report.processes {
        table.add_row(process_row(process));
    }
    if !with_pause && let Some(column) = table.column_mut(4) {
        column.set_constraint(comfy_table::ColumnConstraint::Hidden);
    }
    writeln!(out, "Processes ({})", report.processes.len())?;
    lines("", &table, out)?;
    writeln!(out)
}

fn process_row(process: &ProcessReport) -> Vec<String> {
    let pid = match (process.pid, process.inner_pid) {
        (Some(pid), Some(inner)) => format!("{pid} (inside: {inner})"),
        (Some(pid), None) => pid.to_string(),
        (None, _) => "?".to_owned(),
    };
    let threads = match process.unstopped {
        0 => process.threads.to_string(),
        some => format!("{} ({some} not stopped)", process.threads),
    };
    vec![
        pid,
        threads,
        size(process.known_bytes),
        format!("{} of {}", process.modules_found, process.modules),
        process.pause_micros.map_or_else(|| "not stopped".to_owned(), milliseconds),
        process.role.clone().unwrap_or_else(|| process.core.clone()),
    ]
}

fn findings(findings: &[Finding], out: &mut dyn Write) -> io::Result<()> {
    if findings.is_empty() {
        return writeln!(out, "Findings   none\n");
    }
    writeln!(out, "Findings ({})", findings.len())?;
    for finding in findings {
        let severity = finding.severity.name().to_uppercase();
        let confidence = finding.confidence.name();
        writeln!(out, "  {severity} [{}, {confidence}]", finding.rule)?;
        wrapped("    ", &finding.summary, out)?;
        for fact in &finding.facts {
            wrapped("    - ", &fact.text, out)?;
        }
        wrapped("    > ", &finding.advice, out)?;
    }
    writeln!(out)
}

/// What is not known, or that nothing is missing.
pub(in crate::report) fn gaps(gaps: &[Gap], out: &mut dyn Write) -> io::Result<()> {
    if gaps.is_empty() {
        return writeln!(out, "Not known  nothing is missing");
    }
    writeln!(out, "Not known ({})", gaps.len())?;
    for gap in gaps.iter().take(GAPS_SHOWN) {
        wrapped("  ", &format!("{}: {}", gap.what, gap.why), out)?;
    }
    if gaps.len() > GAPS_SHOWN {
        writeln!(out, "  … {} more (--json has all)", gaps.len().saturating_sub(GAPS_SHOWN))?;
    }
    Ok(())
}
