//! What nothing holds any more: reachability over the whole case, by pool and owner.

use rustc_hash::FxHashMap;

use super::{Case, Connected, Member};
use crate::addr::Addr;
use crate::heap::Owner;
use crate::kamailio::OwnerName;
use crate::leak::{self, Graph, Hold, Node, Reach, Since, Unreachable, Used, identities};
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

/// What makes lost fragments of two processes the same allocation, made before the fork: nobody can
/// write to them any more. Workers that leak alike get the same addresses too, but other contents.
type Same = (u64, Owner, u64);

/// What was lost before the fork: in the main process, and the same in others.
struct StartUp {
    /// The private pool that the others' fragments may be inherited from.
    first: Option<usize>,
    /// Whether that is the main process's. Without it, all must have lost a fragment.
    is_main: bool,
    /// For each private pool its lost fragments by address; nothing for the shared one.
    lost: Vec<Option<FxHashMap<Addr, Same>>>,
}

impl StartUp {
    fn of(connected: &Connected<'_>, graph: &Graph<'_>, reach: &Reach) -> Self {
        let first = connected.first_private();
        let is_main = first.and_then(|pool| connected.owner_of(pool)).is_some_and(Member::is_main);
        let mut used: Vec<Vec<Used>> = vec![Vec::new(); connected.pools.len()];
        let lost = graph.nodes().filter(|node| reach.hold(*node) == Hold::Nothing);
        for (pool, fragment) in lost.filter_map(|node| graph.fragment(node)) {
            if let Some(used) = used.get_mut(pool) {
                used.push(*fragment);
            }
        }
        let pools = used.iter().enumerate();
        let lost = pools.map(|(pool, used)| lost_in(connected, first, pool, used)).collect();
        Self { first, is_main, lost }
    }

    fn since(&self, graph: &Graph<'_>, node: Node) -> Since {
        let Some((pool, fragment)) = graph.fragment(node) else { return Since::Start };
        let own = self.lost.get(pool).and_then(|lost| lost.as_ref()?.get(&fragment.start));
        let (Some(first), Some(own)) = (self.first, own) else { return Since::Start };
        let has = |other: usize| {
            let lost = self.lost.get(other).and_then(Option::as_ref);
            lost.is_none_or(|lost| lost.get(&fragment.start) == Some(own))
        };
        let private = |other: &usize| self.lost.get(*other).is_some_and(Option::is_some);
        let mut others = (0..self.lost.len()).filter(private).filter(|other| *other != first);
        let inherited = match (self.is_main, pool == first) {
            (true, true) => others.any(has),
            (true, false) => has(first),
            (false, _) => has(first) && others.all(has),
        };
        match (inherited, pool == first) {
            (true, true) => Since::BeforeFork,
            (true, false) => Since::Inherited,
            (false, _) => Since::Start,
        }
    }
}

/// The lost fragments of a private pool, if there are others to compare them with.
fn lost_in(
    connected: &Connected<'_>,
    first: Option<usize>,
    pool: usize,
    used: &[Used],
) -> Option<FxHashMap<Addr, Same>> {
    first?;
    let memory = &connected.owner_of(pool)?.process.memory;
    let walked = connected.pools.get(pool)?.walked()?;
    let owner = |number: u32| {
        let totals = walked.summary.owners.get(narrow(u64::from(number)));
        totals.map(|totals| totals.owner).unwrap_or_default()
    };
    let known = identities(used, memory, walked.range).into_iter();
    let same = known.map(|known| (known.payload, (known.bytes, owner(known.owner), known.content)));
    Some(same.collect())
}
