//! Threads that wait for each other in a circle, or for themselves.

use super::waiting::{holder_name, how_known, lock_name, thread_name, waits};
use super::{Confidence, Fact, Finding, Rule, Severity, fact_at};
use crate::case::Case;
use crate::locks::{How, Lock, Wait};

pub(super) struct LockCycle;

impl Rule for LockCycle {
    fn id(&self) -> &'static str {
        "lock-cycle"
    }

    fn check(&self, case: &Case) -> Vec<Finding> {
        let cycles = case.locks.cycles.iter();
        cycles.filter_map(|cycle| self.finding(case, cycle)).collect()
    }
}

impl LockCycle {
    fn finding(&self, case: &Case, cycle: &[usize]) -> Option<Finding> {
        let links: Vec<(&Wait, &Lock)> = cycle
            .iter()
            .filter_map(|wait| case.locks.waits.get(*wait))
            .filter_map(|wait| Some((wait, case.locks.lock_of(wait)?)))
            .collect();
        let (first, lock) = links.first()?;
        let summary = match links.len() {
            1 => format!(
                "{} waits for a lock that it holds itself: {}",
                thread_name(case, first.thread),
                lock_name(lock)
            ),
            count => {
                let names: Vec<String> =
                    links.iter().map(|(wait, _)| thread_name(case, wait.thread)).collect();
                format!("{count} threads wait for each other's locks: {}", names.join(" and "))
            }
        };
        let recorded = |lock: &Lock| {
            let how = lock.holder.as_ref().map(|holder| &holder.how);
            matches!(how, Some(How::LockerPid | How::OwnerField))
        };
        let limited = links.iter().any(|(wait, _)| wait.has_limit);
        let at_once = is_of_one_moment(case, &links);
        let certain = at_once && !limited && links.iter().all(|(_, lock)| recorded(lock));
        let mut facts: Vec<Fact> = Vec::new();
        for (wait, lock) in &links {
            facts.push(waits(case, wait));
            facts.extend(held(case, lock));
        }
        let others = case.locks.waits.iter().enumerate().filter(|(index, wait)| {
            !cycle.contains(index) && links.iter().any(|(link, _)| link.lock == wait.lock)
        });
        facts.extend(others.map(|(_, wait)| waits(case, wait)));
        Some(Finding {
            rule: self.id(),
            severity: Severity::Critical,
            confidence: if certain { Confidence::Certain } else { Confidence::Likely },
            summary,
            facts,
            advice: advice(limited, at_once).to_owned(),
        })
    }
}

/// Whether all that waits in a circle was seen at one moment: the collector freezes the group, while
/// cores of several processes are written one after the other.
fn is_of_one_moment(case: &Case, links: &[(&Wait, &Lock)]) -> bool {
    let member = |wait: &Wait| case.threads.get(wait.thread).map(|thread| thread.member);
    let mut members = links.iter().map(|(wait, _)| member(wait));
    let first = members.next();
    case.evidence.is_bundle || members.all(|member| Some(member) == first)
}

fn advice(limited: bool, at_once: bool) -> &'static str {
    match (limited, at_once) {
        (true, _) => {
            "At least one of them gives up after a time, and may then meet the others again. Locks \
             that are taken one inside the other must always be taken in the same order."
        }
        (false, false) => {
            "These cores were not written at one moment: each may have waited when its own was. If \
             the processes still hang, collect-evidence takes them all at once; else nothing but a \
             restart helps."
        }
        (false, true) => {
            "Nothing but a restart ends this. Look at the functions in which the locks are taken: \
             locks that are taken one inside the other must always be taken in the same order, and \
             a lock that is not recursive only once. A maintainer needs this bundle."
        }
    }
}

fn held(case: &Case, lock: &Lock) -> Option<Fact> {
    let holder = lock.holder.as_ref()?;
    let (name, how) = (holder_name(case, holder), how_known(holder));
    Some(fact_at(lock.at, format!("{} is held by {name} ({how})", lock_name(lock))))
}
