//! The whole case: every process, every pool walked, every gap. Rules read it, reports show it.
//!
//! Reads: [`Evidence`]. Promises: a process or pool that fails costs only itself and leaves a gap;
//! the shared pool is walked once, through the process that knows most of it.

mod connected;
mod crashes;
mod doing;
mod inside;
mod lock_names;
mod losses;
mod overwritten;
mod pointers;
mod pool;
mod run;
mod stacks;
mod trust;

use std::collections::BTreeSet;

use rayon::prelude::*;

use crate::activity::Activity;
use crate::content::Shown;
use crate::gap::Gap;
use crate::input::Evidence;
use crate::kamailio::{self, Missing, PoolKind, ProcessEntry, ProcessTable, Roots};
use crate::leak::{self, Summary};
use crate::locks::Locks;
use crate::memory::Absent;
use crate::modules::{Library, LibraryOptions, ModuleFile};
use crate::places::{Named, Places, PoolPlace};
use crate::process::Process;
use crate::symbols::SymbolOptions;
use crate::threads::ThreadView;

pub use connected::Connected;
pub use crashes::{CrashView, Nearby};
pub use doing::Doing;
pub use inside::Inside;
pub use losses::{Losses, Lost};
pub use overwritten::Overwritten;
pub use pointers::{Pointer, Pointers};
pub use pool::{Pool, PoolName, SizeGroup, Walked, WildOwner};
pub use run::{RunMarks, SameRun};
pub use trust::{Level, PoolTrust, Trust};

/// What to do with the pools.
#[derive(Clone, Copy, Debug, Default)]
pub struct CaseOptions {
    /// Leave the first so many used fragments of each pool out of the owners' totals.
    pub skip_first: u64,
    /// Keep every fragment of every pool, for lists.
    pub keep_fragments: bool,
    /// Keep every used fragment of every pool in short, for following pointers and for
    /// comparing snapshots.
    pub keep_used: bool,
    /// Follow every pointer, for [`Case::losses`].
    pub reachability: bool,
    /// Do not walk any pool, unless threads are looked at and one of them crashed.
    pub without_pools: bool,
    /// Unwind every thread and look for locks.
    pub threads: bool,
    /// How texts of pools without owners are shown.
    pub shown: Shown,
}

/// Views of the shared pool in a row that show no more than another one, before the rest is left
/// alone: in a bundle all views are the same.
const NO_BETTER: u32 = 2;

/// One process and what Kamailio says of it.
#[derive(Debug)]
pub struct Member {
    /// The process.
    pub process: Process,
    /// Its entry in Kamailio's process table.
    pub entry: Option<ProcessEntry>,
    /// Why Kamailio's process table could not be read, where it has one.
    no_table: Option<Absent>,
    /// Where its pools are.
    pub roots: Roots,
    /// Whether it stands inside a memory manager: its pools, and the shared one, may be half
    /// changed.
    pub is_allocating: bool,
}

impl Member {
    /// What it does, from the process table; `None` for other programs.
    pub fn role(&self) -> Option<&str> {
        self.entry.as_ref().map(|entry| entry.description.as_str())
    }
}

/// Everything that is known.
#[derive(Debug)]
pub struct Case {
    /// The inputs.
    pub evidence: Evidence,
    /// The processes whose cores could be read, main first where the table tells.
    pub members: Vec<Member>,
    /// The program's version string.
    pub version: Option<String>,
    /// Kamailio's process table, as one of the processes sees it.
    pub table: Vec<ProcessEntry>,
    /// The pools: SHM first, then each process's PKG.
    pub pools: Vec<Pool>,
    /// What nothing holds any more; `None` if that was not asked for.
    pub losses: Option<Losses>,
    /// What `/proc` said of processes and threads; empty for cores alone.
    pub activity: Activity,
    /// Every thread with its stack, process by process; empty if that was not asked for.
    pub threads: Vec<ThreadView>,
    /// What each of `threads` does.
    doings: Vec<Doing>,
    /// The locks that threads wait for.
    pub locks: Locks,
    /// The processes that died, the likely first failure first.
    pub crashes: Vec<CrashView>,
    /// Where names of code may come from.
    pub symbols: SymbolOptions,
    /// What is not known.
    pub gaps: Vec<Gap>,
}

