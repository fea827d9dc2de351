//! The comparison as data; written down in `docs/report-schema.md`.

use jiff::SignedDuration;
use serde::Serialize;

use crate::addr::Addr;
use crate::case::PoolName;
use crate::gap::Gap;
use crate::input::MomentSource;
use crate::kamailio::{OwnerName, PoolKind};
use crate::leak::{Held, OwnerGrowth, Turnover};
use crate::num::ratio;

/// The report of `forensics diff`.
#[derive(Clone, Debug, Serialize)]
pub struct DiffReport {
    /// Version of this form.
    pub schema: u32,
    /// Program and version that made it.
    pub tool: String,
    /// What was compared, the earliest first.
    pub snapshots: Vec<SnapshotReport>,
    /// Whether they were given in another order than that of their times.
    pub reordered: bool,
    /// Whether all are of the same run of the program.
    pub same_run: bool,
    /// How that was decided, for a person.
    pub same_run_because: String,
    /// From the first to the last, in seconds; null if a time is not recorded.
    pub seconds: Option<f64>,
    /// Why there are no rates; null if there are.
    pub no_rate_because: Option<String>,
    /// The pools that are in every snapshot: SHM first.
    pub pools: Vec<PoolDiff>,
    /// Owners that changed, all processes together: those that grow like a leak first.
    pub owners: Vec<OwnerDiff>,
    /// Owners of which nothing changed.
    pub unchanged_owners: u64,
    /// What is not known, or could not be compared.
    pub gaps: Vec<Gap>,
    /// `seconds`, exactly.
    #[serde(skip)]
    pub interval: Option<SignedDuration>,
}

/// One snapshot.
#[derive(Clone, Debug, Default, Serialize)]
pub struct SnapshotReport {
    /// `A` for the first, and so on.
    pub name: String,
    /// What the user gave.
    pub inputs: Vec<String>,
    /// When it was taken, RFC 3339; null if that is not recorded.
    pub taken: Option<String>,
    /// What recorded that.
    pub taken_from: Option<MomentSource>,
    /// The host, from a bundle's header.
    pub host: Option<String>,
    /// Version string of the program.
    pub program: Option<String>,
    /// Processes whose cores could be read.
    pub processes: u64,
    /// Why the input ends early, one line each; empty for a whole one.
    pub cut: Vec<String>,
}

/// One pool.
#[derive(Clone, Debug, Serialize)]
pub struct PoolDiff {
    /// Private or shared.
    pub kind: PoolKind,
    /// Its process in each snapshot; null for the shared pool.
    pub pids: Vec<Option<u32>>,
    /// What that process does.
    pub role: Option<String>,
    /// What all its owners hold.
    #[serde(flatten)]
    pub change: Change,
    /// Those of its owners that changed.
    pub owners: Vec<OwnerDiff>,
}

/// One owner.
#[derive(Clone, Debug, Serialize)]
pub struct OwnerDiff {
    /// Where; the PID is null for shared memory, and where all processes are taken together.
    pub pool: PoolName,
    /// Processes in whose private pools it changed; null for shared memory.
    pub processes: Option<u64>,
    /// Who; null where a text could not be read.
    #[serde(flatten)]
    pub name: OwnerName,
    /// Address of the file's text, where a part of the name could not be read.
    pub file_address: Option<Addr>,
    /// Payload of its fragments, in bytes, in builds that do not record owners.
    pub payload: Option<u64>,
    /// What it holds.
    #[serde(flatten)]
    pub change: Change,
    /// Its growth in bytes, weighted by how much of it looks lasting: what owners are sorted by.
    pub score: f64,
}

