//! Targets that end, fork and start threads while they are collected.

use std::time::Duration;

use nix::sys::signal::Signal;
use testbed::{proc, tools};

use crate::attempt::{
    Attempt, DEADLINE, Running, assert_untouched, collector, family, manifest, start, verify,
};

/// When a target ends: so many microseconds after the collector has said this.
const MOMENTS: [(&str, u64); 4] =
    [("target: ", 0), ("freezing ", 0), ("freezing ", 3000), ("thawed: ", 0)];

#[test]
fn a_target_that_is_killed_in_the_middle_leaves_a_whole_bundle() {
    for (mark, delay) in MOMENTS {
        let target = start(&["group", "2"]);
        let mut running = Running::start(target.pid());
        running.wait_for(mark, delay);
        proc::signal(target.pid(), Signal::SIGKILL);
        let status = running.end();
        assert!(matches!(status.code(), Some(0 | 1)), "killed at `{mark}`: {status}");
        verify(&running.output());
    }
}

#[test]
fn a_child_that_is_killed_in_the_middle_costs_only_itself() {
    for (mark, delay) in MOMENTS {
        let target = start(&["group", "3"]);
        let child = proc::descendants(target.pid())[1];
        let mut running = Running::start(target.pid());
        running.wait_for(mark, delay);
        proc::signal(child, Signal::SIGKILL);
        let status = running.end();
        assert!(matches!(status.code(), Some(0 | 1)), "killed at `{mark}`: {status}");
        let manifest = manifest(&running.output());
        let whole = manifest.processes.iter().filter(|process| process.threads == 1);
        assert!(whole.count() >= 3, "killed at `{mark}`: {:?}", manifest.processes);
        for pid in family(target.pid()).into_iter().filter(|pid| *pid != child) {
            assert_untouched(pid, 'S');
        }
    }
}

#[test]
fn a_target_that_ended_before_is_refused_in_words() {
    let target = start(&["group", "0"]);
    let pid = target.pid();
    drop(target);
    let mut command = collector();
    command.args(["--pid", &pid.to_string(), "-o", "/nonexistent/b.tar.zst"]);
    let refused = tools::run(&mut command, DEADLINE).expect(&[2]);
    assert!(refused.errors().contains(&format!("there is no process {pid}")), "{refused:?}");
}

#[test]
fn a_target_that_forks_without_end_is_collected() {
    let target = start(&["forks"]);
    for _ in 0..3 {
        let attempt = Attempt::of(target.pid(), &[]);
        let main = attempt.manifest.processes.iter().find(|one| one.pid == target.pid()).unwrap();
        assert_eq!((main.threads, main.unstopped.len()), (1, 0), "{main:?}");
        assert!(proc::threads(target.pid()).iter().all(|thread| thread.1 == 0));
    }
    // Nobody it forked stands still for ever.
    for pid in proc::descendants(target.pid()) {
        proc::until(&format!("child {pid} ends"), || !proc::is_alive(pid));
    }
}

#[test]
fn a_target_that_starts_threads_without_end_is_collected() {
    let target = start(&["spawns"]);
    for _ in 0..3 {
        let attempt = Attempt::of(target.pid(), &[]);
        let main = &attempt.manifest.processes[0];
        assert!(main.threads >= 1, "{main:?}");
        assert!(main.unstopped.is_empty(), "every thread stood still: {main:?}");
        assert!(proc::threads(target.pid()).iter().all(|thread| thread.1 == 0));
    }
    proc::until("its threads come and go", || {
        let first = proc::threads(target.pid()).into_iter().map(|one| one.0).max();
        std::thread::sleep(Duration::from_millis(20));
        first != proc::threads(target.pid()).into_iter().map(|one| one.0).max()
    });
}