impl Case {
    /// Reads every core and walks every pool.
    pub fn build(
        evidence: Evidence,
        library: &LibraryOptions,
        symbols: SymbolOptions,
        options: CaseOptions,
    ) -> Self {
        let mut gaps = evidence.gaps.clone();
        let library = Library::new(&evidence.modules, library, &mut gaps);
        let opened: Vec<_> = evidence
            .cores
            .par_iter()
            .map(|input| Process::open(input, &evidence, &library).map(member))
            .collect();
        let mut members = Vec::new();
        let mut table = Vec::new();
        for (input, opened) in evidence.cores.iter().zip(opened) {
            match opened {
                Ok((member, entries)) => {
                    if table.is_empty() {
                        table = entries;
                    }
                    members.push(member);
                }
                Err(error) => gaps.push(Gap::new(format!("core {}", input.label), error)),
            }
        }
        gaps.extend(unused(&library, &members));
        members.sort_by_key(|member| {
            let index = member.entry.as_ref().map(|entry| entry.index);
            (index.is_none(), index, member.process.pid)
        });
        let version = members.iter().find_map(|member| kamailio::version(&member.process));
        let activity = Activity::read(&evidence);
        let mut case = Self {
            evidence,
            members,
            version,
            table,
            pools: Vec::new(),
            losses: None,
            activity,
            threads: Vec::new(),
            doings: Vec::new(),
            locks: Locks::default(),
            crashes: Vec::new(),
            symbols,
            gaps,
        };
        case.gather_gaps();
        if case.evidence.has_no_heap() {
            case.say_no_heap();
        } else if !options.without_pools || (options.threads && case.has_crashed()) {
            case.walk_pools(options);
            if options.reachability {
                case.find_losses();
            }
        }
        if options.threads {
            case.look_at_threads();
            case.crashes = case.find_crashes();
        }
        case
    }

    /// Whether a process died: what it met in a pool is asked of a walk.
    fn has_crashed(&self) -> bool {
        self.members.iter().any(|member| member.process.core.dead_thread().is_some())
    }

    /// Gaps of single processes.
    fn gather_gaps(&mut self) {
        let mut gaps = Vec::new();
        for member in &self.members {
            gaps.extend(member.process.gaps.iter().cloned());
            let missing = member.roots.missing.iter().filter(|missing| self.lacks(member, missing));
            let gap = |missing: &Missing| Gap::new(pool_name(missing.kind, member), &missing.why);
            gaps.extend(missing.map(gap));
        }
        let no_table = self.members.iter().find_map(|member| member.no_table.as_ref());
        if let Some(absent) = no_table.filter(|_| self.table.is_empty()) {
            gaps.push(Gap::new("Kamailio's process table: what each process does", absent));
        }
        self.gaps.extend(gaps);
        self.say_once();
    }

    /// Where heaps were left out on purpose, no pool is looked for.
    fn say_no_heap(&mut self) {
        for (kind, name) in [(PoolKind::Shm, "SHM pool"), (PoolKind::Pkg, "PKG pools")] {
            let known = |member: &Member| member.roots.pools.iter().any(|root| root.kind == kind);
            if self.members.iter().any(known) {
                self.gaps.push(Gap::new(name, "not saved (--stacks-only)"));
            }
        }
    }

    fn walk_pools(&mut self, options: CaseOptions) {
        let shm = self.walk_shm(options);
        let mut private: Vec<Pool> = self
            .members
            .par_iter()
            .enumerate()
            .flat_map_iter(|(index, member)| {
                let own = member.roots.pools.iter().filter(|root| root.kind == PoolKind::Pkg);
                own.map(move |root| (index, member, root))
            })
            .map(|(index, member, root)| pool::walk(index, member, root, options, true))
            .collect();
        let main = private.iter().position(|pool| {
            let entry = self.members.get(pool.member).and_then(|member| member.entry.as_ref());
            entry.is_some_and(|entry| entry.index == 0)
        });
        let positions: Vec<usize> = private
            .iter()
            .enumerate()
            .filter(|(_, pool)| pool.walked.is_ok())
            .map(|(position, _)| position)
            .collect();
        let main = main.and_then(|main| positions.iter().position(|&position| position == main));
        let mut summaries: Vec<&mut Summary> = private
            .iter_mut()
            .filter_map(|pool| Some(&mut pool.walked.as_mut().ok()?.summary))
            .collect();
        leak::mark_inherited(&mut summaries, main);
        if !options.keep_fragments {
            summaries.iter_mut().for_each(|summary| summary.fragments = Vec::new());
        }
        self.pools = shm.into_iter().chain(private).collect();
        self.find_pointers();
        for pool in &self.pools {
            let name = self.members.get(pool.member).map(|member| pool_name(pool.kind, member));
            self.gaps.extend(pool.gaps(&name.unwrap_or_default()));
            if pool.is_unused() {
                let why = "this build keeps it in the C library's heap, which is not read";
                self.gaps.push(Gap::new("private memory", why));
            }
        }
        self.say_once();
    }

