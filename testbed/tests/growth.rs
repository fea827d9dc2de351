//! A leak that grows under SIP traffic beside a cache that grew by more, compared in snapshots
//! before and after; and what two runs, or cores of one process, can still tell.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use testbed::kamailio::{Instance, Manager, Options, PROCESSES};
use testbed::load::{self, Kind};
use testbed::oracle;
use testbed::rpc::{Reading, Site};
use testbed::unpacked::Unpacked;
use testbed::{gdb, kernel, proc, tools};

/// `forensics diff --json`
#[derive(Debug, Deserialize)]
struct Diff {
    snapshots: Vec<Snapshot>,
    reordered: bool,
    same_run: bool,
    same_run_because: String,
    seconds: Option<f64>,
    no_rate_because: Option<String>,
    pools: Vec<Pool>,
    owners: Vec<Owner>,
}

#[derive(Debug, Deserialize)]
struct Snapshot {
    inputs: Vec<PathBuf>,
    taken: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Pool {
    kind: String,
    pids: Vec<Option<u32>>,
    bytes_change: i64,
    owners: Vec<Owner>,
}

#[derive(Clone, Debug, Deserialize)]
struct Owner {
    pool: PoolName,
    module: Option<String>,
    function: Option<String>,
    line: Option<u32>,
    fragments_before: u64,
    fragments_after: u64,
    fragments_change: i64,
    bytes_before: u64,
    bytes_after: u64,
    bytes_change: i64,
    bytes_per_hour: Option<f64>,
    survived: Option<u64>,
    unchanged: Option<u64>,
    vanished: Option<u64>,
    new: Option<u64>,
    growing_steps: u64,
}

#[derive(Clone, Debug, Deserialize)]
struct PoolName {
    kind: String,
}

#[track_caller]
fn diff(inputs: &[&Path]) -> Diff {
    let mut command = tools::forensics();
    command.args(["diff", "--json"]).args(inputs);
    tools::run(&mut command, tools::PATIENCE).expect(&[0]).json()
}

#[track_caller]
fn diff_text(inputs: &[&Path]) -> String {
    let mut command = tools::forensics();
    command.arg("diff").args(inputs);
    tools::run(&mut command, tools::PATIENCE).expect(&[0]).text()
}

impl Diff {
    /// The owners of shared memory, in their order.
    fn shared(&self) -> Vec<&Owner> {
        self.owners.iter().filter(|owner| owner.pool.kind == "shm").collect()
    }

    /// The owner that stands first.
    #[track_caller]
    fn first(&self) -> &Owner {
        self.owners.first().unwrap()
    }

    #[track_caller]
    fn owner(&self, function: &str) -> &Owner {
        let mut owners = self.owners.iter();
        let found = owners.find(|owner| owner.function.as_deref() == Some(function));
        found.unwrap_or_else(|| panic!("no owner {function} in {self:?}"))
    }

