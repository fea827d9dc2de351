//! Fragments whose owner is no text: somebody wrote to their headers.

use super::{Confidence, Fact, Finding, Rule, Severity, fact, fact_at, pool_name, surroundings};
use crate::case::{Case, Walked, WildOwner};
use crate::units::count;

pub(super) struct OwnerPointerWild;

/// Owners that are told one by one.
const TOLD: usize = 5;

impl Rule for OwnerPointerWild {
    fn id(&self) -> &'static str {
        "owner-pointer-wild"
    }

    fn check(&self, case: &Case) -> Vec<Finding> {
        let mut findings = Vec::new();
        for pool in &case.pools {
            let Ok(walked) = &pool.walked else { continue };
            let wild = &walked.wild_owners;
            if wild.is_empty() {
                continue;
            }
            let mut facts: Vec<Fact> =
                wild.iter().take(TOLD).flat_map(|owner| facts(walked, owner)).collect();
            if wild.len() > TOLD {
                facts.push(fact(format!("{} such owners in all", wild.len())));
            }
            let fragments = wild.iter().map(|owner| owner.fragments).sum();
            findings.push(Finding {
                rule: self.id(),
                severity: Severity::Error,
                confidence: Confidence::Likely,
                summary: format!(
                    "{}: the owner of {} fragment{} leads to no text",
                    pool_name(case, pool),
                    count(fragments),
                    if fragments == 1 { "" } else { "s" }
                ),
                facts,
                advice: "The header was overwritten in part; look at the fragment before it. A \
                         status dump of this pool can crash the process that makes it."
                    .to_owned(),
            });
        }
        findings
    }
}

fn facts(walked: &Walked, owner: &WildOwner) -> Vec<Fact> {
    let WildOwner { field, to, why, example, before, fragments } = owner;
    let others = match fragments {
        1 => String::new(),
        more => format!(" ({} fragments)", count(*more)),
    };
    let told = format!("fragment of {example}{others}: {field} is {to}, which is {why}");
    let before = before.as_ref().map(|before| surroundings::right_before(walked, before));
    std::iter::once(fact_at(*example, told)).chain(before).collect()
}
