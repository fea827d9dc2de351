//! A pool whose chain of fragments cannot be followed to its end.

use super::{Confidence, Finding, Rule, Severity, fact, fact_at, pool_name};
use crate::case::Case;
use crate::heap::BreakCause;

pub(super) struct ChainBroken;

impl Rule for ChainBroken {
    fn id(&self) -> &'static str {
        "heap-chain-broken"
    }

    fn check(&self, case: &Case) -> Vec<Finding> {
        let mut findings = Vec::new();
        for pool in &case.pools {
            let Ok(walked) = &pool.walked else { continue };
            for found in &walked.summary.breaks {
                let name = pool_name(case, pool);
                let seen =
                    walked.summary.used_fragments.saturating_add(walked.summary.free_fragments);
                let absent = matches!(found.why, BreakCause::Absent(_));
                findings.push(Finding {
                    rule: self.id(),
                    severity: if absent { Severity::Warning } else { Severity::Critical },
                    confidence: if absent { Confidence::Certain } else { Confidence::Likely },
                    summary: if absent {
                        format!("{name}: only the first {seen} fragments are in the snapshot")
                    } else {
                        format!("{name}: the chain of fragments is broken; memory was overwritten")
                    },
                    facts: vec![
                        fact_at(found.at, format!("fragment at {}: {}", found.at, found.why)),
                        fact(format!(
                            "{seen} fragments before it were read; {} bytes from there on are in \
                             no total",
                            found.lost
                        )),
                    ],
                    advice: if absent {
                        "The totals of this pool are lower bounds. A whole core gives the rest."
                            .to_owned()
                    } else {
                        "Look at the fragment before the broken one: its owner is the likely \
                         writer. Restart soon; a damaged pool crashes at the next allocation there."
                            .to_owned()
                    },
                });
            }
        }
        findings
    }
}
