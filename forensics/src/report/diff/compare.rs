//! Snapshots, one after another, become a comparison.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use rustc_hash::FxHashMap;

use super::model::{Change, DiffReport, OwnerDiff, PoolDiff, SnapshotReport};
use crate::addr::Addr;
use crate::case::{Case, Pool, PoolName, RunMarks, SameRun, Walked, describe};
use crate::gap::Gap;
use crate::input::Moment;
use crate::kamailio::{OwnerName, PoolKind};
use crate::leak::{Content, OwnerGrowth, OwnerTotals, PoolGrowth, Who, identities};
use crate::memory::SegmentMap;
use crate::num::wide;
use crate::report::SCHEMA;

const NOT_COMPARED: &str = "not compared: it was not found in every snapshot";

/// What a pool of one snapshot is found by in another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum PoolKey {
    Shared,
    /// By its process's index in Kamailio's table, which is the same in two runs of one
    /// configuration.
    Index(u32),
    /// Without the table; only within one run.
    Pid(u32),
}

/// Where a pool of one snapshot belongs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    /// Private or shared.
    pub(super) kind: PoolKind,
    /// Its process; `None` for the shared pool.
    pub(super) pid: Option<u32>,
    /// That process's index in Kamailio's table.
    pub(super) index: Option<u32>,
    /// What that process does.
    pub(super) role: Option<&'a str>,
    /// For a person.
    pub(super) name: &'a str,
}

/// One pool so far.
#[derive(Debug)]
struct Known {
    kind: PoolKind,
    growth: PoolGrowth,
    /// Its process in the snapshots that have it.
    pids: Vec<Option<u32>>,
    role: Option<String>,
    /// For a person.
    name: String,
    /// The snapshots that have it.
    in_snapshots: Vec<String>,
}

/// A comparison that goes on with every snapshot.
#[derive(Debug, Default)]
pub struct Comparison {
    snapshots: Vec<SnapshotReport>,
    moments: Vec<Result<Moment, &'static str>>,
    marks: Option<RunMarks>,
    /// Of the last snapshot, or of the first one of another run.
    same_run: Option<SameRun>,
    pools: BTreeMap<PoolKey, Known>,
    /// With the names of the snapshots that have it.
    gaps: BTreeMap<Gap, Vec<String>>,
}

impl Comparison {
    /// Adds the next snapshot; its pools were walked with `keep_used`.
    pub fn add(&mut self, mut case: Case) {
        let moment = case.evidence.moment();
        self.begin(snapshot(&case, moment), moment, &RunMarks::of(&case));
        for gap in std::mem::take(&mut case.gaps) {
            self.gap(gap);
        }
        for pool in std::mem::take(&mut case.pools) {
            self.add_pool(&case, pool);
        }
    }

    /// Begins the next snapshot; its pools are to follow.
    pub(super) fn begin(
        &mut self,
        snapshot: SnapshotReport,
        moment: Result<Moment, &'static str>,
        marks: &RunMarks,
    ) {
        self.compare_runs(marks);
        let name = letter(self.snapshots.len());
        self.snapshots.push(SnapshotReport { name, ..snapshot });
        self.moments.push(moment);
    }

    fn compare_runs(&mut self, marks: &RunMarks) {
        let Some(first) = &self.marks else {
            self.marks = Some(marks.clone());
            return;
        };
        if self.is_one_run() {
            let found = first.compare(marks);
            if !found.same {
                self.pools.values_mut().for_each(|pool| pool.growth.forget_fragments());
            }
            self.same_run = Some(found);
        }
    }

    /// Whether all so far are.
    fn is_one_run(&self) -> bool {
        self.same_run.as_ref().is_none_or(|found| found.same)
    }

    fn add_pool(&mut self, case: &Case, pool: Pool) {
        let Some(member) = case.members.get(pool.member) else { return };
        let Ok(walked) = &pool.walked else { return };
        let private = pool.kind == PoolKind::Pkg;
        let name = match private {
            true => format!("PKG pool of {}", describe(member)),
            false => "SHM pool".to_owned(),
        };
        if !walked.summary.complete {
            let why = "not read to its end: fragments that were not seen there look as if they \
                       had vanished, or were new";
            self.gap(Gap::new(&*name, why));
        }
        let place = Place {
            kind: pool.kind,
            pid: member.process.pid.filter(|_| private),
            index: member.entry.as_ref().map(|entry| entry.index),
            role: member.role().filter(|_| private),
            name: &name,
        };
        self.pool(&place, content(walked, &member.process.memory));
    }

