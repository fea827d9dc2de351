//! What `forensics leaks` tells: fragments that nothing points to any more.

use std::fmt;
use std::io::{self, Write};

use rustc_hash::{FxHashMap, FxHashSet};
use serde::Serialize;

use super::Tame;
use super::text::{lines, table};
use crate::addr::Addr;
use crate::case::{Case, Member, Pool};
use crate::content::{
    self, ContentGroup, DumpError, DumpOptions, DumpReport, Selected, Shown, Sizes,
};
use crate::gap::Gap;
use crate::heap::{Fragment, Owner};
use crate::kamailio::{OwnerName, PoolKind};
use crate::leak::{self, Hold, Lost, PoolNodes, Reach};
use crate::process::Process;
use crate::units::{count, size};

/// The report of `forensics leaks`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LeakReport {
    /// Version of this form.
    pub schema: u32,
    /// Fragments that no pointer leads to, by pool and owner, most bytes first.
    pub unreachable: Vec<LostReport>,
    /// Fragments that workers inherited from the main process, unreachable in both.
    pub inherited: Vec<LostReport>,
    /// Fragments that only stacks and registers point to.
    pub on_stacks: Vec<LostReport>,
    /// How far "unreachable" can be trusted.
    pub confidence: Confidence,
    /// What is not known.
    pub gaps: Vec<Gap>,
    /// The files that payloads were written to; only if that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dump: Option<DumpReport>,
    /// How `content` is shown.
    #[serde(skip)]
    pub shown: Shown,
}

/// How far "unreachable" can be trusted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Confidence {
    /// `high` if every root of every process of the group is known, else `low`.
    pub level: &'static str,
    /// What is missing, for a person; empty for `high`.
    pub missing: Vec<String>,
}

/// A pool, as scripts name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PoolName {
    /// Private or shared.
    pub kind: PoolKind,
    /// The process; null for shared memory.
    pub pid: Option<u32>,
}

/// `SHM`, `PKG 4242`
impl fmt::Display for PoolName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.name())?;
        self.pid.map_or(Ok(()), |pid| write!(f, " {pid}"))
    }
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

impl LeakReport {
    /// Follows every pointer of a case whose pools kept their fragments.
    ///
    /// # Errors
    /// Those of writing payloads to files, if that was asked for.
    pub fn of(case: &Case, options: &LeakOptions) -> Result<Self, DumpError> {
        let walked: Vec<&Pool> = case.pools.iter().filter(|pool| pool.walked.is_ok()).collect();
        let nodes: Vec<PoolNodes<'_>> = walked.iter().filter_map(|pool| nodes(pool)).collect();
        let processes: Vec<&Process> = case.members.iter().map(|member| &member.process).collect();
        let reach = leak::reach(&processes, &nodes);
        let of_main = lost_by_main(case, &walked, &nodes, &reach);
        let inherited = |pool: usize, fragment: &Fragment| {
            let own = walked.get(pool).is_some_and(|pool| {
                pool.kind == PoolKind::Pkg && !case.members.get(pool.member).is_some_and(is_main)
            });
            own && of_main.contains(&identity(fragment))
        };
        let found = leak::unreachable(&nodes, &reach, inherited);
        let name = |lost: &Lost| named(case, &walked, lost);
        let names = |list: &[Lost]| list.iter().filter_map(name).collect();
        let mut sizes = lost_by_size(&nodes, &reach, inherited);
        let mut lost: Vec<(&Pool, LostReport, Sizes)> = found
            .lost
            .iter()
            .filter_map(|lost| {
                let sizes = sizes.remove(&(lost.pool, lost.owner)).unwrap_or_default();
                Some((*walked.get(lost.pool)?, name(lost)?, sizes))
            })
            .collect();
        let dump = match &options.dump {
            Some(dump) => Some(content::dump(payloads(case, &lost), dump)?),
            None => None,
        };
        let places = case.places();
        for (pool, report, sizes) in &mut lost {
            report.content = super::held::held(case, &places, pool, sizes, options.shown);
        }
        Ok(Self {
            schema: super::SCHEMA,
            unreachable: lost.into_iter().map(|(_, report, _)| report).collect(),
            inherited: names(&found.inherited),
            on_stacks: names(&found.on_stacks),
            confidence: confidence(case),
            gaps: case.gaps.clone(),
            dump,
            shown: options.shown,
        })
    }

    /// As text.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn text(&self, top: usize, out: &mut dyn Write) -> io::Result<()> {
        let out = &mut Tame(out);
        match self.confidence.missing.is_empty() {
            true => writeln!(out, "Unreachable: no root of any process points there")?,
            false => {
                writeln!(
                    out,
                    "Unreachable from what was saved; a pointer may be in what was not:"
                )?;
                for missing in &self.confidence.missing {
                    writeln!(out, "  - {missing}")?;
                }
            }
        }
        section("", &self.unreachable, top, out)?;
        let shown = self.unreachable.iter().take(top);
        let held = shown.map(|lost| (format!("{}, {}", lost.owner, lost.pool), &lost.content[..]));
        super::held::text(held, self.shown, out)?;
        section(
            "On a stack or in a register only: in use right now, or leaked on return",
            &self.on_stacks,
            top,
            out,
        )?;
        let fragments: u64 = self.inherited.iter().map(|lost| lost.fragments).sum();
        if fragments > 0 {
            let bytes = self.inherited.iter().map(|lost| lost.bytes).sum();
            writeln!(
                out,
                "Inherited: {} fragments, {}, which the main process had lost before the fork",
                count(fragments),
                size(bytes)
            )?;
        }
        if let Some(dump) = &self.dump {
            writeln!(out, "{dump}")?;
        }
        Ok(())
    }
}

