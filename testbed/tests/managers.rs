//! The memory managers whose fragments are not read yet: their pools are saved, found and named, and
//! nothing is said about what they hold.

use testbed::elf::Core;
use testbed::kamailio::{Instance, Manager, Options};
use testbed::{load, oracle, shmlog, tools};

/// `size_at`: offset in the pool's block of the word that holds its length; the next two words hold
/// what is in use, without and with overhead.
#[track_caller]
fn check(manager: Manager, name: &str, size_at: u64) {
    let instance = Instance::start(Options { manager, ..Options::default() });
    oracle::exercise(&instance, 2000);
    let bundle = instance.directory().join("group.tar.zst");
    let before = instance.rpc().reading();
    tools::collect(instance.main_pid(), &bundle);
    assert_eq!(instance.rpc().reading(), before);
    load::answered(&instance, 20);

    let heap = oracle::heap(&[&bundle]);
    assert_eq!(heap.private().count(), instance.pids().len());
    for pool in &heap.pools {
        assert_eq!(pool.manager, name);
        assert!(pool.is_untold(), "figures of a pool that was not read: {pool:?}");
        let why = pool.error.as_deref().unwrap_or_default();
        assert!(why.contains(name), "the reason names the manager: {why:?}");
        assert!(heap.gaps.iter().any(|gap| gap.why == why), "{why:?} is a gap: {:?}", heap.gaps);
    }

    // The pool's block is where the analysis says, with the figures that the instance gave.
    let core = instance.directory().join("main.core");
    oracle::extract(&bundle, instance.main_pid(), &core);
    let shared = before.shared;
    let found = Core::open(&core).find(&[shared.total, shared.used, shared.real_used]);
    assert_eq!(found, [shmlog::hex(&heap.shared().block) + size_at], "the shared pool's counters");
}

#[test]
fn f_malloc() {
    check(Manager::Fm, "f_malloc", 8);
}

#[test]
fn tlsf_malloc() {
    check(Manager::Tlsf, "tlsf_malloc", 64);
}
