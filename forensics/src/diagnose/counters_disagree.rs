//! A block whose own counters differ from what its fragments add up to.

use super::{Confidence, Fact, Finding, Rule, Severity, fact_at, pool_name};
use crate::case::Case;

pub(super) struct CountersDisagree;

impl Rule for CountersDisagree {
    fn id(&self) -> &'static str {
        "heap-counters-disagree"
    }

    fn check(&self, case: &Case) -> Vec<Finding> {
        let mut findings = Vec::new();
        for pool in &case.pools {
            let Ok(walked) = &pool.walked else { continue };
            // An incomplete walk is no witness against the counters.
            if !walked.summary.complete {
                continue;
            }
            let (counters, summary) = (&walked.counters, &walked.summary);
            let pairs = [
                ("used", counters.used, summary.used_bytes),
                ("real_used", counters.real_used, summary.real_used_bytes),
                ("free fragments", counters.free_fragments, summary.free_fragments),
            ];
            let facts: Vec<Fact> = pairs
                .iter()
                .filter(|(_, said, found)| said != found)
                .map(|(name, said, found)| {
                    let text =
                        format!("{name}: the block says {said}, its fragments add to {found}");
                    fact_at(pool.block, text)
                })
                .collect();
            // One call changes one free fragment.
            let one_call = counters.free_fragments.abs_diff(summary.free_fragments) <= 1;
            if !facts.is_empty() && one_call && case.is_allocating(pool) {
                findings.push(Finding {
                    rule: self.id(),
                    // A healthy program under load is met there now and then.
                    severity: Severity::Note,
                    confidence: Confidence::Possible,
                    summary: format!(
                        "{}: the block's own counters differ, and a process stands inside its \
                         allocator",
                        pool_name(case, pool)
                    ),
                    facts,
                    advice: super::surroundings::UNFINISHED.to_owned(),
                });
            } else if !facts.is_empty() {
                findings.push(Finding {
                    rule: self.id(),
                    severity: Severity::Error,
                    confidence: Confidence::Certain,
                    summary: format!(
                        "{}: the block's own counters are wrong; the recomputed figures hold",
                        pool_name(case, pool)
                    ),
                    facts,
                    advice: "Statistics of this pool over RPC and in the log show the wrong \
                             counters. Older releases miscount on splits; otherwise the block was \
                             overwritten, or a process stood inside the allocator."
                        .to_owned(),
                });
            }
        }
        findings
    }
}
