//! The comparison as text.

use std::io::{self, Write};

use super::model::{Change, DiffReport, OwnerDiff, PoolDiff, SnapshotReport};
use crate::input::MomentSource;
use crate::kamailio::{OwnerName, PoolKind};
use crate::num::wide;
use crate::report::Tame;
use crate::report::text::{gaps, lines, table, wrapped};
use crate::units::{count, share, size, span};

impl DiffReport {
    /// As text, with the first `top` owners of each list.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn text(&self, top: usize, out: &mut dyn Write) -> io::Result<()> {
        let out = &mut Tame(out);
        self.heading(out)?;
        self.pools(out)?;
        self.owners(top, out)?;
        gaps(&self.gaps, out)
    }

    fn heading(&self, out: &mut dyn Write) -> io::Result<()> {
        for snapshot in &self.snapshots {
            snapshot_text(snapshot, out)?;
        }
        if self.reordered {
            let text = "given in another order; here they stand in the order of their times";
            wrapped("Order      ", text, out)?;
        }
        let run = match self.same_run {
            true => "the same",
            false => "not the same, so that single fragments cannot be followed",
        };
        wrapped("Run        ", &format!("{run} ({})", self.same_run_because), out)?;
        match (&self.interval, &self.no_rate_because) {
            (Some(time), _) => {
                let last = self.snapshots.last().map_or("", |snapshot| &snapshot.name);
                writeln!(out, "Time       {} from A to {last}", span(*time))?;
            }
            (None, Some(why)) => wrapped("Time       ", &format!("no rate: {why}"), out)?,
            (None, None) => {}
        }
        writeln!(out)
    }

    /// Shared memory, and the private memory of each process where it changed.
    fn pools(&self, out: &mut dyn Write) -> io::Result<()> {
        let header = ["pool", "PID", "used before", "after", "bytes", "fragments", "role"];
        let mut rows = table(&header, 6);
        if let Some(column) = rows.column_mut(0) {
            column.set_cell_alignment(comfy_table::CellAlignment::Left);
        }
        let is_changed = |pool: &&PoolDiff| pool.kind == PoolKind::Shm || !pool.owners.is_empty();
        for pool in self.pools.iter().filter(is_changed) {
            rows.add_row(vec![
                pool.kind.name().to_owned(),
                pids(pool),
                count(pool.change.bytes_before),
                count(pool.change.bytes_after),
                signed(pool.change.bytes_change, count),
                signed(pool.change.fragments_change, count),
                pool.role.clone().unwrap_or_default(),
            ]);
        }
        writeln!(out, "Pools, payload in bytes")?;
        lines("  ", &rows, out)?;
        let unchanged = self.pools.iter().filter(|pool| !is_changed(pool)).count();
        if unchanged > 0 {
            writeln!(out, "  … and PKG of {} as before", processes(wide(unchanged)))?;
        }
        writeln!(out)
    }

    fn owners(&self, top: usize, out: &mut dyn Write) -> io::Result<()> {
        let (grown, others): (Vec<&OwnerDiff>, Vec<&OwnerDiff>) =
            self.owners.iter().partition(|owner| owner.change.bytes_change > 0);
        let (shrunk, turned): (Vec<&OwnerDiff>, Vec<&OwnerDiff>) =
            others.into_iter().partition(|owner| owner.change.bytes_change < 0);
        writeln!(out, "Owners that grew ({})", grown.len())?;
        if grown.len() > 1 {
            wrapped("  ", self.order(), out)?;
        }
        writeln!(out)?;
        for owner in grown.iter().take(top) {
            self.owner(owner, out)?;
        }
        more(grown.len(), top, out)?;
        if !shrunk.is_empty() {
            writeln!(out, "Owners that shrank ({})", shrunk.len())?;
            self.short(&shrunk, top, out)?;
        }
        if !turned.is_empty() {
            writeln!(out, "Other fragments, but no more bytes ({})", turned.len())?;
            self.short(&turned, top, out)?;
        }
        writeln!(out, "Unchanged  {} owners\n", count(self.unchanged_owners))
    }

    /// What the owners are sorted by.
    fn order(&self) -> &'static str {
        match (self.same_run, self.snapshots.len() > 2) {
            (true, false) => {
                "By bytes, weighted by what looks lasting: how much of the old is still there \
                 unchanged, and how much of the new is more than a replacement. A leak keeps all; \
                 a cache does not."
            }
            (true, true) => {
                "By bytes, weighted by what looks lasting: how much of the old is still there \
                 unchanged, how much of the new is more than a replacement, and in how many steps \
                 the bytes grew."
            }
            (false, false) => {
                "By bytes. Which fragments stayed, and so what may leak, only two snapshots of \
                 one run tell."
            }
            (false, true) => "By bytes, weighted by the share of steps in which they grew.",
        }
    }

    fn owner(&self, owner: &OwnerDiff, out: &mut dyn Write) -> io::Result<()> {
        let change = &owner.change;
        wrapped("  ", &format!("{}  {}", place(owner), name(owner)), out)?;
        let rate = match change.bytes_per_hour {
            Some(rate) => format!(": {} per hour", size(whole(rate))),
            None => String::new(),
        };
        let growth = format!(
            "{} fragments, {}{rate}",
            match change.fragments_change {
                0 => "no more".to_owned(),
                some => signed(some, count),
            },
            signed(change.bytes_change, size)
        );
        wrapped("       ", &growth, out)?;
        wrapped("       ", &self.turnover(change), out)?;
        if self.snapshots.len() > 2 {
            wrapped("       ", &series(change), out)?;
        }
        writeln!(out)
    }

    /// `all 5,000 in A survived, all unchanged; 0 vanished, 3,000 new`
    fn turnover(&self, change: &Change) -> String {
        let known = change.survived.zip(change.unchanged).zip(change.vanished.zip(change.new));
        let Some(((survived, unchanged), (vanished, new))) = known else {
            let (before, after) = (change.fragments_before, change.fragments_after);
            return format!("{} fragments before, {} after", count(before), count(after));
        };
        let held = change.fragments_before;
        let survivors = match survived {
            _ if held == 0 => {
                return format!("a new owner: it held nothing in A; {} new", count(new));
            }
            0 => return format!("none of the {} in A survived; {} new", count(held), count(new)),
            all if all == held => format!("all {} in A survived", count(all)),
            some => {
                let part = share(some, held);
                format!("{} of the {} in A survived ({part})", count(some), count(held))
            }
        };
        let content = match unchanged {
            0 => "none unchanged".to_owned(),
            all if all == survived => "all unchanged".to_owned(),
            some => format!("{} unchanged", count(some)),
        };
        format!("{survivors}, {content}; {} vanished, {} new", count(vanished), count(new))
    }

    /// One line for each owner.
    fn short(&self, owners: &[&OwnerDiff], top: usize, out: &mut dyn Write) -> io::Result<()> {
        let mut rows = table(&["bytes", "fragments", "vanished", "new", "owner"], 4);
        for owner in owners.iter().take(top) {
            let change = &owner.change;
            let number = |number: Option<u64>| number.map_or_else(|| "?".to_owned(), count);
            let gone = if change.fragments_after == 0 { " (nothing left)" } else { "" };
            rows.add_row(vec![
                signed(change.bytes_change, count),
                signed(change.fragments_change, count),
                number(change.vanished),
                number(change.new),
                format!("{}  {}{gone}", place(owner), name(owner)),
            ]);
        }
        lines("  ", &rows, out)?;
        more(owners.len(), top, out)?;
        if owners.len() <= top { writeln!(out) } else { Ok(()) }
    }
}