    /// Adds a pool of the last snapshot.
    pub(super) fn pool(&mut self, place: &Place<'_>, content: Content) {
        let Some(snapshot) = self.snapshots.last().map(|snapshot| snapshot.name.clone()) else {
            return;
        };
        let key = match (place.kind, place.index, place.pid) {
            (PoolKind::Shm, _, _) => PoolKey::Shared,
            (PoolKind::Pkg, Some(index), _) => PoolKey::Index(index),
            (PoolKind::Pkg, None, Some(pid)) => PoolKey::Pid(pid),
            (PoolKind::Pkg, None, None) => {
                return self.gap(Gap::new(place.name, "not compared: its process is not known"));
            }
        };
        let one_run = self.is_one_run();
        let known = self.pools.entry(key).or_insert_with(|| Known {
            kind: place.kind,
            growth: PoolGrowth::new(one_run),
            pids: Vec::new(),
            role: place.role.map(str::to_owned),
            name: place.name.to_owned(),
            in_snapshots: Vec::new(),
        });
        // A second pool of one process is none of Kamailio's.
        if known.in_snapshots.last() != Some(&snapshot) {
            known.growth.add(content);
            known.pids.push(place.pid);
            known.in_snapshots.push(snapshot);
        }
    }

    /// Something that is not known of the last snapshot.
    fn gap(&mut self, gap: Gap) {
        let name = self.snapshots.last().map(|snapshot| snapshot.name.clone());
        self.gaps.entry(gap).or_default().extend(name);
    }

    /// What came of it. `reordered`: whether the snapshots were given in another order.
    pub fn finish(mut self, reordered: bool) -> DiffReport {
        let same_run = self.same_run.take().unwrap_or_else(|| SameRun {
            same: true,
            because: "there is only one snapshot".to_owned(),
        });
        let interval = self.interval();
        let time = interval.as_ref().ok().copied();
        self.compare_versions();
        self.set_lonely_pools_apart(same_run.same);
        let mut owners = owners(self.pools.values());
        let all = owners.len();
        owners.retain(|sum| sum.growth.is_changed());
        owners.sort_by(|one, other| {
            one.growth.rank(&other.growth).then_with(|| other.kind.cmp(&one.kind))
        });
        DiffReport {
            schema: SCHEMA,
            tool: concat!("forensics ", env!("CARGO_PKG_VERSION")).to_owned(),
            reordered,
            same_run: same_run.same,
            same_run_because: same_run.because,
            seconds: time.map(|time| time.as_secs_f64()),
            no_rate_because: interval.err(),
            pools: self.pools.values().map(|pool| pool_diff(pool, time)).collect(),
            owners: owners.iter().map(|sum| sum.diff(time)).collect(),
            unchanged_owners: wide(all.saturating_sub(owners.len())),
            gaps: gaps(self.gaps, self.snapshots.len()),
            interval: time,
            snapshots: self.snapshots,
        }
    }

    /// Leaves out the pools that are not in every snapshot.
    fn set_lonely_pools_apart(&mut self, same_run: bool) {
        let snapshots = self.snapshots.len();
        let gaps = &mut self.gaps;
        self.pools.retain(|key, pool| {
            let everywhere = pool.in_snapshots.len() == snapshots;
            let compared = everywhere && (same_run || !matches!(key, PoolKey::Pid(_)));
            if !compared {
                let gap = Gap::new(&*pool.name, NOT_COMPARED);
                gaps.entry(gap).or_default().append(&mut pool.in_snapshots);
            }
            compared
        });
    }

    /// Says so where the program is not the same.
    fn compare_versions(&mut self) {
        let mut versions: Vec<&str> =
            self.snapshots.iter().filter_map(|snapshot| snapshot.program.as_deref()).collect();
        versions.dedup();
        if versions.len() > 1 {
            let why = format!(
                "the program is not the same in all snapshots ({}): an owner whose line has moved \
                 looks as if it had vanished and another had come",
                versions.join(", ")
            );
            self.gaps.entry(Gap::new("owners under another line", why)).or_default();
        }
    }

    /// From the first snapshot to the last.
    fn interval(&self) -> Result<SignedDuration, String> {
        let mut times: Vec<Timestamp> = Vec::new();
        for (snapshot, moment) in self.snapshots.iter().zip(&self.moments) {
            match moment {
                Ok(moment) => times.push(moment.at),
                Err(why) => {
                    return Err(format!("the time of {} is not recorded: {why}", snapshot.name));
                }
            }
        }
        let (first, last) = times.first().zip(times.last()).ok_or("there is no snapshot")?;
        let interval = last.duration_since(*first);
        match interval.is_positive() {
            true => Ok(interval),
            false => Err("all were taken at the same time".to_owned()),
        }
    }
}