    /// Whether a pool that was not found through one process was found through no other either.
    /// Where heaps were left out on purpose, none lacks.
    pub fn lacks(&self, member: &Member, missing: &Missing) -> bool {
        if self.evidence.has_no_heap() {
            return false;
        }
        let found = |member: &Member| member.roots.pools.iter().any(|p| p.kind == missing.kind);
        match missing.kind {
            PoolKind::Pkg => !found(member),
            PoolKind::Shm => !self.members.iter().any(found),
        }
    }

    /// What several processes or pools have in common is said once.
    fn say_once(&mut self) {
        let mut seen = BTreeSet::new();
        self.gaps.retain(|gap| seen.insert(gap.clone()));
    }

    /// All processes see the same shared pool: the first complete walk serves, else the longest.
    fn walk_shm(&self, options: CaseOptions) -> Option<Pool> {
        let mut best: Option<Pool> = None;
        let mut no_better = 0_u32;
        for (index, member) in self.members.iter().enumerate() {
            for root in member.roots.pools.iter().filter(|root| root.kind == PoolKind::Shm) {
                let pool = pool::walk(index, member, root, options, options.keep_fragments);
                // Damage is the same in every view; another one may only have what this one lacks.
                let walked = pool.walked();
                let whole = walked.is_some_and(|walked| walked.summary.holes.count == 0);
                if best.as_ref().is_none_or(|best| pool.fragments_seen() > best.fragments_seen()) {
                    best = Some(pool);
                    no_better = 0;
                } else {
                    no_better = no_better.saturating_add(1);
                }
                if whole || no_better >= NO_BETTER {
                    return best;
                }
            }
        }
        best
    }

    /// What lies where in each process, by its index in `members`. A pool that was not walked is
    /// known by its block.
    pub fn places(&self) -> Places<'_> {
        let processes = self
            .members
            .iter()
            .map(|member| Named { process: &member.process, name: describe(member) });
        let walked = |kind, index| {
            let mut pools = self.pools.iter();
            pools.find(|pool: &&Pool| {
                pool.kind == kind && (kind == PoolKind::Shm || pool.member == index)
            })
        };
        let pools = self.members.par_iter().enumerate().flat_map_iter(|(index, member)| {
            member.roots.pools.iter().filter_map(move |root| {
                let known = walked(root.kind, index).and_then(Pool::walked);
                let range = known.map(|walked| walked.range);
                let range = range.or_else(|| pool::range(member, root))?;
                Some(PoolPlace { kind: root.kind, process: index, range })
            })
        });
        let mut pools: Vec<PoolPlace> = pools.collect();
        // Every process maps the shared pool.
        let mut seen = BTreeSet::new();
        pools.retain(|pool| pool.kind == PoolKind::Pkg || seen.insert(pool.range));
        Places::new(&self.evidence, processes.collect(), pools)
    }

    /// Says of each pool what the words in its damaged places point at.
    fn find_pointers(&mut self) {
        let damaged = |pool: &Pool| {
            let summary = pool.walked().map(|walked| &walked.summary);
            summary.is_some_and(|summary| summary.breaks.count > 0 || summary.damaged.count > 0)
        };
        if !self.pools.iter().any(damaged) {
            return;
        }
        let places = self.places();
        let in_pool = |pool: &Pool| {
            let member = self.members.get(pool.member)?;
            Some(Pointers::of(pool, &member.process.memory, &places))
        };
        let mut found: Vec<_> = self.pools.iter().map(in_pool).collect();
        for pointers in found.iter_mut().flatten() {
            pointers.find_fragments(&self.pools, &self.members);
        }
        for (pool, pointers) in self.pools.iter_mut().zip(found) {
            if let Ok(walked) = &mut pool.walked {
                walked.pointers = pointers.unwrap_or_default();
            }
        }
    }

    /// Whether a process that can change a pool stands inside a memory manager.
    pub fn is_allocating(&self, pool: &Pool) -> bool {
        let mut members = self.members.iter().enumerate();
        members.any(|(index, member)| {
            member.is_allocating && (pool.kind == PoolKind::Shm || index == pool.member)
        })
    }

    /// The record of a process in the bundle's manifest.
    pub fn record(&self, pid: Option<u32>) -> Option<&bundle::ProcessRecord> {
        let manifest = self.evidence.manifest.as_ref()?;
        manifest.processes.iter().find(|record| Some(record.pid) == pid)
    }

    /// Processes of Kamailio's table that no core was given for.
    pub fn missing_processes(&self) -> Vec<&ProcessEntry> {
        let have = |entry: &&ProcessEntry| {
            !self
                .members
                .iter()
                .any(|member| member.entry.as_ref().is_some_and(|own| own.index == entry.index))
        };
        // Slots that never started have PID 0 or -1.
        self.table.iter().filter(|entry| entry.pid > 0).filter(have).collect()
    }
}

