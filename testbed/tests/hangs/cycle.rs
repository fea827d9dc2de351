//! Workers that wait for one another, and one that waits for itself.

use testbed::hang::{self, script, slot};
use testbed::kamailio::{Instance, Options};

use crate::answers;

fn two_workers_that_wait_for_each_other(name: &str, options: Options) {
    let instance = Instance::start(options);
    let cycle = slot::cycle(&instance);
    let answers = answers::of(name, &instance);

    answers.assert_first("lock-cycle", &["htable", "ht_slot_lock"]);
    for slot in &cycle.slots {
        answers.assert_first_names(slot.lock, [&slot.holder]);
        answers.assert_waits(slot.lock, &slot.waiters, Some(&slot.holder));
        answers.thread(&slot.holder).assert_in("ht_slot_lock");
    }
    assert_eq!(answers.wait_count(), 3);
    assert_eq!(answers.cycles().len(), 1, "{:?}", answers.cycles());
    assert!(answers.thread(&cycle.idle).state.starts_with("idle"));
}

#[test]
fn two_workers_wait_for_each_other() {
    two_workers_that_wait_for_each_other("cycle", hang::options());
}

/// Locks then know their holders by PIDs of the container.
#[test]
fn two_workers_in_a_container_wait_for_each_other() {
    let options = Options { namespace: true, ..hang::options() };
    two_workers_that_wait_for_each_other("cycle-namespace", options);
}

/// A plain lock does not know its holder: nothing that could be wrong is said.
#[test]
fn a_worker_that_waits_for_itself() {
    let instance = Instance::start(hang::options());
    let held = script::lock_twice(&instance);
    let answers = answers::of("twice", &instance);
    let mut all = held.waiters.clone();
    all.push(held.holder);

    answers.assert_first("lock-held", &["cfgutils", "not recorded"]);
    answers.assert_first_names(held.lock, &all);
    answers.assert_waits(held.lock, &all, None);
    assert_eq!(answers.wait_count(), all.len());
}
