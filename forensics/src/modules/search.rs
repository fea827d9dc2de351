//! ELF files in folders, and files by build ID where distributions keep programs and libraries.

use std::collections::HashMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use super::header::Header;

/// Most files that are looked at below one folder; a program's own folder has some hundred.
const MOST_FILES: usize = 20_000;
/// How deep folders are searched.
const DEPTH: u32 = 12;

/// Where distributions and `make install` put programs and libraries, and how deep below each
/// they may lie.
const PLACES: &[(&str, u32)] = &[
    ("usr/sbin", 0),
    ("usr/bin", 0),
    ("usr/local/sbin", 0),
    ("usr/local/bin", 0),
    ("sbin", 0),
    ("usr/lib/x86_64-linux-gnu/kamailio", 3),
    ("usr/lib/aarch64-linux-gnu/kamailio", 3),
    ("usr/lib64/kamailio", 3),
    ("usr/lib/kamailio", 3),
    ("usr/local/lib64/kamailio", 3),
    ("usr/local/lib/kamailio", 3),
    ("usr/lib/x86_64-linux-gnu", 0),
    ("usr/lib/aarch64-linux-gnu", 0),
    ("usr/lib64", 0),
    ("lib64", 0),
    ("opt", 6),
];

/// Every ELF file in a folder and the folders in it, by path; symbolic links to folders are not
/// followed. The second value: there are more, which were not looked at.
pub(super) fn elf_files(folder: &Path) -> (Vec<PathBuf>, bool) {
    let mut found = Vec::new();
    let complete = below(folder, DEPTH, MOST_FILES, &mut |path| {
        if Start::read(path).is_some() {
            found.push(path.to_owned());
        }
    });
    (found, !complete)
}

/// The ELF files in a folder and the folders in it by build ID; a program and its debug file have
/// the same one.
pub(crate) fn files_by_build_id(folder: &Path) -> HashMap<String, Vec<PathBuf>> {
    let mut found: HashMap<String, Vec<PathBuf>> = HashMap::new();
    below(folder, DEPTH, MOST_FILES, &mut |path| {
        if let Some(build_id) = Start::read(path).and_then(|start| start.build_id()) {
            found.entry(build_id).or_default().push(path.to_owned());
        }
    });
    found
}

/// Files of programs and libraries below a root directory by build ID.
pub(super) fn by_build_id(root: &Path) -> HashMap<String, PathBuf> {
    let mut found = HashMap::new();
    for (place, depth) in PLACES {
        below(&root.join(place), *depth, MOST_FILES, &mut |path| {
            if let Some(build_id) = Start::read(path).and_then(|start| start.build_id()) {
                found.entry(build_id).or_insert_with(|| path.to_owned());
            }
        });
    }
    found
}

/// Where a file with this build ID is linked by some distributions, itself or its debug
/// information.
pub(super) fn links(root: &Path, build_id: &str) -> Vec<PathBuf> {
    let Some((first, rest)) = build_id.split_at_checked(2) else { return Vec::new() };
    let link = |folder: &str, end: &str| root.join(folder).join(first).join(format!("{rest}{end}"));
    vec![
        link("usr/lib/.build-id", ""),
        link("usr/lib/debug/.build-id", ""),
        link("usr/lib/debug/.build-id", ".debug"),
    ]
}

/// Calls `visit` for each regular file, at most `most`; whether that was all.
fn below(folder: &Path, depth: u32, most: usize, visit: &mut impl FnMut(&Path)) -> bool {
    let mut folders = vec![(folder.to_owned(), depth)];
    let mut left = most;
    while let Some((folder, depth)) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths {
            let is_link = path.is_symlink();
            if path.is_dir() {
                if !is_link && depth > 0 {
                    folders.push((path, depth.saturating_sub(1)));
                }
                continue;
            }
            let Some(rest) = left.checked_sub(1) else { return false };
            left = rest;
            if path.is_file() {
                visit(&path);
            }
        }
    }
    true
}

/// The first page of an ELF file, without mapping the file.
struct Start {
    file: File,
    header: Header,
}

impl Start {
    fn read(path: &Path) -> Option<Self> {
        let file = File::open(path).ok()?;
        let mut page = [0; 4096];
        let length = file.read_at(&mut page, 0).ok()?;
        let header = Header::read(page.get(..length)?)?;
        Some(Self { file, header })
    }

    fn build_id(&self) -> Option<String> {
        self.header.build_id(|offset, length| {
            let mut bytes = vec![0; usize::try_from(length).ok()?];
            self.file.read_exact_at(&mut bytes, offset).ok()?;
            Some(bytes)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_very_program_is_found_among_other_files() {
        let own = std::env::current_exe().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("modules");
        fs::create_dir(&inner).unwrap();
        fs::write(folder.path().join("notes.txt"), "not an ELF file").unwrap();
        fs::write(inner.join("empty"), "").unwrap();
        fs::copy(&own, inner.join("copy")).unwrap();
        let (found, more) = elf_files(folder.path());
        assert_eq!((found, more), (vec![inner.join("copy")], false));
    }

    #[test]
    fn a_build_id_link_has_its_first_two_digits_as_folder() {
        let found = links(Path::new("/root"), "0a5c53");
        assert_eq!(found[0], Path::new("/root/usr/lib/.build-id/0a/5c53"));
        assert_eq!(found[2], Path::new("/root/usr/lib/debug/.build-id/0a/5c53.debug"));
        assert_eq!(links(Path::new("/"), "0"), Vec::<PathBuf>::new());
    }
}
