//! The report as data.

use std::collections::BTreeMap;

use serde::Serialize;

use super::by_size::{self, PayloadSizeReport};
use super::crashes::{self, CrashReport};
use super::fragments::{FragmentReport, list};
use super::locks::{self, LockReport};
use super::owners::{OwnerReport, owners, sort};
use super::registers::{ThreadRegisters, registers};
use super::selection::Selection;
use super::threads::{self, ProcessThreads};
use crate::addr::{Addr, AddrRange};
use crate::case::{Case, Member, Pool, Walked};
use crate::diagnose::{Finding, Severity, diagnose};
use crate::gap::Gap;
use crate::heap::Counters;
use crate::kamailio::{FoundBy, PoolKind};
use crate::layout::LayoutSource;
use crate::num::wide;

/// Why inputs end early, one line each.
pub type CutList = Vec<String>;

/// Everything that is shown.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// [`super::SCHEMA`].
    pub schema: u32,
    /// Program and version that made it.
    pub tool: String,
    /// What the user gave.
    pub inputs: Vec<String>,
    /// Why inputs end early, one line each; empty for whole ones.
    pub cut: CutList,
    /// A bundle's first member.
    pub bundle: Option<bundle::Header>,
    /// Version string of the program that was captured.
    pub program: Option<String>,
    /// The processes.
    pub processes: Vec<ProcessReport>,
    /// The processes that died, the likely first failure first; empty if threads were not looked
    /// at.
    pub crashes: Vec<CrashReport>,
    /// What the rules found, worst first.
    pub findings: Vec<Finding>,
    /// The threads of each process with their stacks; empty if they were not asked for.
    pub stacks: Vec<ProcessThreads>,
    /// The locks that threads wait for.
    pub locks: Vec<LockReport>,
    /// The pools: SHM first.
    pub pools: Vec<PoolReport>,
    /// What is not known, and why.
    pub gaps: Vec<Gap>,
}

/// One process.
#[derive(Clone, Debug, Serialize)]
pub struct ProcessReport {
    /// PID on the host.
    pub pid: Option<u32>,
    /// PID in its own namespace, where it differs.
    pub inner_pid: Option<u32>,
    /// What it does, from Kamailio's process table.
    pub role: Option<String>,
    /// Its core: a path, or a member of the bundle.
    pub core: String,
    /// Who wrote the core.
    pub written_by: &'static str,
    /// Threads in the core.
    pub threads: u64,
    /// Threads whose registers were read without stopping them.
    pub unstopped: u64,
    /// How long it stood still, in microseconds.
    pub pause_micros: Option<u64>,
    /// Bytes of its memory that can be read.
    pub known_bytes: u64,
    /// Of these: pages that never existed.
    pub zero_bytes: u64,
    /// Bytes that cannot, by reason.
    pub absent_bytes: BTreeMap<String, u64>,
    /// Modules whose file is at hand.
    pub modules_found: u64,
    /// Modules that it maps.
    pub modules: u64,
    /// Its threads' registers, if they were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registers: Option<Vec<ThreadRegisters>>,
}

/// One pool.
#[derive(Clone, Debug, Serialize)]
pub struct PoolReport {
    /// `pkg` or `shm`.
    pub kind: PoolKind,
    /// Its process; null for the shared pool.
    pub pid: Option<u32>,
    /// What that process does; null for the shared pool.
    pub role: Option<String>,
    /// The process that it was read through.
    pub read_through: Option<u32>,
    /// Its manager.
    pub manager: String,
    /// Its block.
    pub block: Addr,
    /// Its addresses.
    pub range: Option<AddrRange>,
    /// How it was found.
    pub found: FoundBy,
    /// Where its layout comes from.
    pub layout: Option<LayoutSource>,
    /// Whether it is a private pool from which nothing was ever taken, since this build keeps
    /// private memory in the C library's heap.
    pub unused: bool,
    /// What its block says of itself.
    pub counters: Option<Counters>,
    /// What the walk found.
    pub walked: Option<WalkedReport>,
    /// What its free memory is good for.
    pub fragmentation: Option<FragmentationReport>,
    /// Whether the text shows the size classes.
    #[serde(skip)]
    pub show_sizes: bool,
    /// What its owners hold.
    pub owners: Vec<OwnerReport>,
    /// Owners with fragments of their own that the selection leaves out.
    pub owners_left_out: u64,
    /// Used fragments by payload size; null where their owners are recorded.
    pub payload_sizes: Option<Vec<PayloadSizeReport>>,
    /// Sizes with fragments of their own that the selection leaves out.
    pub payload_sizes_left_out: u64,
    /// Used fragments inherited from the main process at fork.
    pub inherited_fragments: u64,
    /// Their payload, in bytes.
    pub inherited_bytes: u64,
    /// Its fragments, if they were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fragments: Option<Vec<FragmentReport>>,
    /// Why it was not walked; null if it was.
    pub error: Option<String>,
}

