//! Files as somebody else sees them: below the root of the target, or of a mounted system.
//!
//! Every path is resolved here, step by step, symbolic links within that root: a container's link
//! to `/etc/shadow` leads to its own file, never to the host's. Only regular files are opened for
//! reading: a FIFO or a device is an error in words, and nothing here waits for a writer. What a
//! dead network mount does to a thread cannot be helped; callers run where they can be left behind.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{File, FileType, Metadata};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use nix::fcntl::{OFlag, openat, readlinkat};
use nix::sys::stat::Mode;

use crate::number::{bytes, size};

/// Symbolic links that are followed on one path, as the kernel does.
const MOST_LINKS: u32 = 40;
/// Names on one path, after all links.
const MOST_STEPS: u32 = 1000;
/// Entries of a folder that are looked at.
const MOST_ENTRIES: usize = 100_000;

/// The root of a file system's view.
#[derive(Clone, Debug, Default)]
pub struct Root(Option<Arc<OwnedFd>>);

/// A part of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// The bytes.
    pub content: Vec<u8>,
    /// Length of the whole file in bytes when it was opened.
    pub total: u64,
}

/// One name in a folder.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its name.
    pub name: OsString,
    /// What it is; a link is not followed.
    pub kind: FileType,
}

impl Root {
    /// Our own root.
    pub fn own() -> Self {
        Self::default()
    }

