//! Locks that threads wait for and that are not given back.

use std::time::Duration;

use super::waiting::{holder_does, holder_name, how_known, lock_name, thread_name, waits, way};
use super::{Confidence, Fact, Finding, Rule, Severity, fact, fact_at};
use crate::case::{Case, Doing};
use crate::locks::{Holder, How, Lock, Presence, Wait};

pub(super) struct LockHeld;

impl Rule for LockHeld {
    fn id(&self) -> &'static str {
        "lock-held"
    }

    fn check(&self, case: &Case) -> Vec<Finding> {
        let mut locks: Vec<(usize, &Lock)> = case.locks.locks.iter().enumerate().collect();
        // Where a holder itself waits for a lock, that other lock is the cause.
        locks.sort_by_key(|(_, lock)| holder_waits(case, lock));
        locks.into_iter().filter_map(|(index, lock)| self.finding(case, index, lock)).collect()
    }
}

impl LockHeld {
    fn finding(&self, case: &Case, index: usize, lock: &Lock) -> Option<Finding> {
        let waiters: Vec<&Wait> = case.locks.waits_for(index).collect();
        let holder = lock.holder.as_ref();
        if super::lock_on_stack::is_misplaced(lock) || leads_to_cycle(case, index) {
            return None;
        }
        let severity = severity(case, lock, &waiters)?;
        let lasting = waiters.iter().any(|wait| wait.is_stuck());
        let held = match holder {
            Some(holder) => {
                format!("held by {}, {}", holder_name(case, holder), holder_does(case, holder))
            }
            None if lock.word == Some(0) => "which is free: a wake-up was lost".to_owned(),
            None if lock.readers > 0 => {
                format!("held for reading {} times: readers are not recorded", lock.readers)
            }
            None => "whose holder is not recorded and could not be inferred".to_owned(),
        };
        let waiting = match waiters.len() {
            1 => "1 thread waits".to_owned(),
            count => format!("{count} threads wait"),
        };
        let mut facts: Vec<Fact> = waiters.iter().map(|wait| waits(case, wait)).collect();
        facts.extend(
            holder.map(|holder| fact_at(lock.at, format!("its holder: {}", how_known(holder)))),
        );
        facts.extend(waiters.iter().flat_map(|wait| behind(case, wait)));
        facts.extend(nobody_else(case, lock, &waiters).map(fact));
        let view = holder.and_then(|holder| case.threads.get(holder.thread?));
        facts.extend(view.map(|view| fact(format!("the holder's stack: {}", way(view)))));
        let inferred =
            matches!(holder.map(|holder| &holder.how), Some(How::Inferred { .. }) | None);
        let confidence = match (lasting, inferred) {
            (true, false) => Confidence::Certain,
            (true, true) => Confidence::Likely,
            (false, _) => Confidence::Possible,
        };
        Some(Finding {
            rule: self.id(),
            severity,
            confidence,
            summary: format!("{waiting} for the {}, {held}", lock_name(lock)),
            facts,
            advice: advice(case, holder),
        })
    }
}

/// What follows for a lock without a known holder where every thread that does not wait for it is
/// idle.
fn nobody_else(case: &Case, lock: &Lock, waiters: &[&Wait]) -> Option<&'static str> {
    let waits = |thread: usize| waiters.iter().any(|wait| wait.thread == thread);
    let idle = |thread: usize| matches!(case.doing(thread), Doing::Idle { .. });
    let taken = lock.holder.is_none() && lock.word != Some(0);
    let others_idle = (0..case.threads.len()).all(|thread| waits(thread) || idle(thread));
    (taken && others_idle && case.missing_processes().is_empty()).then_some(
        "every other thread is idle: one of the waiters has taken the lock before, somebody went \
         back to work without giving it back, or its holder has ended",
    )
}

fn holder_waits(case: &Case, lock: &Lock) -> bool {
    let holder = lock.holder.as_ref().and_then(|holder| holder.thread);
    holder.is_some_and(|thread| case.locks.wait_of(thread).is_some())
}

