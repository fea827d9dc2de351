//! The report as text for a terminal.

mod registers;

use std::io::{self, Write};

use comfy_table::{CellAlignment, Table, presets};

use super::by_size;
use super::model::{
    FragmentationReport, OwnerReport, PoolReport, ProcessReport, Report, UnusableReport,
    WalkedReport,
};
use crate::diagnose::Finding;
use crate::gap::Gap;
use crate::heap::Counters;
use crate::kamailio::PoolKind;
use crate::units::{count, milliseconds, share, size};

/// Owners shown of each pool where the user asked for no number.
pub const DEFAULT_TOP: usize = 10;

/// Columns that prose may take.
const WIDTH: usize = 100;

/// Gaps that are told one by one.
const GAPS_SHOWN: usize = 50;

/// The whole report.
///
/// # Errors
/// Those of `out`.
pub fn report(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    heading(report, out)?;
    processes(report, out)?;
    findings(&report.findings, out)?;
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
        if !header.reason.is_empty() {
            writeln!(out, "Reason     {}", header.reason)?;
        }
        for scope in &header.scope {
            writeln!(out, "Scope      {scope}")?;
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

fn pools(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    if report.pools.is_empty() {
        return writeln!(out, "No Kamailio pool was found.\n");
    }
    for pool in report.pools.iter().filter(|pool| pool.kind == PoolKind::Shm) {
        pool_text(pool, out)?;
    }
    let private = report.pools.iter().filter(|pool| pool.kind == PoolKind::Pkg);
    let (unused, private): (Vec<&PoolReport>, Vec<&PoolReport>) =
        private.partition(|pool| pool.unused);
    if let Some(pool) = unused.first() {
        unused_text(pool, unused.len(), out)?;
    }
    if private.len() > 1 {
        private_overview(&private, out)?;
    }
    for pool in private {
        pool_text(pool, out)?;
    }
    Ok(())
}

/// Pools that nothing was ever taken from are alike: one of them is told.
fn unused_text(pool: &PoolReport, pools: usize, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "PKG pools ({pools})")?;
    writeln!(out, "  PKG unused: this build keeps private memory in the C library's heap")?;
    writeln!(out, "  manager    {}, from whose pools nothing was ever taken", pool.manager)?;
    if let Some(counters) = &pool.counters {
        writeln!(out, "  size       {} each", size(counters.size))?;
    }
    writeln!(out)
}

fn private_overview(pools: &[&PoolReport], out: &mut dyn Write) -> io::Result<()> {
    let mut table = table(&["PID", "used", "of", "fragments", "free", "largest free", "role"], 6);
    for pool in pools {
        let Some((walked, counters)) = pool.walked.as_ref().zip(pool.counters.as_ref()) else {
            continue;
        };
        table.add_row(vec![
            pool.pid.map_or_else(|| "?".to_owned(), |pid| pid.to_string()),
            count(walked.used_bytes),
            count(counters.size),
            count(walked.used_fragments),
            count(walked.free_fragments),
            count(walked.largest_free_bytes),
            pool.role.clone().unwrap_or_default(),
        ]);
    }
    writeln!(out, "PKG pools ({}), sizes in bytes", pools.len())?;
    lines("", &table, out)?;
    writeln!(out)
}

fn pool_text(pool: &PoolReport, out: &mut dyn Write) -> io::Result<()> {
    match (pool.kind, pool.pid) {
        (PoolKind::Pkg, pid) => {
            let pid = pid.map_or_else(|| "?".to_owned(), |pid| pid.to_string());
            let role = pool.role.as_deref().unwrap_or("role not known");
            writeln!(out, "PKG pool of process {pid} ({role})")?;
        }
        (PoolKind::Shm, _) => writeln!(out, "SHM pool of the whole group")?,
    }
    writeln!(
        out,
        "  manager    {}; block at {}, found by {}",
        pool.manager, pool.block, pool.found
    )?;
    if let Some(error) = &pool.error {
        return writeln!(out, "  not read   {error}\n");
    }
    if let Some(layout) = &pool.layout {
        writeln!(out, "  layout     {layout}")?;
    }
    if let (Some(counters), Some(walked)) = (&pool.counters, &pool.walked) {
        walk_text(counters, walked, out)?;
    }
    if let Some(found) = &pool.fragmentation {
        fragmentation(found, pool.show_sizes, out)?;
    }
    match &pool.payload_sizes {
        Some(sizes) => by_size::text(pool, sizes, out)?,
        None => owners(pool, out)?,
    }
    fragments(pool, out)?;
    writeln!(out)
}

/// The figures of a walk; the block's own beside them where they are not the same.
fn walk_text(counters: &Counters, walked: &WalkedReport, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "  size       {}", size(counters.size))?;
    let in_use = match walked.complete {
        true => share(counters.size.saturating_sub(walked.free_bytes), counters.size),
        false => "an unknown share".to_owned(),
    };
    writeln!(
        out,
        "  fragments  {} used, {} free; largest free {}; {in_use} of the pool in use",
        count(walked.used_fragments),
        count(walked.free_fragments),
        size(walked.largest_free_bytes),
    )?;
    if !walked.complete {
        let seen = walked.used_fragments.saturating_add(walked.free_fragments);
        let of = match walked.expected_fragments {
            Some(expected) => format!("{} of {} fragments", count(seen), count(expected)),
            None => format!("{} of an unknown number of fragments", count(seen)),
        };
        let (bytes, all) = (size(walked.seen_bytes), size(walked.expected_bytes));
        writeln!(out, "  coverage   {of}, {bytes} of {all} of the pool seen")?;
    }
    if walked.lost_bytes > 0 {
        writeln!(out, "  not seen   {} in no fragment", size(walked.lost_bytes))?;
    }
    if walked.skipped_fragments > 0 {
        let skipped = count(walked.skipped_fragments);
        writeln!(out, "  owners     without the first {skipped} used fragments (--skip-first)")?;
    }
    let figures = [
        ("used", counters.used, walked.used_bytes),
        ("used with overhead", counters.real_used, walked.real_used_bytes),
        ("free fragments", counters.free_fragments, walked.free_fragments),
    ];
    if figures.iter().all(|(_, said, found)| said == found) {
        return writeln!(
            out,
            "  used       {}; with overhead {}; the block's own counters agree",
            size(walked.used_bytes),
            size(walked.real_used_bytes)
        );
    }
    let mut table = table(&["", "block says", "recomputed", ""], 3);
    for (name, said, found) in figures {
        let mark = match (walked.complete, said == found) {
            (false, _) => "incomplete",
            (true, true) => "",
            (true, false) => "DIFFERS",
        };
        table.add_row(vec![name.to_owned(), count(said), count(found), mark.to_owned()]);
    }
    lines("  ", &table, out)
}

