//! Processes that somebody has stopped.

use super::waiting::{thread_name, way};
use super::{Confidence, Finding, Rule, Severity, fact};
use crate::case::{Case, Doing};

pub(super) struct Stopped;

impl Rule for Stopped {
    fn id(&self) -> &'static str {
        "process-stopped"
    }

    fn check(&self, case: &Case) -> Vec<Finding> {
        let stopped: Vec<usize> = (0..case.threads.len())
            .filter(|thread| matches!(case.doing(*thread), Doing::Stopped(_)))
            .collect();
        if stopped.is_empty() {
            return Vec::new();
        }
        let tell = |thread: &usize| {
            let view = case.threads.get(*thread)?;
            Some(fact(format!("{}: {}", thread_name(case, *thread), way(view))))
        };
        vec![Finding {
            rule: self.id(),
            severity: Severity::Error,
            confidence: Confidence::Certain,
            summary: match stopped[..] {
                [only] => format!("{} is stopped", thread_name(case, only)),
                _ => format!("{} threads are stopped", stopped.len()),
            },
            facts: stopped.iter().filter_map(tell).collect(),
            advice:
                "Somebody stopped them before this capture: SIGSTOP, a debugger, or a write to \
                     a terminal that is not theirs. SIGCONT lets them go on."
                    .to_owned(),
        }]
    }
}
