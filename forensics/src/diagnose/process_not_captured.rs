//! Processes that Kamailio knows and the input does not have.

use super::{Confidence, Finding, Rule, Severity, fact};
use crate::case::Case;

pub(super) struct ProcessNotCaptured;

impl Rule for ProcessNotCaptured {
    fn id(&self) -> &'static str {
        "process-not-captured"
    }

    fn check(&self, case: &Case) -> Vec<Finding> {
        let missing = case.missing_processes();
        if missing.is_empty() {
            return Vec::new();
        }
        let tell = |entry: &&crate::kamailio::ProcessEntry| {
            fact(format!("process {} ({}), index {}", entry.pid, entry.description, entry.index))
        };
        vec![Finding {
            rule: self.id(),
            severity: Severity::Note,
            confidence: Confidence::Certain,
            summary: format!(
                "{} of the {} processes in Kamailio's table are not in the input",
                missing.len(),
                case.table.len()
            ),
            facts: missing.iter().map(tell).collect(),
            advice: "Their PKG pools are not known. A bundle of collect-evidence holds the whole \
                     group; with single cores, give all of them at once. A process may also have \
                     died before."
                .to_owned(),
        }]
    }
}