/// What the free memory is good for, if it is in more than one piece.
fn fragmentation(
    found: &FragmentationReport,
    classes: bool,
    out: &mut dyn Write,
) -> io::Result<()> {
    let hardest = found.unusable.iter().find(|unusable| unusable.share > 0.0);
    if let Some(UnusableReport { request, share }) = hardest {
        writeln!(
            out,
            "  free       {:.1} % of it is in pieces too small for a request of {}",
            share * 100.0,
            size(*request)
        )?;
    }
    if found.joinable_fragments > 0 {
        writeln!(
            out,
            "  joining    {} free neighbours (mem_join) would make {} the largest",
            count(found.joinable_fragments),
            size(found.largest_if_joined)
        )?;
    }
    if !classes {
        return Ok(());
    }
    let header = ["size", "used", "bytes", "free", "bytes"];
    let mut table = table(&header, 5);
    for class in &found.classes {
        table.add_row(vec![
            format!("{} to {}", count(class.from), count(class.to)),
            count(class.used_fragments),
            count(class.used_bytes),
            count(class.free_fragments),
            count(class.free_bytes),
        ]);
    }
    lines("  ", &table, out)
}

/// What the process allocated itself; what it inherited at fork is one line, since the main
/// process's pool lists it.
fn owners(pool: &PoolReport, out: &mut dyn Write) -> io::Result<()> {
    let own: Vec<&OwnerReport> =
        pool.owners.iter().filter(|owner| owner.own_fragments > 0).collect();
    if !own.is_empty() {
        let header = ["fragments", "bytes", "share", "smallest", "largest", "owner"];
        let mut table = table(&header, 5);
        for owner in own {
            table.add_row(owner_row(owner));
        }
        lines("  ", &table, out)?;
    } else if pool.inherited_fragments == 0 {
        writeln!(out, "  no owner to show")?;
    }
    if pool.owners_left_out > 0 {
        let left_out = count(pool.owners_left_out);
        writeln!(out, "  … {left_out} more owners (forensics heap --top N shows more)")?;
    }
    if pool.inherited_fragments > 0 {
        writeln!(
            out,
            "  inherited  {} fragments, {}, from the main process at fork; not listed again",
            count(pool.inherited_fragments),
            size(pool.inherited_bytes)
        )?;
    }
    Ok(())
}

fn owner_row(owner: &OwnerReport) -> Vec<String> {
    let mut name = owner.name.to_string();
    if owner.name.file.is_none() && !owner.file_address.is_null() {
        name = format!("{name} file text at {}", owner.file_address);
    }
    if owner.inherited_fragments > 0 {
        name = format!("{name} (besides {} inherited)", count(owner.inherited_fragments));
    }
    vec![
        count(owner.own_fragments),
        count(owner.own_bytes),
        format!("{:.1} %", owner.own_share * 100.0),
        count(owner.smallest),
        count(owner.largest),
        name,
    ]
}

fn fragments(pool: &PoolReport, out: &mut dyn Write) -> io::Result<()> {
    let Some(list) = &pool.fragments else { return Ok(()) };
    let mut table = table(&["address", "size", "state", "owner", "content"], 2);
    for fragment in list {
        let owner = match fragment.state {
            "free" => String::new(),
            _ => fragment.owner.to_string(),
        };
        let mut content = fragment.preview.clone();
        for damage in &fragment.damage {
            content = format!("{} {content}", damage.to_uppercase());
        }
        table.add_row(vec![
            fragment.address.to_string(),
            count(fragment.size),
            fragment.state.to_owned(),
            owner,
            content,
        ]);
    }
    lines("  ", &table, out)
}

fn gaps(gaps: &[Gap], out: &mut dyn Write) -> io::Result<()> {
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

/// A plain table whose columns before `left_from` are aligned to the right.
pub(super) fn table(header: &[&str], left_from: usize) -> Table {
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
fn wrapped(start: &str, text: &str, out: &mut dyn Write) -> io::Result<()> {
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
pub(super) fn lines(indent: &str, table: &Table, out: &mut dyn Write) -> io::Result<()> {
    table.lines().try_for_each(|line| writeln!(out, "{indent}{}", line.trim_end()))
}
