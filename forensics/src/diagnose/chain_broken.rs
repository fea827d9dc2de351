//! A pool whose chain of fragments cannot be followed everywhere.

use super::{Confidence, Fact, Finding, Rule, Severity, fact, fact_at, pool_name, surroundings};
use crate::case::{Case, Overwritten, Pointer, Pool, Walked};
use crate::heap::Break;
use crate::leak::Site;
use crate::units::{count, size};

pub(super) struct ChainBroken;

/// Breaks that are told one by one.
const TOLD: usize = 5;

impl Rule for ChainBroken {
    fn id(&self) -> &'static str {
        "heap-chain-broken"
    }

    fn check(&self, case: &Case) -> Vec<Finding> {
        let walked = |pool| Some((pool, Pool::walked(pool)?));
        let pools = case.pools.iter().filter_map(walked);
        pools
            .filter(|(_, walked)| !walked.summary.complete)
            .map(|(p, w)| self.find(case, p, w))
            .collect()
    }
}

impl ChainBroken {
    fn find(&self, case: &Case, pool: &Pool, walked: &Walked) -> Finding {
        let name = pool_name(case, pool);
        let summary = &walked.summary;
        let seen = count(walked.seen_fragments());
        let of = walked.expected_fragments.map(|expected| format!("{seen} of {}", count(expected)));
        let only_absent = summary.breaks.count == 0;
        let mut facts: Vec<Fact> = summary
            .breaks
            .kept
            .iter()
            .zip(&walked.broken)
            .enumerate()
            .take(TOLD)
            .flat_map(|(number, (site, overwritten))| {
                let pointers = walked.pointers.in_breaks.get(number);
                facts(walked, site, overwritten, pointers)
            })
            .collect();
        if summary.breaks.kept.len() > TOLD {
            facts.push(fact(format!("{} breaks in all", count(summary.breaks.count))));
        }
        facts.extend(summary.holes.kept.iter().take(TOLD).flat_map(|site| hole(&site.what)));
        if summary.holes.kept.len() > TOLD {
            facts.push(fact(format!("{} holes in all", count(summary.holes.count))));
        }
        facts.push(fact(format!(
            "{seen} fragments were read; {} lie in none of them",
            size(summary.lost_bytes)
        )));
        if only_absent {
            return Finding {
                rule: self.id(),
                severity: Severity::Warning,
                confidence: Confidence::Certain,
                summary: format!("{name}: only {} fragments are in the input", of.unwrap_or(seen)),
                facts,
                advice: "The bytes there are not in the input; of damage in the process that says \
                         nothing. The totals of this pool are lower bounds."
                    .to_owned(),
            };
        }
        let may_be_unfinished = walked.broken.iter().all(Overwritten::may_be_unfinished);
        if summary.breaks.count == 1 && may_be_unfinished && case.is_allocating(pool) {
            return Finding {
                rule: self.id(),
                severity: Severity::Note,
                confidence: Confidence::Possible,
                summary: format!(
                    "{name}: the chain of fragments is open at one place, and a process stands \
                     inside its allocator"
                ),
                facts,
                advice: surroundings::UNFINISHED.to_owned(),
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
    site: &Site<Break>,
    overwritten: &Overwritten,
    pointers: Option<&Vec<Pointer>>,
) -> Vec<Fact> {
    let found = &site.what;
    let at = found.at;
    let mut facts = vec![fact_at(at, format!("fragment at {at}: {}", found.why))];
    facts.extend(surroundings::overwritten(at, overwritten));
    facts.extend(surroundings::pointers(at, pointers));
    facts.extend(surroundings::neighbours(walked, site));
    facts.push(goes_on(found));
    facts
}

/// Where the input ends, or has a gap.
fn hole(found: &Break) -> [Fact; 2] {
    let at = found.at;
    [fact_at(at, format!("fragment at {at}: {}", found.why)), goes_on(found)]
}

fn goes_on(found: &Break) -> Fact {
    let goes_on = match found.resumed_at {
        Some(place) => format!("the walk goes on at {place}, {} further", size(found.lost)),
        None => format!("the walk ends there; {} of the pool are not seen", size(found.lost)),
    };
    fact(goes_on)
}
