//! What `forensics diff` tells: what owners hold in one snapshot and in the next, and who grows.
//!
//! [`Comparison`] takes the cases one after another and keeps of each only what the next one is
//! compared with; [`DiffReport`] is what comes of it, [`DiffReport::text`] shows it.

mod compare;
mod model;
#[cfg(test)]
mod tests;
mod text;

pub use compare::Comparison;
pub use model::{DiffReport, HeldReport, OwnerDiff, PoolDiff, SnapshotReport, StepReport};