/// What changed from the first snapshot to the last.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Change {
    /// Used fragments in the first snapshot.
    pub fragments_before: u64,
    /// Used fragments in the last one.
    pub fragments_after: u64,
    /// Their difference.
    pub fragments_change: i64,
    /// Payload in the first snapshot, in bytes.
    pub bytes_before: u64,
    /// Payload in the last one, in bytes.
    pub bytes_after: u64,
    /// Their difference.
    pub bytes_change: i64,
    /// `fragments_change` an hour; null without times.
    pub fragments_per_hour: Option<f64>,
    /// `bytes_change` an hour; null without times.
    pub bytes_per_hour: Option<f64>,
    /// Fragments of the first snapshot that are in all later ones; null between two runs.
    pub survived: Option<u64>,
    /// Of these: those that always hold the same, but for pointers into their pool; null between
    /// two runs.
    pub unchanged: Option<u64>,
    /// The other fragments of the first snapshot; null between two runs.
    pub vanished: Option<u64>,
    /// Fragments of the last snapshot that were not in the first, or not in all between; null
    /// between two runs.
    pub new: Option<u64>,
    /// What is held in each snapshot.
    pub held: Vec<HeldReport>,
    /// What became of the fragments from each snapshot to the next; empty between two runs.
    pub steps: Vec<StepReport>,
    /// Steps in which the bytes grew.
    pub growing_steps: u64,
}

/// What is held in one snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct HeldReport {
    /// Used fragments.
    pub fragments: u64,
    /// Their payload, in bytes.
    pub bytes: u64,
}

/// What became of fragments from one snapshot to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct StepReport {
    /// They are in both.
    pub survived: u64,
    /// Of these: those that hold what they held.
    pub unchanged: u64,
    /// They are in the first only.
    pub vanished: u64,
    /// They are in the second only.
    pub new: u64,
}

impl Change {
    pub(super) fn of(growth: &OwnerGrowth, interval: Option<SignedDuration>) -> Self {
        let (first, last) = (growth.first(), growth.last());
        let fragments_change = difference(first.fragments, last.fragments);
        let bytes_change = difference(first.bytes, last.bytes);
        let survived = growth.turnover().map(|_| growth.survived_throughout);
        let held = |held: &Held| HeldReport { fragments: held.fragments, bytes: held.bytes };
        let step = |step: &Turnover| {
            let Turnover { survived, unchanged, vanished, new } = *step;
            StepReport { survived, unchanged, vanished, new }
        };
        Self {
            fragments_before: first.fragments,
            fragments_after: last.fragments,
            fragments_change,
            bytes_before: first.bytes,
            bytes_after: last.bytes,
            bytes_change,
            fragments_per_hour: interval.map(|time| per_hour(fragments_change, time)),
            bytes_per_hour: interval.map(|time| per_hour(bytes_change, time)),
            survived,
            unchanged: survived.map(|_| growth.unchanged_throughout),
            vanished: survived.map(|survived| first.fragments.saturating_sub(survived)),
            new: survived.map(|survived| last.fragments.saturating_sub(survived)),
            held: growth.held.iter().map(held).collect(),
            steps: growth.steps.iter().map(step).collect(),
            growing_steps: growth.growing_steps().0,
        }
    }
}

fn difference(before: u64, after: u64) -> i64 {
    let grown = i64::try_from(after.abs_diff(before)).unwrap_or(i64::MAX);
    if after < before { grown.saturating_neg() } else { grown }
}

fn per_hour(change: i64, time: SignedDuration) -> f64 {
    let sign = if change < 0 { -1.0 } else { 1.0 };
    sign * ratio(change.unsigned_abs(), 1) * 3600.0 / time.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_the_change_over_the_time() {
        let growth = |before, after| OwnerGrowth {
            held: vec![Held { fragments: 10, bytes: before }, Held { fragments: 10, bytes: after }],
            ..OwnerGrowth::default()
        };
        let half_an_hour = Some(SignedDuration::from_secs(1800));
        let grown = Change::of(&growth(1000, 1600), half_an_hour);
        assert_eq!((grown.bytes_change, grown.bytes_per_hour), (600, Some(1200.0)));
        let shrunk = Change::of(&growth(1600, 1000), half_an_hour);
        assert_eq!((shrunk.bytes_change, shrunk.bytes_per_hour), (-600, Some(-1200.0)));
        assert_eq!(Change::of(&growth(1, 2), None).bytes_per_hour, None);
        assert_eq!(grown.survived, None, "of two runs, since no step is known");
    }
}
