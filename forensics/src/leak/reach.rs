//! What is still held, and by what; of what is not, where to begin to look.

use rayon::prelude::*;

use super::graph::{Graph, Marks, Node};
use super::roots::RootPlace;

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

/// What holds each fragment.
#[derive(Debug)]
pub struct Reach {
    by_data: Marks,
    by_stack: Marks,
    heads: Marks,
}

/// Follows every root of every process.
pub fn reach(graph: &Graph<'_>) -> Reach {
    let rooted: Vec<[Vec<Node>; 2]> =
        (0..graph.members()).into_par_iter().map(|member| rooted(graph, member)).collect();
    let (mut by_data, mut by_stack) = (Marks::none(graph), Marks::none(graph));
    for [data, _] in &rooted {
        mark(graph, data, &mut by_data, |_| false);
    }
    for [_, stacks] in &rooted {
        mark(graph, stacks, &mut by_stack, |node| by_data.has(node));
    }
    let mut reach = Reach { by_data, by_stack, heads: Marks::none(graph) };
    reach.find_heads(graph);
    reach
}

/// The fragments that a process's data, and its stacks and registers, point at.
fn rooted(graph: &Graph<'_>, member: usize) -> [Vec<Node>; 2] {
    let [mut data, mut stacks] = [Vec::new(), Vec::new()];
    graph.roots(member, |place, _, node| match place {
        RootPlace::Data(_) => data.push(node),
        RootPlace::Stack(_) | RootPlace::Register { .. } => stacks.push(node),
    });
    for nodes in [&mut data, &mut stacks] {
        nodes.sort_unstable();
        nodes.dedup();
    }
    [data, stacks]
}

/// Marks what can be reached from some fragments, but not through those left out.
fn mark(graph: &Graph<'_>, from: &[Node], marks: &mut Marks, left_out: impl Fn(Node) -> bool) {
    // Level by level: within one the processor need not wait for a fragment before the next.
    let mut level = from.to_vec();
    let mut next = Vec::new();
    while !level.is_empty() {
        for &node in &level {
            if !left_out(node) && marks.put(node) {
                next.extend_from_slice(graph.edges(node));
            }
        }
        level.clear();
        std::mem::swap(&mut level, &mut next);
    }
}

impl Reach {
    /// What holds a fragment.
    pub fn hold(&self, node: Node) -> Hold {
        match (self.by_data.has(node), self.by_stack.has(node)) {
            (true, _) => Hold::Data,
            (false, true) => Hold::Stack,
            (false, false) => Hold::Nothing,
        }
    }

    /// Whether nothing holds a fragment, and no other such fragment points at it; of a cycle that
    /// nothing outside points into, one is a head.
    pub fn is_head(&self, node: Node) -> bool {
        self.heads.has(node)
    }

    fn is_lost(&self, node: Node) -> bool {
        self.hold(node) == Hold::Nothing
    }

    /// All that is lost is reached from the heads.
    fn find_heads(&mut self, graph: &Graph<'_>) {
        let order = self.finish_order(graph);
        let mut covered = Marks::none(graph);
        let mut heads = Marks::none(graph);
        for &node in order.iter().rev() {
            if !covered.has(node) {
                heads.put(node);
                mark(graph, &[node], &mut covered, |node| !self.is_lost(node));
            }
        }
        self.heads = heads;
    }

    /// Lost fragments in the order in which a depth-first search leaves them: the last of those
    /// left over is in no other's reach, or in a cycle with what reaches it.
    fn finish_order(&self, graph: &Graph<'_>) -> Vec<Node> {
        let mut seen = Marks::none(graph);
        let mut order = Vec::new();
        for start in graph.nodes() {
            if !self.is_lost(start) || !seen.put(start) {
                continue;
            }
            let mut path = vec![(start, graph.edges(start).iter())];
            while let Some((node, edges)) = path.last_mut() {
                match edges.next() {
                    Some(&next) if self.is_lost(next) && seen.put(next) => {
                        path.push((next, graph.edges(next).iter()));
                    }
                    Some(_) => {}
                    None => {
                        order.push(*node);
                        path.pop();
                    }
                }
            }
        }
        order
    }
}
