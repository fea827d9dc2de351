//! A limit to what is done for one question, and what ends it.

use thiserror::Error;

/// Why debug information gave no answer.
#[derive(Clone, Copy, Debug, Error)]
pub(super) enum Trouble {
    /// It does not follow the standard.
    #[error("{0}")]
    Damaged(#[from] gimli::Error),
    /// Entries, attributes or ranges without end: no compiler writes that.
    #[error("more entries than any compiler makes")]
    TooMuch,
}

/// What it costs to keep a range or a row.
pub(super) const KEPT: usize = 32;

/// Steps that are still allowed: entries and their attributes, and what is kept of them.
#[derive(Debug)]
pub(super) struct Work {
    left: usize,
}

impl Work {
    /// For one unit, whose entries fill some ten megabytes in the largest C++ programs.
    pub(super) fn of_unit() -> Self {
        Self { left: 200_000_000 }
    }

    pub(super) fn spend(&mut self, steps: usize) -> Result<(), Trouble> {
        self.left = self.left.checked_sub(steps).ok_or(Trouble::TooMuch)?;
        Ok(())
    }
}
