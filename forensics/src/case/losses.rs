//! What nothing holds any more: reachability over the whole case, by pool and owner.

use rustc_hash::FxHashSet;

use super::{Case, Connected};
use crate::addr::Addr;
use crate::kamailio::{OwnerName, PoolKind};
use crate::leak::{self, Graph, Hold, Node, Reach, Since, Unreachable, Used};
use crate::num::narrow;

pub use crate::leak::Lost;

/// What is unreachable. `pool` counts in [`Case::pools`], `owner` in the pool's list of owners.
pub type Losses = Unreachable;

impl Case {
    /// Follows every pointer; needs pools that kept their used fragments.
    pub(super) fn find_losses(&mut self) {
        let connected = self.connected();
        let graph = connected.graph();
        let reach = leak::reach(&graph);
        let start_up = StartUp::of(&connected, &graph, &reach);
        let mut losses = leak::unreachable(&graph, &reach, |node| start_up.since(&graph, node));
        // The graph counts walked pools only.
        let walked = self.pools.iter().enumerate().filter(|(_, pool)| pool.walked().is_some());
        let numbers: Vec<usize> = walked.map(|(number, _)| number).collect();
        let lists = [&mut losses.lost, &mut losses.inherited, &mut losses.on_stacks];
        let lost = lists.into_iter().flatten().map(|lost| &mut lost.pool);
        for pool in lost.chain(losses.lost_fragments.iter_mut().map(|(pool, _)| pool)) {
            *pool = numbers.get(*pool).copied().unwrap_or(usize::MAX);
        }
        self.losses = Some(losses);
    }

    /// The name of an owner that has lost something.
    pub fn loser(&self, lost: &Lost) -> Option<&OwnerName> {
        self.pools.get(lost.pool)?.walked()?.names.get(narrow(u64::from(lost.owner)))
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
