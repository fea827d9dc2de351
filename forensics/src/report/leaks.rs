//! What `forensics leaks` tells: fragments that nothing points to any more.

use rustc_hash::FxHashMap;
use serde::Serialize;

use super::TablesReport;
use crate::addr::Addr;
use crate::case::{Case, Losses, Lost, Pool, PoolName, Trust};
use crate::content::{
    self, ContentGroup, DumpError, DumpOptions, DumpReport, Selected, Shown, Sizes,
};
use crate::diagnose::{Finding, Severity, diagnose};
use crate::gap::Gap;
use crate::kamailio::{OwnerName, PoolKind};

/// The report of `forensics leaks`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LeakReport {
    /// Version of this form.
    pub schema: u32,
    /// Each pool in sum.
    pub pools: Vec<PoolLoss>,
    /// Fragments that no pointer leads to, by pool and owner, most bytes first.
    pub unreachable: Vec<LostReport>,
    /// Fragments that workers inherited from the main process, unreachable in both.
    pub inherited: Vec<LostReport>,
    /// Fragments that only stacks and registers point to.
    pub on_stacks: Vec<LostReport>,
    /// What Kamailio's own tables hold, and what of it is past its end.
    pub tables: TablesReport,
    /// How far "unreachable" can be trusted.
    pub confidence: Trust,
    /// What the rules say of the pools.
    pub findings: Vec<Finding>,
    /// What is not known.
    pub gaps: Vec<Gap>,
    /// The files that payloads were written to; only if that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dump: Option<DumpReport>,
    /// How `content` is shown.
    #[serde(skip)]
    pub shown: Shown,
    /// Heaps were left out of the bundle on purpose.
    #[serde(skip)]
    pub no_heap: bool,
}

impl LeakReport {
    /// The worst finding.
    pub fn worst(&self) -> Option<Severity> {
        self.findings.iter().map(|finding| finding.severity).max()
    }
}

/// What a pool lost in sum.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PoolLoss {
    /// Which.
    pub pool: PoolName,
    /// What its process does; null for shared memory and where it is not known.
    pub role: Option<String>,
    /// Its whole size, in bytes.
    pub size: u64,
    /// Used fragments.
    pub used_fragments: u64,
    /// Their payload, in bytes.
    pub used_bytes: u64,
    /// Of these: fragments that no pointer leads to, inherited ones left out.
    pub unreachable_fragments: u64,
    /// Their payload, in bytes.
    pub unreachable_bytes: u64,
}

/// What one owner has lost in one pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LostReport {
    /// Where.
    pub pool: PoolName,
    /// Who allocated it.
    #[serde(flatten)]
    pub owner: OwnerName,
    /// Fragments.
    pub fragments: u64,
    /// Their payload, in bytes.
    pub bytes: u64,
    /// Fragments that no other lost one points to, and one of each cycle.
    pub heads: u64,
    /// Of `fragments`: those lost before the fork, which every other process has inherited.
    pub start_up: u64,
    /// Payload of the first head.
    pub example: Addr,
    /// What the unreachable ones hold, by payload size, most bytes first; else empty.
    pub content: Vec<ContentGroup>,
}

/// What is done with the unreachable fragments besides counting them.
#[derive(Clone, Debug, Default)]
pub struct LeakOptions {
    /// How what they hold is shown.
    pub shown: Shown,
    /// Write their payloads to files.
    pub dump: Option<DumpOptions>,
}

/// Rules that speak of what is held, not of what is lost.
const LEFT_OUT: [&str; 3] = ["process-not-captured", "pool-nearly-full", "pkg-owner-stands-out"];

