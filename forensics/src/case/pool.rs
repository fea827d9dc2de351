//! One pool, walked and named.

use std::fmt;

use serde::Serialize;

use super::overwritten::Overwritten;
use super::pointers::Pointers;
use super::{Case, CaseOptions, Member};
use crate::addr::{Addr, AddrRange};
use crate::content::{Content, Reader, Shown, Target, contents};
use crate::gap::Gap;
use crate::heap::{
    self, Allocator, Arena, BacktraceShape, Break, BreakCause, Counters, Damage, Neighbour, Owner,
};
use crate::kamailio::{FoundBy, Names, OwnerName, PoolKind, PoolRoot};
use crate::layout::LayoutSource;
use crate::leak::{OwnerTotals, PayloadSize, Summary, SummaryOptions, payload_sizes, summarise};
use crate::modules::ModuleFile;
use crate::units::size;

/// A pool of the case.
#[derive(Debug)]
pub struct Pool {
    /// Private or shared.
    pub kind: PoolKind,
    /// Index of the process it was read through, in [`super::Case::members`].
    pub member: usize,
    /// Its manager's name, or `unknown`.
    pub manager: String,
    /// Its block.
    pub block: Addr,
    /// How it was found.
    pub found_by: FoundBy,
    /// What the walk gave, or why there was none.
    pub walked: Result<Walked, String>,
}

/// What a walk gave.
#[derive(Debug)]
pub struct Walked {
    /// The block's own counters.
    pub counters: Counters,
    /// The pool's addresses.
    pub range: AddrRange,
    /// Where its layout comes from.
    pub layout: LayoutSource,
    /// How many fragments the block's counters imply; `None` where they contradict themselves.
    pub expected_fragments: Option<u64>,
    /// The sums.
    pub summary: Summary,
    /// Names of `summary.owners`, in the same order.
    pub names: Vec<OwnerName>,
    /// Used fragments by payload size; `None` where their owners are recorded.
    pub payload_sizes: Option<Vec<SizeGroup>>,
    /// What stands at each of `summary.breaks`.
    pub broken: Vec<Overwritten>,
    /// What stands at each of `summary.damaged`, and behind it where its end is overwritten.
    pub damaged: Vec<Overwritten>,
    /// Owners whose pointers lead to no text.
    pub wild_owners: Vec<WildOwner>,
    /// Pointers at `broken` and `damaged` places, in the same order.
    pub pointers: Pointers,
    /// Where fragments keep the calls that led to their allocation, in builds that do.
    pub backtrace: Option<BacktraceShape>,
    /// See [`Arena::link_in_tail`].
    pub link_in_tail: Option<u64>,
    /// Names that could not be read.
    pub name_gaps: Vec<Gap>,
}

/// The used fragments of one size.
#[derive(Debug)]
pub struct SizeGroup {
    /// Their number and a sample of them.
    pub size: PayloadSize,
    /// What the sample holds, the most frequent first.
    pub content: Vec<Content>,
}

/// An owner with a pointer that leads to no text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WildOwner {
    /// Which: `file`, `func` or `mname`.
    pub field: &'static str,
    /// Where it leads.
    pub to: Addr,
    /// Why that is no text.
    pub why: String,
    /// Payload of the first fragment with it.
    pub example: Addr,
    /// The fragment right before that one.
    pub before: Option<Neighbour>,
    /// How many fragments have it.
    pub fragments: u64,
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

impl Pool {
    /// What is not known of the pool, which a person knows by `name`.
    pub(super) fn gaps(&self, name: &str) -> Vec<Gap> {
        match &self.walked {
            Err(why) => vec![Gap::new(name, why)],
            Ok(walked) => {
                let rest = walked.not_in_the_input(name);
                rest.into_iter().chain(walked.name_gaps.iter().cloned()).collect()
            }
        }
    }

    /// What the walk gave, if there was one.
    pub fn walked(&self) -> Option<&Walked> {
        self.walked.as_ref().ok()
    }

    /// Whether nothing was ever taken from this private pool: builds that keep private memory in
    /// the C library's heap make it all the same, and it stays one free fragment. A program whose
    /// private memory is in its pool never gives back all of it.
    pub fn is_unused(&self) -> bool {
        self.walked().is_some_and(|Walked { summary, .. }| {
            self.kind == PoolKind::Pkg
                && summary.complete
                && (summary.used_fragments, summary.free_fragments) == (0, 1)
        })
    }
}

