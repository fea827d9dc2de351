//! What a pool holds and what of it is leaked: by owner, with what was inherited at fork set apart,
//! by reachability, and by growth between snapshots.
//!
//! `summary` walks a pool once; `used` is what the rest needs of its fragments. `sieve`, `roots` and
//! `graph` find every word that may point at one, `reach` follows them, `unreachable` sums what nothing
//! holds, `paths` says why something is held. `identity` and `growth` compare moments.

mod graph;
mod growth;
mod identity;
mod inherited;
mod paths;
mod payload_sizes;
mod reach;
mod roots;
mod sieve;
mod sites;
mod sizes;
mod summary;
#[cfg(test)]
mod tests;
mod unreachable;
mod used;

pub use graph::{Graph, Marks, Node, PoolNodes};
pub use growth::{Content, Held, OwnerGrowth, PoolGrowth, Turnover, Who};
pub use identity::{Identity, identities};
pub use inherited::mark_inherited;
pub use paths::{Path, Referrers, RootWord, head_of, paths, roots_of};
pub use payload_sizes::{PayloadSize, payload_sizes};
pub use reach::{Hold, Reach, reach};
pub use roots::{GroupProcess, RootPlace, StackMapping};
pub use sites::{Site, Sites};
pub use sizes::{SizeClass, Sizes};
pub use summary::{OwnerTotals, Summary, SummaryOptions, summarise};
pub use unreachable::{Lost, Since, Unreachable, unreachable};
pub use used::Used;
