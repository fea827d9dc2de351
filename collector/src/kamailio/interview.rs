//! The whole conversation with one Kamailio: which way, which calls, what came of each.
//!
//! One call at a time and on one way only. The first way on which anybody of the group answers is
//! the only one; after the first call without an answer nothing more is asked at all, since the
//! process behind the next way could be wedged in turn. Methods that take a lock are asked only if
//! that lock was free and nobody of the group waits for one or is stopped.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::endpoint::{Endpoint, Endpoints};
use super::fifo::random;
use super::locks;
use super::methods::{ALL, LIST, Method, Takes};
use super::packet::{Answer, Question};
use super::transport::{Asked, Failure};
use super::value::Value;
use crate::board::ShmLock;
use crate::files::Root;

/// Why a method is asked only if the operator wants it.
pub(crate) const LOCKS_WHILE_LOGGING: &str =
    "it holds the lock of shared memory while it logs (--allow-blocking-rpc)";

/// How long one call may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);
/// Answers in a row that are none.
const MOST_BROKEN: u32 = 3;

/// Whom to ask, and what may be asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan<'a> {
    /// Processes of the group; the main one first.
    pub(crate) ids: &'a [u32],
    /// Files as it sees them.
    pub(crate) root: &'a Root,
    /// Ways, best first.
    pub(crate) endpoints: &'a Endpoints,
    /// What the snapshot says of the lock of shared memory.
    pub(crate) shm_lock: ShmLock,
    /// Also ask for what holds that lock while it logs.
    pub(crate) allow_blocking: bool,
}

/// What was tried and asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Interview {
    /// The way on which the calls were made.
    pub(crate) transport: Option<String>,
    /// Ways that were not taken, and why; in the order in which they were tried.
    pub(crate) not_taken: Vec<NotTaken>,
    /// Every call of the list.
    pub(crate) calls: Vec<Call>,
}

/// A way that was not taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct NotTaken {
    /// The way.
    pub(crate) transport: String,
    /// Why.
    pub(crate) why: String,
}

/// A call, whether it was made or not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Call {
    /// The method.
    pub(crate) method: &'static str,
    /// Its arguments.
    pub(crate) arguments: &'static [&'static str],
    /// When it was made, with the time zone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) started: Option<String>,
    /// How long it took.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) milliseconds: Option<u64>,
    /// What came of it.
    #[serde(flatten)]
    pub(crate) outcome: Outcome,
}

/// What came of a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// An answer, which is a member of the bundle.
    Answered,
    /// Kamailio says why it has no answer.
    Fault {
        /// Its number for it.
        code: i64,
        /// In its words.
        message: String,
    },
    /// None within the deadline.
    TimedOut,
    /// What came back was no answer.
    Failed {
        /// What it was.
        why: String,
    },
    /// The server does not have this method.
    Missing,
    /// The call was not made.
    NotAsked {
        /// Why.
        why: String,
    },
}

impl Interview {
    /// Makes the calls; each answer is handed to `keep` at once. `stop` ends it early.
    pub(crate) fn hold(
        plan: &Plan<'_>,
        keep: &mut dyn FnMut(&str, &Value),
        stop: &dyn Fn() -> bool,
    ) -> Self {
        let asked = Asked { ids: plan.ids, root: plan.root, patience: PATIENCE };
        let mut talk = Talk {
            plan,
            asked,
            way: None,
            over: None,
            broken: 0,
            known: None,
            trouble: None,
            interview: Self::default(),
        };
        for stale in &plan.endpoints.stale {
            talk.not_taken(stale, "configured, but no process of the group listens there");
        }
        for method in ALL {
            if stop() {
                talk.over.get_or_insert_with(|| "the time for this source is over".into());
            }
            if let Some(value) = talk.ask(method) {
                keep(method.name, &value);
            }
        }
        talk.interview
    }
}

impl Interview {
    /// The way on which a call got no answer.
    pub(crate) fn silent(&self) -> Option<&str> {
        let mut calls = self.calls.iter();
        calls.find(|call| call.outcome == Outcome::TimedOut)?;
        self.transport.as_deref()
    }
}

struct Talk<'a> {
    plan: &'a Plan<'a>,
    asked: Asked<'a>,
    way: Option<&'a Endpoint>,
    /// Why nothing more is asked.
    over: Option<String>,
    broken: u32,
    /// The methods that the server has, once it has said so.
    known: Option<BTreeSet<String>>,
    /// Why locks are left alone; looked for once.
    trouble: Option<Option<String>>,
    interview: Interview,
}

