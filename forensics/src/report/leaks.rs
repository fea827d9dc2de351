//! What `forensics leaks` tells: fragments that nothing points to any more.

use std::fmt;

use rustc_hash::FxHashSet;
use serde::Serialize;

use super::Confidence;
use crate::addr::Addr;
use crate::case::{Case, Connected, Pool};
use crate::gap::Gap;
use crate::kamailio::{OwnerName, PoolKind};
use crate::leak::{self, Graph, Hold, Lost, Node, Reach, Since, Used};

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
    /// How far "unreachable" can be trusted.
    pub confidence: Confidence,
    /// What is not known.
    pub gaps: Vec<Gap>,
}

/// A pool, as scripts name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PoolName {
    /// Private or shared.
    pub kind: PoolKind,
    /// The process; null for shared memory.
    pub pid: Option<u32>,
}

impl PoolName {
    /// Of a pool.
    pub fn of(case: &Case, pool: &Pool) -> Self {
        let member = case.members.get(pool.member);
        let pid = member.and_then(|member| member.process.pid);
        Self { kind: pool.kind, pid: pid.filter(|_| pool.kind == PoolKind::Pkg) }
    }
}

/// `shm`, or `pkg 1234`.
impl fmt::Display for PoolName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pid {
            Some(pid) => write!(f, "{} {pid}", self.kind.name()),
            None => f.write_str(self.kind.name()),
        }
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
}

impl LeakReport {
    /// Follows every pointer of a case that was built with `keep_used`.
    pub fn of(case: &Case) -> Self {
        let connected = case.connected();
        let graph = connected.graph();
        let reach = leak::reach(&graph);
        let start_up = StartUp::of(&connected, &graph, &reach);
        let found = leak::unreachable(&graph, &reach, |node| start_up.since(&graph, node));
        let named = |list: &[Lost]| -> Vec<LostReport> {
            list.iter().filter_map(|lost| named(case, &connected, lost)).collect()
        };
        let pools = connected.pools.iter().enumerate();
        let pools = pools.filter_map(|(index, pool)| in_sum(case, pool, index, &found.lost));
        Self {
            schema: super::SCHEMA,
            pools: pools.collect(),
            unreachable: named(&found.lost),
            inherited: named(&found.inherited),
            on_stacks: named(&found.on_stacks),
            confidence: Confidence::of(case),
            gaps: case.gaps.clone(),
        }
    }
}

/// What makes two fragments of two processes the same allocation.
type Identity = (Addr, u64);

fn identity(fragment: &Used) -> Identity {
    (fragment.start, fragment.bytes())
}

/// What was lost before the fork: in the main process, and at the same place in others.
struct StartUp {
    /// The main process's pool.
    main: Option<usize>,
    shared: Vec<usize>,
    lost_by_main: FxHashSet<Identity>,
    lost_by_others: FxHashSet<Identity>,
}

impl StartUp {
    fn of(connected: &Connected<'_>, graph: &Graph<'_>, reach: &Reach) -> Self {
        let pools = connected.pools.iter().enumerate();
        let shared = pools.filter(|(_, pool)| pool.kind == PoolKind::Shm).map(|(index, _)| index);
        let mut start_up = Self {
            main: connected.first_private(),
            shared: shared.collect(),
            lost_by_main: FxHashSet::default(),
            lost_by_others: FxHashSet::default(),
        };
        if start_up.main.is_none() {
            return start_up;
        }
        for node in graph.nodes().filter(|node| reach.hold(*node) == Hold::Nothing) {
            let Some((pool, fragment)) = graph.fragment(node) else { continue };
            if Some(pool) == start_up.main {
                start_up.lost_by_main.insert(identity(fragment));
            } else if !start_up.shared.contains(&pool) {
                start_up.lost_by_others.insert(identity(fragment));
            }
        }
        start_up
    }

    fn since(&self, graph: &Graph<'_>, node: Node) -> Since {
        let Some((pool, fragment)) = graph.fragment(node) else { return Since::Start };
        let identity = identity(fragment);
        match self.main {
            Some(main) if main == pool => match self.lost_by_others.contains(&identity) {
                true => Since::BeforeFork,
                false => Since::Start,
            },
            Some(_) if !self.shared.contains(&pool) && self.lost_by_main.contains(&identity) => {
                Since::Inherited
            }
            _ => Since::Start,
        }
    }
}

fn named(case: &Case, connected: &Connected<'_>, lost: &Lost) -> Option<LostReport> {
    let pool = connected.pools.get(lost.pool)?;
    let owner = pool.walked()?.names.get(crate::num::narrow(u64::from(lost.owner)))?;
    Some(LostReport {
        pool: PoolName::of(case, pool),
        owner: owner.clone(),
        fragments: lost.fragments,
        bytes: lost.bytes,
        heads: lost.heads,
        start_up: lost.start_up,
        example: lost.example,
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
