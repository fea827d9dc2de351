//! An instance in a PID and mount namespace, as in a container, collected from outside.

use testbed::kamailio::{Instance, Options};
use testbed::oracle;
use testbed::unpacked::Unpacked;

#[test]
fn a_namespaced_group_says_what_kamailio_said() {
    let instance = Instance::start(Options { namespace: true, ..Options::default() });
    oracle::exercise(&instance, 5000);
    let bundle = instance.directory().join("group.tar.zst");
    let oracle = oracle::collect_between_readings(&instance, &bundle);
    oracle.assert_group(&oracle::heap(&[&bundle]));
    oracle.assert_fragments(oracle::fragments(&[&bundle]).shared());

    let manifest = Unpacked::open(&bundle).manifest();
    assert_eq!(manifest.processes.len(), instance.pids().len());
    for process in manifest.processes {
        assert_eq!(oracle.outer_pid[&process.inner_pid], process.pid, "inner and outer PID");
    }
}