    /// Bytes by which shared memory changed, by the place that allocated.
    fn by_site(&self) -> BTreeMap<Site, i64> {
        let mut sites = BTreeMap::new();
        for owner in self.shared() {
            let site = Site {
                module: owner.module.clone().unwrap(),
                function: owner.function.clone().unwrap(),
                line: owner.line.unwrap(),
            };
            *sites.entry(site).or_default() += owner.bytes_change;
        }
        sites.retain(|_, change| *change != 0);
        sites
    }
}

/// What `mod.stats all shm` says of the change.
fn change(before: &Reading, after: &Reading) -> BTreeMap<Site, i64> {
    let sites = before.shared_by_site.keys().chain(after.shared_by_site.keys());
    let bytes = |reading: &Reading, site: &Site| -> i64 {
        reading.shared_by_site.get(site).copied().unwrap_or(0).try_into().unwrap()
    };
    let change = |site: &Site| (site.clone(), bytes(after, site) - bytes(before, site));
    sites.map(change).filter(|(_, change)| *change != 0).collect()
}

/// When the group stood still, as the bundle itself records it, in seconds.
#[track_caller]
fn frozen(bundle: &Path) -> f64 {
    let manifest = Unpacked::open(bundle).manifest();
    assert_eq!(manifest.processes.len(), PROCESSES);
    let times = manifest.processes.iter().map(|process| process.frozen_at.clone().unwrap());
    let last = times.map(|time| time.parse::<jiff::Zoned>().unwrap()).max().unwrap();
    last.timestamp().as_duration().as_secs_f64()
}

const LEAK: &str = "ht_cell_new";
const CACHE: &str = "new_ucontact";

const ENTRIES: u32 = 5000;
const CONTACTS: u32 = 300;

/// A running instance with entries and contacts.
#[track_caller]
fn instance(manager: Manager) -> Instance {
    let instance = Instance::start(Options { manager, ..Options::default() });
    load::send(&instance, Kind::Keep, ENTRIES, 2500);
    load::send(&instance, Kind::Register, CONTACTS, 2000);
    instance
}

/// 3,000 more entries, none of which ever goes; and of the contacts every one goes and 2,300 others
/// come, which is more bytes than the entries take. Many of them come where others have just gone.
#[track_caller]
fn go_on(instance: &Instance) {
    instance.rpc().delete_contacts((1..=CONTACTS).map(|number| format!("user{number}")));
    load::send(instance, Kind::Register, CONTACTS + 2000, 2000);
    load::send_with_call_ids(instance, Kind::Keep, 3000, 2500, "later%u");
}

#[track_caller]
fn check(manager: Manager) {
    let scratch = tools::scratch(&format!("growth-{}", manager.name()));
    let (a, b) = (scratch.join("a.tar.zst"), scratch.join("b.tar.zst"));
    let instance = instance(manager);
    let before = oracle::collect_between_readings(&instance, &a).reading;
    go_on(&instance);
    let after = oracle::collect_between_readings(&instance, &b).reading;

    let found = diff(&[&a, &b]);
    assert!(found.same_run, "{}", found.same_run_because);
    for mark in ["boot", "PID", "start time", "shared pool"] {
        assert!(found.same_run_because.contains(mark), "{}", found.same_run_because);
    }
    assert_eq!(found.by_site(), change(&before, &after), "by site; diff and mod.stats");

    let leak = found.first();
    assert_eq!(leak.function.as_deref(), Some(LEAK), "{found:?}");
    assert_eq!(leak.fragments_before, u64::from(ENTRIES));
    assert_eq!(leak.fragments_change, 3000);
    assert_eq!(leak.survived, Some(u64::from(ENTRIES)), "an entry stays where it is");
    assert_eq!(leak.unchanged, leak.survived, "and as it is, whoever comes beside it");
    assert_eq!((leak.vanished, leak.new), (Some(0), Some(3000)));

    let cache = found.owner(CACHE);
    assert!(cache.bytes_change > leak.bytes_change, "the cache has grown by more: {cache:?}");
    assert_eq!((cache.fragments_before, cache.fragments_change), (u64::from(CONTACTS), 2000));
    assert_eq!(cache.unchanged, Some(0), "its contacts went: {cache:?}");
    if manager == Manager::Tlsf {
        // Its free lists hand out the last place first.
        assert!(cache.survived > Some(0), "others came to their places: {cache:?}");
    }

    let seconds = frozen(&b) - frozen(&a);
    assert!((found.seconds.unwrap() - seconds).abs() < 1e-3, "{:?}, {seconds}", found.seconds);
    #[expect(clippy::as_conversions, reason = "a few hundred thousand bytes fit")]
    let rate = leak.bytes_change as f64 * 3600.0 / seconds;
    let told = leak.bytes_per_hour.unwrap();
    assert!((told / rate - 1.0).abs() < 1e-4, "rate {told}, expected {rate}");

    // Every process's private pool is found again, by its own PID.
    let private: Vec<&Pool> = found.pools.iter().filter(|pool| pool.kind == "pkg").collect();
    let pids: Vec<Vec<Option<u32>>> =
        instance.pids().iter().map(|pid| vec![Some(*pid), Some(*pid)]).collect();
    assert_eq!(private.iter().map(|pool| pool.pids.clone()).collect::<Vec<_>>(), pids);
    for pool in private {
        let sum: i64 = pool.owners.iter().map(|owner| owner.bytes_change).sum();
        assert_eq!(sum, pool.bytes_change, "{:?}", pool.pids);
    }

    // The order of the arguments does not matter, and the report says that it was another.
    let turned = diff(&[&b, &a]);
    assert!(turned.reordered && !found.reordered);
    assert_eq!(turned.snapshots.first().unwrap().inputs, std::slice::from_ref(&a));
    assert_eq!(turned.by_site(), found.by_site());
    assert!(diff_text(&[&b, &a]).contains("given in another order"));
    // The same snapshot twice: nothing changed.
    let nothing = diff(&[&a, &a]);
    assert_eq!((nothing.owners.len(), nothing.seconds), (0, None));
}

#[test]
fn q_malloc() {
    check(Manager::Qm);
}

#[test]
fn f_malloc() {
    check(Manager::Fm);
}

#[test]
fn tlsf_malloc() {
    check(Manager::Tlsf);
}

#[test]
fn three_snapshots_show_whether_growth_goes_on() {
    let scratch = tools::scratch("growth-three");
    let path = |name: &str| scratch.join(format!("{name}.tar.zst"));
    let (a, b, c) = (path("a"), path("b"), path("c"));
    let instance = instance(Manager::Qm);
    tools::collect(instance.main_pid(), &a);
    load::send_with_call_ids(&instance, Kind::Keep, 1000, 2500, "second%u");
    load::send(&instance, Kind::Register, CONTACTS + 2000, 2000);
    tools::collect(instance.main_pid(), &b);
    load::send_with_call_ids(&instance, Kind::Keep, 1000, 2500, "third%u");
    instance.rpc().delete_contacts((1..=500).map(|number| format!("user{number}")));
    tools::collect(instance.main_pid(), &c);
    let found = diff(&[&a, &b, &c]);
    let (leak, cache) = (found.first(), found.owner(CACHE));
    assert_eq!(leak.function.as_deref(), Some(LEAK), "{found:?}");
    assert_eq!((leak.fragments_change, leak.growing_steps), (2000, 2));
    assert_eq!(leak.survived, Some(u64::from(ENTRIES)));
    assert!(cache.bytes_change > leak.bytes_change, "{cache:?}");
    assert_eq!(cache.growing_steps, 1, "{cache:?}");
    let text = diff_text(&[&a, &b, &c]);
    assert!(text.contains("5,000, 6,000, 7,000 fragments; grew in 2 of 2 steps"), "{text}");
}

#[test]
fn two_runs_of_one_configuration_are_compared_by_owner() {
    let scratch = tools::scratch("growth-runs");
    let (a, b) = (scratch.join("a.tar.zst"), scratch.join("b.tar.zst"));
    let (first, second) = (instance(Manager::Qm), instance(Manager::Qm));
    load::send_with_call_ids(&second, Kind::Keep, 500, 2500, "more%u");
    let before = oracle::collect_between_readings(&first, &a).reading;
    let after = oracle::collect_between_readings(&second, &b).reading;
    let found = diff(&[&a, &b]);
    assert!(!found.same_run, "{}", found.same_run_because);
    assert!(found.same_run_because.contains("PID"), "{}", found.same_run_because);
    assert_eq!(found.by_site(), change(&before, &after), "by site; diff and mod.stats");
    let leak = found.first();
    assert_eq!((leak.function.as_deref(), leak.fragments_change), (Some(LEAK), 500), "{found:?}");
    assert_eq!((leak.survived, leak.new), (None, None), "no fragment is another run's");
    assert!(leak.bytes_after > leak.bytes_before);
    // Private pools by their place in the process table.
    let private = found.pools.iter().filter(|pool| pool.kind == "pkg");
    let pids: Vec<Vec<Option<u32>>> = private.map(|pool| pool.pids.clone()).collect();
    let pairs = first.pids().iter().zip(second.pids());
    assert_eq!(pids, pairs.map(|(one, two)| vec![Some(*one), Some(*two)]).collect::<Vec<_>>());
    let text = diff_text(&[&a, &b]);
    assert!(text.contains("Run        not the same"), "{text}");
}

#[test]
fn cores_of_one_process_show_growth_without_a_rate() {
    let scratch = tools::scratch("growth-cores");
    let core = |name: &str| scratch.join(name);
    let (a, b, by_kernel) = (core("a.core"), core("b.core"), core("kernel.core"));
    let instance = instance(Manager::Qm);
    let worker = instance.pids()[1];
    gdb::gcore(worker, &a);
    go_on(&instance);
    gdb::gcore(worker, &b);
    proc::stop_all(instance.pids());
    kernel::dump(worker, instance.directory(), &by_kernel);
    for later in [&b, &by_kernel] {
        let found = diff(&[&a, later]);
        assert!(found.same_run, "{}", found.same_run_because);
        assert!(found.same_run_because.contains("start time"), "{}", found.same_run_because);
        assert_eq!(found.seconds, None);
        assert!(found.no_rate_because.as_ref().unwrap().contains("not recorded"));
        assert!(found.snapshots.iter().all(|snapshot| snapshot.taken.is_none()));
        let leak = found.first();
        assert_eq!((leak.function.as_deref(), leak.fragments_change), (Some(LEAK), 3000));
        assert_eq!((leak.survived, leak.bytes_per_hour), (Some(u64::from(ENTRIES)), None));
        assert_eq!(leak.fragments_after, 8000);
        let pids: Vec<_> = found.pools.iter().map(|pool| pool.pids.clone()).collect();
        assert_eq!(pids, [vec![None, None], vec![Some(worker), Some(worker)]]);
    }
    let text = diff_text(&[&a, &b]);
    assert!(text.contains("no rate: the time of A is not recorded"), "{text}");
    assert!(!text.contains("per hour"), "{text}");
}
