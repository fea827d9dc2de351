//! Lists of free fragments that lead astray, or miss a fragment.

use super::{Confidence, Fact, Finding, Rule, Severity, fact, fact_at, pool_name, surroundings};
use crate::case::{Case, Walked};
use crate::heap::{ListDamage, ListFault};
use crate::leak::Site;
use crate::units::count;

pub(super) struct FreeListDamaged;

/// Faults that are told one by one.
const TOLD: usize = 5;

impl Rule for FreeListDamaged {
    fn id(&self) -> &'static str {
        "free-list-damaged"
    }

    fn check(&self, case: &Case) -> Vec<Finding> {
        let mut findings = Vec::new();
        for pool in &case.pools {
            let Ok(walked) = &pool.walked else { continue };
            let faults = &walked.summary.list_faults;
            // What the snapshot lacks damages nothing.
            let is_fault =
                |site: &&Site<ListFault>| !matches!(site.what.what, ListDamage::Absent(_));
            let real: Vec<&Site<ListFault>> = faults.kept.iter().filter(is_fault).collect();
            if real.is_empty() {
                continue;
            }
            let mut facts: Vec<Fact> =
                real.iter().take(TOLD).flat_map(|site| facts(walked, site)).collect();
            if real.len() > TOLD {
                facts.push(fact(format!("{} faults in all", count(faults.count))));
            }
            findings.push(Finding {
                rule: self.id(),
                severity: Severity::Critical,
                confidence: Confidence::Likely,
                summary: format!(
                    "{}: the lists of free fragments are damaged",
                    pool_name(case, pool)
                ),
                facts,
                advice: "Something wrote to freed memory, or past the end of the fragment before \
                         it; an allocation of that size crashes or never ends. A process that was \
                         stopped inside the allocator leaves one list half changed, too: a second \
                         snapshot tells. Restart soon."
                    .to_owned(),
            });
        }
        findings
    }
}

fn facts(walked: &Walked, site: &Site<ListFault>) -> Vec<Fact> {
    let fault = &site.what;
    let mut facts = vec![fact_at(fault.at, fault.to_string())];
    facts.extend(surroundings::neighbours(walked, site));
    facts
}