impl LeakReport {
    /// Of a case whose pointers were followed.
    ///
    /// # Errors
    /// Those of writing payloads to files, if that was asked for.
    pub fn of(case: &Case, options: &LeakOptions) -> Result<Self, DumpError> {
        let nothing = Losses::default();
        let found = case.losses.as_ref().unwrap_or(&nothing);
        let named = |list: &[Lost]| -> Vec<LostReport> {
            list.iter().filter_map(|lost| named(case, lost)).collect()
        };
        let pools = case.pools.iter().enumerate();
        let pools = pools.filter_map(|(index, pool)| in_sum(case, pool, index, &found.lost));
        let findings = diagnose(case).into_iter();
        let lost = lost(case, found);
        let dump = match &options.dump {
            Some(dump) => Some(content::dump(payloads(case, &lost), dump)?),
            None => None,
        };
        Ok(Self {
            schema: super::SCHEMA,
            pools: pools.collect(),
            unreachable: with_content(case, lost, options.shown),
            inherited: named(&found.inherited),
            on_stacks: named(&found.on_stacks),
            tables: TablesReport::of(case),
            confidence: Trust::of(case),
            findings: findings.filter(|finding| !LEFT_OUT.contains(&finding.rule)).collect(),
            gaps: case.gaps.clone(),
            dump,
            shown: options.shown,
            no_heap: case.evidence.has_no_heap(),
        })
    }
}

fn named(case: &Case, lost: &Lost) -> Option<LostReport> {
    Some(LostReport {
        pool: PoolName::of(case, case.pools.get(lost.pool)?),
        owner: case.loser(lost)?.clone(),
        fragments: lost.fragments,
        bytes: lost.bytes,
        heads: lost.heads,
        start_up: lost.start_up,
        example: lost.example,
        content: Vec::new(),
    })
}

/// What one owner has lost, with the fragments by size.
struct LostFragments<'a> {
    pool: &'a Pool,
    report: LostReport,
    sizes: Sizes,
}

fn lost<'a>(case: &'a Case, found: &Losses) -> Vec<LostFragments<'a>> {
    let mut sizes: FxHashMap<(usize, u32), Sizes> = FxHashMap::default();
    for (pool, fragment) in &found.lost_fragments {
        sizes.entry((*pool, fragment.owner)).or_default().add(fragment.payload());
    }
    let lost = found.lost.iter().filter_map(|lost| {
        let sizes = sizes.remove(&(lost.pool, lost.owner)).unwrap_or_default();
        let pool = case.pools.get(lost.pool)?;
        Some(LostFragments { pool, report: named(case, lost)?, sizes })
    });
    lost.collect()
}

fn with_content(case: &Case, lost: Vec<LostFragments<'_>>, shown: Shown) -> Vec<LostReport> {
    let places = case.places();
    let told = lost.into_iter().map(|LostFragments { pool, report, sizes }| LostReport {
        content: super::held::held(case, &places, pool, &sizes, shown),
        ..report
    });
    told.collect()
}

/// The fragments of these owners, for files.
fn payloads<'a>(
    case: &'a Case,
    lost: &'a [LostFragments<'_>],
) -> impl Iterator<Item = Selected<'a>> {
    lost.iter().flat_map(|LostFragments { pool, report, sizes }| {
        let member = case.members.get(pool.member);
        member.into_iter().flat_map(|member| {
            sizes.payloads().map(|payload| Selected {
                pool: report.pool.kind,
                pid: report.pool.pid,
                owner: &report.owner,
                payload,
                memory: &member.process.memory,
            })
        })
    })
}

fn in_sum(case: &Case, pool: &Pool, index: usize, lost: &[Lost]) -> Option<PoolLoss> {
    let walked = pool.walked()?;
    let lost = || lost.iter().filter(|lost| lost.pool == index);
    let role = case.members.get(pool.member).and_then(|member| member.role());
    Some(PoolLoss {
        pool: PoolName::of(case, pool),
        role: role.filter(|_| pool.kind == PoolKind::Pkg).map(str::to_owned),
        size: walked.expected_bytes(),
        used_fragments: walked.summary.used_fragments,
        used_bytes: walked.summary.used_bytes,
        unreachable_fragments: lost().map(|lost| lost.fragments).sum(),
        unreachable_bytes: lost().map(|lost| lost.bytes).sum(),
    })
}
