//! A worker that was stopped inside the lock of shared memory.

use testbed::hang::{self, pool};
use testbed::kamailio::{Instance, Manager, Options};
use testbed::load;

use crate::answers;

fn a_worker_stopped_inside_the_pool(manager: Manager) {
    let instance = Instance::start(Options { manager, ..hang::options() });
    let hang = pool::stop_inside(&instance, manager);
    let held = &hang.pool;
    let answers = answers::of(&format!("pool-{}", manager.name()), &instance);
    let shm_malloc = format!("{}_shm_malloc", manager.name());

    answers.assert_first("lock-held", &["stopped", "shared pool", &shm_malloc]);
    answers.assert_first_names(held.lock, held.waiters.iter().chain([&held.holder]));
    answers.assert_waits(held.lock, &held.waiters, Some(&held.holder));
    for process in held.waiters.iter().chain([&held.holder]) {
        answers.thread(process).assert_in(&shm_malloc);
    }
    assert!(answers.thread(&held.holder).state.contains("stopped"));
    assert!(answers.cycles().is_empty());

    drop(hang);
    load::answered(&instance, 20);
}

#[test]
fn a_worker_stopped_inside_the_pool_of_qm() {
    a_worker_stopped_inside_the_pool(Manager::Qm);
}

#[test]
fn a_worker_stopped_inside_the_pool_of_fm() {
    a_worker_stopped_inside_the_pool(Manager::Fm);
}

#[test]
fn a_worker_stopped_inside_the_pool_of_tlsf() {
    a_worker_stopped_inside_the_pool(Manager::Tlsf);
}

/// Who waits for the pool holds what the others wait for: the cause comes first, with all of them.
#[test]
fn a_chain_that_ends_at_a_stopped_worker() {
    let instance = Instance::start(hang::options());
    let hang = pool::stop_before_a_holder(&instance, Manager::Qm);
    let (held, behind) = (&hang.pool, hang.behind.as_ref().expect("a second lock"));
    let answers = answers::of("pool-chain", &instance);

    answers.assert_first("lock-held", &["stopped", "shared pool", "qm_shm_malloc"]);
    answers.assert_first_names(held.lock, held.waiters.iter().chain([&held.holder]));
    answers.assert_first_names(behind.lock, &behind.waiters);
    answers.assert_waits(held.lock, &held.waiters, Some(&held.holder));
    answers.assert_waits(behind.lock, &behind.waiters, Some(&behind.holder));
    assert!(answers.cycles().is_empty());

    drop(hang);
    load::answered(&instance, 20);
}
