//! What `forensics why` and `forensics refs` tell: what keeps a fragment alive, and who points at it.

use rustc_hash::FxHashMap;
use serde::Serialize;

use crate::addr::Addr;
use crate::case::{Case, Connected, Member, PoolName};
use crate::kamailio::OwnerName;
use crate::leak::{self, Graph, Hold, Marks, Node, Referrers, RootPlace, RootWord};
use crate::num::narrow;
use crate::places::{Place, Places};

/// The report of `forensics why`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WhyReport {
    /// Version of this form.
    pub schema: u32,
    /// The fragments that contain the address: one for each pool that has it.
    pub fragments: Vec<Kept>,
}

/// A fragment and what keeps it alive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Kept {
    /// Which.
    #[serde(flatten)]
    pub fragment: NodeReport,
    /// What holds it.
    pub held: Held,
    /// Where nothing does: the lost fragment that it is reached from, if it is not itself one to
    /// begin with.
    pub head: Option<NodeReport>,
    /// The shortest ways to it, the shortest first.
    pub paths: Vec<PathReport>,
}

/// What holds a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Held {
    /// Data of the program, perhaps through other fragments.
    Data,
    /// Only stacks and registers.
    Stack,
    /// Nothing that is known.
    Nothing,
}

/// A used fragment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NodeReport {
    /// Its pool.
    pub pool: PoolName,
    /// First byte of its payload.
    pub payload: Addr,
    /// Its payload in bytes.
    pub bytes: u64,
    /// Who allocated it.
    #[serde(flatten)]
    pub owner: OwnerName,
}

/// A way from a root to a fragment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PathReport {
    /// Where it begins.
    pub root: RootReport,
    /// The fragments on the way; the last is the one that was asked for.
    pub steps: Vec<WayPoint>,
}

/// A word outside the pools' fragments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RootReport {
    /// What kind of memory it is in.
    pub kind: RootKind,
    /// The process.
    pub pid: Option<u32>,
    /// What the process does; null where it is not known.
    pub role: Option<String>,
    /// The thread, of registers.
    pub tid: Option<u32>,
    /// Where the word is; null for a register.
    pub at: Option<Addr>,
    /// What it holds.
    pub value: Addr,
    /// The place for a person.
    pub place: String,
    /// Other processes with the same word at the same place.
    pub also_in: Vec<u32>,
}

/// Kinds of roots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RootKind {
    /// Data or bss of a module, thread-local storage, other memory that the process can write to.
    Data,
    /// The C library's heap.
    Heap,
    /// A live stack.
    Stack,
    /// A register.
    Register,
}

/// A fragment on the way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WayPoint {
    /// Which.
    #[serde(flatten)]
    pub fragment: NodeReport,
    /// The word in it that leads on; null for the last.
    pub at: Option<Addr>,
    /// What that holds.
    pub value: Option<Addr>,
}

/// The report of `forensics refs`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RefsReport {
    /// Version of this form.
    pub schema: u32,
    /// The fragments that contain the address: one for each pool that has it.
    pub fragments: Vec<Referred>,
}

/// A fragment and every word that points at it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Referred {
    /// Which.
    #[serde(flatten)]
    pub fragment: NodeReport,
    /// Roots.
    pub roots: Vec<RootReport>,
    /// Words of other fragments.
    pub references: Vec<WayPoint>,
}

/// A case whose pointers were followed, for questions about single fragments.
struct Known<'a> {
    case: &'a Case,
    connected: &'a Connected<'a>,
    graph: &'a Graph<'a>,
    places: Places<'a>,
}

impl WhyReport {
    /// Of the fragments that contain an address, in private pools of processes that `chosen`
    /// takes; at most `limit` ways to each.
    pub fn of(case: &Case, at: Addr, limit: usize, chosen: impl Fn(&Member) -> bool) -> Self {
        let connected = case.connected();
        let graph = connected.graph();
        let known = Known { case, connected: &connected, graph: &graph, places: case.places() };
        let found = connected.find(&graph, at, chosen);
        if found.is_empty() {
            return Self { schema: super::SCHEMA, fragments: Vec::new() };
        }
        let reach = leak::reach(&graph);
        let referrers = Referrers::of(&graph);
        let kept = |node: Node| {
            let held = match reach.hold(node) {
                Hold::Data => Held::Data,
                Hold::Stack => Held::Stack,
                Hold::Nothing => Held::Nothing,
            };
            let head = leak::head_of(&graph, &reach, &referrers, node);
            let head = head.filter(|head| *head != node).and_then(|head| known.node(head));
            let paths = known.paths(&referrers, node, limit);
            Some(Kept { fragment: known.node(node)?, held, head, paths })
        };
        let fragments = found.into_iter().filter_map(kept).collect();
        Self { schema: super::SCHEMA, fragments }
    }
}

