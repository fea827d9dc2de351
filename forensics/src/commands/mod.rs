//! Commands that do more than show a report.

mod extract;
mod verify;

pub use extract::{extract, extract_modules};
pub use verify::verify;
