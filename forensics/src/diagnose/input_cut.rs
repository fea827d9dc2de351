//! An input that ends before its end.

use super::{Confidence, Finding, Rule, Severity, fact};
use crate::case::Case;

pub(super) struct InputCut;

impl Rule for InputCut {
    fn id(&self) -> &'static str {
        "input-cut"
    }

    fn check(&self, case: &Case) -> Vec<Finding> {
        let cores = case.members.iter().filter_map(|member| {
            let core = &member.process.core;
            let lost = core.promised.checked_sub(core.blob.length()).filter(|&lost| lost > 0)?;
            let label = &member.process.label;
            Some(format!("{label}: cut: {lost} of its {} bytes are missing", core.promised))
        });
        let facts: Vec<_> = case.evidence.cuts.iter().cloned().chain(cores).map(fact).collect();
        if facts.is_empty() {
            return Vec::new();
        }
        vec![Finding {
            rule: self.id(),
            severity: Severity::Warning,
            confidence: Confidence::Certain,
            summary: "the input was cut; everything before the cut is used, the rest is missing"
                .to_owned(),
            facts,
            advice: "Ask for the whole file: compare its size and SHA-256 on the host with yours. \
                     If the collector was ended early, no more than this exists."
                .to_owned(),
        }]
    }
}
