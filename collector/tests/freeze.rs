//! Freezing: what stands still, what does not, and that everything is let go on every path.

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bundle::notes::RegisterSource;
use collector::freeze::{Frozen, Limits};
use common::{Victim, assert_untouched, statuses, wait_until};
use nix::sys::signal::Signal;

const LIMITS: Limits = Limits { stop: Duration::from_millis(500), pause: Duration::from_secs(20) };

#[test]
fn every_thread_stands_still_and_goes_on() {
    let victim = Victim::start(&["threads", "15"]);
    let frozen = Frozen::new(&[victim.pid()], LIMITS).unwrap();
    assert_eq!(frozen.threads().len(), 16);
    for thread in frozen.threads() {
        assert_eq!(thread.registers.source, RegisterSource::Stopped);
        assert_eq!(thread.unstopped, None);
    }
    assert!(statuses(victim.pid(), "State").iter().all(|state| state.starts_with('t')));
    let (_, pauses) = frozen.thaw();
    assert_eq!(pauses.len(), 1);
    assert!(pauses[0].length < Duration::from_secs(5), "{pauses:?}");
    assert_untouched(victim.pid(), 'S');
}

#[test]
fn a_panic_lets_everything_go() {
    let victim = Victim::start(&["threads", "3"]);
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _frozen = Frozen::new(&[victim.pid()], LIMITS).unwrap();
        panic!("while the group stands still");
    }));
    assert!(panicked.is_err());
    assert_untouched(victim.pid(), 'S');
}

#[test]
fn the_pause_limit_lets_everything_go_by_itself() {
    let victim = Victim::start(&["threads", "3"]);
    let limits = Limits { pause: Duration::from_millis(100), ..LIMITS };
    let frozen = Frozen::new(&[victim.pid()], limits).unwrap();
    let expired = frozen.expired();
    assert!(!expired.load(Ordering::SeqCst));
    wait_until("the limit passes", || expired.load(Ordering::SeqCst));
    wait_until("it runs", || statuses(victim.pid(), "TracerPid").iter().all(|by| by == "0"));
    assert_untouched(victim.pid(), 'S');
    let (_, pauses) = frozen.thaw();
    assert!(pauses[0].length >= Duration::from_millis(90), "{pauses:?}");
}

#[test]
fn what_was_stopped_stays_stopped() {
    let victim = Victim::start(&["threads", "2"]);
    victim.signal(Signal::SIGSTOP);
    wait_until("it is stopped", || {
        statuses(victim.pid(), "State").iter().all(|state| state.starts_with('T'))
    });
    let frozen = Frozen::new(&[victim.pid()], LIMITS).unwrap();
    assert_eq!(frozen.threads()[0].registers.source, RegisterSource::Stopped);
    frozen.thaw();
    std::thread::sleep(Duration::from_millis(50));
    assert_untouched(victim.pid(), 'T');
    victim.signal(Signal::SIGCONT);
    assert_untouched(victim.pid(), 'S');
}

#[test]
fn a_signal_that_comes_while_it_is_frozen_is_delivered() {
    let mut victim = Victim::start(&["threads", "1"]);
    let frozen = Frozen::new(&[victim.pid()], LIMITS).unwrap();
    victim.signal(Signal::SIGTERM);
    std::thread::sleep(Duration::from_millis(20));
    assert!(statuses(victim.pid(), "State").iter().all(|state| state.starts_with('t')));
    frozen.thaw();
    victim.assert_ended();
}

#[test]
fn a_vfork_parent_is_marked_and_does_not_hold_the_freeze() {
    let victim = Victim::start(&["vfork"]);
    let child = u32::try_from(victim.said("child")).unwrap();
    let begun = Instant::now();
    let frozen = Frozen::new(&[victim.pid(), child], LIMITS).unwrap();
    assert!(begun.elapsed() < Duration::from_millis(1500), "{:?}", begun.elapsed());
    let [parent, child_thread] = frozen.threads() else { panic!("{:?}", frozen.threads()) };
    let (parent, child_thread) =
        if parent.pid == child { (child_thread, parent) } else { (parent, child_thread) };
    assert_eq!(child_thread.unstopped, None);
    assert_eq!(parent.unstopped.as_deref(), Some("uninterruptible sleep (state D)"));
    assert_eq!(parent.registers.source, RegisterSource::SystemCallFile);
    frozen.thaw();
    assert_untouched(victim.pid(), 'D');
    assert_untouched(child, 'S');
    common::end(child);
}

#[test]
fn what_another_tracer_holds_is_marked_and_left_to_it() {
    let victim = Victim::start(&["threads", "0"]);
    let tracer = Victim::start(&["trace", &victim.pid().to_string()]);
    let frozen = Frozen::new(&[victim.pid()], LIMITS).unwrap();
    let held = format!("held by tracer {}", tracer.pid());
    assert_eq!(frozen.threads()[0].unstopped.as_deref(), Some(held.as_str()));
    frozen.thaw();
    assert_eq!(statuses(victim.pid(), "TracerPid"), [tracer.pid().to_string()]);
    drop(tracer);
    assert_untouched(victim.pid(), 'S');
}