/// Files that the user named and no process has mapped, unless a module's own gap says so.
fn unused(library: &Library, members: &[Member]) -> Vec<Gap> {
    let modules = || members.iter().flat_map(|member| member.process.modules.iter());
    let serves = |file: &ModuleFile| {
        modules().any(|module| match &module.file {
            Ok(used) => used.origin == file.origin,
            Err(why) => why.starts_with(&file.origin),
        })
    };
    let idle = library.named().filter(|file| !members.is_empty() && !serves(file));
    let gap = |file: &ModuleFile| {
        let build_id = file.build_id.as_deref().unwrap_or("none");
        let why = format!("not used: no module in the core has its build ID ({build_id})");
        Gap::new(format!("--module {}", file.origin), why)
    };
    idle.map(gap).collect()
}

fn member(mut process: Process) -> (Member, Vec<ProcessEntry>) {
    let roots = kamailio::find_roots(&process);
    let (table, no_table) = match ProcessTable::read(&process) {
        Some(Ok(table)) => (Some(table), None),
        Some(Err(absent)) => (None, Some(absent)),
        None => (None, None),
    };
    let pids = [process.inner_pid, process.pid, process.core.pid()];
    let entry = table.as_ref().and_then(|table| {
        // `process_no` is the process's own word; the PID serves where it could not be read.
        let by_pid = |entry: &&ProcessEntry| {
            u32::try_from(entry.pid).is_ok_and(|pid| pids.contains(&Some(pid)))
        };
        table.own().or_else(|| table.entries.iter().find(by_pid)).cloned()
    });
    // A core that has lost its notes does not say its PID; the table does.
    let own_pid = entry.as_ref().and_then(|entry| u32::try_from(entry.pid).ok());
    process.pid = process.pid.or(own_pid);
    let entries = table.map(|table| table.entries).unwrap_or_default();
    let is_allocating = !roots.pools.is_empty() && kamailio::is_allocating(&process);
    (Member { process, entry, no_table, roots, is_allocating }, entries)
}

/// A pool for a person: `SHM pool`, or `PKG pool of process 12 (timer)`.
fn pool_name(kind: PoolKind, member: &Member) -> String {
    match kind {
        PoolKind::Shm => "SHM pool".to_owned(),
        PoolKind::Pkg => format!("PKG pool of {}", describe(member)),
    }
}

/// A process for a person: its PID and role.
pub fn describe(member: &Member) -> String {
    let pid = member.process.pid.map_or_else(|| member.process.label.clone(), |p| p.to_string());
    match member.role() {
        Some(role) => format!("process {pid} ({role})"),
        None => format!("process {pid}"),
    }
}

impl Pool {
    /// For comparing views of one pool: complete ones first, then by fragments seen.
    fn fragments_seen(&self) -> (bool, bool, u64) {
        match &self.walked {
            Ok(walked) => (true, walked.summary.complete, walked.seen_fragments()),
            Err(_) => (false, false, 0),
        }
    }
}
