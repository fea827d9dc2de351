//! The other two memory managers. Kamailio has exact figures of their shared pools only; in the
//! private ones the walk is compared with the pool's own counters.

use testbed::analysis::Heap;
use testbed::kamailio::{Instance, Manager, Options};
use testbed::oracle::{self, Oracle};

#[track_caller]
fn check(manager: Manager, name: &str) -> (Oracle, Heap) {
    let instance = Instance::start(Options { manager, ..Options::default() });
    oracle::exercise(&instance, 5000);
    let bundle = instance.directory().join("group.tar.zst");
    let oracle = oracle::collect_between_readings(&instance, &bundle);
    let heap = oracle::heap(&[&bundle]);
    assert!(heap.pools.iter().all(|pool| pool.manager == name), "every pool is of {name}");
    oracle.assert_shared(heap.shared());
    oracle.assert_private_walks(&heap);
    (oracle, heap)
}

#[test]
fn f_malloc() {
    let (oracle, heap) = check(Manager::Fm, "f_malloc");
    oracle.assert_shared_free(heap.shared());
}

#[test]
fn tlsf_malloc() {
    check(Manager::Tlsf, "tlsf_malloc");
}
