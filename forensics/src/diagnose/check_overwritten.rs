//! Fragments whose check words are not the allocator's.

use super::{Confidence, Fact, Finding, Rule, Severity, fact, fact_at, pool_name, surroundings};
use crate::case::{Case, Overwritten, Pointer, Walked};
use crate::heap::{Damage, Fragment, Neighbour};
use crate::leak::Site;

pub(super) struct CheckOverwritten;

/// Damaged fragments that are told one by one.
const TOLD: usize = 5;

impl Rule for CheckOverwritten {
    fn id(&self) -> &'static str {
        "heap-check-overwritten"
    }

    fn check(&self, case: &Case) -> Vec<Finding> {
        let mut findings = Vec::new();
        for pool in &case.pools {
            let Ok(walked) = &pool.walked else { continue };
            let damaged = &walked.summary.damaged;
            let count = damaged.count;
            if count == 0 {
                continue;
            }
            let mut facts: Vec<Fact> = damaged
                .kept
                .iter()
                .zip(&walked.damaged)
                .enumerate()
                .take(TOLD)
                .flat_map(|(number, (site, overwritten))| {
                    let pointers = walked.pointers.in_damaged.get(number);
                    facts(walked, site, overwritten, pointers)
                })
                .collect();
            if damaged.kept.len() > TOLD {
                facts.push(fact(format!("{count} fragments in all")));
            }
            let may_be_unfinished = walked.damaged.iter().all(Overwritten::may_be_unfinished);
            if count == 1 && may_be_unfinished && case.is_allocating(pool) {
                findings.push(Finding {
                    rule: self.id(),
                    severity: Severity::Note,
                    confidence: Confidence::Possible,
                    summary: format!(
                        "{}: 1 fragment is half changed, and a process stands inside its allocator",
                        pool_name(case, pool)
                    ),
                    facts,
                    advice: surroundings::UNFINISHED.to_owned(),
                });
                continue;
            }
            findings.push(Finding {
                rule: self.id(),
                severity: Severity::Critical,
                confidence: Confidence::Certain,
                summary: format!(
                    "{}: {count} fragment{} overwritten",
                    pool_name(case, pool),
                    if count == 1 { " was" } else { "s were" }
                ),
                facts,
                advice: "An overwritten end points at the fragment's own owner, an overwritten \
                         beginning at the owner of the fragment before it. Restart soon."
                    .to_owned(),
            });
        }
        findings
    }
}

fn facts(
    walked: &Walked,
    site: &Site<Fragment>,
    overwritten: &Overwritten,
    pointers: Option<&Vec<Pointer>>,
) -> Vec<Fact> {
    let fragment = &site.what;
    let at = fragment.header;
    let tell = |damage: &Damage| fact_at(at, format!("fragment at {at}: {damage}"));
    let mut facts: Vec<Fact> = fragment.damage.iter().map(tell).collect();
    let own = surroundings::neighbour(walked, &Neighbour::from(fragment));
    facts.push(fact_at(at, format!("it is {own}")));
    facts.extend(surroundings::reach(overwritten));
    facts.extend(surroundings::pointers(at, pointers));
    facts.extend(surroundings::neighbours(walked, site));
    facts
}