/// Recomputed figures.
#[derive(Clone, Debug, Serialize)]
pub struct WalkedReport {
    /// Fragments in use.
    pub used_fragments: u64,
    /// Their payload, in bytes.
    pub used_bytes: u64,
    /// The block, all overhead and the used payload, in bytes.
    pub real_used_bytes: u64,
    /// Free fragments.
    pub free_fragments: u64,
    /// Their payload, in bytes.
    pub free_bytes: u64,
    /// Payload of the largest of them, in bytes.
    pub largest_free_bytes: u64,
    /// Whether the walk reached the pool's own end mark.
    pub complete: bool,
    /// Bytes that lie in no fragment the walk saw.
    pub lost_bytes: u64,
    /// How many fragments, used and free, the block's own counters imply; null where they
    /// contradict themselves.
    pub expected_fragments: Option<u64>,
    /// Bytes of the pool that lie in what the walk saw, the block included.
    pub seen_bytes: u64,
    /// Bytes of the pool, by its block.
    pub expected_bytes: u64,
    /// Fragments with overwritten check words.
    pub damaged_fragments: u64,
    /// Places where the lists of free fragments are wrong.
    pub list_faults: u64,
    /// Fragment headers that were read to find all this: the work.
    pub header_visits: u64,
    /// Used fragments that `--skip-first` left out of the owners.
    pub skipped_fragments: u64,
}

/// What the free memory of a pool is good for.
#[derive(Clone, Debug, Serialize)]
pub struct FragmentationReport {
    /// The largest request that can be met, in bytes.
    pub largest_request: u64,
    /// Free fragments that directly follow another free one.
    pub joinable_fragments: u64,
    /// The largest request that could be met if free neighbours were joined, in bytes.
    pub largest_if_joined: u64,
    /// What requests of some sizes cannot use.
    pub unusable: Vec<UnusableReport>,
    /// Used and free fragments by size, in powers of two.
    pub classes: Vec<ClassReport>,
}

/// What a request of some size cannot use.
#[derive(Clone, Debug, Serialize)]
pub struct UnusableReport {
    /// Size of the request, in bytes.
    pub request: u64,
    /// Share of the free bytes in fragments too small for it, 0 to 1.
    pub share: f64,
}

/// Fragments of about one size.
#[derive(Clone, Debug, Serialize)]
pub struct ClassReport {
    /// Smallest payload of the class, in bytes.
    pub from: u64,
    /// Largest payload of the class, in bytes.
    pub to: u64,
    /// Used fragments.
    pub used_fragments: u64,
    /// Their payload, in bytes.
    pub used_bytes: u64,
    /// Free fragments.
    pub free_fragments: u64,
    /// Their payload, in bytes.
    pub free_bytes: u64,
}

impl Report {
    /// Takes from the case what is shown.
    pub fn of(case: &Case, selection: &Selection) -> Self {
        let pools = case
            .pools
            .iter()
            .filter_map(|pool| Some((pool, case.members.get(pool.member)?)))
            .filter(|(pool, member)| selection.wants(pool, member))
            .map(|(pool, member)| pool_report(pool, member, selection))
            .collect();
        let findings = diagnose(case);
        let cut = findings
            .iter()
            .filter(|finding| finding.rule == "input-cut")
            .flat_map(|finding| finding.facts.iter().map(|fact| fact.text.clone()))
            .collect();
        Self {
            schema: super::SCHEMA,
            tool: concat!("forensics ", env!("CARGO_PKG_VERSION")).to_owned(),
            inputs: case.evidence.paths.clone(),
            cut,
            bundle: case.evidence.header.clone(),
            program: case.version.clone(),
            processes: processes(case, selection),
            crashes: crashes::crashes(case),
            findings,
            stacks: threads::processes(case),
            locks: locks::locks(case),
            pools,
            gaps: case.gaps.clone(),
        }
    }

    /// The worst severity among the findings.
    pub fn worst(&self) -> Option<Severity> {
        self.findings.iter().map(|finding| finding.severity).max()
    }
}

fn processes(case: &Case, selection: &Selection) -> Vec<ProcessReport> {
    let mut reports: Vec<ProcessReport> =
        case.members.iter().map(|member| process_report(case, member)).collect();
    if selection.registers {
        for (report, registers) in reports.iter_mut().zip(registers(case)) {
            report.registers = Some(registers);
        }
    }
    reports
}

