//! What an instance itself says about its memory, and the comparison of an analysis with it.
//! `pkg.stats` is exact under `q_malloc` only; under the other memory managers a SIP worker's own
//! summary of its private pool is.

use std::collections::BTreeMap;
use std::path::Path;

use crate::analysis::{Fragment, Heap, Pool};
use crate::kamailio::Instance;
use crate::load::{self, Kind};
use crate::memlog::{self, Owner, Share, Status};
use crate::rpc::{PrivateMemory, Process, Reading, Site};
use crate::{proc, tools};

/// Kamailio's own figures around a collection.
#[derive(Debug)]
pub struct Oracle {
    /// Equal before and after the collection.
    pub reading: Reading,
    /// `corex.shm_summary`
    pub summary: BTreeMap<Owner, Share>,
    /// `corex.shm_status`, which lists fragments under `q_malloc` only.
    pub status: Status,
    /// From the PID that a process knows to the one that we see.
    pub outer_pid: BTreeMap<u32, u32>,
}

/// A load of `requests` that leaves entries and contacts, and then deletions that leave free
/// fragments between used ones.
pub fn exercise(instance: &Instance, requests: u32) {
    load::send(instance, Kind::Keep, requests, 2500);
    load::send(instance, Kind::Register, 200, 2000);
    let keys = (1..requests / 20).map(|number| format!("k{}", number * 17));
    instance.rpc().delete_calls(keys);
}

/// Collects while the instance's figures stand still, and asks it for all of them.
///
/// A timer may fire between the two readings; then the collection is repeated, twice at most.
#[track_caller]
pub fn collect_between_readings(instance: &Instance, bundle: &Path) -> Oracle {
    between_readings(instance, &[bundle], || drop(tools::collect(instance.main_pid(), bundle)))
}

/// The same with another way to collect, which makes `files`.
#[track_caller]
pub fn between_readings(
    instance: &Instance,
    files: &[impl AsRef<Path>],
    collect: impl Fn(),
) -> Oracle {
    let mut reading = None;
    for attempt in 1..=3 {
        let before = instance.rpc().reading();
        collect();
        let after = instance.rpc().reading();
        if before == after {
            reading = Some(before);
            break;
        }
        eprintln!("collection {attempt}: the figures before and after differ, once more");
        for file in files {
            std::fs::remove_file(file).unwrap();
        }
    }
    let reading = reading.expect("in one of three collections nothing else changes the memory");
    let summary = instance.log_of(|rpc| drop(rpc.call(&["corex.shm_summary"])));
    let status = instance.log_of(|rpc| drop(rpc.call(&["corex.shm_status"])));
    assert_eq!(instance.rpc().reading(), reading, "asking for the dumps changed the figures");
    let pair = |pid: &u32| (proc::inner_pid(*pid).expect("the process is there"), *pid);
    Oracle {
        reading,
        summary: memlog::parse_summary(&summary),
        status: memlog::parse_status(&status),
        outer_pid: instance.pids().iter().map(pair).collect(),
    }
}

/// What each of the SIP workers over UDP says about its private pool, by owner.
///
/// A process that is asked (`corex.pkg_summary`) looks up from its work when the next message
/// comes, and writes its table before it touches the message. So the table is that of the process
/// at rest since its last message, as a bundle collected before shows it, and every owner in it
/// can be compared. The other workers are stopped meanwhile: a message that one of them took would
/// change its own pool before its turn.
#[track_caller]
pub fn summaries_of_workers(instance: &Instance) -> BTreeMap<u32, BTreeMap<Owner, Share>> {
    let said = |process: &Process| process.description.starts_with("udp receiver");
    let processes = instance.rpc().processes();
    let workers = processes.iter().zip(instance.pids()).filter(|(process, _)| said(process));
    let workers: Vec<(u32, u32)> = workers.map(|(process, pid)| (process.pid, *pid)).collect();
    let mut summaries = BTreeMap::new();
    for &(inner, pid) in &workers {
        let others: Vec<u32> = workers.iter().map(|w| w.1).filter(|own| *own != pid).collect();
        proc::stop_all(&others);
        let log = instance.log_of(|rpc| {
            rpc.call(&["corex.pkg_summary", "pid", &inner.to_string()]);
            load::answered(instance, 1);
        });
        proc::continue_all(&others);
        summaries.insert(pid, memlog::parse_private_summary(&log));
    }
    summaries
}

