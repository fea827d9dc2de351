//! What a pool holds and what of it is leaked: by owner, with what was inherited at fork set apart,
//! by reachability, and by growth between snapshots.

mod graph;
mod growth;
mod identity;
mod inherited;
mod payload_sizes;
mod roots;
mod sites;
mod sizes;
mod summary;
mod unreachable;

pub use graph::{Hold, PoolNodes, Reach, reach};
pub use growth::{Content, Held, OwnerGrowth, PoolGrowth, Turnover, Who};
pub use identity::{Identities, Identity};
pub use inherited::mark_inherited;
pub use payload_sizes::{PayloadSize, payload_sizes};
pub use roots::Roots;
pub use sites::{Site, Sites};
pub use sizes::{SizeClass, Sizes};
pub use summary::{OwnerTotals, Summary, SummaryOptions, summarise};
pub use unreachable::{Lost, Unreachable, unreachable};
