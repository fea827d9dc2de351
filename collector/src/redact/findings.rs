//! What the rules have found in one text.

use std::ops::Range;

/// One secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// The rule's name.
    pub(super) rule: &'static str,
    /// Its bytes.
    pub(super) span: Range<usize>,
    /// A number of JSON: quotes go around the mask, so that it stays JSON.
    pub(super) number: bool,
    /// A password, which may stand elsewhere too; not what one message holds.
    pub(super) lasting: bool,
}

/// All of them, by rising start; none begins inside another.
#[derive(Debug, Default)]
pub(super) struct Findings {
    found: Vec<Found>,
}

impl Findings {
    /// A password.
    pub(super) fn lasting(&mut self, rule: &'static str, span: Range<usize>) {
        self.push(Found { rule, span, number: false, lasting: true });
    }

    /// A secret of one message or session.
    pub(super) fn passing(&mut self, rule: &'static str, span: Range<usize>) {
        self.push(Found { rule, span, number: false, lasting: false });
    }

    /// Takes a secret; what is inside another one is known already.
    pub(super) fn push(&mut self, found: Found) {
        if found.span.is_empty() || self.covers(found.span.start) {
            return;
        }
        let index = self.found.partition_point(|other| other.span.start < found.span.start);
        self.found.insert(index, found);
    }

    /// Whether this place is inside a secret.
    pub(super) fn covers(&self, at: usize) -> bool {
        let index = self.found.partition_point(|other| other.span.start <= at);
        let last = index.checked_sub(1).and_then(|index| self.found.get(index));
        last.is_some_and(|last| last.span.end > at)
    }

    pub(super) fn all(&self) -> &[Found] {
        &self.found
    }
}