/// `A`, `B`, …
fn letter(index: usize) -> String {
    match u8::try_from(index).ok().filter(|index| *index < 26) {
        Some(index) => char::from(b'A'.saturating_add(index)).to_string(),
        None => format!("S{}", index.saturating_add(1)),
    }
}

/// A snapshot that has no name yet.
fn snapshot(case: &Case, moment: Result<Moment, &'static str>) -> SnapshotReport {
    let moment = moment.ok();
    SnapshotReport {
        name: String::new(),
        inputs: case.evidence.paths.clone(),
        taken: moment.map(|moment| moment.at.to_string()),
        taken_from: moment.map(|moment| moment.source),
        host: case.evidence.header.as_ref().map(|header| header.host.clone()),
        program: case.version.clone(),
        processes: wide(case.members.len()),
        cut: case.evidence.cuts.clone(),
    }
}

/// A pool's used fragments, with owners as another run knows them.
fn content(walked: &Walked, memory: &SegmentMap) -> Content {
    let mut fragments = identities(&walked.summary.used, memory, walked.range);
    // Without owners the size is the only thing that tells one kind of fragment from another.
    if walked.payload_sizes.is_some() {
        let mut owners: Vec<Who> = Vec::new();
        let mut index: FxHashMap<u64, u32> = FxHashMap::default();
        for fragment in &mut fragments {
            fragment.owner = *index.entry(fragment.bytes).or_insert_with(|| {
                owners.push(Who { payload: Some(fragment.bytes), ..Who::default() });
                u32::try_from(owners.len().saturating_sub(1)).unwrap_or(u32::MAX)
            });
        }
        return Content { owners, fragments };
    }
    let who = |(totals, name): (&OwnerTotals, &OwnerName)| {
        let known = name.file.is_some() && name.function.is_some();
        let file_address: Option<Addr> = (!known).then_some(totals.owner.file);
        Who { name: name.clone(), file_address, payload: None }
    };
    let owners = walked.summary.owners.iter().zip(&walked.names).map(who).collect();
    Content { owners, fragments }
}

/// One owner in all pools of a kind together.
struct Sum {
    kind: PoolKind,
    /// Pools in which it changed.
    changed: u64,
    growth: OwnerGrowth,
}

impl Sum {
    fn diff(&self, time: Option<SignedDuration>) -> OwnerDiff {
        let processes = Some(self.changed).filter(|_| self.kind == PoolKind::Pkg);
        owner_diff(PoolName { kind: self.kind, pid: None }, processes, &self.growth, time)
    }
}

fn owners<'a>(pools: impl Iterator<Item = &'a Known>) -> Vec<Sum> {
    let mut sums: BTreeMap<(PoolKind, &Who), Sum> = BTreeMap::new();
    for pool in pools {
        let kind = pool.kind;
        for growth in pool.growth.owners() {
            let who = growth.who.clone();
            let sum = sums.entry((kind, &growth.who)).or_insert_with(|| Sum {
                kind,
                changed: 0,
                growth: OwnerGrowth { who, ..OwnerGrowth::default() },
            });
            sum.changed = sum.changed.saturating_add(u64::from(growth.is_changed()));
            sum.growth.add(growth);
        }
    }
    sums.into_values().collect()
}

fn pool_diff(pool: &Known, time: Option<SignedDuration>) -> PoolDiff {
    let name = PoolName { kind: pool.kind, pid: pool.pids.first().copied().flatten() };
    let changed = pool.growth.owners().iter().filter(|owner| owner.is_changed());
    let mut changed: Vec<&OwnerGrowth> = changed.collect();
    changed.sort_by(|one, other| one.rank(other));
    PoolDiff {
        kind: pool.kind,
        pids: pool.pids.clone(),
        role: pool.role.clone(),
        change: Change::of(&pool.growth.total(), time),
        owners: changed.iter().map(|owner| owner_diff(name, None, owner, time)).collect(),
    }
}

fn owner_diff(
    pool: PoolName,
    processes: Option<u64>,
    growth: &OwnerGrowth,
    time: Option<SignedDuration>,
) -> OwnerDiff {
    let Who { name, file_address, payload } = growth.who.clone();
    let (change, score) = (Change::of(growth, time), growth.score());
    OwnerDiff { pool, processes, name, file_address, payload, change, score }
}

/// Gaps, each with the snapshots that have it unless all do.
fn gaps(gaps: BTreeMap<Gap, Vec<String>>, snapshots: usize) -> Vec<Gap> {
    let said = |(gap, names): (Gap, Vec<String>)| match !names.is_empty() && names.len() < snapshots
    {
        true => Gap { what: format!("{}: {}", names.join(", "), gap.what), why: gap.why },
        false => gap,
    };
    gaps.into_iter().map(said).collect()
}
