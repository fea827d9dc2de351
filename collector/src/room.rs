//! Room for a collection, in memory and on the disk.

use anyhow::Context as _;

use crate::allowance::Ceiling;
use crate::budget::{self, Disk, Need, Space};
use crate::cli::Options;
use crate::copy::Store;
use crate::estimate::Estimate;
use crate::evidence::WhichModules;
use crate::place::Place;
use crate::spool::SpoolFile;

/// Room for the copy, all of it before the freeze.
///
/// # Errors
/// There is not so much.
pub(crate) fn reserve(
    options: &Options,
    estimate: &Estimate,
    place: &Place,
) -> anyhow::Result<Store> {
    let disk = disk(options, place).context("how full the disk is")?;
    let need = need(options, estimate);
    let most = options.memory.unwrap_or_else(budget::memory);
    let room = budget::plan(need, most, disk, options.force)?;
    // What the group allocates until it stands still may not fit into memory: there is always a
    // spool file behind it, empty as long as nobody needs it.
    let spool = match room.spool {
        0 => None,
        limit => match place.spool().context("no spool file")? {
            // Nothing of an encrypted bundle lies on the disk as plain text.
            Some(file) if options.limits.is_encrypted() => {
                Some((SpoolFile::encrypted(file).context("no key for the spool file")?, limit))
            }
            Some(file) => Some((SpoolFile::plain(file), limit)),
            None => None,
        },
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

/// What the bundle's disk has for us.
pub(crate) fn disk(options: &Options, place: &Place) -> std::io::Result<Disk> {
    Ok(match place.space()? {
        None => Disk { usable: 0, kept: 0, spool: false },
        Some(space) => {
            let kept = kept_free(options, space);
            Disk { usable: space.free.saturating_sub(kept), kept, spool: true }
        }
    })
}

/// What the bundle must not pass.
pub(crate) fn ceiling(options: &Options, place: &Place) -> Ceiling {
    let space = place.space().ok().flatten();
    let keep_free = space.map_or(0, |space| kept_free(options, space));
    Ceiling { most: options.limits.max_size, keep_free }
}

/// Bytes that are to stay free on the bundle's file system.
fn kept_free(options: &Options, space: Space) -> u64 {
    match options.limits.keep_free {
        Some(wanted) => wanted,
        None if options.force => 0,
        None => space.margin(),
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
