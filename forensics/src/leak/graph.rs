//! Who still points at a fragment: reachability over a whole process group.
//!
//! Roots are registers, stacks and all writable memory outside the pools; edges are words of used
//! fragments that point to another one, or into it. Allocators' own words are neither. Private
//! memory is each process's own, shared memory is everybody's: a process's pointers lead into its
//! own PKG and into SHM, pointers in SHM into SHM and, at the same address, into every PKG (what was
//! made before the fork).

use rayon::prelude::*;

use super::roots::{self, Roots};
use crate::addr::{Addr, AddrRange};
use crate::heap::Fragment;

use crate::process::Process;

/// One pool whose fragments are nodes.
#[derive(Clone, Copy, Debug)]
pub struct PoolNodes<'a> {
    /// The process that it was read through.
    pub member: usize,
    /// Whether every process sees it.
    pub shared: bool,
    /// Its addresses.
    pub range: AddrRange,
    /// Its fragments, used and free, by rising address.
    pub fragments: &'a [Fragment],
}

/// What holds a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hold {
    /// Nothing that is known.
    Nothing,
    /// Only registers or stacks: it is in use right now, or leaked when a function returns.
    Stack,
    /// Data of the program, perhaps through other fragments.
    Data,
}

/// What is held, for each fragment of each pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reach {
    /// In the order of the pools and of their fragments; free ones count as not held.
    pub holds: Vec<Vec<Hold>>,
    /// Unreachable used fragments that no other unreachable one points to, and one of each cycle.
    pub heads: Vec<Vec<bool>>,
}

/// Pool and fragment, by number.
type Node = (usize, usize);

struct Graph<'a> {
    processes: &'a [&'a Process],
    pools: &'a [PoolNodes<'a>],
}

