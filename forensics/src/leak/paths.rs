//! Why a fragment is still alive: who points at it, and the shortest ways there from the roots.
//!
//! A way ends at the first fragment that data of the program points at; behind one that only stacks
//! and registers point at, the search goes on.

use rayon::prelude::*;
use rustc_hash::FxHashMap;

use super::graph::{Graph, Marks, Node};
use super::roots::RootPlace;
use super::{Hold, Reach};
use crate::num::narrow;

/// A word outside the pools that points at a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RootWord {
    /// Index of its process.
    pub member: usize,
    /// Where it is.
    pub place: RootPlace,
    /// What it holds.
    pub value: u64,
}

/// A way from a root to a fragment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    /// Where it begins: words that all lead to the first step, in different places and processes.
    pub roots: Vec<RootWord>,
    /// The fragments on the way, the one that was asked for last.
    pub steps: Vec<Node>,
}

/// For each fragment, those that point at it.
#[derive(Debug)]
pub struct Referrers {
    /// Where those of each fragment end.
    ends: Vec<u64>,
    nodes: Vec<Node>,
}

impl Referrers {
    /// Turns every edge of a graph round.
    pub fn of(graph: &Graph<'_>) -> Self {
        let mut places = vec![0_u64; graph.bound()];
        let edges =
            || graph.nodes().flat_map(|node| graph.edges(node).iter().map(move |to| (node, *to)));
        for (_, to) in edges() {
            if let Some(count) = places.get_mut(to.number()) {
                *count = count.saturating_add(1);
            }
        }
        let mut sum = 0_u64;
        for place in &mut places {
            let count = *place;
            *place = sum;
            sum = sum.saturating_add(count);
        }
        let mut nodes = vec![Node::of(0); narrow(sum)];
        for (from, to) in edges() {
            let Some(place) = places.get_mut(to.number()) else { continue };
            if let Some(slot) = nodes.get_mut(narrow(*place)) {
                *slot = from;
            }
            *place = place.saturating_add(1);
        }
        Self { ends: places, nodes }
    }

    /// The fragments that point at one.
    pub fn to(&self, node: Node) -> &[Node] {
        let number = node.number();
        let start = number.checked_sub(1).and_then(|before| self.ends.get(before)).copied();
        let end = self.ends.get(number).copied().unwrap_or(0);
        let range = narrow(start.unwrap_or(0))..narrow(end);
        self.nodes.get(range).unwrap_or_default()
    }
}

/// The roots of all processes that point straight at some fragments.
pub fn roots_of(graph: &Graph<'_>, wanted: &Marks) -> FxHashMap<Node, Vec<RootWord>> {
    let found: Vec<Vec<(Node, RootWord)>> = (0..graph.members())
        .into_par_iter()
        .map(|member| {
            let mut found = Vec::new();
            graph.roots(member, |place, value, node| {
                if wanted.has(node) {
                    found.push((node, RootWord { member, place, value }));
                }
            });
            found
        })
        .collect();
    let mut by_node: FxHashMap<Node, Vec<RootWord>> = FxHashMap::default();
    for (node, word) in found.into_iter().flatten() {
        by_node.entry(node).or_default().push(word);
    }
    by_node
}

/// The shortest ways from the roots to a fragment, the shortest first, at most `limit`; each begins
/// at a fragment of its own that roots point at.
pub fn paths(graph: &Graph<'_>, referrers: &Referrers, target: Node, limit: usize) -> Vec<Path> {
    let mut all = Marks::none(graph);
    graph.nodes().for_each(|node| {
        all.put(node);
    });
    let rooted = roots_of(graph, &all);
    // Backwards from the target, level by level; each fragment knows the next one on the way.
    let mut next: FxHashMap<Node, Node> = FxHashMap::default();
    let mut seen = Marks::none(graph);
    seen.put(target);
    let mut level = vec![target];
    let mut found = Vec::new();
    while !level.is_empty() && found.len() < limit {
        let mut behind = Vec::new();
        for &node in &level {
            if let Some(roots) = rooted.get(&node) {
                found.push(Path { roots: roots.clone(), steps: way(node, &next) });
                if roots.iter().any(|root| matches!(root.place, RootPlace::Data(_))) {
                    continue;
                }
            }
            for &from in referrers.to(node) {
                if seen.put(from) {
                    next.insert(from, node);
                    behind.push(from);
                }
            }
        }
        level = behind;
    }
    found.truncate(limit);
    found
}

/// The head that a lost fragment is reached from; `None` if it is not lost.
pub fn head_of(
    graph: &Graph<'_>,
    reach: &Reach,
    referrers: &Referrers,
    lost: Node,
) -> Option<Node> {
    if reach.hold(lost) != Hold::Nothing {
        return None;
    }
    let mut seen = Marks::none(graph);
    seen.put(lost);
    let mut waiting = vec![lost];
    while let Some(node) = waiting.pop() {
        if reach.is_head(node) {
            return Some(node);
        }
        // What points at a lost fragment is lost, too.
        waiting.extend(referrers.to(node).iter().copied().filter(|from| seen.put(*from)));
    }
    None
}

/// From a fragment to the target.
fn way(from: Node, next: &FxHashMap<Node, Node>) -> Vec<Node> {
    let mut steps = vec![from];
    let mut at = from;
    while let Some(&then) = next.get(&at) {
        steps.push(then);
        at = then;
    }
    steps
}
