//! Rules: each looks at the whole case and says what it finds, with addresses and a confidence.
//!
//! A rule reads no memory. To add one: a file, a `mod` line, an entry in [`ALL`], and a heading of
//! its id in `docs/rules.md` (a test asks for it).

mod blocked;
mod chain_broken;
mod check_overwritten;
mod counters_disagree;
mod cpu_loop;
mod crashed;
mod free_list_damaged;
mod input_cut;
mod lock_cycle;
mod lock_held;
mod lock_on_stack;
mod nearly_full;
mod owner_pointer_wild;
mod owner_stands_out;
mod pool_not_read;
mod process_not_captured;
mod stopped;
mod surroundings;
mod unreachable;
mod waiting;

use serde::Serialize;

use crate::addr::Addr;
use crate::case::Case;

/// A rule.
pub trait Rule: Sync {
    /// Its stable name, which a user can cite.
    fn id(&self) -> &'static str;
    /// What it finds.
    fn check(&self, case: &Case) -> Vec<Finding>;
}

/// All rules, in the order in which findings of equal severity are shown.
pub static ALL: &[&dyn Rule] = &[
    &input_cut::InputCut,
    &crashed::Crashed,
    &lock_cycle::LockCycle,
    &lock_held::LockHeld,
    &lock_on_stack::LockOnStack,
    &cpu_loop::CpuLoop,
    &blocked::Blocked,
    &stopped::Stopped,
    &pool_not_read::PoolNotRead,
    &chain_broken::ChainBroken,
    &check_overwritten::CheckOverwritten,
    &free_list_damaged::FreeListDamaged,
    &owner_pointer_wild::OwnerPointerWild,
    &counters_disagree::CountersDisagree,
    &nearly_full::NearlyFull,
    &unreachable::Unreachable,
    &owner_stands_out::OwnerStandsOut,
    &process_not_captured::ProcessNotCaptured,
];

/// How bad it is. From `Warning` upwards the exit code is 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// True of healthy systems too.
    Note,
    /// Worth a look.
    Warning,
    /// Something is wrong.
    Error,
    /// Memory is damaged or the service is down.
    Critical,
}

impl Severity {
    /// For a person.
    pub fn name(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Critical => "critical",
        }
    }
}

/// How sure a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Confidence {
    /// It may be so.
    Possible,
    /// Other causes are less likely.
    Likely,
    /// The bytes say so.
    Certain,
}

impl Confidence {
    /// For a person.
    pub fn name(self) -> &'static str {
        match self {
            Self::Possible => "possible",
            Self::Likely => "likely",
            Self::Certain => "certain",
        }
    }
}

/// One thing that a finding rests on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fact {
    /// For a person.
    pub text: String,
    /// Where it can be seen.
    pub address: Option<Addr>,
}

/// What a rule found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The rule's id.
    pub rule: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// How sure it is.
    pub confidence: Confidence,
    /// One sentence.
    pub summary: String,
    /// What it rests on.
    pub facts: Vec<Fact>,
    /// What to do next.
    pub advice: String,
}

/// Asks every rule; worst findings first.
pub fn diagnose(case: &Case) -> Vec<Finding> {
    let mut findings: Vec<Finding> = ALL.iter().flat_map(|rule| rule.check(case)).collect();
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    findings
}

/// A fact without an address.
fn fact(text: impl Into<String>) -> Fact {
    Fact { text: text.into(), address: None }
}

/// A fact that can be seen at an address.
fn fact_at(address: Addr, text: impl Into<String>) -> Fact {
    Fact { text: text.into(), address: Some(address) }
}

/// A pool for a person: `SHM`, or `PKG of process 12 (timer)`.
fn pool_name(case: &Case, pool: &crate::case::Pool) -> String {
    let member = case.members.get(pool.member);
    match (pool.kind, member) {
        (crate::kamailio::PoolKind::Pkg, Some(member)) => {
            format!("PKG of {}", crate::case::describe(member))
        }
        (kind, _) => kind.name().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_rule_has_a_name_of_its_own_and_a_heading_in_the_docs() {
        let docs = include_str!("../../../docs/rules.md");
        let mut seen = BTreeSet::new();
        for rule in ALL {
            assert!(seen.insert(rule.id()), "{} stands twice", rule.id());
            let heading = format!("\n## {}\n", rule.id());
            assert!(docs.contains(&heading), "docs/rules.md has no heading {heading:?}");
        }
    }
}