impl Talk<'_> {
    fn ask(&mut self, method: &'static Method) -> Option<Value> {
        if let Some(outcome) = self.objection(method) {
            self.record(method, None, outcome);
            return None;
        }
        let (started, begun) = (jiff::Zoned::now().to_string(), Instant::now());
        let result = self.call(method);
        let timing = Some((started, begun.elapsed()));
        let (outcome, value) = match result {
            Ok(Answer::Value(value)) => (Outcome::Answered, Some(value)),
            Ok(Answer::Fault { code, message }) => (Outcome::Fault { code, message }, None),
            Err(Failure::TimedOut(after)) => {
                self.over = Some(format!("{} did not answer within {after:?}", method.name));
                (Outcome::TimedOut, None)
            }
            Err(failure) => (self.failed(&failure), None),
        };
        if method.name == LIST {
            self.known = value.as_ref().map(names).filter(|names| !names.is_empty());
        }
        self.record(method, timing, outcome);
        value
    }

    fn failed(&mut self, failure: &Failure) -> Outcome {
        self.broken = self.broken.saturating_add(1);
        if self.way.is_none() {
            self.over = Some("no way leads to this Kamailio's RPC".into());
        } else if self.broken >= MOST_BROKEN {
            self.over = Some(format!("{MOST_BROKEN} calls failed"));
        }
        Outcome::Failed { why: failure.to_string() }
    }

    /// Why a call is not made.
    fn objection(&mut self, method: &Method) -> Option<Outcome> {
        let not_asked = |why: &str| Some(Outcome::NotAsked { why: why.to_owned() });
        if let Some(why) = &self.over {
            return not_asked(why);
        }
        if self.known.as_ref().is_some_and(|known| !known.contains(method.name)) {
            return Some(Outcome::Missing);
        }
        if method.takes == Takes::Nothing {
            return None;
        }
        if method.takes == Takes::PoolLockWhileLogging && !self.plan.allow_blocking {
            return not_asked(LOCKS_WHILE_LOGGING);
        }
        match self.plan.shm_lock {
            ShmLock::Held => {
                return not_asked("it takes locks, and somebody held that of shared memory");
            }
            ShmLock::Unknown if method.takes >= Takes::PoolLock => {
                return not_asked(
                    "it takes the lock of shared memory, of which it is not known whether it is free",
                );
            }
            ShmLock::Free | ShmLock::Unknown => {}
        }
        let ids = self.plan.ids;
        let trouble = self.trouble.get_or_insert_with(|| locks::trouble(ids));
        let why = trouble.as_ref().map(|trouble| format!("it takes locks, and {trouble}"))?;
        Some(Outcome::NotAsked { why })
    }

    /// A call on the way that was found, or on the first one that answers.
    fn call(&mut self, method: &Method) -> Result<Answer, Failure> {
        let cookie = u32::try_from(random() >> 33).unwrap_or(1);
        let question = Question { method: method.name, arguments: method.arguments, cookie };
        if let Some(way) = self.way {
            return self.asked.call(way, &question);
        }
        for endpoint in &self.plan.endpoints.usable {
            // Where a FIFO may be is known, but not yet whether there is one.
            if let Endpoint::Fifo(path, _) = endpoint
                && self.plan.root.find(path).is_err()
            {
                continue;
            }
            match self.asked.call(endpoint, &question) {
                Err(failure @ (Failure::Unreachable(_) | Failure::Broken(_))) => {
                    self.not_taken(&endpoint.to_string(), &failure.to_string());
                }
                result => {
                    self.way = Some(endpoint);
                    self.interview.transport = Some(endpoint.to_string());
                    return result;
                }
            }
        }
        Err(Failure::Unreachable("no process of the group answers RPC calls".into()))
    }

    fn not_taken(&mut self, transport: &str, why: &str) {
        let (transport, why) = (transport.to_owned(), why.to_owned());
        self.interview.not_taken.push(NotTaken { transport, why });
    }

    fn record(&mut self, method: &Method, timing: Option<(String, Duration)>, outcome: Outcome) {
        let (started, took) = timing.unzip();
        self.interview.calls.push(Call {
            method: method.name,
            arguments: method.arguments,
            started,
            milliseconds: took.map(|took| u64::try_from(took.as_millis()).unwrap_or(u64::MAX)),
            outcome,
        });
    }
}

/// The texts in a list.
fn names(value: &Value) -> BTreeSet<String> {
    let texts = match value {
        Value::List(values) => values.as_slice(),
        other => std::slice::from_ref(other),
    };
    texts
        .iter()
        .filter_map(|value| match value {
            Value::Text(text) => Some(text.clone()),
            _ => None,
        })
        .collect()
}