fn process_report(case: &Case, member: &Member) -> ProcessReport {
    let process = &member.process;
    let coverage = process.memory.coverage();
    let record = case.record(process.pid);
    let threads = &process.core.notes.threads;
    let unstopped = |thread: &&crate::core::Thread| {
        thread
            .record
            .as_ref()
            .is_some_and(|record| record.registers != bundle::notes::RegisterSource::Stopped)
    };
    ProcessReport {
        pid: process.pid,
        inner_pid: process.inner_pid.filter(|&inner| Some(inner) != process.pid),
        role: member.role().map(str::to_owned),
        core: process.label.clone(),
        written_by: process.core.writer.name(),
        threads: wide(threads.len()),
        unstopped: wide(threads.iter().filter(unstopped).count()),
        pause_micros: record.and_then(|record| record.pause_micros),
        known_bytes: coverage.known,
        zero_bytes: coverage.zero,
        absent_bytes: coverage.absent,
        modules_found: wide(process.modules.iter().filter(|m| m.file.is_ok()).count()),
        modules: wide(process.modules.iter().count()),
        registers: None,
    }
}

fn pool_report(pool: &Pool, member: &Member, selection: &Selection) -> PoolReport {
    let private = pool.kind == PoolKind::Pkg;
    let walked = pool.walked.as_ref().ok();
    let all = walked.map_or_else(Vec::new, owners);
    let mut shown: Vec<OwnerReport> =
        all.iter().filter(|owner| owner.bytes >= selection.min_bytes).cloned().collect();
    sort(&mut shown, selection.sort);
    shown.truncate(selection.top.unwrap_or(usize::MAX));
    let (payload_sizes, payload_sizes_left_out) = walked
        .and_then(|walked| Some((walked.payload_sizes.as_ref()?, &walked.summary)))
        .map(|(groups, summary)| by_size::select(groups, summary, selection))
        .unzip();
    let own = |owners: &[OwnerReport]| owners.iter().filter(|o| o.own_fragments > 0).count();
    PoolReport {
        kind: pool.kind,
        pid: member.process.pid.filter(|_| private),
        role: member.role().filter(|_| private).map(str::to_owned),
        read_through: member.process.pid,
        manager: pool.manager.clone(),
        block: pool.block,
        range: walked.map(|walked| walked.range),
        found: pool.found_by.clone(),
        layout: walked.map(|walked| walked.layout.clone()),
        unused: pool.is_unused(),
        counters: walked.map(|walked| walked.counters),
        walked: walked.map(walked_report),
        fragmentation: walked.map(fragmentation),
        show_sizes: selection.sizes,
        owners_left_out: wide(own(&all).saturating_sub(own(&shown))),
        payload_sizes,
        payload_sizes_left_out: payload_sizes_left_out.unwrap_or(0),
        inherited_fragments: all.iter().map(|owner| owner.inherited_fragments).sum(),
        inherited_bytes: all.iter().map(|owner| owner.inherited_bytes).sum(),
        owners: shown,
        fragments: walked
            .filter(|_| selection.list)
            .map(|walked| list(walked, member, selection.shown)),
        error: pool.walked.as_ref().err().cloned(),
    }
}

fn walked_report(walked: &Walked) -> WalkedReport {
    let summary = &walked.summary;
    WalkedReport {
        used_fragments: summary.used_fragments,
        used_bytes: summary.used_bytes,
        real_used_bytes: summary.real_used_bytes,
        free_fragments: summary.free_fragments,
        free_bytes: summary.free_bytes,
        largest_free_bytes: summary.largest_free,
        complete: summary.complete,
        lost_bytes: summary.lost_bytes,
        expected_fragments: walked.expected_fragments,
        seen_bytes: walked.seen_bytes(),
        expected_bytes: walked.expected_bytes(),
        damaged_fragments: summary.damaged.count,
        list_faults: summary.list_faults.count,
        header_visits: summary.header_visits,
        skipped_fragments: summary.skipped_fragments,
    }
}

/// Requests that a SIP server makes: a header, a message, a transaction, a TCP buffer.
const REQUESTS: [u64; 4] = [256, 4096, 16 * 1024, 256 * 1024];

fn fragmentation(walked: &Walked) -> FragmentationReport {
    let sizes = &walked.summary.sizes;
    let class = |(from, to, class): (u64, u64, crate::leak::SizeClass)| ClassReport {
        from,
        to,
        used_fragments: class.used_fragments,
        used_bytes: class.used_bytes,
        free_fragments: class.free_fragments,
        free_bytes: class.free_bytes,
    };
    let unusable =
        REQUESTS.map(|request| UnusableReport { request, share: sizes.unusable_for(request) });
    FragmentationReport {
        largest_request: walked.summary.largest_free,
        joinable_fragments: sizes.joinable,
        largest_if_joined: sizes.largest_if_joined,
        unusable: unusable.to_vec(),
        classes: sizes.classes().map(class).collect(),
    }
}