fn snapshot_text(snapshot: &SnapshotReport, out: &mut dyn Write) -> io::Result<()> {
    for line in &snapshot.cut {
        writeln!(out, "INCOMPLETE {line}")?;
    }
    let taken = match (&snapshot.taken, snapshot.taken_from) {
        (Some(time), Some(MomentSource::CollectionStart)) => {
            let time = milliseconds_of(time);
            format!("collection begun at {time} (the time of the freeze is cut off)")
        }
        (Some(time), Some(MomentSource::Dump)) => format!("died at {}", milliseconds_of(time)),
        (Some(time), _) => format!("frozen at {}", milliseconds_of(time)),
        (None, _) => "its time is not recorded".to_owned(),
    };
    let host = snapshot.host.as_ref().map(|host| format!(" on {host}")).unwrap_or_default();
    let program = snapshot.program.as_deref().unwrap_or("no version string");
    writeln!(out, "{:<11}{}", snapshot.name, snapshot.inputs.join(" "))?;
    let text = format!("{taken}{host}, {}, {program}", processes(snapshot.processes));
    wrapped("           ", &text, out)
}

/// A time as the report has it, without what is below a millisecond.
fn milliseconds_of(time: &str) -> String {
    match time.parse::<jiff::Timestamp>() {
        Ok(time) => format!("{time:.3}"),
        Err(_) => time.to_owned(),
    }
}

/// `812`, or `812 → 977` where it is not the same in every snapshot.
fn pids(pool: &PoolDiff) -> String {
    let known = |pid: &Option<u32>| pid.map_or_else(|| "?".to_owned(), |pid| pid.to_string());
    let mut pids: Vec<String> = pool.pids.iter().map(known).collect();
    pids.dedup();
    if pool.kind == PoolKind::Shm { String::new() } else { pids.join(" → ") }
}

/// `SHM`, `PKG of 3 processes`
fn place(owner: &OwnerDiff) -> String {
    match owner.processes {
        None => owner.pool.kind.name().to_owned(),
        Some(number) => format!("{} of {}", owner.pool.kind.name(), processes(number)),
    }
}

fn processes(number: u64) -> String {
    format!("{} {}", count(number), if number == 1 { "process" } else { "processes" })
}

fn name(owner: &OwnerDiff) -> String {
    match (owner.payload, owner.file_address) {
        (Some(bytes), _) => format!("fragments of {}", size(bytes)),
        (None, Some(at)) if owner.name != OwnerName::default() => {
            format!("{} file text at {at}", owner.name)
        }
        (None, _) => owner.name.to_string(),
    }
}

/// `100, 200, 300 fragments; grew in 2 of 2 steps`
fn series(change: &Change) -> String {
    let held: Vec<String> = change.held.iter().map(|held| count(held.fragments)).collect();
    let steps = wide(change.held.len().saturating_sub(1));
    format!("{} fragments; grew in {} of {steps} steps", held.join(", "), change.growing_steps)
}

/// `+3,000`, `-12`, `0`
fn signed(change: i64, number: fn(u64) -> String) -> String {
    let sign = match change {
        0 => "",
        ..0 => "-",
        _ => "+",
    };
    format!("{sign}{}", number(change.unsigned_abs()))
}

/// A rate without its fraction, for a person.
fn whole(rate: f64) -> u64 {
    format!("{rate:.0}").parse().unwrap_or(u64::MAX)
}

fn more(owners: usize, top: usize, out: &mut dyn Write) -> io::Result<()> {
    if owners <= top {
        return Ok(());
    }
    writeln!(out, "  … {} more (--top N shows more)\n", count(wide(owners.saturating_sub(top))))
}
