//! The oracles agree with each other, before anything of ours is measured against them; and an
//! instance leaves nothing behind.

use testbed::kamailio::{Instance, Manager, Options};
use testbed::load::{self, Kind};
use testbed::{gdb, memlog, proc};

#[test]
fn kamailios_own_figures_agree_with_each_other() {
    let instance = Instance::start(Options::default());
    load::send(&instance, Kind::Keep, 2000, 1000);
    load::send(&instance, Kind::Register, 100, 1000);
    instance.rpc().delete_calls((1..100).map(|number| format!("k{}", number * 17)));
    let first = instance.rpc().reading();
    let summary = instance.log_of(|rpc| drop(rpc.call(&["corex.shm_summary"])));
    let status = instance.log_of(|rpc| drop(rpc.call(&["corex.shm_status"])));
    assert_eq!(instance.rpc().reading(), first);

    let summary = memlog::parse_summary(&summary);
    let status = memlog::parse_status(&status);
    let by_summary: u64 = summary.values().map(|share| share.bytes).sum();
    let by_status: u64 = status.used.iter().map(|fragment| fragment.size).sum();
    let by_site: u64 = first.shared_by_site.values().sum();
    assert_eq!([by_summary, by_status, by_site], [first.shared.used; 3]);
    let counted: u64 = summary.values().map(|share| share.fragments).sum();
    assert_eq!(counted, u64::try_from(status.used.len()).unwrap());
    assert_eq!(status.free_fragments, first.shared.fragments);
    assert!(first.shared.fragments > 50, "deletions left {} holes", first.shared.fragments);
}

#[test]
fn every_manager_starts_and_ends_with_its_value() {
    for manager in [Manager::Qm, Manager::Fm, Manager::Tlsf] {
        let instance = Instance::start(Options { manager, ..Options::default() });
        load::answered(&instance, 20);
        let pids = instance.pids().to_owned();
        drop(instance);
        let left: Vec<_> = pids.into_iter().filter(|pid| proc::is_alive(*pid)).collect();
        assert_eq!(left, [0; 0], "processes of {manager:?} that survived their instance");
    }
}

#[test]
fn a_namespace_has_its_own_numbers() {
    let instance = Instance::start(Options { namespace: true, ..Options::default() });
    load::answered(&instance, 20);
    assert_eq!(instance.rpc().processes()[0].pid, 1);
    assert_ne!(instance.main_pid(), 1);
    let pids = instance.pids().to_owned();
    drop(instance);
    assert!(!pids.into_iter().any(proc::is_alive), "a process survived its instance");
}

#[test]
fn gdb_dumps_a_core_that_the_reader_opens() {
    let instance = Instance::start(Options::default());
    let core = instance.directory().join("core.gdb");
    gdb::gcore(instance.main_pid(), &core);
    let core = testbed::elf::Core::open(&core);
    assert_eq!(core.threads(), [instance.main_pid()]);
    let pool = proc::shared_pool(instance.main_pid());
    let data = proc::seek_data(instance.main_pid(), &pool);
    let own = proc::read_memory(instance.main_pid(), data[0].start, 4096);
    assert!(core.at(data[0].start, 4096).equals(&own));
}
