//! What a live Kamailio says of itself.
//!
//! Members: `kamailio/rpc/METHOD.json` for each answer, and `kamailio/rpc.json`: the way on which
//! it was asked, and of every call when it was made, how long it took and what came of it, or why
//! it was not made.

use std::time::Duration;

use bundle::Phase;

use super::{Context, Drawer, Preview, Source};
use crate::board::Fact;
use crate::kamailio::endpoint::Endpoints;
use crate::kamailio::files::{Configuration, Started};
use crate::kamailio::interview::{Interview, LOCKS_WHILE_LOGGING, Outcome, PATIENCE, Plan};
use crate::kamailio::listening::Listening;

#[derive(Debug)]
pub(crate) struct KamailioRpc;

impl Source for KamailioRpc {
    fn name(&self) -> &'static str {
        "kamailio-rpc"
    }

    fn about(&self) -> &'static str {
        "what Kamailio answers over its RPC; lock-free calls first, 2 s each"
    }

    fn phase(&self) -> Phase {
        Phase::AfterThaw
    }

    /// Answers come at least every 2 s, but for faults, which are no members.
    fn deadline(&self) -> Duration {
        Duration::from_secs(15)
    }

    fn preview(&self, context: &Context) -> Vec<Preview> {
        let (_, endpoints) = endpoints(context);
        let way = endpoints.usable.first().map(ToString::to_string);
        let missing = way.is_none().then(|| "the group listens on no RPC socket".to_owned());
        let what = way.unwrap_or_else(|| "RPC".to_owned());
        vec![Preview { what, size: None, missing }]
    }

    fn collect(&self, context: &Context, out: &Drawer) -> anyhow::Result<()> {
        let processes = &context.target.processes;
        if !processes.is_empty() && processes.iter().all(|process| process.was_stopped) {
            let why = "every process stood still before we came (state T): nobody would answer";
            out.left_out("answers over RPC", why);
            return Ok(());
        }
        let (ids, endpoints) = endpoints(context);
        let plan = Plan {
            ids: &ids,
            root: &context.files,
            endpoints: &endpoints,
            shm_lock: context.board.shm_lock(),
            allow_blocking: context.wishes.allow_blocking_rpc,
        };
        let mut keep =
            |method: &str, value: &crate::kamailio::value::Value| match serde_json::to_vec_pretty(
                value,
            ) {
                Ok(text) => out.put(format!("kamailio/rpc/{method}.json"), None, text),
                Err(error) => out.gap(format!("the answer to {method}"), error.to_string()),
            };
        let interview = Interview::hold(&plan, &mut keep, &|| out.is_given_up());
        out.put("kamailio/rpc.json".into(), None, serde_json::to_vec_pretty(&interview)?);
        if let Some(way) = interview.silent() {
            context.board.note(Fact::Silent { way: way.to_owned(), seconds: PATIENCE.as_secs() });
        }
        note_gaps(&interview, out);
        Ok(())
    }
}

/// The main process and all others, and where they can be asked.
fn endpoints(context: &Context) -> (Vec<u32>, Endpoints) {
    let target = &context.target;
    let others = target.processes.iter().map(|process| process.pid);
    let ids: Vec<u32> = std::iter::once(target.main)
        .filter(|main| *main != 0)
        .chain(others.filter(|pid| *pid != target.main))
        .collect();
    let started = Started::of(target.main);
    let configuration = Configuration::read(&started, &context.files);
    let endpoints = Endpoints::find(&started, &configuration, &Listening::of(&ids));
    (ids, endpoints)
}

/// One gap for each reason, so that the manifest stays short.
fn note_gaps(interview: &Interview, out: &Drawer) {
    let mut reasons: Vec<(&str, Vec<&str>)> = Vec::new();
    for call in &interview.calls {
        match &call.outcome {
            Outcome::Answered | Outcome::Missing => {}
            Outcome::Fault { code, message } => {
                out.left_out(format!("RPC {}", call.method), format!("fault {code}: {message}"));
            }
            Outcome::TimedOut => {
                out.gap(format!("RPC {}", call.method), "no answer within 2 s");
            }
            Outcome::Failed { why } => out.gap(format!("RPC {}", call.method), why.as_str()),
            // What only --allow-blocking-rpc asks is missed by nobody.
            Outcome::NotAsked { why } if why == LOCKS_WHILE_LOGGING => {}
            Outcome::NotAsked { why } => match reasons.iter_mut().find(|(one, _)| *one == why) {
                Some((_, methods)) => methods.push(call.method),
                None => reasons.push((why.as_str(), vec![call.method])),
            },
        }
    }
    for (why, methods) in reasons {
        out.left_out(format!("RPC {}", methods.join(", ")), format!("not asked: {why}"));
    }
}
