//! Fragments whose check words are not the allocator's.

use super::chain_broken::{neighbour, pointer_facts};
use super::{Confidence, Fact, Finding, Rule, Severity, fact, fact_at, pool_name};
use crate::case::{Case, Walked};
use crate::heap::{Damage, Fragment, Neighbour};

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
            let count = walked.summary.damaged_count;
            if count == 0 {
                continue;
            }
            let mut facts: Vec<Fact> = walked
                .summary
                .damaged
                .iter()
                .enumerate()
                .take(TOLD)
                .flat_map(|(number, (fragment, before))| {
                    let pointers = walked.pointers.in_damaged.get(number);
                    let mut facts = facts(walked, fragment, before.as_ref());
                    facts.extend(pointer_facts(fragment.header, pointers));
                    facts
                })
                .collect();
            if walked.summary.damaged.len() > TOLD {
                facts.push(fact(format!("{count} fragments in all")));
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

fn facts(walked: &Walked, fragment: &Fragment, before: Option<&Neighbour>) -> Vec<Fact> {
    let at = fragment.header;
    let tell = |damage: &Damage| fact_at(at, format!("fragment at {at}: {damage}"));
    let mut facts: Vec<Fact> = fragment.damage.iter().map(tell).collect();
    facts.push(fact_at(at, format!("it is {}", neighbour(walked, &Neighbour::from(fragment)))));
    if let Some(before) = before {
        facts.push(fact_at(before.header, format!("before it: {}", neighbour(walked, before))));
    }
    facts
}