/// The locks that a waiter holds meanwhile, and that others wait for.
fn behind(case: &Case, wait: &Wait) -> Vec<Fact> {
    let locks = case.locks.locks.iter().enumerate();
    let held = locks.filter(|(_, lock)| {
        lock.holder.as_ref().is_some_and(|holder| holder.thread == Some(wait.thread))
    });
    let tell = |(index, lock): (usize, &Lock)| {
        let waiters = case.locks.waits_for(index);
        let names: Vec<String> = waiters.map(|behind| thread_name(case, behind.thread)).collect();
        let name = thread_name(case, wait.thread);
        fact_at(lock.at, format!("{name} holds lock {}, awaited by {}", lock.at, names.join(", ")))
    };
    held.map(tell).collect()
}

/// Whether following the holders from a lock ends in a circle, which is a finding of its own.
fn leads_to_cycle(case: &Case, lock: usize) -> bool {
    let mut at = lock;
    for _ in 0..=case.locks.locks.len() {
        let in_cycle = case
            .locks
            .cycles
            .iter()
            .flatten()
            .any(|wait| case.locks.waits.get(*wait).is_some_and(|wait| wait.lock == at));
        if in_cycle {
            return true;
        }
        let holder = case.locks.locks.get(at).and_then(|lock| lock.holder.as_ref()?.thread);
        match holder.and_then(|thread| case.locks.wait_of(thread)) {
            Some(wait) => at = wait.lock,
            None => return false,
        }
    }
    false
}

/// Threads that wait for one lock at one moment in a program without known workers, before it is
/// worth a warning.
const MANY: usize = 3;

/// How bad it is; `None` for what is seen in every busy program.
///
/// Two samples show who does not move. One moment shows less: that most of the workers wait for one
/// lock, or that its holder does something else meanwhile.
fn severity(case: &Case, lock: &Lock, waiters: &[&Wait]) -> Option<Severity> {
    let doing =
        lock.holder.as_ref().and_then(|holder| holder.thread).map(|thread| case.doing(thread));
    // Threads of a pool take turns to wait for work with a lock in their hands.
    if !lock.kind.is_kamailio() && matches!(doing, Some(Doing::Idle { .. })) {
        return Some(Severity::Note);
    }
    if waiters.iter().any(|wait| wait.is_stuck()) {
        return Some(Severity::Critical);
    }
    if lock.holder.as_ref().is_some_and(|holder| holder.presence == Presence::Ended) {
        return Some(Severity::Critical);
    }
    // Samples that show them moving count for more than one moment.
    if waiters.iter().any(|wait| wait.lasted == Some(Duration::ZERO)) || lock.word == Some(0) {
        return None;
    }
    let workers = case.workers();
    let many = match workers.is_empty() {
        true => waiters.len() >= MANY,
        false => {
            let waiting = waiters.iter().filter(|wait| workers.contains(&wait.thread)).count();
            waiting > 1 && waiting.saturating_mul(2) >= workers.len()
        }
    };
    let busy = matches!(doing, Some(Doing::Stopped(_) | Doing::Blocked { .. }));
    match (many, busy || waiters.len() > 1) {
        (true, _) => Some(Severity::Warning),
        (false, true) => Some(Severity::Note),
        (false, false) => None,
    }
}

fn advice(case: &Case, holder: Option<&Holder>) -> String {
    let doing = holder.and_then(|holder| holder.thread).map(|thread| case.doing(thread));
    match (holder.map(|holder| holder.presence), doing) {
        (Some(Presence::Ended), _) if holder.is_some_and(|holder| holder.tid.is_some()) => {
            "That thread has returned or was cancelled while it held the lock. The thread that \
             waits is not to blame; only a restart helps it."
        }
        (Some(Presence::Ended), _) => {
            "Look in the log for the end of that process (\"exited by a signal\") and for its core: \
             it died while it held the lock. Only a restart helps the others."
        }
        (_, Some(Doing::Stopped(_))) => {
            "Find out who stopped the holder (a debugger, SIGSTOP, a full terminal). SIGCONT lets \
             it go on, if nothing else is wrong with it."
        }
        (_, Some(Doing::Blocked { .. })) => {
            "The holder waits for something outside the program while it holds the lock: that peer \
             or file is what to look at first. Code that waits must not hold a lock."
        }
        _ => {
            "Give this bundle to a maintainer: the holder's stack says in which function the lock \
             is held for so long."
        }
    }
    .to_owned()
}
