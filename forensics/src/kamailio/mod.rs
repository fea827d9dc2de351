//! What Kamailio means by its bytes: where its pools are, which process is which, who allocated,
//! what its own tables hold.

mod allocating;
mod names;
mod processes;
mod roots;
pub mod tables;

pub use allocating::{is_allocating, is_manager_function, works_on_shared_pool};
pub use names::{Names, OwnerName};
pub use processes::{ProcessEntry, ProcessTable};
pub use roots::{FoundBy, Missing, PoolKind, PoolRoot, Roots, find as find_roots};

use crate::memory::Memory as _;
use crate::process::Process;

/// The version string in the program, for instance `kamailio 5.6.3 (x86_64/linux)`; shown, never
/// trusted.
pub fn version(process: &Process) -> Option<String> {
    let (_, at) = process.modules.symbol("full_version")?;
    let text = process.memory.text(at, 200).ok()?.trim_end().to_owned();
    (!text.is_empty()).then_some(text)
}
