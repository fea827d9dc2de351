//! A pool that was there and of which nothing can be read.

use super::{Confidence, Fact, Finding, Rule, Severity, fact, fact_at, pool_name};
use crate::case::{Case, Member, Pool, describe};
use crate::kamailio::PoolKind;

pub(super) struct PoolNotRead;

impl Rule for PoolNotRead {
    fn id(&self) -> &'static str {
        "pool-not-read"
    }

    fn check(&self, case: &Case) -> Vec<Finding> {
        let failed = |pool: &Pool| {
            let why = pool.walked.as_ref().err()?;
            let fact = fact_at(pool.block, format!("block at {}: {why}", pool.block));
            Some(self.find(&pool_name(case, pool), fact))
        };
        let mut findings: Vec<Finding> = case.pools.iter().filter_map(failed).collect();
        for (member, missing) in missing(case) {
            let name = match missing.kind {
                PoolKind::Shm => "SHM".to_owned(),
                PoolKind::Pkg => format!("PKG of {}", describe(member)),
            };
            let found = self.find(&name, fact(&missing.why));
            // All processes say the same of the shared pool.
            if !findings.iter().any(|known| known.summary == found.summary) {
                findings.push(found);
            }
        }
        findings
    }
}

/// Pools that existed, as far as can be told, and were not found.
fn missing(case: &Case) -> impl Iterator<Item = (&Member, &crate::kamailio::Missing)> {
    let members = case.members.iter();
    let all = members
        .flat_map(|member| member.roots.missing.iter().map(move |missing| (member, missing)));
    all.filter(|(member, missing)| missing.existed && case.lacks(member, missing))
}

impl PoolNotRead {
    fn find(&self, name: &str, fact: Fact) -> Finding {
        Finding {
            rule: self.id(),
            severity: Severity::Warning,
            confidence: Confidence::Certain,
            summary: format!("{name}: the pool could not be read"),
            facts: vec![fact],
            advice: "Nothing is said about what it holds. `forensics verify` tells whether the \
                     input is damaged; another copy of it may be whole. Cores that the kernel or \
                     gdb write hold both pools with coredump_filter 0x33, the default."
                .to_owned(),
        }
    }
}
