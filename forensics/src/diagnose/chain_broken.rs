//! A pool whose chain of fragments cannot be followed everywhere.

use super::{Confidence, Fact, Finding, Rule, Severity, fact, fact_at, pool_name};
use crate::addr::Addr;
use crate::case::{Case, Pointer, Pool, Walked};
use crate::heap::{Break, BreakCause, Neighbour};
use crate::units::{count, size};

pub(super) struct ChainBroken;

/// Breaks that are told one by one.
const TOLD: usize = 5;
/// Pointers that are told of each damaged place.
const TOLD_POINTERS: usize = 4;

impl Rule for ChainBroken {
    fn id(&self) -> &'static str {
        "heap-chain-broken"
    }

    fn check(&self, case: &Case) -> Vec<Finding> {
        let walked = |pool| Some((pool, Pool::walked(pool)?));
        let pools = case.pools.iter().filter_map(walked);
        pools
            .filter(|(_, walked)| walked.summary.break_count > 0)
            .map(|(p, w)| self.find(case, p, w))
            .collect()
    }
}

impl ChainBroken {
    fn find(&self, case: &Case, pool: &Pool, walked: &Walked) -> Finding {
        let name = pool_name(case, pool);
        let summary = &walked.summary;
        let seen = summary.used_fragments.saturating_add(summary.free_fragments);
        let absent = |(found, _): &(Break, _)| matches!(found.why, BreakCause::Absent(_));
        let only_absent = summary.breaks.iter().all(absent);
        let mut facts: Vec<Fact> = summary
            .breaks
            .iter()
            .zip(&walked.broken_bytes)
            .enumerate()
            .take(TOLD)
            .flat_map(|(number, ((found, before), bytes))| {
                let pointers = walked.pointers.in_breaks.get(number);
                let mut facts = facts(walked, found, before.as_ref(), bytes.as_deref());
                facts.extend(pointer_facts(found.at, pointers));
                facts
            })
            .collect();
        if summary.breaks.len() > TOLD {
            facts.push(fact(format!("{} breaks in all", count(summary.break_count))));
        }
        facts.push(fact(format!(
            "{} fragments were read; {} lie in none of them",
            count(seen),
            size(summary.lost_bytes)
        )));
        if only_absent {
            return Finding {
                rule: self.id(),
                severity: Severity::Warning,
                confidence: Confidence::Certain,
                summary: format!("{name}: only {} fragments are in the snapshot", count(seen)),
                facts,
                advice: "The totals of this pool are lower bounds. A whole core gives the rest."
                    .to_owned(),
            };
        }
        Finding {
            rule: self.id(),
            severity: Severity::Critical,
            confidence: Confidence::Likely,
            summary: format!("{name}: the chain of fragments is broken; memory was overwritten"),
            facts,
            advice: "The likely writer is the owner of the fragment before the broken one. \
                     Restart soon: a damaged pool crashes at the next allocation there."
                .to_owned(),
        }
    }
}

fn facts(
    walked: &Walked,
    found: &Break,
    before: Option<&Neighbour>,
    bytes: Option<&[u8]>,
) -> Vec<Fact> {
    let at = found.at;
    let mut facts = vec![fact_at(at, format!("fragment at {at}: {}", found.why))];
    if let Some(bytes) = bytes.filter(|_| !matches!(found.why, BreakCause::Absent(_))) {
        facts.push(fact_at(at, format!("its header: {}", hex(bytes))));
        if let Some(kind) = crate::kamailio::looks_like(bytes) {
            facts.push(fact_at(at, format!("that looks like {kind}")));
        }
    }
    if let Some(before) = before {
        facts.push(fact_at(before.header, format!("before it: {}", neighbour(walked, before))));
    }
    let goes_on = match found.resumed_at {
        Some(place) => format!("the walk goes on at {place}, {} further", size(found.lost)),
        None => format!("the walk ends there; {} of the pool are not seen", size(found.lost)),
    };
    facts.push(fact(goes_on));
    facts
}

/// What the first words of a damaged place point at.
pub(super) fn pointer_facts(at: Addr, pointers: Option<&Vec<Pointer>>) -> Vec<Fact> {
    let told = pointers.into_iter().flatten().take(TOLD_POINTERS);
    told.map(|pointer| fact_at(at, format!("at {at}: {pointer}"))).collect()
}

/// The fragment before a damaged place, for a person.
pub(super) fn neighbour(walked: &Walked, before: &Neighbour) -> String {
    let length = size(before.payload.length());
    match walked.owner_name(before) {
        Some(owner) => format!("{length} at {} of {owner}", before.payload.start),
        None => format!("{length} at {}, free", before.payload.start),
    }
}

fn hex(bytes: &[u8]) -> String {
    let words: Vec<String> = bytes.chunks(8).map(crate::modules::hex).collect();
    words.join(" ")
}
