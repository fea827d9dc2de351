//! Pools as text: figures, fragmentation, owners, single fragments.

use std::io::{self, Write};

use super::{lines, table};
use crate::heap::Counters;
use crate::kamailio::PoolKind;
use crate::report::by_size;
use crate::report::model::{FragmentationReport, PoolReport, Report, UnusableReport, WalkedReport};
use crate::report::owners::OwnerReport;
use crate::units::{count, share, size};

/// What is said instead of pools where heaps were left out on purpose.
pub const NO_HEAP: &str =
    "No heap is in this bundle: it was taken with --stacks-only, for registers, stacks and /proc.";

/// All pools of a report.
///
/// # Errors
/// Those of `out`.
pub(super) fn pools(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    if report.bundle.as_ref().is_some_and(|header| header.holds == bundle::Holds::Stacks) {
        return writeln!(out, "{NO_HEAP}\n");
    }
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
