//! Threads that wait in the middle of their work for something outside the program.

use std::collections::BTreeMap;

use super::waiting::{thread_name, way};
use super::{Confidence, Finding, Rule, Severity, fact};
use crate::case::{Case, Doing};
use crate::threads::LONG_WAIT;

pub(super) struct Blocked;

impl Rule for Blocked {
    fn id(&self) -> &'static str {
        "blocked-on-io"
    }

    fn check(&self, case: &Case) -> Vec<Finding> {
        let mut by_call: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (index, thread) in case.threads.iter().enumerate() {
            let stuck = thread.waited().is_some_and(|waited| waited >= LONG_WAIT);
            if let Doing::Blocked { call } = case.doing(index)
                && stuck
            {
                by_call.entry(call.clone()).or_default().push(index);
            }
        }
        by_call.into_iter().map(|(call, threads)| self.finding(case, &call, &threads)).collect()
    }
}

impl Blocked {
    fn finding(&self, case: &Case, call: &str, threads: &[usize]) -> Finding {
        let workers = case.workers();
        let blocked = threads.iter().filter(|thread| workers.contains(thread)).count();
        let many = blocked.saturating_mul(2) > workers.len();
        let who = match threads {
            [only] => format!("{} is", thread_name(case, *only)),
            _ => format!("{} threads are", threads.len()),
        };
        let share = match blocked {
            0 => String::new(),
            _ => format!(" ({blocked} of {} SIP workers)", workers.len()),
        };
        let stacks = threads.iter().filter_map(|thread| {
            let view = case.threads.get(*thread)?;
            let seconds = view.waited()?.as_secs_f64();
            let name = thread_name(case, *thread);
            Some(fact(format!("{name}, for {seconds:.1} s at least: {}", way(view))))
        });
        Finding {
            rule: self.id(),
            severity: match (workers.is_empty(), many) {
                // What such a program is for, nobody knows here.
                (true, _) => Severity::Note,
                (false, true) => Severity::Error,
                (false, false) => Severity::Warning,
            },
            confidence: Confidence::Certain,
            summary: format!("{who} blocked in {call} in the middle of its work{share}"),
            facts: stacks.collect(),
            advice: match workers.is_empty() {
                true => "If the program hangs, look at that peer, file, lock or child first.",
                false => {
                    "Look at that peer, file or child first: the program waits for it, and every \
                     message that this worker would handle waits, too. Shorter time-outs, an \
                     asynchronous variant of the call or more workers bound the damage."
                }
            }
            .to_owned(),
        }
    }
}
