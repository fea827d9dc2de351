//! Unreachable fragments by owner.

use std::collections::BTreeMap;

use super::graph::{Hold, PoolNodes, Reach};
use crate::addr::Addr;
use crate::heap::{Fragment, Owner};

/// What one owner has lost in one pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Who allocated it.
    pub owner: Owner,
    /// Index of the pool.
    pub pool: usize,
    /// Fragments.
    pub fragments: u64,
    /// Their payload, in bytes.
    pub bytes: u64,
    /// Fragments that no other lost one points to, and one of each cycle: what to look at.
    pub heads: u64,
    /// Payload of the first head, else of the first fragment.
    pub example: Addr,
}

/// Unreachable fragments, and those that only stacks and registers hold, by owner.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unreachable {
    /// Nothing points to these; most bytes first.
    pub lost: Vec<Lost>,
    /// The same for fragments that a worker inherited from the main process, which has lost them
    /// too: shown once, there.
    pub inherited: Vec<Lost>,
    /// Only a stack or a register points to these.
    pub on_stacks: Vec<Lost>,
}

/// Sums what `reach` found. `inherited` says whether a fragment of a pool is the main process's
/// allocation, seen again in a worker, and lost there too.
pub fn unreachable(
    pools: &[PoolNodes<'_>],
    reach: &Reach,
    inherited: impl Fn(usize, &Fragment) -> bool,
) -> Unreachable {
    let (mut lost, mut from_main, mut on_stacks) = <(Sums, Sums, Sums)>::default();
    for (pool, nodes) in pools.iter().enumerate() {
        let holds = reach.holds.get(pool).into_iter().flatten();
        let heads = reach.heads.get(pool).into_iter().flatten();
        for ((fragment, hold), head) in nodes.fragments.iter().zip(holds).zip(heads) {
            let sums = match hold {
                Hold::Data => continue,
                Hold::Stack => &mut on_stacks,
                Hold::Nothing if inherited(pool, fragment) => &mut from_main,
                Hold::Nothing => &mut lost,
            };
            if fragment.used {
                add(sums, pool, fragment, *head);
            }
        }
    }
    Unreachable {
        lost: by_bytes(lost),
        inherited: by_bytes(from_main),
        on_stacks: by_bytes(on_stacks),
    }
}

type Sums = BTreeMap<(usize, Owner), (Lost, bool)>;

fn add(sums: &mut Sums, pool: usize, fragment: &Fragment, head: bool) {
    let owner = fragment.owner.unwrap_or_default();
    let start = fragment.payload.start;
    let new = Lost { owner, pool, fragments: 0, bytes: 0, heads: 0, example: start };
    let (lost, has_head) = sums.entry((pool, owner)).or_insert((new, false));
    lost.fragments = lost.fragments.saturating_add(1);
    lost.bytes = lost.bytes.saturating_add(fragment.payload.length());
    if head {
        lost.heads = lost.heads.saturating_add(1);
        if !std::mem::replace(has_head, true) {
            lost.example = start;
        }
    }
}

fn by_bytes(sums: Sums) -> Vec<Lost> {
    let mut lost: Vec<Lost> = sums.into_values().map(|(lost, _)| lost).collect();
    lost.sort_by_key(|lost| (std::cmp::Reverse(lost.bytes), lost.pool, lost.owner));
    lost
}
