//! Room for a collection, in memory and on the disk.

use std::path::Path;

use anyhow::Context as _;

use crate::budget::{self, Need};
use crate::cli::Options;
use crate::copy::Store;
use crate::estimate::Estimate;
use crate::evidence::WhichModules;

/// Room for the copy, all of it before the freeze.
///
/// # Errors
/// There is not so much.
pub(crate) fn reserve(
    options: &Options,
    estimate: &Estimate,
    path: &Path,
) -> anyhow::Result<Store> {
    let folder = folder(path);
    let disk = budget::disk(folder)
        .with_context(|| format!("cannot write to the folder {}", folder.display()))?;
    let need = need(options, estimate);
    let most = options.memory.unwrap_or_else(budget::memory);
    let room = budget::plan(need, most, disk, options.force)?;
    // What the group allocates until it stands still may not fit into memory: there is always a
    // spool file behind it, empty as long as nobody needs it.
    let spool = match room.spool {
        0 => None,
        limit => Some((tempfile::tempfile_in(folder).context("no spool file")?, limit)),
    };
    Store::new(room.memory, spool).context("the memory for the copy is not to be had")
}

/// What the collection needs.
pub(crate) fn need(options: &Options, estimate: &Estimate) -> Need {
    let modules = match options.modules {
        WhichModules::None => 0,
        _ => modules_size(estimate),
    };
    Need { memory: estimate.bytes, modules }
}

/// The folder of the bundle `path`.
pub(crate) fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Bytes of the programs and libraries that the group maps, roughly: the end of each file's last
/// mapping, of files that are mapped executable somewhere.
fn modules_size(estimate: &Estimate) -> u64 {
    let mut sizes = std::collections::BTreeMap::new();
    let mut programs = std::collections::BTreeSet::new();
    for mapping in estimate.surveys.values().flat_map(|survey| &survey.mappings) {
        if mapping.name.starts_with('/') && !mapping.shared {
            let size: &mut u64 = sizes.entry(mapping.file()).or_default();
            *size = (*size).max(mapping.offset + mapping.span.length());
            if mapping.flags & 1 != 0 {
                programs.insert(mapping.file());
            }
        }
    }
    sizes.iter().filter(|(file, _)| programs.contains(file)).map(|(_, size)| size).sum()
}
