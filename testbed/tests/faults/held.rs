//! Targets that cannot be stopped, or that somebody else has stopped.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use testbed::{proc, tools};

use crate::attempt::{Attempt, assert_untouched, start};

#[test]
fn a_group_that_was_stopped_stays_stopped_and_is_collected_whole() {
    let target = start(&["group", "2"]);
    let group = crate::attempt::family(target.pid());
    proc::stop_all(&group);
    let attempt = Attempt::of(target.pid(), &[]);
    assert_eq!(attempt.code(), Some(0), "{attempt:?}");
    assert_eq!(attempt.manifest.processes.len(), 3);
    for process in &attempt.manifest.processes {
        assert!(process.was_stopped && process.unstopped.is_empty(), "{process:?}");
    }
    let said = attempt.finished.text();
    assert_eq!(said.matches("was stopped before, and still is").count(), 3, "{said}");
    for &pid in &group {
        assert_untouched(pid, 'T');
    }
    proc::continue_all(&group);
    for &pid in &group {
        assert_untouched(pid, 'S');
    }
}

#[test]
fn a_vfork_parent_is_read_as_it_waits_and_marked() {
    let target = start(&["vfork"]);
    let child: u32 = target.said.trim().parse().unwrap();
    let attempt = Attempt::of(target.pid(), &[]);
    assert_eq!(attempt.code(), Some(1), "it says that it is not of one moment: {attempt:?}");
    let parent = attempt.manifest.processes.iter().find(|one| one.pid == target.pid()).unwrap();
    assert_eq!(parent.unstopped[0].why, "uninterruptible sleep (state D)");
    assert_untouched(target.pid(), 'D');
    assert_untouched(child, 'S');
    proc::signal(child, Signal::SIGKILL);
}

#[test]
fn guarded_pages_are_no_gap() {
    let target = start(&["guards"]);
    let attempt = Attempt::of(target.pid(), &[]);
    assert_eq!(attempt.code(), Some(0), "{attempt:?}");
    assert!(attempt.manifest.gaps.iter().all(|gap| gap.expected), "{attempt:?}");
    assert_untouched(target.pid(), 'S');
}

/// gdb on a process; lets it go and ends with its test.
struct Debugger(Child);

impl Debugger {
    fn attach(pid: u32) -> Self {
        let mut gdb = Command::new("gdb");
        gdb.args(["-nx", "-q", "-iex", "set debuginfod enabled off", "-p", &pid.to_string()]);
        gdb.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = gdb.spawn().expect("gdb starts");
        proc::until("gdb holds the process", || {
            proc::threads(pid).iter().all(|(_, tracer, state)| *tracer != 0 && *state == 't')
        });
        Self(child)
    }
}

impl Drop for Debugger {
    fn drop(&mut self) {
        // Killed, gdb would leave its own SIGSTOP behind.
        drop(self.0.stdin.take());
        let _ = tools::wait(&mut self.0, Duration::from_secs(20));
    }
}

#[test]
fn what_gdb_holds_is_read_and_left_to_gdb() {
    let target = start(&["threads", "3"]);
    let debugger = Debugger::attach(target.pid());
    let attempt = Attempt::of(target.pid(), &[]);
    assert_eq!(attempt.code(), Some(1), "{attempt:?}");
    let process = &attempt.manifest.processes[0];
    let held = format!("held by tracer {}", debugger.0.id());
    let whys: Vec<&str> = process.unstopped.iter().map(|thread| thread.why.as_str()).collect();
    assert_eq!(whys, [held.as_str(); 4]);
    assert!(process.bytes["data"] > 0, "its memory was read: {process:?}");
    for (_, tracer, state) in proc::threads(target.pid()) {
        assert_eq!((tracer, state), (debugger.0.id(), 't'), "gdb still holds it");
    }
    drop(debugger);
    assert_untouched(target.pid(), 'S');
}
