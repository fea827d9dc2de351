//! Who is frozen and saved: all processes of the one instance that is meant, and no other.

use std::collections::BTreeSet;
use std::path::Path;

use nix::sys::signal::Signal;
use testbed::kamailio::{Instance, Options};
use testbed::load::{self, Kind};
use testbed::proc::{self, Watch};
use testbed::tools;
use testbed::unpacked::Unpacked;

fn start() -> Instance {
    Instance::start(Options::default())
}

/// Collects by `pid` and asserts that exactly `group` is frozen and in the bundle, and that nobody
/// touches `others`.
#[track_caller]
fn check(pid: u32, bundle: &Path, group: &[u32], others: &[u32]) {
    let group: BTreeSet<u32> = group.iter().copied().collect();
    let all: Vec<u32> = group.iter().chain(others).copied().collect();
    let watch = Watch::start(&all);
    let finished = tools::collect(pid, bundle);
    let traced = watch.stop();

    let foreign: Vec<_> = traced.difference(&group).collect();
    assert!(foreign.is_empty(), "{foreign:?} are not of the group but were frozen: {finished:?}");
    assert!(!traced.is_empty(), "the watch saw nobody frozen, so it proves nothing: {finished:?}");
    let saved: BTreeSet<u32> = Unpacked::open(bundle).pids().into_iter().collect();
    assert_eq!(saved, group, "processes in the bundle (left) and in the group: {finished:?}");
    for pid in all {
        let threads = proc::threads(pid);
        let free = threads.iter().all(|thread| thread.1 == 0 && !"tT".contains(thread.2));
        assert!(free, "process {pid} runs on: {threads:?}");
    }
    assert!(finished.text().trim_end().ends_with("safe to restart now"), "{finished:?}");
}

#[test]
fn two_instances_side_by_side() {
    let (meant, other) = (start(), start());
    let bundle = meant.directory().join("group.tar.zst");

    // By name alone it cannot be known which one is meant: it must ask, and freeze nobody.
    let both: Vec<u32> = meant.pids().iter().chain(other.pids()).copied().collect();
    let watch = Watch::start(&both);
    let mut by_name = tools::collect_evidence();
    by_name.args(["--name", "kamailio", "-o"]).arg(&bundle);
    let refused = tools::run(&mut by_name, tools::PATIENCE).expect(&[2]);
    assert_eq!(watch.stop(), BTreeSet::new(), "nobody is frozen: {refused:?}");
    let said = refused.errors() + &refused.text();
    for instance in [&meant, &other] {
        let main = instance.main_pid();
        assert!(said.contains(&main.to_string()), "main process {main} is listed: {refused:?}");
    }
    assert!(!bundle.exists());

    check(meant.main_pid(), &bundle, meant.pids(), other.pids());
    // Any process of an instance stands for it.
    let bundle = other.directory().join("group.tar.zst");
    check(other.pids()[5], &bundle, other.pids(), meant.pids());
    load::answered(&meant, 20);
    load::answered(&other, 20);
}

#[test]
fn an_instance_whose_main_process_was_killed() {
    let (mut orphaned, other) = (start(), start());
    proc::signal(orphaned.main_pid(), Signal::SIGKILL);
    let main = orphaned.main_pid();
    proc::until("the main process is gone", || {
        orphaned.reap();
        !proc::is_alive(main)
    });
    let left = orphaned.survivors();
    assert_eq!(left.len(), 11, "the other processes live on");
    for (name, pid) in [("worker", left[0]), ("last", left[10])] {
        let bundle = orphaned.directory().join(format!("{name}.tar.zst"));
        check(pid, &bundle, &left, other.pids());
    }
    load::answered(&other, 20);
}

#[test]
fn a_child_that_runs_another_program() {
    let instance = start();
    load::send(&instance, Kind::Sleep, 1, 1);
    let mut child = None;
    proc::until("a worker has started `sleep`", || {
        let below = proc::descendants(instance.main_pid());
        child = below.into_iter().find(|pid| proc::command_line(*pid).starts_with("sleep "));
        child.is_some()
    });
    let child = child.unwrap();
    let bundle = instance.directory().join("group.tar.zst");
    check(instance.main_pid(), &bundle, instance.pids(), &[child]);
    assert!(proc::is_alive(child));
    proc::signal(child, Signal::SIGTERM);
    load::answered(&instance, 20);
}