impl Walked {
    /// Fragments that the walk saw, used and free.
    pub fn seen_fragments(&self) -> u64 {
        self.summary.used_fragments.saturating_add(self.summary.free_fragments)
    }

    /// Bytes of the pool, block included, by its own size. TLSF's leaves out some of its overhead.
    pub fn expected_bytes(&self) -> u64 {
        self.range.length().min(self.counters.size)
    }

    /// Bytes of the pool, block included, that lie in what the walk saw.
    pub fn seen_bytes(&self) -> u64 {
        self.range.length().saturating_sub(self.summary.lost_bytes).min(self.expected_bytes())
    }

    /// What of the pool the input does not have, if its chain ends or is interrupted for that.
    fn not_in_the_input(&self, name: &str) -> Option<Gap> {
        let absent = |found: &Break| match &found.why {
            BreakCause::Absent(absent) => Some((found.lost, absent.to_string())),
            BreakCause::BadSize { .. } | BreakCause::NoTrailer { .. } => None,
        };
        let breaks: Vec<(u64, String)> =
            self.summary.holes.kept.iter().filter_map(|site| absent(&site.what)).collect();
        let (_, why) = breaks.first()?;
        let lost = breaks.iter().fold(0_u64, |sum, (lost, _)| sum.saturating_add(*lost));
        Some(Gap::new(format!("{} of the {name}", size(lost)), why))
    }

    /// The owner of a used fragment.
    pub fn owner_name(&self, fragment: &Neighbour) -> Option<&OwnerName> {
        let owner = fragment.owner.filter(|_| fragment.used)?;
        let index = self.summary.owners.iter().position(|totals| totals.owner == owner)?;
        self.names.get(index)
    }
}

/// Walks a pool and names its owners.
pub(super) fn walk(
    index: usize,
    member: &Member,
    root: &PoolRoot,
    options: CaseOptions,
    keep_fragments: bool,
) -> Pool {
    let shown = options.shown;
    let options = SummaryOptions {
        skip_first: options.skip_first,
        keep_fragments,
        keep_used: options.keep_used || options.reachability,
    };
    let known = root.manager.as_deref();
    let candidates: Vec<&dyn Allocator> = heap::ALL
        .iter()
        .copied()
        .filter(|allocator| known.is_none_or(|name| name == allocator.name()))
        .collect();
    let mut manager = known.unwrap_or("unknown").to_owned();
    let mut walked = Err(match known {
        Some(name) => format!("its manager is {name}, whose fragments this version does not read"),
        None => "no known manager fits its block".to_owned(),
    });
    for allocator in candidates {
        walked = walk_with(allocator, member, root, options, shown);
        if walked.is_ok() {
            manager = allocator.name().to_owned();
            break;
        }
    }
    Pool {
        kind: root.kind,
        member: index,
        manager,
        block: root.block,
        found_by: root.found_by.clone(),
        walked,
    }
}

/// Where a pool lies, without walking it.
pub(super) fn range(member: &Member, root: &PoolRoot) -> Option<AddrRange> {
    let known = root.manager.as_deref();
    let memory = &member.process.memory;
    let mut candidates =
        heap::ALL.iter().filter(|allocator| known.is_none_or(|name| name == allocator.name()));
    candidates.find_map(|allocator| {
        let arena = allocator.arena(root.block, memory, program(member, root)).ok()?;
        Some(arena.range())
    })
}