/// Marks all that can be reached.
pub fn reach(processes: &[&Process], pools: &[PoolNodes<'_>]) -> Reach {
    let graph = Graph { processes, pools };
    let found: Vec<(Vec<Node>, Vec<Node>)> =
        (0..processes.len()).into_par_iter().map(|process| graph.roots(process)).collect();
    let mut holds: Vec<Vec<Hold>> =
        pools.iter().map(|pool| vec![Hold::Nothing; pool.fragments.len()]).collect();
    let data = found.iter().flat_map(|(data, _)| data.iter().copied());
    graph.mark(data.collect(), Hold::Data, &mut holds);
    let stacks = found.iter().flat_map(|(_, stacks)| stacks.iter().copied());
    graph.mark(stacks.collect(), Hold::Stack, &mut holds);
    let heads = graph.heads(&holds);
    Reach { holds, heads }
}

impl Graph<'_> {
    /// What a process's data and its stacks and registers point at.
    fn roots(&self, process: usize) -> (Vec<Node>, Vec<Node>) {
        let Some(own) = self.processes.get(process) else { return Default::default() };
        let visible = self.visible_to(process);
        let ranges: Vec<AddrRange> = {
            let mut ranges: Vec<AddrRange> =
                visible.iter().filter_map(|pool| Some(self.pools.get(*pool)?.range)).collect();
            ranges.sort_unstable();
            ranges
        };
        let roots = Roots::of(own, &ranges);
        let (mut data, mut stacks) = (Vec::new(), Vec::new());
        for range in roots.data {
            roots::words(own, range, |word| data.extend(self.target(&visible, word)));
        }
        for range in roots.stacks {
            roots::words(own, range, |word| stacks.extend(self.target(&visible, word)));
        }
        stacks.extend(roots.registers.iter().filter_map(|word| self.target(&visible, *word)));
        (data, stacks)
    }

    /// The pools that a pointer of a process can lead into.
    fn visible_to(&self, process: usize) -> Vec<usize> {
        let visible = |pool: &PoolNodes<'_>| pool.shared || pool.member == process;
        self.pools.iter().enumerate().filter(|(_, pool)| visible(pool)).map(|(at, _)| at).collect()
    }

    /// The used fragment that a word points to or into, in the first of some pools.
    #[inline]
    fn target(&self, pools: &[usize], word: u64) -> Option<Node> {
        pools.iter().find_map(|&pool| Some((pool, self.fragment_at(pool, word)?)))
    }

    #[inline]
    fn fragment_at(&self, pool: usize, word: u64) -> Option<usize> {
        let nodes = self.pools.get(pool)?;
        if !nodes.range.contains(Addr(word)) {
            return None;
        }
        let behind = nodes.fragments.partition_point(|f| f.payload.start.0 <= word);
        let index = behind.checked_sub(1)?;
        let fragment = nodes.fragments.get(index)?;
        (fragment.used && fragment.payload.contains(Addr(word))).then_some(index)
    }

    /// What the payload of a fragment points at.
    fn edges(&self, (pool, fragment): Node) -> Vec<Node> {
        let mut edges = Vec::new();
        let Some(nodes) = self.pools.get(pool) else { return edges };
        let (Some(process), Some(fragment)) =
            (self.processes.get(nodes.member), nodes.fragments.get(fragment))
        else {
            return edges;
        };
        let all: Vec<usize> = (0..self.pools.len()).collect();
        let visible = if nodes.shared { all } else { self.visible_to(nodes.member) };
        roots::words(process, fragment.payload, |word| {
            let found = |&pool: &usize| Some((pool, self.fragment_at(pool, word)?));
            edges.extend(visible.iter().filter_map(found));
        });
        edges
    }

    /// Marks what can be reached from some nodes and is not held yet.
    fn mark(&self, mut waiting: Vec<Node>, hold: Hold, holds: &mut [Vec<Hold>]) {
        while let Some(node) = waiting.pop() {
            let (pool, fragment) = node;
            let Some(place) = holds.get_mut(pool).and_then(|pool| pool.get_mut(fragment)) else {
                continue;
            };
            if *place == Hold::Nothing {
                *place = hold;
                waiting.extend(self.edges(node));
            }
        }
    }

    /// The fragments to look at among those that nothing holds: all others are reached from them.
    fn heads(&self, holds: &[Vec<Hold>]) -> Vec<Vec<bool>> {
        let mut heads: Vec<Vec<bool>> = holds.iter().map(|pool| vec![false; pool.len()]).collect();
        let order = self.finish_order(holds);
        let mut covered = heads.clone();
        for &node in order.iter().rev() {
            if is_set(&covered, node) {
                continue;
            }
            set(&mut heads, node);
            let mut waiting = vec![node];
            while let Some(node) = waiting.pop() {
                if !is_set(&covered, node) && is_lost(holds, node) {
                    set(&mut covered, node);
                    waiting.extend(self.edges(node));
                }
            }
        }
        heads
    }

    /// Unreachable used fragments in the order in which a depth-first search leaves them: the last
    /// of those that are left is always in no other's reach, or in a cycle with what reaches it.
    fn finish_order(&self, holds: &[Vec<Hold>]) -> Vec<Node> {
        let mut seen: Vec<Vec<bool>> = holds.iter().map(|pool| vec![false; pool.len()]).collect();
        let mut order = Vec::new();
        for (pool, nodes) in self.pools.iter().enumerate() {
            for (index, fragment) in nodes.fragments.iter().enumerate() {
                let start = (pool, index);
                if !fragment.used || !is_lost(holds, start) || is_set(&seen, start) {
                    continue;
                }
                set(&mut seen, start);
                let mut stack = vec![(start, self.edges(start))];
                while let Some((node, edges)) = stack.last_mut() {
                    let node = *node;
                    match edges.pop() {
                        Some(next) if is_lost(holds, next) && !is_set(&seen, next) => {
                            set(&mut seen, next);
                            stack.push((next, self.edges(next)));
                        }
                        Some(_) => {}
                        None => {
                            order.push(node);
                            stack.pop();
                        }
                    }
                }
            }
        }
        order
    }
}

fn is_lost(holds: &[Vec<Hold>], (pool, fragment): Node) -> bool {
    holds.get(pool).and_then(|pool| pool.get(fragment)) == Some(&Hold::Nothing)
}

fn is_set(marks: &[Vec<bool>], (pool, fragment): Node) -> bool {
    marks.get(pool).and_then(|pool| pool.get(fragment)).copied().unwrap_or(true)
}

fn set(marks: &mut [Vec<bool>], (pool, fragment): Node) {
    if let Some(mark) = marks.get_mut(pool).and_then(|pool| pool.get_mut(fragment)) {
        *mark = true;
    }
}
