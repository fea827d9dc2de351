//! Locks that no other process can ever release: they lie on a stack, or in memory of one process.

use super::waiting::{lock_name, waits};
use super::{Confidence, Finding, Rule, Severity};
use crate::case::Case;
use crate::locks::Lock;

pub(super) struct LockOnStack;

impl Rule for LockOnStack {
    fn id(&self) -> &'static str {
        "lock-on-stack"
    }

    fn check(&self, case: &Case) -> Vec<Finding> {
        let locks = case.locks.locks.iter().enumerate();
        locks
            .filter(|(_, lock)| is_misplaced(lock))
            .map(|(i, lock)| self.finding(case, i, lock))
            .collect()
    }
}

/// Kamailio's locks are for several processes: they belong into shared memory.
pub(super) fn is_misplaced(lock: &Lock) -> bool {
    lock.kind.is_kamailio() && (lock.name.on_stack || lock.member.is_some())
}

impl LockOnStack {
    fn finding(&self, case: &Case, index: usize, lock: &Lock) -> Finding {
        let place = if lock.name.on_stack { "on a stack" } else { "in memory of one process" };
        Finding {
            rule: self.id(),
            severity: Severity::Critical,
            confidence: Confidence::Certain,
            summary: format!(
                "The {} lies {place}, not in shared memory: no other process sees it, so whoever \
                 waits for it waits for ever",
                lock_name(lock)
            ),
            facts: case.locks.waits_for(index).map(|wait| waits(case, wait)).collect(),
            advice:
                "A structure with a lock was copied, or a pointer to a local variable was given \
                     to another process. The function that takes the lock got that pointer: give \
                     this bundle to a maintainer."
                    .to_owned(),
        }
    }
}
