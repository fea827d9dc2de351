//! How far "unreachable" can be trusted.

use serde::Serialize;

use super::{Case, Member, Pool, PoolName, describe};
use crate::addr::Addr;
use crate::core::Thread;
use crate::kamailio::PoolKind;
use crate::memory::{Content, Segment};
use crate::units::{count, size};

/// How far "unreachable" can be trusted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Trust {
    /// `high` if every root of every process of the group is known, else `low`.
    pub level: Level,
    /// What is missing, for a person; empty for `high`.
    pub missing: Vec<String>,
    /// The same for each pool: what is missing elsewhere may not matter to a private one.
    pub pools: Vec<PoolTrust>,
}

/// How far "unreachable" can be trusted in one pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PoolTrust {
    /// Which.
    pub pool: PoolName,
    /// The trust.
    pub level: Level,
    /// What is missing, for a person.
    pub missing: Vec<String>,
}

/// The trust in an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Every root is known.
    High,
    /// A pointer may be in what is missing.
    Low,
}

impl Trust {
    /// Whether every root of a pool is known.
    pub fn is_high(&self, pool: PoolName) -> bool {
        self.pools.iter().any(|known| known.pool == pool && known.level == Level::High)
    }
}

impl Level {
    fn of(missing: &[String]) -> Self {
        if missing.is_empty() { Self::High } else { Self::Low }
    }
}

impl Trust {
    /// Of a case. Its words: what of the roots is not in the input.
    pub fn of(case: &Case) -> Self {
        let group = absent_processes(case);
        let of_member: Vec<Vec<String>> = case.members.iter().map(of_member).collect();
        let of_pool: Vec<Option<String>> =
            case.pools.iter().map(|pool| not_walked(case, pool)).collect();
        let shared = |pool: &Pool| pool.kind == PoolKind::Shm;
        let without_shared = |pool: &Pool| {
            let member = case.members.get(pool.member).filter(|_| !shared(pool))?;
            no_shared(case, member)
        };
        let known = case.pools.iter().filter(|pool| pool.walked().is_some());
        let pools = known.map(|pool| {
            // Whose words count: everybody's for shared memory; for private memory the process's
            // own and those in shared memory.
            let processes = of_member.iter().enumerate();
            let processes = processes.filter(|(index, _)| shared(pool) || *index == pool.member);
            let pools = case.pools.iter().zip(&of_pool);
            let pools = pools
                .filter(|(other, _)| shared(pool) || shared(other) || other.member == pool.member);
            let missing: Vec<String> = group
                .iter()
                .filter(|_| shared(pool))
                .chain(processes.flat_map(|(_, missing)| missing))
                .chain(pools.filter_map(|(_, missing)| missing.as_ref()))
                .cloned()
                .chain(without_shared(pool))
                .collect();
            let level = Level::of(&missing);
            PoolTrust { pool: PoolName::of(case, pool), level, missing }
        });
        let pools = pools.collect();
        let all = group.into_iter().chain(of_member.into_iter().flatten());
        let without_shared = case.pools.iter().filter_map(without_shared);
        let missing: Vec<String> =
            all.chain(of_pool.into_iter().flatten()).chain(without_shared).collect();
        Self { level: Level::of(&missing), missing, pools }
    }
}

fn absent_processes(case: &Case) -> Option<String> {
    let manifest = case.evidence.manifest.as_ref();
    if case.table.is_empty() && manifest.is_none() {
        let why = "no process table could be read, and so it is not known which other processes \
                   there are; they point to shared memory, too";
        return Some(why.to_owned());
    }
    // A collector knows the group by itself.
    let read = |pid: u32| case.members.iter().any(|member| member.process.pid == Some(pid));
    let named = manifest.map(|manifest| manifest.processes.iter().filter(|one| !read(one.pid)));
    let absent = case.missing_processes().len().max(named.map_or(0, Iterator::count));
    let all = absent.saturating_add(case.members.len());
    (absent > 0).then(|| {
        let are = if absent == 1 { "is" } else { "are" };
        format!("{absent} of the {all} processes {are} not in the input, with all they point to")
    })
}

/// Shared memory points into private memory, too: at what was made before the fork.
fn no_shared(case: &Case, member: &Member) -> Option<String> {
    let own = member.roots.pools.iter().find(|root| root.kind == PoolKind::Shm);
    let walked = |block: Addr| {
        let mut pools = case.pools.iter();
        pools.any(|pool| pool.kind == PoolKind::Shm && pool.block == block)
    };
    (!own.is_some_and(|root| walked(root.block))).then(|| {
        format!("{}: its shared pool, which points into private memory, too", describe(member))
    })
}

fn of_member(member: &Member) -> Vec<String> {
    let process = &member.process;
    let name = describe(member);
    let mut missing = Vec::new();
    let threads = &process.core.notes.threads;
    let machine = process.core.machine;
    let known =
        |thread: &&Thread| thread.has_all_registers() && thread.stack_pointer(machine).is_some();
    let known = threads.iter().filter(known).count();
    if threads.is_empty() {
        missing.push(format!("{name}: its registers, and so which part of its stacks is live"));
    } else if known < threads.len() {
        let lacking = threads.len().saturating_sub(known);
        missing.push(format!(
            "{name}: registers of {lacking} of {} threads, and perhaps which part of their stacks \
             is live",
            threads.len()
        ));
    }
    let unsaved: u64 = process.memory.segments().iter().map(unsaved).sum();
    if unsaved > 0 {
        missing.push(format!("{name}: {} of writable memory", size(unsaved)));
    }
    missing
}

/// Writable bytes of a piece that the snapshot lacks.
fn unsaved(segment: &Segment) -> u64 {
    match &segment.content {
        _ if segment.writable != Some(true) => 0,
        Content::Bytes { blob, offset } => {
            let held = blob.length().saturating_sub(*offset);
            segment.range.length().saturating_sub(held)
        }
        Content::Zero => 0,
        Content::Absent(_) => segment.range.length(),
    }
}

/// What of a pool the walk did not see.
fn not_walked(case: &Case, pool: &Pool) -> Option<String> {
    let name = PoolName::of(case, pool);
    let Some(walked) = pool.walked() else {
        return Some(format!("{name}: it could not be walked, and what it points to may be lost"));
    };
    let summary = &walked.summary;
    let breaks = summary.breaks.count.saturating_add(summary.holes.count);
    (!summary.complete).then(|| {
        format!(
            "{name}: {} in no fragment, as its chain is broken in {} {}",
            size(summary.lost_bytes),
            count(breaks),
            if breaks == 1 { "place" } else { "places" }
        )
    })
}