impl Oracle {
    /// Asserts that the analysis of the whole group says exactly what the instance said.
    #[track_caller]
    pub fn assert_group(&self, heap: &Heap) {
        self.assert_shared(heap.shared());
        self.assert_shared_free(heap.shared());
        self.assert_private(heap);
        let pools = self.reading.private.len();
        assert_eq!(heap.private().count(), pools, "private pools; gaps: {:?}", heap.gaps);
    }

    /// The shared pool against `core.shmmem`, `mod.stats` and `corex.shm_summary`.
    #[track_caller]
    pub fn assert_shared(&self, pool: &Pool) {
        let said = &self.reading.shared;
        let counters = pool.counters();
        let ours = [counters.size, counters.used, counters.real_used, counters.free_fragments];
        let theirs = [said.total, said.used, said.real_used, said.fragments];
        assert_eq!(ours, theirs, "shared pool: counters (left) and core.shmmem (right)");
        self.assert_shared_walk(pool);
    }

    /// The same, but for the pool's own counters.
    #[track_caller]
    pub fn assert_shared_walk(&self, pool: &Pool) {
        let said = &self.reading.shared;
        let walked = pool.walked();
        assert!(walked.complete, "the walk of the shared pool met its end");
        let ours = [walked.used_bytes, walked.real_used_bytes, walked.free_fragments];
        let theirs = [said.used, said.real_used, said.fragments];
        assert_eq!(ours, theirs, "shared pool: used, with overhead, free; walk and core.shmmem");
        assert_eq!(by_site(pool), self.reading.shared_by_site, "shared pool: mod.stats all shm");
        assert_eq!(by_owner(pool), self.summary, "shared pool: corex.shm_summary");
        let count: u64 = self.summary.values().map(|share| share.fragments).sum();
        assert_eq!(walked.used_fragments, count, "shared pool: used fragments");
    }

    /// The shared pool's free bytes. Not for TLSF: what its RPC calls free is the rest after an
    /// estimate of the headers, and not the sum of what is in the free fragments.
    #[track_caller]
    pub fn assert_shared_free(&self, pool: &Pool) {
        assert_eq!(pool.walked().free_bytes, self.reading.shared.free, "shared pool: free bytes");
    }

    /// Every private pool against its entry in `pkg.stats`.
    #[track_caller]
    pub fn assert_private(&self, heap: &Heap) {
        for said in &self.reading.private {
            let pid = self.outer_pid[&said.pid];
            let pool = heap.private_of(pid);
            let counters = pool.counters();
            let ours = [counters.size, counters.used, counters.real_used, counters.free_fragments];
            let theirs = [said.total_size, said.used, said.real_used, said.total_frags];
            assert_eq!(ours, theirs, "{}: counters and pkg.stats", said.description);
            self.assert_private_walk(pool, said);
        }
    }

    /// Every private pool against itself: the walk equals the pool's own counters. For the managers
    /// whose `pkg.stats` lags behind, f_malloc's by a fragment, TLSF's since the process began.
    #[track_caller]
    pub fn assert_private_walks(&self, heap: &Heap) {
        assert_eq!(heap.private().count(), self.reading.private.len(), "private pools");
        for pool in heap.private() {
            let (counters, walked) = (pool.counters(), pool.walked());
            assert!(walked.complete, "process {:?}: the walk met the pool's end", pool.pid);
            let walk = [walked.used_bytes, walked.real_used_bytes, walked.free_fragments];
            let counted = [counters.used, counters.real_used, counters.free_fragments];
            assert_eq!(walk, counted, "process {:?}: walk and the pool's own counters", pool.pid);
        }
    }

    /// The walk of one private pool against its entry.
    #[track_caller]
    pub fn assert_private_walk(&self, pool: &Pool, said: &PrivateMemory) {
        let walked = pool.walked();
        assert!(walked.complete, "{}: the walk met the pool's end", said.description);
        let ours =
            [walked.used_bytes, walked.real_used_bytes, walked.free_fragments, walked.free_bytes];
        let theirs = [said.used, said.real_used, said.total_frags, said.free];
        assert_eq!(ours, theirs, "{}: walk and pkg.stats", said.description);
    }

