//! `forensics leaks` as text.

use std::io::{self, Write};

use super::paper::{lines, table, wrapped};
use super::{NO_HEAP, findings, gaps};
use crate::case::{Level, Trust};
use crate::report::{LeakReport, LostReport, PoolLoss, held};
use crate::units::{count, size};

/// The report of `forensics leaks`, with at most `top` owners in each list.
///
/// # Errors
/// Those of `out`.
pub fn leaks(report: &LeakReport, top: usize, out: &mut dyn Write) -> io::Result<()> {
    let (start_up, own): (Vec<&LostReport>, Vec<&LostReport>) =
        report.unreachable.iter().partition(|lost| lost.start_up == lost.fragments);
    if report.no_heap {
        writeln!(out, "{NO_HEAP} Whether anything is lost is not known.\n")?;
        return gaps(&report.gaps, out);
    }
    trust(&report.confidence, out)?;
    if report.pools.is_empty() {
        writeln!(out, "No pool was read: whether anything is lost is not known\n")?;
        return gaps(&report.gaps, out);
    }
    match report.confidence.level {
        Level::High => writeln!(out, "Unreachable: no root of any process leads there")?,
        Level::Low => writeln!(out, "Unreachable from what was saved")?,
    }
    owners(&own, top, out)?;
    let told = own.iter().take(top);
    let told = told.map(|lost| (format!("{}, {}", lost.owner, lost.pool), &*lost.content));
    held::text(told, report.shown, out)?;
    in_sum(&report.pools, out)?;
    if !start_up.is_empty() {
        writeln!(
            out,
            "Lost before the fork, once in the main process and inherited by the others"
        )?;
        owners(&start_up, top, out)?;
    }
    if !report.on_stacks.is_empty() {
        writeln!(out, "On a stack or in a register only: in use right now, or lost on return")?;
        owners(&report.on_stacks.iter().collect::<Vec<_>>(), top, out)?;
    }
    report.tables.text(out)?;
    if let Some(dump) = &report.dump {
        writeln!(out, "{dump}\n")?;
    }
    findings(&report.findings, out)?;
    gaps(&report.gaps, out)
}

/// What is missing among the roots, and whom that does not concern.
fn trust(confidence: &Trust, out: &mut dyn Write) -> io::Result<()> {
    if confidence.level == Level::High {
        return Ok(());
    }
    writeln!(
        out,
        "Not all roots are known; what looks unreachable may be held by what is missing:"
    )?;
    for missing in &confidence.missing {
        wrapped("  - ", missing, out)?;
    }
    let sure = confidence.pools.iter().filter(|pool| pool.level == Level::High);
    let sure: Vec<String> = sure.map(|pool| pool.pool.to_string()).collect();
    if !sure.is_empty() {
        wrapped(
            "  ",
            &format!(
                "That does not concern {}: all that can point there is known.",
                sure.join(", ")
            ),
            out,
        )?;
    }
    writeln!(out)
}

fn in_sum(pools: &[PoolLoss], out: &mut dyn Write) -> io::Result<()> {
    for loss in pools.iter().filter(|pool| pool.unreachable_fragments > 0) {
        let role = loss.role.as_ref().map(|role| format!(" ({role})")).unwrap_or_default();
        let text = format!(
            "{}{role}: {} of {} used fragments unreachable, {} of {}",
            loss.pool,
            count(loss.unreachable_fragments),
            count(loss.used_fragments),
            size(loss.unreachable_bytes),
            size(loss.used_bytes),
        );
        wrapped("  ", &text, out)?;
    }
    writeln!(out)
}

fn owners(list: &[&LostReport], top: usize, out: &mut dyn Write) -> io::Result<()> {
    if list.is_empty() {
        return writeln!(out, "  none\n");
    }
    let header = ["fragments", "bytes", "heads", "pool", "example", "owner"];
    let mut rows = table(&header, 3);
    for lost in list.iter().take(top) {
        rows.add_row(vec![
            count(lost.fragments),
            count(lost.bytes),
            count(lost.heads),
            lost.pool.to_string(),
            lost.example.to_string(),
            lost.owner.to_string(),
        ]);
    }
    lines("  ", &rows, out)?;
    if list.len() > top {
        writeln!(out, "  … {} more (--top N shows more)", list.len().saturating_sub(top))?;
    }
    writeln!(out)
}
