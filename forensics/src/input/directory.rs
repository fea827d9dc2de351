//! Directories: an unpacked bundle, or a folder of cores. Symbolic links are not followed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::archive::Member;
use crate::bytes::map_path;

/// Every regular file below an unpacked bundle, by path.
///
/// # Errors
/// The system's words for the first folder or file that cannot be read.
pub(super) fn unpacked_bundle(root: &Path) -> io::Result<Vec<Member>> {
    let mut members = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in sorted(&folder)? {
            let kind = fs::symlink_metadata(&entry)?.file_type();
            if kind.is_dir() {
                folders.push(entry);
            } else if kind.is_file() && fs::metadata(&entry)?.len() > 0 {
                let blob = map_path(&entry)?;
                let relative = entry.strip_prefix(root).unwrap_or(&entry);
                members.push(Member {
                    path: relative.to_string_lossy().into_owned(),
                    declared: blob.length(),
                    blob,
                });
            }
        }
    }
    members.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(members)
}

/// The files directly in a folder that look like a core or a compressed one, by name.
///
/// # Errors
/// The system's words if the folder cannot be read.
pub(super) fn cores(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let looks_like_core = |path: &PathBuf| {
        let is_file = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_file());
        let Ok(blob) = (if is_file { map_path(path) } else { Err(io::ErrorKind::Other.into()) })
        else {
            return false;
        };
        let Ok(start) = blob.peek(0, 22) else { return false };
        // ELF type 4 is a core; modules beside the cores are left alone.
        let core = start.starts_with(b"\x7fELF") && start.get(16..18) == Some(&[4, 0]);
        core || super::unpack::Compression::of(&start).is_some()
            || bundle::encrypted::is_encrypted(&start)
    };
    Ok(sorted(folder)?.into_iter().filter(looks_like_core).collect())
}

fn sorted(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut entries: Vec<PathBuf> =
        fs::read_dir(folder)?.map(|entry| entry.map(|e| e.path())).collect::<io::Result<_>>()?;
    entries.sort();
    Ok(entries)
}
