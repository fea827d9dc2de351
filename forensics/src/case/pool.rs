//! One pool, walked and named.

use super::pointers::Pointers;
use super::{CaseOptions, Member};
use crate::addr::AddrRange;
use crate::gap::Gap;
use crate::heap::{self, Allocator, BacktraceShape, Break, Counters, Neighbour};
use crate::kamailio::{FoundBy, Names, OwnerName, PoolKind, PoolRoot};
use crate::layout::LayoutSource;
use crate::leak::{Summary, SummaryOptions, summarise};
use crate::memory::Memory as _;
use crate::modules::ModuleFile;

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
    pub block: crate::addr::Addr,
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
    /// The sums.
    pub summary: Summary,
    /// Names of `summary.owners`, in the same order.
    pub names: Vec<OwnerName>,
    /// The first bytes at each of `summary.breaks`, as far as they are known.
    pub broken_bytes: Vec<Option<Vec<u8>>>,
    /// Pointers among `broken_bytes`, and among the words found in place of check words, in the
    /// order of `summary.breaks` and `summary.damaged`.
    pub pointers: Pointers,
    /// Where fragments keep the calls that led to their allocation, in builds that do.
    pub backtrace: Option<BacktraceShape>,
    /// Names that could not be read.
    pub name_gaps: Vec<Gap>,
}

/// Bytes of a broken fragment that are kept.
const BROKEN_BYTES: usize = 64;

impl Pool {
    /// What the walk gave, if there was one.
    pub fn walked(&self) -> Option<&Walked> {
        self.walked.as_ref().ok()
    }
}

impl Walked {
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
    let options = SummaryOptions { skip_first: options.skip_first, keep_fragments };
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
        walked = walk_with(allocator, member, root, options);
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
        *agreeing = seen.saturating_sub(summary.damaged_count).max(*agreeing);
        *to_the_end = summary.complete;
    }
    let mut names = Names::new(process);
    let owners = summary.owners.iter().map(|totals| names.owner(totals.owner)).collect();
    let name_gaps = name_gaps(&names, member);
    let bytes = |found: &Break| process.memory.bytes(found.at, BROKEN_BYTES).ok();
    let broken_bytes =
        summary.breaks.iter().map(|(found, _)| bytes(found).map(|b| b.to_vec())).collect();
    Ok(Walked {
        counters: arena.counters(),
        range: arena.range(),
        layout,
        summary,
        names: owners,
        broken_bytes,
        pointers: Pointers::default(),
        backtrace: arena.backtrace(),
        name_gaps,
    })
}

/// The file that exports the pool's root: the one whose debug information describes it.
pub(super) fn program<'a>(member: &'a Member, root: &PoolRoot) -> Option<&'a ModuleFile> {
    let FoundBy::Symbol { name, .. } = root.found_by else { return None };
    let (module, _) = member.process.modules.symbol(name)?;
    module.file.as_deref().ok()
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
