//! The case as the graph of its pointers: its processes with their stacks, and its pools that were
//! walked with every used fragment kept.

use super::{Case, Member, Pool};
use crate::addr::{Addr, AddrRange};
use crate::kamailio::PoolKind;
use crate::leak::{Graph, GroupProcess, Node, PoolNodes, StackMapping};
use crate::process::Process;

/// What a graph is made of.
#[derive(Debug)]
pub struct Connected<'a> {
    case: &'a Case,
    /// The pools that were walked; a graph counts them in this order.
    pub pools: Vec<&'a Pool>,
    group: Vec<GroupProcess<'a>>,
}

impl Case {
    /// The parts of a case that was built with `keep_used`.
    pub fn connected(&self) -> Connected<'_> {
        let places = self.places();
        let stacks = |member| {
            let found = places.stacks(member).into_iter();
            found.map(|(range, lowest)| StackMapping { range, lowest }).collect()
        };
        let group = self.members.iter().enumerate().map(|(index, member)| GroupProcess {
            memory: &member.process.memory,
            threads: &member.process.core.notes.threads,
            machine: member.process.core.machine,
            stacks: stacks(index),
        });
        let pools = self.pools.iter().filter(|pool| pool.walked().is_some()).collect();
        Connected { case: self, pools, group: group.collect() }
    }
}

impl<'a> Connected<'a> {
    /// Reads every payload.
    pub fn graph(&self) -> Graph<'_> {
        let nodes = |pool: &&'a Pool| nodes(pool, &self.case.members.get(pool.member)?.process);
        let pools: Vec<PoolNodes<'_>> = self.pools.iter().filter_map(nodes).collect();
        Graph::new(&self.group, &pools)
    }

    /// The process whose private pool it is; `None` for the shared one.
    pub fn owner_of(&self, pool: usize) -> Option<&Member> {
        let pool = self.pools.get(pool).filter(|pool| pool.kind == PoolKind::Pkg)?;
        self.case.members.get(pool.member)
    }

    /// The private pool whose fragments the others' may be inherited from: the main process's,
    /// without it the first; `None` if there are not at least two.
    pub fn first_private(&self) -> Option<usize> {
        let mut private =
            self.pools.iter().enumerate().filter(|(_, pool)| pool.kind == PoolKind::Pkg);
        let (first, _) = private.next()?;
        private.next()?;
        let main = |pool: &usize| self.owner_of(*pool).is_some_and(Member::is_main);
        (0..self.pools.len()).find(main).or(Some(first))
    }

    /// The fragments of each pool that contain an address; `pid` chooses among private ones.
    pub fn find(&self, graph: &Graph<'_>, at: Addr, chosen: impl Fn(&Member) -> bool) -> Vec<Node> {
        let pools = 0..self.pools.len();
        let seen = pools.filter(|pool| self.owner_of(*pool).is_none_or(&chosen));
        seen.filter_map(|pool| graph.find(pool, at)).collect()
    }
}

impl Member {
    /// Whether it is the main process, which forked the others.
    pub fn is_main(&self) -> bool {
        self.entry.as_ref().is_some_and(|entry| entry.index == 0)
    }
}

fn nodes<'a>(pool: &'a Pool, process: &Process) -> Option<PoolNodes<'a>> {
    let walked = pool.walked()?;
    // A damaged block may claim more than there is.
    let mapped = process.memory.mapped_from(walked.range.start);
    let range = AddrRange { start: walked.range.start, end: walked.range.end.min(mapped) };
    Some(PoolNodes {
        member: pool.member,
        shared: pool.kind == PoolKind::Shm,
        range,
        used: &walked.summary.used,
        unread: &walked.summary.unread,
        link_in_tail: walked.link_in_tail,
    })
}