    /// The folder `path` as the root.
    ///
    /// # Errors
    /// It is no folder, or not ours to look into.
    pub fn at(path: &Path) -> io::Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Ok(Self(Some(Arc::new(nix::fcntl::open(path, flags, Mode::empty())?))))
    }

    /// The root of process `pid`.
    ///
    /// # Errors
    /// It has ended, or is not ours to look at.
    pub fn of_process(pid: u32) -> io::Result<Self> {
        Self::at(Path::new(&format!("/proc/{pid}/root")))
    }

    /// Whether both are the same folder, as far as can be told.
    pub fn is_same(&self, other: &Self) -> bool {
        use std::os::unix::fs::MetadataExt as _;
        let place = |root: &Self| root.metadata("/").map(|known| (known.dev(), known.ino())).ok();
        place(self).is_some_and(|here| place(other) == Some(here))
    }

    /// Whatever `path` leads to, without opening it (`O_PATH`); relative paths begin at the root.
    ///
    /// # Errors
    /// It leads nowhere, or in circles.
    pub fn find(&self, path: impl AsRef<Path>) -> io::Result<OwnedFd> {
        let path = path.as_ref();
        let mut folders = vec![match &self.0 {
            Some(root) => root.as_fd().try_clone_to_owned()?,
            None => Self::at(Path::new("/"))?.into_descriptor()?,
        }];
        let mut pending: VecDeque<OsString> = names(path).collect();
        let (mut links, mut steps) = (0, 0);
        while let Some(name) = pending.pop_front() {
            steps += 1;
            if steps > MOST_STEPS {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            if name == ".." {
                if folders.len() > 1 {
                    folders.pop();
                }
                continue;
            }
            let Some(folder) = folders.last() else { return Err(io::ErrorKind::NotFound.into()) };
            let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let found = openat(folder, name.as_os_str(), flags, Mode::empty())?;
            if !metadata(&found)?.is_symlink() {
                folders.push(found);
                continue;
            }
            links += 1;
            if links > MOST_LINKS {
                return Err(io::Error::from_raw_os_error(libc::ELOOP));
            }
            let leads_to = PathBuf::from(readlinkat(&found, "")?);
            if leads_to.is_absolute() {
                folders.truncate(1);
            }
            for name in names(&leads_to).collect::<Vec<_>>().into_iter().rev() {
                pending.push_front(name);
            }
        }
        folders.pop().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// What is known of the file that `path` leads to.
    ///
    /// # Errors
    /// It leads nowhere.
    pub fn metadata(&self, path: impl AsRef<Path>) -> io::Result<Metadata> {
        metadata(&self.find(path)?)
    }

    /// Opens a regular file for reading.
    ///
    /// # Errors
    /// It leads nowhere, or to something else, which is said.
    pub fn open(&self, path: impl AsRef<Path>) -> io::Result<File> {
        open_found(&self.find(path)?)
    }

    /// The first `most` bytes of a regular file.
    ///
    /// # Errors
    /// Those of [`Root::open`] and of reading.
    pub fn read(&self, path: impl AsRef<Path>, most: u64) -> io::Result<Part> {
        let file = self.open(path)?;
        let total = file.metadata()?.len();
        let mut content = Vec::new();
        file.take(most).read_to_end(&mut content)?;
        Ok(Part { total: total.max(bytes(content.len())), content })
    }

    /// The last `most` bytes of a regular file, as long as it was when it was opened.
    ///
    /// # Errors
    /// Those of [`Root::open`] and of reading.
    pub fn read_tail(&self, path: impl AsRef<Path>, most: u64) -> io::Result<Part> {
        let mut file = self.open(path)?;
        let total = file.metadata()?.len();
        file.seek(SeekFrom::Start(total.saturating_sub(most)))?;
        let mut content = Vec::with_capacity(size(total.min(most)));
        file.take(total.min(most)).read_to_end(&mut content)?;
        Ok(Part { content, total })
    }

    /// What is in a folder, by name.
    ///
    /// # Errors
    /// It leads nowhere, or to no folder.
    pub fn list(&self, folder: impl AsRef<Path>) -> io::Result<Vec<Entry>> {
        let found = self.find(folder)?;
        let folder = std::fs::read_dir(through(&found))?;
        let mut entries = Vec::new();
        for entry in folder.take(MOST_ENTRIES) {
            let entry = entry?;
            entries.push(Entry { name: entry.file_name(), kind: entry.file_type()? });
        }
        entries.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(entries)
    }

    fn into_descriptor(self) -> io::Result<OwnedFd> {
        let root = self.0.and_then(Arc::into_inner);
        root.ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// A path that leads to what `found` is, for calls that take a path: through `/proc`, without
/// resolving any name again.
pub fn through(found: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", found.as_raw_fd()))
}

/// Opens the file that a link of the kernel in `/proc` leads to, whatever its name is by now.
///
/// # Errors
/// As [`Root::open`].
pub fn open_link(link: &str) -> io::Result<File> {
    open_found(&nix::fcntl::open(link, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?)
}

fn open_found(found: &OwnedFd) -> io::Result<File> {
    let kind = metadata(found)?.file_type();
    if !kind.is_file() {
        let words = format!("it is {}, not a file", words(kind));
        return Err(io::Error::new(io::ErrorKind::InvalidInput, words));
    }
    reopen(found, libc::O_NONBLOCK | libc::O_NOCTTY)
}

fn reopen(found: &OwnedFd, flags: i32) -> io::Result<File> {
    File::options().read(true).custom_flags(flags).open(through(found))
}

fn metadata(found: &OwnedFd) -> io::Result<Metadata> {
    File::from(found.try_clone()?).metadata()
}

/// The steps of a path; `.` and the root are none.
fn names(path: &Path) -> impl Iterator<Item = OsString> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}

fn words(kind: FileType) -> &'static str {
    use std::os::unix::fs::FileTypeExt as _;
    match kind {
        _ if kind.is_dir() => "a folder",
        _ if kind.is_fifo() => "a FIFO",
        _ if kind.is_socket() => "a socket",
        _ if kind.is_char_device() || kind.is_block_device() => "a device",
        _ => "no regular file",
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    /// A root with a file, a folder, links of every kind and a FIFO.
    fn root() -> (tempfile::TempDir, Root) {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir_all(at("etc/kamailio")).unwrap();
        fs::write(at("etc/kamailio/kamailio.cfg"), "0123456789").unwrap();
        fs::write(at("etc/passwd"), "inner").unwrap();
        symlink("/etc/passwd", at("absolute")).unwrap();
        symlink("../../../../../../../../etc/passwd", at("etc/upwards")).unwrap();
        symlink("kamailio/../kamailio", at("etc/relative")).unwrap();
        symlink("circle", at("circle")).unwrap();
        nix::unistd::mkfifo(&at("fifo"), Mode::S_IRWXU).unwrap();
        let root = Root::at(folder.path()).unwrap();
        (folder, root)
    }

    #[test]
    fn links_never_lead_out_of_the_root() {
        let (_folder, root) = root();
        for path in ["/absolute", "etc/upwards", "/etc/../../../etc/passwd"] {
            assert_eq!(root.read(path, 100).unwrap().content, b"inner", "{path}");
        }
        assert_eq!(root.read("/etc/relative/kamailio.cfg", 4).unwrap().content, b"0123");
        assert_eq!(root.open("/circle").unwrap_err().raw_os_error(), Some(libc::ELOOP));
        let missing = root.open("/etc/hosts").unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_file_is_read_from_either_end() {
        let (_folder, root) = root();
        let path = "/etc/kamailio/kamailio.cfg";
        assert_eq!(root.read(path, 3).unwrap(), Part { content: b"012".to_vec(), total: 10 });
        assert_eq!(root.read_tail(path, 3).unwrap(), Part { content: b"789".to_vec(), total: 10 });
        assert_eq!(root.read_tail(path, 30).unwrap().content, b"0123456789");
        assert_eq!(Root::own().read("/proc/self/comm", 4).unwrap().content.len(), 4);
    }

    #[test]
    fn what_is_no_file_is_said_and_not_waited_for() {
        let (_folder, root) = root();
        let error = |path: &str| root.open(path).unwrap_err().to_string();
        assert_eq!(error("/fifo"), "it is a FIFO, not a file");
        assert_eq!(error("/etc"), "it is a folder, not a file");
    }

    #[test]
    fn two_ways_to_one_root_are_the_same() {
        let (_folder, root) = root();
        let own = Root::of_process(std::process::id()).unwrap();
        assert!(own.is_same(&Root::own()) && !own.is_same(&root));
    }

    #[test]
    fn a_folder_is_listed_by_name() {
        let (_folder, root) = root();
        let names: Vec<_> = root.list("/etc").unwrap().into_iter().map(|one| one.name).collect();
        assert_eq!(names, ["kamailio", "passwd", "relative", "upwards"]);
        assert!(root.list("/etc/passwd").is_err());
    }
}