fn walk_with(
    allocator: &dyn Allocator,
    member: &Member,
    root: &PoolRoot,
    options: SummaryOptions,
    shown: Shown,
) -> Result<Walked, String> {
    let process = &member.process;
    let program = program(member, root);
    let arena =
        allocator.arena(root.block, &process.memory, program).map_err(|error| error.to_string())?;
    let summary = summarise(&*arena, options);
    let mut layout = arena.source();
    if let LayoutSource::Inferred { agreeing, to_the_end, .. } = &mut layout {
        // The walk saw more than the trial that chose the layout.
        let seen = summary.used_fragments.saturating_add(summary.free_fragments);
        *agreeing = seen.saturating_sub(summary.damaged.count).max(*agreeing);
        *to_the_end = summary.complete;
    }
    let payload_sizes = size_groups(&*arena, &summary, member, shown);
    let mut names = Names::new(process);
    let owners = summary.owners.iter().map(|totals| names.owner(totals.owner)).collect();
    let name_gaps = name_gaps(&names, member);
    let (landmarks, memory) = (arena.landmarks(), &process.memory);
    let broken = summary
        .breaks
        .kept
        .iter()
        .map(|site| Overwritten::at(site.what.at, site.before.first(), &landmarks, memory));
    let damaged = summary.damaged.kept.iter().map(|site| {
        let end_only = site.what.damage.iter().all(Damage::is_at_the_end);
        let own = Neighbour::from(&site.what);
        match site.after.first().filter(|_| end_only) {
            Some(next) => Overwritten::at(next.header, Some(&own), &landmarks, memory),
            None => Overwritten::at(own.header, site.before.first(), &landmarks, memory),
        }
    });
    let (broken, damaged) = (broken.collect(), damaged.collect());
    let wild_owners = wild_owners(&names, &summary);
    Ok(Walked {
        counters: arena.counters(),
        range: arena.range(),
        expected_fragments: arena.expected_fragments(),
        layout,
        summary,
        names: owners,
        payload_sizes,
        broken,
        damaged,
        wild_owners,
        pointers: Pointers::default(),
        backtrace: arena.backtrace(),
        link_in_tail: arena.link_in_tail(),
        name_gaps,
    })
}

/// What is known instead of owners, at the price of a second walk.
fn size_groups(
    arena: &dyn Arena,
    summary: &Summary,
    member: &Member,
    shown: Shown,
) -> Option<Vec<SizeGroup>> {
    if summary.owners.iter().any(|totals| totals.owner != Owner::default()) {
        return None;
    }
    let sizes = payload_sizes(arena, summary.skipped_fragments);
    let pool = arena.range();
    let mut resolve = |at: Addr| {
        if pool.contains(at) {
            return Some(Target::ThisPool);
        }
        let module = member.process.modules.at(at)?;
        Some(Target::Module { module: module.name().into(), symbol: None })
    };
    let mut reader = Reader { memory: &member.process.memory, resolve: &mut resolve, shown };
    let group = |size: PayloadSize| {
        let content = contents(&size.sample, &mut reader);
        SizeGroup { size, content }
    };
    (!sizes.is_empty()).then(|| sizes.into_iter().map(group).collect())
}

/// The file that exports the pool's root: the one whose debug information describes it.
pub(super) fn program<'a>(member: &'a Member, root: &PoolRoot) -> Option<&'a ModuleFile> {
    let FoundBy::Symbol { name, .. } = root.found_by else { return None };
    let (module, _) = member.process.modules.symbol(name)?;
    module.file.as_deref().ok()
}

/// Owners whose pointers lead to no text, while others' do: a file that is not at hand says nothing
/// about a pointer.
fn wild_owners(names: &Names<'_>, summary: &Summary) -> Vec<WildOwner> {
    let wild = |totals: &OwnerTotals| {
        let (field, to, why) = names.wild(totals.owner)?;
        let &OwnerTotals { example, before, fragments, .. } = totals;
        Some(WildOwner { field, to, why: why.to_owned(), example, before, fragments })
    };
    let found: Vec<WildOwner> = summary.owners.iter().filter_map(wild).collect();
    match found.len() < summary.owners.len() {
        true => found,
        false => Vec::new(),
    }
}

/// Unreadable owner texts, counted by module so that a missing file is one line.
fn name_gaps(names: &Names<'_>, member: &Member) -> Vec<Gap> {
    let mut counts = std::collections::BTreeMap::new();
    for (at, why) in names.unreadable() {
        let place = match member.process.modules.at(at) {
            Some(module) => format!("owner texts in {}", module.path),
            None => "owner texts outside every known module".to_owned(),
        };
        let count: &mut u64 = counts.entry((place, why.to_owned())).or_default();
        *count = count.saturating_add(1);
    }
    let gap = |((place, why), count)| Gap::new(format!("{place} ({count})"), why);
    counts.into_iter().map(gap).collect()
}