fn section(title: &str, list: &[LostReport], top: usize, out: &mut dyn Write) -> io::Result<()> {
    if !title.is_empty() {
        writeln!(out, "{title}")?;
    }
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

/// The unreachable fragments that are not inherited, by pool and owner.
fn lost_by_size(
    nodes: &[PoolNodes<'_>],
    reach: &Reach,
    inherited: impl Fn(usize, &Fragment) -> bool,
) -> FxHashMap<(usize, Owner), Sizes> {
    let mut sizes: FxHashMap<(usize, Owner), Sizes> = FxHashMap::default();
    for (pool, (nodes, holds)) in nodes.iter().zip(&reach.holds).enumerate() {
        for (fragment, hold) in nodes.fragments.iter().zip(holds) {
            if fragment.used && *hold == Hold::Nothing && !inherited(pool, fragment) {
                let owner = fragment.owner.unwrap_or_default();
                sizes.entry((pool, owner)).or_default().add(fragment.payload);
            }
        }
    }
    sizes
}

/// The fragments of these owners, for files.
fn payloads<'a>(
    case: &'a Case,
    lost: &'a [(&Pool, LostReport, Sizes)],
) -> impl Iterator<Item = Selected<'a>> {
    lost.iter().flat_map(|(pool, report, sizes)| {
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

fn nodes(pool: &Pool) -> Option<PoolNodes<'_>> {
    let walked = pool.walked()?;
    Some(PoolNodes {
        member: pool.member,
        shared: pool.kind == PoolKind::Shm,
        range: walked.range,
        fragments: &walked.summary.fragments,
    })
}

fn is_main(member: &Member) -> bool {
    member.entry.as_ref().is_some_and(|entry| entry.index == 0)
}

fn identity(fragment: &Fragment) -> (Addr, u64) {
    (fragment.header, fragment.payload.length())
}

/// What the main process itself has lost in its private memory.
fn lost_by_main(
    case: &Case,
    walked: &[&Pool],
    nodes: &[PoolNodes<'_>],
    reach: &Reach,
) -> FxHashSet<(Addr, u64)> {
    let mut found = FxHashSet::default();
    for ((pool, nodes), holds) in walked.iter().zip(nodes).zip(&reach.holds) {
        let main = case.members.get(pool.member).is_some_and(is_main);
        if pool.kind == PoolKind::Pkg && main {
            let lost = nodes.fragments.iter().zip(holds);
            let lost = lost.filter(|(fragment, hold)| fragment.used && **hold == Hold::Nothing);
            found.extend(lost.map(|(fragment, _)| identity(fragment)));
        }
    }
    found
}

fn named(case: &Case, walked: &[&Pool], lost: &Lost) -> Option<LostReport> {
    let pool = walked.get(lost.pool)?;
    let known = pool.walked()?;
    let index = known.summary.owners.iter().position(|totals| totals.owner == lost.owner)?;
    let member = case.members.get(pool.member);
    let pid = member.and_then(|m| m.process.pid).filter(|_| pool.kind == PoolKind::Pkg);
    Some(LostReport {
        pool: PoolName { kind: pool.kind, pid },
        owner: known.names.get(index)?.clone(),
        fragments: lost.fragments,
        bytes: lost.bytes,
        heads: lost.heads,
        example: lost.example,
        content: Vec::new(),
    })
}

/// What keeps "unreachable" from being certain.
fn confidence(case: &Case) -> Confidence {
    let mut missing = Vec::new();
    let absent = case.missing_processes().len();
    if absent > 0 {
        missing.push(format!(
            "{absent} of the {} processes are not in the input, with all that they point to",
            absent.saturating_add(case.members.len())
        ));
    }
    for member in &case.members {
        let process = &member.process;
        let name = crate::case::describe(member);
        let threads = &process.core.notes.threads;
        let machine = process.core.machine;
        if threads.is_empty() || threads.iter().any(|t| t.stack_pointer(machine).is_none()) {
            missing.push(format!("{name}: registers, and so which part of its stacks is live"));
        }
        let unsaved = unsaved_writable(process);
        if unsaved > 0 {
            missing.push(format!("{name}: {} of writable memory", size(unsaved)));
        }
    }
    for pool in &case.pools {
        if !pool.walked().is_some_and(|walked| walked.summary.complete) {
            missing.push(format!("a pool that was not read to its end: {}", pool.kind.name()));
        }
    }
    let level = if missing.is_empty() { "high" } else { "low" };
    Confidence { level, missing }
}

/// Writable bytes that the snapshot lacks.
fn unsaved_writable(process: &Process) -> u64 {
    use crate::memory::Content;
    let unsaved = process.memory.segments().iter().filter(|s| s.writable == Some(true)).map(|s| {
        match &s.content {
            Content::Bytes { blob, offset } => {
                let held = blob.length().saturating_sub(*offset);
                s.range.length().saturating_sub(held)
            }
            Content::Zero => 0,
            Content::Absent(_) => s.range.length(),
        }
    });
    unsaved.sum()
}