    /// The list of fragments against `corex.shm_status`, one by one.
    #[track_caller]
    pub fn assert_fragments(&self, pool: &Pool) {
        let used: Vec<&Fragment> =
            pool.fragments.iter().filter(|fragment| fragment.state == "used").collect();
        assert_eq!(used.len(), self.status.used.len(), "used fragments");
        for (ours, theirs) in used.into_iter().zip(&self.status.used) {
            let owner = owner(&ours.module, &ours.file, &ours.function, ours.line);
            let ours = (memlog::hex(&ours.address), memlog::hex(&ours.header), ours.size, owner);
            let theirs = (theirs.address, theirs.header, theirs.size, theirs.owner.clone());
            assert_eq!(ours, theirs, "a used fragment (left) and corex.shm_status (right)");
        }
        let free = pool.fragments.iter().filter(|fragment| fragment.state == "free").count();
        assert_eq!(u64::try_from(free).unwrap(), self.status.free_fragments, "free fragments");
    }
}

/// The owners of a private pool, all of them, against the process's own summary.
#[track_caller]
pub fn assert_private_owners(pool: &Pool, said: &BTreeMap<Owner, Share>) {
    assert_eq!(&by_owner(pool), said, "process {:?}: owners and corex.pkg_summary", pool.pid);
    let fragments: u64 = said.values().map(|share| share.fragments).sum();
    let bytes: u64 = said.values().map(|share| share.bytes).sum();
    let walked = pool.walked();
    assert_eq!([walked.used_fragments, walked.used_bytes], [fragments, bytes], "{:?}", pool.pid);
}

#[track_caller]
fn owner(
    module: &Option<String>,
    file: &Option<String>,
    function: &Option<String>,
    line: Option<u32>,
) -> Owner {
    let (Some(module), Some(file), Some(function), Some(line)) = (module, file, function, line)
    else {
        panic!("an owner is not known in full: {module:?} {file:?} {function:?} {line:?}")
    };
    Owner { module: module.clone(), file: file.clone(), function: function.clone(), line }
}

/// What each owner of a pool has in use; every one must be known in full.
#[track_caller]
pub fn by_owner(pool: &Pool) -> BTreeMap<Owner, Share> {
    let mut owners = BTreeMap::new();
    for share in &pool.owners {
        let owner = owner(&share.module, &share.file, &share.function, share.line);
        let known = owners.insert(owner, Share { fragments: share.fragments, bytes: share.bytes });
        assert_eq!(known, None, "an owner stands twice: {share:?}");
    }
    owners
}

#[track_caller]
fn by_site(pool: &Pool) -> BTreeMap<Site, u64> {
    let mut sites = BTreeMap::new();
    for (owner, share) in by_owner(pool) {
        let site = Site { module: owner.module, function: owner.function, line: owner.line };
        *sites.entry(site).or_default() += share.bytes;
    }
    sites
}

/// `forensics heap --json` of some inputs; findings up to "warning" and above are no failure.
#[track_caller]
pub fn heap(inputs: &[impl AsRef<Path>]) -> Heap {
    let mut command = tools::forensics();
    command.args(["heap", "--json"]).args(inputs.iter().map(AsRef::as_ref));
    tools::run(&mut command, tools::PATIENCE).expect(&[0, 1]).json()
}

/// The shared pool with its list of fragments.
#[track_caller]
pub fn fragments(inputs: &[impl AsRef<Path>]) -> Heap {
    let mut command = tools::forensics();
    command.args(["heap", "--json", "--list", "--pool", "shm"]);
    command.args(inputs.iter().map(AsRef::as_ref));
    tools::run(&mut command, tools::PATIENCE).expect(&[0, 1]).json()
}

/// Writes a complete core of one process of a bundle, over an earlier one.
#[track_caller]
pub fn extract(bundle: &Path, pid: u32, core: &Path) {
    let mut command = tools::forensics();
    command.args(["extract", "--force", "--pid", &pid.to_string(), "-o"]).arg(core).arg(bundle);
    tools::run(&mut command, tools::PATIENCE).expect(&[0]);
    assert!(core.is_file(), "no core at {}", core.display());
}
