//! A tar archive, read in place: where each member lies, without copying any.

use crate::bytes::Blob;

/// A regular file in an archive.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its path in the archive.
    pub path: String,
    /// Its bytes; fewer than `declared` where the archive was cut.
    pub blob: Blob,
    /// Its length in bytes as the archive's header says.
    pub declared: u64,
}

/// What is in an archive.
#[derive(Clone, Debug, Default)]
pub(super) struct Listing {
    /// Its regular files, in order.
    pub members: Vec<Member>,
    /// Why the listing ends early, where it does.
    pub ended: Option<String>,
}

/// Lists the regular files of a tar archive; damage ends the list and is said.
pub(super) fn list(archive: &Blob) -> Listing {
    let mut listing = Listing::default();
    let mut tar = tar::Archive::new(archive.reader());
    let entries = match tar.entries_with_seek() {
        Ok(entries) => entries,
        Err(error) => {
            listing.ended = Some(error.to_string());
            return listing;
        }
    };
    for entry in entries {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => {
                listing.ended = Some(error.to_string());
                break;
            }
        };
        if entry.header().entry_type().is_file() {
            let declared = entry.size();
            listing.members.push(Member {
                path: String::from_utf8_lossy(&entry.path_bytes()).into_owned(),
                blob: archive.slice(entry.raw_file_position(), declared),
                declared,
            });
        }
    }
    listing
}

/// Whether these first bytes of a file are a tar header.
pub(super) fn is_tar(start: &[u8]) -> bool {
    start.get(257..262) == Some(b"ustar")
}