impl RefsReport {
    /// Of the fragments that contain an address, in private pools of processes that `chosen`
    /// takes.
    pub fn of(case: &Case, at: Addr, chosen: impl Fn(&Member) -> bool) -> Self {
        let connected = case.connected();
        let graph = connected.graph();
        let known = Known { case, connected: &connected, graph: &graph, places: case.places() };
        let found = connected.find(&graph, at, chosen);
        let mut wanted = Marks::none(&graph);
        found.iter().for_each(|node| {
            wanted.put(*node);
        });
        let mut roots = leak::roots_of(&graph, &wanted);
        let referrers = (!found.is_empty()).then(|| Referrers::of(&graph));
        let referred = |node: Node| {
            let from = referrers.as_ref().map(|known| known.to(node)).unwrap_or_default();
            let words = from.iter().flat_map(|from| known.words(*from, node));
            Some(Referred {
                fragment: known.node(node)?,
                roots: known.roots(&roots.remove(&node).unwrap_or_default(), usize::MAX),
                references: words.collect(),
            })
        };
        let fragments = found.into_iter().filter_map(referred).collect();
        Self { schema: super::SCHEMA, fragments }
    }
}

impl Known<'_> {
    fn node(&self, node: Node) -> Option<NodeReport> {
        let (pool, fragment) = self.graph.fragment(node)?;
        let pool = self.connected.pools.get(pool)?;
        let names = &pool.walked()?.names;
        Some(NodeReport {
            pool: PoolName::of(self.case, pool),
            payload: fragment.start,
            bytes: fragment.bytes(),
            owner: names.get(narrow(u64::from(fragment.owner))).cloned().unwrap_or_default(),
        })
    }

    fn paths(&self, referrers: &Referrers, target: Node, limit: usize) -> Vec<PathReport> {
        let mut reports = Vec::new();
        for path in leak::paths(self.graph, referrers, target, limit) {
            let pairs = path.steps.iter().zip(path.steps.iter().skip(1));
            let last = path.steps.last().and_then(|last| self.node(*last));
            let ways = pairs.filter_map(|(from, to)| self.words(*from, *to).into_iter().next());
            let last = last.map(|fragment| WayPoint { fragment, at: None, value: None });
            let steps: Vec<WayPoint> = ways.chain(last).collect();
            let left = limit.saturating_sub(reports.len());
            let roots = self.roots(&path.roots, left);
            reports.extend(roots.into_iter().map(|root| PathReport { root, steps: steps.clone() }));
        }
        reports
    }

    /// The words of a fragment that lead to another.
    fn words(&self, from: Node, to: Node) -> Vec<WayPoint> {
        let Some(fragment) = self.node(from) else { return Vec::new() };
        let words = self.graph.words_between(from, to).into_iter();
        let step = |(at, value)| WayPoint {
            fragment: fragment.clone(),
            at: Some(at),
            value: Some(Addr(value)),
        };
        words.map(step).collect()
    }

    /// Names the first `limit` of some roots, those of data before stacks and registers; the same
    /// word in several processes is one.
    fn roots(&self, words: &[RootWord], limit: usize) -> Vec<RootReport> {
        let mut known: FxHashMap<(RootPlace, u64), usize> = FxHashMap::default();
        let mut different: Vec<(&RootWord, Vec<u32>)> = Vec::new();
        for word in words {
            let private = matches!(word.place, RootPlace::Register { .. });
            let number = *known.entry((word.place, word.value)).or_insert(different.len());
            match different.get_mut(number) {
                Some((_, also_in)) if !private => {
                    let process = self.case.members.get(word.member).map(|member| &member.process);
                    also_in.extend(process.and_then(|process| process.pid));
                }
                _ => different.push((word, Vec::new())),
            }
        }
        different.sort_by_key(|(word, _)| word.place);
        let named = different.into_iter().take(limit);
        named
            .filter_map(|(word, also_in)| Some(RootReport { also_in, ..self.root(word)? }))
            .collect()
    }

    fn root(&self, word: &RootWord) -> Option<RootReport> {
        let member = self.case.members.get(word.member)?;
        let (kind, tid, at, place) = match word.place {
            RootPlace::Register { tid, name } => {
                let place = format!("register {name} of thread {tid}");
                (RootKind::Register, Some(tid), None, place)
            }
            RootPlace::Stack(at) => {
                (RootKind::Stack, None, Some(at), self.place(word.member, at).1)
            }
            RootPlace::Data(at) => {
                let (kind, place) = self.place(word.member, at);
                (kind, None, Some(at), place)
            }
        };
        Some(RootReport {
            kind,
            pid: member.process.pid,
            role: member.role().map(str::to_owned),
            tid,
            at,
            value: Addr(word.value),
            place,
            also_in: Vec::new(),
        })
    }

    fn place(&self, member: usize, at: Addr) -> (RootKind, String) {
        match self.places.of(member, at.0) {
            Some(place @ Place::CHeap) => (RootKind::Heap, place.to_string()),
            Some(place) => (RootKind::Data, place.to_string()),
            None => (RootKind::Data, "not mapped".to_owned()),
        }
    }
}
