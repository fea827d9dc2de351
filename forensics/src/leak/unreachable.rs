//! Unreachable fragments by owner.

use std::cmp::Reverse;

use rustc_hash::FxHashMap;

use super::Used;
use super::graph::{Graph, Node};
use super::reach::{Hold, Reach};
use crate::addr::Addr;

/// What one owner has lost in one pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Index of the pool.
    pub pool: usize,
    /// Index of the owner in the pool's list.
    pub owner: u32,
    /// Fragments.
    pub fragments: u64,
    /// Their payload, in bytes.
    pub bytes: u64,
    /// Fragments that no other lost one points to, and one of each cycle: what to look at.
    pub heads: u64,
    /// Of `fragments`: those that other processes inherited, and lost, too.
    pub start_up: u64,
    /// Payload of the first head, else of the first fragment.
    pub example: Addr,
}

/// Fragments that nothing, or next to nothing, holds, by pool and owner, most bytes first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unreachable {
    /// Nothing points to these.
    pub lost: Vec<Lost>,
    /// The same for fragments that a process inherited from the main one, which has lost them
    /// too: they count there.
    pub inherited: Vec<Lost>,
    /// Only a stack or a register points to these.
    pub on_stacks: Vec<Lost>,
    /// The fragments that `lost` sums, each with the index of its pool.
    pub lost_fragments: Vec<(usize, Used)>,
}

/// Where a lost fragment counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// It is the process's own.
    Start,
    /// The process's own, and others inherited it.
    BeforeFork,
    /// Inherited from the main process.
    Inherited,
}

/// Sums what `reach` found; `since` is asked for each lost fragment.
pub fn unreachable(graph: &Graph<'_>, reach: &Reach, since: impl Fn(Node) -> Since) -> Unreachable {
    let (mut lost, mut inherited, mut on_stacks) = <(Sums, Sums, Sums)>::default();
    let mut lost_fragments = Vec::new();
    for node in graph.nodes() {
        match reach.hold(node) {
            Hold::Data => {}
            Hold::Stack => on_stacks.add(graph, node, false, false),
            Hold::Nothing => {
                let head = reach.is_head(node);
                match since(node) {
                    Since::Inherited => inherited.add(graph, node, head, false),
                    since => {
                        lost.add(graph, node, head, since == Since::BeforeFork);
                        lost_fragments
                            .extend(graph.fragment(node).map(|(pool, used)| (pool, *used)));
                    }
                }
            }
        }
    }
    Unreachable {
        lost: lost.by_bytes(),
        inherited: inherited.by_bytes(),
        on_stacks: on_stacks.by_bytes(),
        lost_fragments,
    }
}

#[derive(Default)]
struct Sums(FxHashMap<(usize, u32), Lost>);

impl Sums {
    fn add(&mut self, graph: &Graph<'_>, node: Node, head: bool, start_up: bool) {
        let Some((pool, used)) = graph.fragment(node) else { return };
        let owner = used.owner;
        let new = Lost {
            pool,
            owner,
            fragments: 0,
            bytes: 0,
            heads: 0,
            start_up: 0,
            example: used.start,
        };
        let lost = self.0.entry((pool, owner)).or_insert(new);
        if head && lost.heads == 0 {
            lost.example = used.start;
        }
        lost.fragments = lost.fragments.saturating_add(1);
        lost.bytes = lost.bytes.saturating_add(used.bytes());
        lost.heads = lost.heads.saturating_add(u64::from(head));
        lost.start_up = lost.start_up.saturating_add(u64::from(start_up));
    }

    fn by_bytes(self) -> Vec<Lost> {
        let mut lost: Vec<Lost> = self.0.into_values().collect();
        lost.sort_by_key(|lost| (Reverse(lost.bytes), lost.pool, lost.owner));
        lost
    }
}
