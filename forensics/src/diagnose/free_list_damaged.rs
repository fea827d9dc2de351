//! Lists of free fragments that lead astray, or miss a fragment.

use super::{Confidence, Fact, Finding, Rule, Severity, fact, fact_at, pool_name, surroundings};
use crate::case::{Case, Walked};
use crate::heap::{ListDamage, ListFault};
use crate::leak::Site;
use crate::units::count;

pub(super) struct FreeListDamaged;

/// Faults that are told one by one.
const TOLD: usize = 5;
/// More faults than this are no single change.
const HALF_CHANGED: usize = 3;

impl Rule for FreeListDamaged {
    fn id(&self) -> &'static str {
        "free-list-damaged"
    }

    fn check(&self, case: &Case) -> Vec<Finding> {
        let mut findings = Vec::new();
        for pool in &case.pools {
            let Ok(walked) = &pool.walked else { continue };
            let faults = &walked.summary.list_faults;
            if faults.count == 0 {
                continue;
            }
            let mut facts: Vec<Fact> =
                faults.kept.iter().take(TOLD).flat_map(|site| facts(walked, site)).collect();
            if faults.kept.len() > TOLD {
                facts.push(fact(format!("{} faults in all", count(faults.count))));
            }
            let name = pool_name(case, pool);
            findings.push(match is_half_changed(&faults.kept) {
                true => Finding {
                    rule: self.id(),
                    severity: match case.is_allocating(pool) {
                        true => Severity::Note,
                        false => Severity::Warning,
                    },
                    confidence: Confidence::Possible,
                    summary: format!("{name}: one list of free fragments is half changed"),
                    facts,
                    advice: "A process that was stopped inside the allocator leaves a list like \
                             this; so does a stray write. A second snapshot tells: if the same \
                             fragment is still there, memory was overwritten."
                        .to_owned(),
                },
                false => Finding {
                    rule: self.id(),
                    severity: Severity::Critical,
                    confidence: Confidence::Likely,
                    summary: format!("{name}: the lists of free fragments are damaged"),
                    facts,
                    advice: "Something wrote to freed memory, or past the end of the fragment \
                             before it; an allocation of that size crashes or never ends. Restart \
                             soon."
                        .to_owned(),
                },
            });
        }
        findings
    }
}

/// Whether no more is wrong than what one unfinished insertion or removal leaves behind.
fn is_half_changed(faults: &[Site<ListFault>]) -> bool {
    let mut lists = faults.iter().map(|site| site.what.list);
    let first = lists.next();
    let one_list = lists.all(|list| Some(list) == first);
    let small = faults.iter().all(|site| match site.what.what {
        ListDamage::Unlisted | ListDamage::BackLink { .. } | ListDamage::Bitmap { .. } => true,
        ListDamage::Count { said, found } => said.abs_diff(found) == 1,
        _ => false,
    });
    one_list && small && faults.len() <= HALF_CHANGED
}

fn facts(walked: &Walked, site: &Site<ListFault>) -> Vec<Fact> {
    let fault = &site.what;
    let mut facts = vec![fact_at(fault.at, fault.to_string())];
    facts.extend(surroundings::neighbours(walked, site));
    facts
}
