//! A pool that is there and could not be walked at all.

use super::{Confidence, Finding, Rule, Severity, fact_at, pool_name};
use crate::case::Case;

pub(super) struct PoolNotRead;

impl Rule for PoolNotRead {
    fn id(&self) -> &'static str {
        "pool-not-read"
    }

    fn check(&self, case: &Case) -> Vec<Finding> {
        let failed = |pool: &crate::case::Pool| {
            let why = pool.walked.as_ref().err()?;
            Some(Finding {
                rule: self.id(),
                severity: Severity::Warning,
                confidence: Confidence::Certain,
                summary: format!("{}: the pool could not be read", pool_name(case, pool)),
                facts: vec![fact_at(pool.block, format!("block at {}: {why}", pool.block))],
                advice:
                    "Nothing is said about what it holds. `forensics verify` tells whether the \
                         input is damaged; another copy of it may be whole."
                        .to_owned(),
            })
        };
        case.pools.iter().filter_map(failed).collect()
    }
}
