//! Fragments that no pointer leads to any more: leaked for certain, if every root is known.
//!
//! Every healthy system has some, lost while the configuration was read: what was lost before the
//! fork, and what is small, is no finding.

use super::{Confidence, Finding, Rule, Severity, fact, fact_at, pool_name};
use crate::case::{Case, Lost, PoolName, Trust};
use crate::units::{count, size};

pub(super) struct Unreachable;

/// Below this an owner is not worth a line, in bytes.
const LEAST_BYTES: u64 = 16 * 1024;
/// And it must have lost so many fragments.
const LEAST_FRAGMENTS: u64 = 64;

impl Rule for Unreachable {
    fn id(&self) -> &'static str {
        "unreachable-memory"
    }

    fn check(&self, case: &Case) -> Vec<Finding> {
        let Some(losses) = &case.losses else { return Vec::new() };
        let trust = Trust::of(case);
        let lost = losses.lost.iter();
        let much =
            lost.filter(|lost| lost.bytes >= LEAST_BYTES && running(lost) >= LEAST_FRAGMENTS);
        much.filter_map(|lost| self.finding(case, &trust, lost)).collect()
    }
}

/// Fragments lost since the fork.
fn running(lost: &Lost) -> u64 {
    lost.fragments.saturating_sub(lost.start_up)
}

impl Unreachable {
    /// Without all roots it is no finding: much of what looks lost is held by what is missing.
    fn finding(&self, case: &Case, trust: &Trust, lost: &Lost) -> Option<Finding> {
        let pool = case.pools.get(lost.pool)?;
        if !trust.is_high(PoolName::of(case, pool)) {
            return None;
        }
        let owner = case.loser(lost)?;
        Some(Finding {
            rule: self.id(),
            severity: Severity::Warning,
            confidence: Confidence::Certain,
            summary: format!(
                "{}: {owner} has lost {} in {} fragments: nothing points to them any more",
                pool_name(case, pool),
                size(lost.bytes),
                count(lost.fragments),
            ),
            facts: vec![
                fact("every root of every process that can point there is known, and was followed"),
                fact_at(
                    lost.example,
                    format!("{} of them are pointed to by no other lost one, for instance {}", count(lost.heads), lost.example),
                ),
            ],
            advice: "A leak in this code path. `forensics leaks` shows what they hold; a second snapshot some time \
                     later shows how fast it grows."
                .to_owned(),
        })
    }
}
