//! An owner that holds far more in one process than in the others: the usual face of a leak in
//! private memory.
//!
//! One snapshot cannot prove a leak; a process that differs from its siblings in one owner only is
//! the best sign that it gives. Inherited fragments do not count.

use std::collections::BTreeMap;

use super::{Confidence, Finding, Rule, Severity, fact, pool_name};
use crate::case::{Case, Pool};
use crate::kamailio::{OwnerName, PoolKind};
use crate::units::{count, size};

pub(super) struct OwnerStandsOut;

/// Below this an owner is not worth a line, in bytes.
const LEAST_BYTES: u64 = 32 * 1024;
/// And it must hold so many fragments: one large buffer is no leak.
const LEAST_FRAGMENTS: u64 = 64;
/// So many times what the median of the other processes holds.
const FACTOR: u64 = 10;

impl Rule for OwnerStandsOut {
    fn id(&self) -> &'static str {
        "pkg-owner-stands-out"
    }

    fn check(&self, case: &Case) -> Vec<Finding> {
        let pools: Vec<&Pool> = case
            .pools
            .iter()
            .filter(|pool| pool.kind == PoolKind::Pkg && pool.walked.is_ok())
            .collect();
        if pools.len() < 3 {
            return Vec::new();
        }
        let held: Vec<BTreeMap<&OwnerName, (u64, u64)>> = pools.iter().map(|p| own(p)).collect();
        let mut findings = Vec::new();
        for (index, (pool, owners)) in pools.iter().zip(&held).enumerate() {
            for (owner, (fragments, bytes)) in owners {
                let mut others: Vec<u64> = held
                    .iter()
                    .enumerate()
                    .filter(|(other, _)| *other != index)
                    .map(|(_, held)| held.get(owner).map_or(0, |(_, bytes)| *bytes))
                    .collect();
                others.sort_unstable();
                let median = others.get(others.len() / 2).copied().unwrap_or(0);
                let least = LEAST_BYTES.max(median.saturating_mul(FACTOR));
                if *bytes < least || *fragments < LEAST_FRAGMENTS {
                    continue;
                }
                findings.push(Finding {
                    rule: self.id(),
                    severity: Severity::Warning,
                    confidence: Confidence::Likely,
                    summary: format!(
                        "{}: {} holds {} in {} fragments, far more than in the other processes",
                        pool_name(case, pool),
                        owner,
                        size(*bytes),
                        count(*fragments)
                    ),
                    facts: vec![fact(format!(
                        "median of the other {} processes: {}",
                        others.len(),
                        size(median)
                    ))],
                    advice: "Likely a leak in this code path. A second snapshot some time later \
                             shows whether it grows; give both to the module's maintainers."
                        .to_owned(),
                });
            }
        }
        findings
    }
}

/// What a process holds itself, by owner: (fragments, bytes).
fn own(pool: &Pool) -> BTreeMap<&OwnerName, (u64, u64)> {
    let Ok(walked) = &pool.walked else { return BTreeMap::new() };
    let mut held = BTreeMap::new();
    for (totals, name) in walked.summary.owners.iter().zip(&walked.names) {
        let entry: &mut (u64, u64) = held.entry(name).or_default();
        entry.0 =
            entry.0.saturating_add(totals.fragments.saturating_sub(totals.inherited_fragments));
        entry.1 = entry.1.saturating_add(totals.bytes.saturating_sub(totals.inherited_bytes));
    }
    held
}
