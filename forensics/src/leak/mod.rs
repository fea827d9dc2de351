//! What a pool holds and what of it is leaked. Today: by owner, with what was inherited at fork
//! set apart.

mod inherited;
mod payload_sizes;
mod sites;
mod sizes;
mod summary;

pub use inherited::mark_inherited;
pub use payload_sizes::{PayloadSize, payload_sizes};
pub use sites::{Site, Sites};
pub use sizes::{SizeClass, Sizes};
pub use summary::{OwnerTotals, Summary, SummaryOptions, summarise};
