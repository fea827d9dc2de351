//! The folder that a sniffer writes to, as far as a short look tells: how full its file system is,
//! and how many files wait in it for the database. Only the folder itself is listed, never what is
//! below it: its disk may be what is wrong.

use std::fs::{File, Metadata};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use nix::sys::statvfs::fstatvfs;
use serde::Serialize;

use crate::files::{self, Root};

/// Files whose length is asked for, and how long that may take.
const MOST_FILES: u64 = 20_000;
const MOST_TIME: Duration = Duration::from_secs(2);

/// A folder and its file system.
#[derive(Debug, Serialize)]
pub struct Folder {
    /// Where it is, as the sniffer sees it.
    pub path: PathBuf,
    /// Why nothing is known of it.
    pub error: Option<String>,
    /// Its file system.
    pub file_system: Option<FileSystem>,
    /// Names in it; the count ends at 100,000.
    pub entries: Option<u64>,
    /// Files `qoq*` in it: rows that wait for the database.
    pub queue: Option<Tally>,
}

/// What `statvfs` says.
#[derive(Debug, Serialize)]
pub struct FileSystem {
    /// In bytes.
    pub total: u64,
    /// Bytes that a process without privileges can still write.
    pub available: u64,
    /// File nodes in all; 0 where they are not counted.
    pub nodes: u64,
    /// File nodes that are free.
    pub nodes_free: u64,
    /// Mounted read-only.
    pub read_only: bool,
}

/// Some files.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// How many.
    pub files: u64,
    /// Their lengths together, in bytes, of those that were looked at.
    pub bytes: u64,
    /// How many were looked at.
    pub measured: u64,
    /// Last change of the one that was changed first, in seconds since 1970.
    pub oldest: Option<i64>,
    /// Last change of the one that was changed last.
    pub newest: Option<i64>,
}

impl Folder {
    /// Looks at a folder.
    pub fn look(files: &Root, path: &Path) -> Self {
        let mut folder = Self {
            path: path.to_owned(),
            error: None,
            file_system: None,
            entries: None,
            queue: None,
        };
        if let Err(error) = folder.fill(files, path) {
            folder.error = Some(error.to_string());
        }
        folder
    }

    fn fill(&mut self, files: &Root, path: &Path) -> io::Result<()> {
        let found = files.find(path)?;
        self.file_system = Some(FileSystem::of(&found)?);
        let entries = files.list(path)?;
        self.entries = u64::try_from(entries.len()).ok();
        let begun = Instant::now();
        let mut queue = Tally::default();
        let waiting = entries.iter().filter(|one| one.name.as_encoded_bytes().starts_with(b"qoq"));
        for entry in waiting.filter(|one| one.kind.is_file()) {
            queue.files += 1;
            if queue.measured < MOST_FILES
                && begun.elapsed() < MOST_TIME
                && let Ok(about) = inside(&found, Path::new(&entry.name)).and_then(metadata)
            {
                queue.add(&about);
            }
        }
        self.queue = Some(queue);
        Ok(())
    }
}

impl FileSystem {
    /// That of an open file or folder.
    ///
    /// # Errors
    /// Those of `fstatvfs`.
    pub fn of(found: impl AsFd) -> io::Result<Self> {
        let about = fstatvfs(found)?;
        let block = about.fragment_size();
        Ok(Self {
            total: about.blocks().saturating_mul(block),
            available: about.blocks_available().saturating_mul(block),
            nodes: about.files(),
            nodes_free: about.files_free(),
            read_only: about.flags().contains(nix::sys::statvfs::FsFlags::ST_RDONLY),
        })
    }
}

impl Tally {
    fn add(&mut self, about: &Metadata) {
        self.measured += 1;
        self.bytes = self.bytes.saturating_add(about.len());
        let changed = about.mtime();
        self.oldest = Some(self.oldest.map_or(changed, |oldest| oldest.min(changed)));
        self.newest = Some(self.newest.map_or(changed, |newest| newest.max(changed)));
    }
}

/// A name in a folder, without opening it and without following a link.
fn inside(folder: &OwnedFd, name: &Path) -> io::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    Ok(openat(folder, name, flags, Mode::empty())?)
}

fn metadata(found: OwnedFd) -> io::Result<Metadata> {
    File::from(found).metadata()
}

/// Opens a file in a folder where everybody may write, as `/tmp`: a regular one, with no other name,
/// of root or `owner`, and not through a link: a link could lead to what its maker may not read.
///
/// # Errors
/// It is not such a file, which is said.
pub fn open_in_shared(
    files: &Root,
    folder: &Path,
    name: &std::ffi::OsStr,
    owner: u32,
) -> io::Result<File> {
    let refused = |why: &str| io::Error::new(io::ErrorKind::InvalidInput, why);
    let found = inside(&files.find(folder)?, Path::new(name))?;
    let about = metadata(found.try_clone()?)?;
    if !about.is_file() {
        return Err(refused("it is no regular file"));
    }
    if about.nlink() > 1 {
        return Err(refused("it has another name somewhere"));
    }
    if ![0, owner].contains(&about.uid()) {
        return Err(refused("it belongs to another user"));
    }
    File::open(files::through(&found))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn files_that_wait_for_the_database_are_counted() {
        let folder = tempfile::tempdir().unwrap();
        for (name, length) in [("qoq-1", 10), ("qoq-2", 20), ("other", 40), ("2026-11-23", 80)] {
            fs::write(folder.path().join(name), vec![b'x'; length]).unwrap();
        }
        symlink("/etc/passwd", folder.path().join("qoq-link")).unwrap();
        let looked = Folder::look(&Root::own(), folder.path());
        assert_eq!((looked.error, looked.entries), (None, Some(5)));
        let queue = looked.queue.unwrap();
        assert_eq!((queue.files, queue.bytes, queue.measured), (2, 30, 2));
        assert!(queue.oldest <= queue.newest && queue.oldest.is_some());
        let system = looked.file_system.unwrap();
        assert!(system.total > 0 && system.available <= system.total);
        let missing = Folder::look(&Root::own(), &folder.path().join("none"));
        assert!(missing.error.is_some() && missing.queue.is_none());
    }

    #[test]
    fn a_file_that_a_stranger_planted_is_not_opened() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let own = nix::unistd::getuid().as_raw();
        fs::write(at("good"), "x").unwrap();
        fs::write(at("twice"), "x").unwrap();
        fs::hard_link(at("twice"), at("other")).unwrap();
        symlink("/etc/passwd", at("link")).unwrap();
        nix::unistd::mkfifo(&at("fifo"), Mode::S_IRWXU).unwrap();
        let open = |name: &str, owner| {
            let opened = open_in_shared(&Root::own(), folder.path(), name.as_ref(), owner);
            opened.map(|_| ()).map_err(|error| error.to_string())
        };
        assert_eq!(open("good", own), Ok(()));
        assert_eq!(open("twice", own), Err("it has another name somewhere".into()));
        assert_eq!(open("link", own), Err("it is no regular file".into()));
        assert_eq!(open("fifo", own), Err("it is no regular file".into()));
        if own == 0 {
            std::os::unix::fs::chown(at("good"), Some(65_534), None).unwrap();
            assert_eq!(open("good", own), Err("it belongs to another user".into()));
            assert_eq!(open("good", 65_534), Ok(()));
        }
    }
}
