//! A pool that has little room left.

use super::{Confidence, Finding, Rule, Severity, fact, pool_name};
use crate::case::Case;
use crate::kamailio::PoolKind;
use crate::num::ratio;
use crate::units::{count, share, size};

pub(super) struct NearlyFull;

impl Rule for NearlyFull {
    fn id(&self) -> &'static str {
        "pool-nearly-full"
    }

    fn check(&self, case: &Case) -> Vec<Finding> {
        let mut findings = Vec::new();
        for pool in &case.pools {
            let Ok(walked) = &pool.walked else { continue };
            let (total, summary) = (walked.counters.size, &walked.summary);
            let used = total.saturating_sub(summary.free_bytes);
            let full = ratio(used, total);
            if !summary.complete || full < 0.9 {
                continue;
            }
            let option = match pool.kind {
                PoolKind::Pkg => "-M",
                PoolKind::Shm => "-m",
            };
            let severity = if full < 0.98 { Severity::Warning } else { Severity::Critical };
            findings.push(Finding {
                rule: self.id(),
                severity,
                confidence: Confidence::Certain,
                summary: format!(
                    "{}: {} of {} are in use",
                    pool_name(case, pool),
                    share(used, total),
                    size(total)
                ),
                facts: vec![
                    fact(format!(
                        "{} free in {} fragments",
                        size(summary.free_bytes),
                        count(summary.free_fragments)
                    )),
                    fact(format!("largest free fragment: {}", size(summary.largest_free))),
                ],
                advice: format!(
                    "See the owners below: if one grows without end it leaks; if the load needs \
                     this much, give the pool more with {option}."
                ),
            });
        }
        findings
    }
}
