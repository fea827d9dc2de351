//! The holder of a slot of a hash table, which does something else, or is gone.

use testbed::hang::silent::{Fifo, Port};
use testbed::hang::slot::{self, Busy};
use testbed::hang::{self, Held};
use testbed::kamailio::Instance;
use testbed::{gdb, load, tools};

use crate::answers::{self, Answers};

/// All three other workers wait for the slot that the holder has.
#[track_caller]
fn assert_held(answers: &Answers, held: &Held) {
    answers.assert_first_names(held.lock, held.waiters.iter().chain([&held.holder]));
    answers.assert_waits(held.lock, &held.waiters, Some(&held.holder));
    assert_eq!(answers.wait_count(), held.waiters.len());
    for waiter in &held.waiters {
        answers.thread(waiter).assert_in("ht_slot_lock");
    }
    assert!(answers.cycles().is_empty());
}

#[test]
fn a_holder_that_reads_from_a_silent_child() {
    let instance = Instance::start(hang::options());
    let fifo = Fifo::new(&instance);
    let held = slot::hold(&instance, Busy::Reading(&fifo));
    let answers = answers::of("slot-read", &instance);

    answers.assert_first("lock-held", &["htable", "blocked in read(", "pipe", "exec_avp"]);
    assert_held(&answers, &held);
    answers.thread(&held.holder).assert_in("exec_avp");

    drop(fifo);
    load::answered(&instance, 20);
}

#[test]
fn a_holder_that_waits_for_a_child_to_end() {
    let instance = Instance::start(hang::options());
    let fifo = Fifo::new(&instance);
    let held = slot::hold(&instance, Busy::Waiting(&fifo));
    let answers = answers::of("slot-child", &instance);

    answers.assert_first("lock-held", &["htable", "blocked in wait4(child ", "exec_msg"]);
    assert_held(&answers, &held);
    answers.thread(&held.holder).assert_in("exec_msg");

    drop(fifo);
    load::answered(&instance, 20);
}

#[test]
fn a_holder_that_waits_for_a_connection() {
    let instance = Instance::start(hang::options());
    let port = Port::full();
    let held = slot::hold(&instance, Busy::Connecting(&port));
    let answers = answers::of("slot-connect", &instance);

    let peer = port.address().to_string();
    answers.assert_first("lock-held", &["htable", "blocked in poll(", &peer, "tcpconn_connect"]);
    assert_held(&answers, &held);
    answers.thread(&held.holder).assert_in("tcpconn_connect");
}

#[test]
fn a_holder_that_runs_in_circles() {
    let instance = Instance::start(hang::options());
    let held = slot::hold(&instance, Busy::Looping);
    let answers = answers::of("slot-loop", &instance);

    answers.assert_first("lock-held", &["htable", "running"]);
    assert_held(&answers, &held);
    assert!(answers.thread(&held.holder).cpu_percent.unwrap() > 5.0);
}

#[test]
fn a_holder_that_is_dead() {
    let mut instance = Instance::start(hang::options());
    let held = slot::die_holding(&mut instance);
    let answers = answers::of_group("slot-dead", held.waiters[0].pid);

    answers.assert_first("lock-held", &["htable", "has ended", "ht_slot_lock"]);
    assert_held(&answers, &held);
}

/// The core of one waiter alone: the lock knows its holder.
#[test]
fn a_holder_that_is_not_in_the_evidence() {
    let instance = Instance::start(hang::options());
    let fifo = Fifo::new(&instance);
    let held = slot::hold(&instance, Busy::Reading(&fifo));
    let directory = tools::scratch("hangs-slot-core");
    let core = directory.join("core");
    gdb::gcore(held.waiters[0].pid, &core);
    let answers = Answers::of(&core);
    std::fs::remove_dir_all(directory).unwrap();

    answers.assert_healthy(); // One moment does not tell a long wait from a short one.
    answers.assert_waits(held.lock, &held.waiters[..1], Some(&held.holder));
}
