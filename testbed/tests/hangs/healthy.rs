//! Instances that do not hang: nothing from warning upwards, and who has nothing to do is idle.

use testbed::hang;
use testbed::kamailio::{Instance, Options, TABLES};
use testbed::load::{self, Kind, Traffic};

use crate::answers;

/// How often an instance under load is looked at.
const LOOKS: usize = 5;

#[test]
fn an_idle_instance() {
    let tables = Options { configuration: TABLES, ..Options::default() };
    for options in [Options::default(), tables, hang::options()] {
        let instance = Instance::start(options);
        if options.configuration != TABLES {
            load::answered(&instance, 20);
        }
        let answers = answers::of("idle", &instance);
        answers.assert_healthy();
        assert_eq!(answers.wait_count(), 0);
        for process in hang::processes(&instance) {
            let thread = answers.thread(&process);
            assert!(thread.state.starts_with("idle"), "{process:?}: {thread:#?}");
        }
    }
}

#[test]
fn an_instance_under_load() {
    // Two workers that share a hash table, and four that share nothing but the pool.
    for options in [Options::default(), hang::options()] {
        let instance = Instance::start(options);
        let mut traffic = Traffic::start(&instance, Kind::Pass, 1000);
        for _ in 0..LOOKS {
            answers::of("load", &instance).assert_healthy();
            traffic.assert_running();
        }
    }
}
