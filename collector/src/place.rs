//! Where the bundle goes: a new file in a folder that was opened once, or standard output.
//!
//! The folder is walked to by its components, each opened without following it. A symbolic link on
//! the way is followed only if nobody else can have laid it: it is ours or root's, or it lies in a
//! folder that others may not write to. From then on everything happens relative to the open folder,
//! so nobody can redirect it. A name that is taken is refused, whatever has it.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, IsTerminal as _};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat};
use nix::unistd::geteuid;

use crate::budget::{self, Space};

/// As the kernel has it.
const MOST_LINKS: usize = 40;

/// What `-o` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    /// A new file.
    File(PathBuf),
    /// Standard output: `-`.
    Stream,
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Stream => f.write_str("standard output"),
        }
    }
}

impl Output {
    /// The file that was named, or one called `name` in the folder that was named, or here.
    pub(crate) fn new(wanted: Option<&Path>, name: &Path) -> Self {
        let Some(wanted) = wanted else { return Self::File(name.to_owned()) };
        if wanted == Path::new("-") {
            return Self::Stream;
        }
        let folder = wanted.as_os_str().as_encoded_bytes().ends_with(b"/") || wanted.is_dir();
        Self::File(if folder { wanted.join(name) } else { wanted.to_owned() })
    }
}

/// The bundle cannot go there.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// There is something of that name.
    #[error("{0} exists already")]
    Exists(PathBuf),
    /// A path without a file name.
    #[error("{0} is no name for a file")]
    NoName(PathBuf),
    /// The folder cannot be opened.
    #[error("cannot write to the folder {0}: {1}")]
    Folder(PathBuf, #[source] io::Error),
    /// A symbolic link that somebody else may have laid.
    #[error(
        "{link} is a symbolic link of user {owner} in a folder that others may write to: it is not \
         followed; give the folder itself with -o"
    )]
    ForeignLink {
        /// The link.
        link: PathBuf,
        /// Its owner's user ID.
        owner: u32,
    },
    /// Everybody may rename and remove what is in the folder.
    #[error(
        "everybody may rename and remove files in the folder {0} (others may write to it, and it \
         has no sticky bit): the bundle could be exchanged; give another place with -o, or go on \
         with --force"
    )]
    Unsafe(PathBuf),
    /// A person at a keyboard.
    #[error(
        "standard output is a terminal: a bundle is binary; pipe it somewhere, or give -o FILE"
    )]
    Terminal,
}

/// A place that was opened, and found fit.
#[derive(Debug)]
pub(crate) enum Place {
    File(Spot),
    Stream,
    /// What is written is only counted.
    Nowhere,
}

/// A name in an open folder.
#[derive(Debug)]
pub(crate) struct Spot {
    /// Opened with `O_PATH`.
    pub(crate) folder: OwnedFd,
    /// As a person would write it.
    pub(crate) path: PathBuf,
    /// The file's name.
    pub(crate) name: OsString,
}

impl Place {
    /// Opens the folder. With `force` one in which everybody may rename files, too.
    ///
    /// # Errors
    /// [`PlaceError`]
    pub(crate) fn open(output: &Output, force: bool) -> Result<Self, PlaceError> {
        let Output::File(path) = output else {
            if io::stdout().is_terminal() {
                return Err(PlaceError::Terminal);
            }
            return Ok(Self::Stream);
        };
        let ends_in_slash = path.as_os_str().as_encoded_bytes().ends_with(b"/");
        let name = path.file_name().filter(|_| !ends_in_slash);
        let name = name.ok_or_else(|| PlaceError::NoName(path.clone()))?.to_owned();
        let shown = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let (folder, status) = open_folder(shown)?;
        if others_may_write(&status) && status.st_mode & libc::S_ISVTX == 0 && !force {
            return Err(PlaceError::Unsafe(shown.to_owned()));
        }
        let spot = Spot { folder, path: path.clone(), name };
        for (name, path) in [(&spot.name, path.clone()), (&spot.partial(), spot.partial_path())] {
            if fstatat(&spot.folder, name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW).is_ok() {
                return Err(PlaceError::Exists(path));
            }
        }
        Ok(Self::File(spot))
    }

    /// Room on its file system; `None` where that is not ours to know.
    pub(crate) fn space(&self) -> io::Result<Option<Space>> {
        match self {
            Self::File(spot) => budget::space(spot.folder.as_fd()).map(Some),
            Self::Stream | Self::Nowhere => Ok(None),
        }
    }

    /// A new file beside the bundle, called as it is and `suffix`, readable by its owner only; and
    /// its path. `None` where the bundle has no place of its own.
    pub(crate) fn beside(&self, suffix: &str) -> io::Result<Option<(File, PathBuf)>> {
        let Self::File(spot) = self else { return Ok(None) };
        let mut name = spot.name.clone();
        name.push(suffix);
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL;
        let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = openat(&spot.folder, name.as_os_str(), flags, Mode::S_IRUSR | Mode::S_IWUSR)?;
        Ok(Some((file.into(), spot.path.with_file_name(name))))
    }

    /// A file without a name, on the same file system.
    pub(crate) fn spool(&self) -> io::Result<Option<File>> {
        match self {
            Self::File(spot) => {
                let folder = format!("/proc/self/fd/{}", spot.folder.as_raw_fd());
                tempfile::tempfile_in(folder).map(Some)
            }
            Self::Stream | Self::Nowhere => Ok(None),
        }
    }
}

impl Spot {
    /// The file's name until it is sealed.
    pub(crate) fn partial(&self) -> OsString {
        let mut name = self.name.clone();
        name.push(".partial");
        name
    }

    /// The same with its folder, for a person.
    pub(crate) fn partial_path(&self) -> PathBuf {
        self.path.with_file_name(self.partial())
    }
}

fn others_may_write(status: &FileStat) -> bool {
    status.st_mode & libc::S_IWOTH != 0
}

fn is(status: &FileStat, kind: SFlag) -> bool {
    SFlag::from_bits_truncate(status.st_mode & SFlag::S_IFMT.bits()) == kind
}

/// Opens a folder component by component, and gives what it is.
fn open_folder(path: &Path) -> Result<(OwnedFd, FileStat), PlaceError> {
    let failed = |error: Errno| PlaceError::Folder(path.to_owned(), error.into());
    let start = |path: &Path| {
        let from = if path.is_absolute() { "/" } else { "." };
        let folder = nix::fcntl::open(from, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty());
        let folder = folder.map_err(failed)?;
        let status = fstat(&folder).map_err(failed)?;
        Ok::<_, PlaceError>((folder, status))
    };
    let (mut folder, mut status) = start(path)?;
    let mut links = 0;
    let mut left: VecDeque<OsString> = steps(path);
    let mut walked = PathBuf::from(if path.is_absolute() { "/" } else { "" });
    while let Some(step) = left.pop_front() {
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let next = openat(&folder, step.as_os_str(), flags, Mode::empty()).map_err(failed)?;
        let found = fstat(&next).map_err(failed)?;
        walked.push(&step);
        if !is(&found, SFlag::S_IFLNK) {
            (folder, status) = (next, found);
            continue;
        }
        let trusted = [0, geteuid().as_raw()].contains(&found.st_uid);
        if others_may_write(&status) && !trusted {
            return Err(PlaceError::ForeignLink { link: walked, owner: found.st_uid });
        }
        links += 1;
        if links > MOST_LINKS {
            return Err(failed(Errno::ELOOP));
        }
        let to = PathBuf::from(readlinkat(&next, OsStr::new("")).map_err(failed)?);
        walked.pop();
        if to.is_absolute() {
            (folder, status) = start(&to)?;
            walked = PathBuf::from("/");
        }
        for step in steps(&to).into_iter().rev() {
            left.push_front(step);
        }
    }
    if is(&status, SFlag::S_IFDIR) { Ok((folder, status)) } else { Err(failed(Errno::ENOTDIR)) }
}

/// The names that a path goes through, `..` among them.
fn steps(path: &Path) -> VecDeque<OsString> {
    let steps = path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    });
    steps.collect()
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn open(path: &Path) -> Result<Place, PlaceError> {
        Place::open(&Output::File(path.to_owned()), false)
    }

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn the_output_is_a_file_a_folder_or_a_stream() {
        let name = Path::new("evidence.tar.zst");
        let output = |wanted: &str| Output::new(Some(Path::new(wanted)), name);
        let file = |path: &str| Output::File(path.into());
        assert_eq!(Output::new(None, name), file("evidence.tar.zst"));
        assert_eq!(output("-"), Output::Stream);
        assert_eq!(output("./-"), file("./-"));
        assert_eq!(output("/nowhere/b"), file("/nowhere/b"));
        assert_eq!(output("/nowhere/b/"), file("/nowhere/b/evidence.tar.zst"));
        assert_eq!(output("/"), file("/evidence.tar.zst"));
        assert_eq!(output("."), file("./evidence.tar.zst"));
    }

    #[test]
    fn a_name_that_is_taken_is_refused_whatever_has_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("b");
        assert!(matches!(open(&path), Ok(Place::File(_))));
        for name in ["b", "b.partial"] {
            let taken = folder.path().join(name);
            symlink("/nowhere", &taken).unwrap();
            assert!(matches!(open(&path), Err(PlaceError::Exists(found)) if found == taken));
            fs::remove_file(&taken).unwrap();
        }
    }

    #[test]
    fn what_is_no_folder_is_refused_in_words() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), b"").unwrap();
        symlink("loop", folder.path().join("loop")).unwrap();
        let words = |path: &str| open(&folder.path().join(path)).unwrap_err().to_string();
        assert!(words("file/b").ends_with("Not a directory (os error 20)"), "{}", words("file/b"));
        assert!(words("none/b").contains("No such file"), "{}", words("none/b"));
        assert!(words("loop/b").contains("Too many levels"), "{}", words("loop/b"));
        assert!(matches!(open(Path::new("/tmp/..")), Err(PlaceError::NoName(_))));
    }

    #[test]
    fn our_own_links_are_followed_and_lead_to_the_same_folder() {
        let folder = tempfile::tempdir().unwrap();
        let real = folder.path().join("a/real");
        fs::create_dir_all(&real).unwrap();
        symlink(&real, folder.path().join("absolute")).unwrap();
        symlink("../a/./real/../real", folder.path().join("a/relative")).unwrap();
        for path in ["absolute", "a/relative", "a/real/../real"] {
            let (found, _) = open_folder(&folder.path().join(path)).unwrap();
            let link = format!("/proc/self/fd/{}", found.as_raw_fd());
            assert_eq!(fs::read_link(link).unwrap(), real.canonicalize().unwrap(), "{path}");
        }
    }

    #[test]
    fn a_link_that_somebody_else_laid_is_not_followed() {
        if !geteuid().is_root() {
            panic!("only root can lay a link in another user's name: run the tests as root");
        }
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("link");
        symlink("/tmp", &link).unwrap();
        let nobody = nix::unistd::Uid::from_raw(65534);
        let flags = AtFlags::AT_SYMLINK_NOFOLLOW;
        nix::unistd::fchownat(nix::fcntl::AT_FDCWD, &link, Some(nobody), None, flags).unwrap();
        // In a folder of our own alone, the user was let in by us.
        assert!(open_folder(&link).is_ok());
        for open_to_all in [0o1777, 0o777] {
            mode(folder.path(), open_to_all);
            let found = open_folder(&link);
            assert!(
                matches!(&found, Err(PlaceError::ForeignLink { link: at, owner: 65534 }) if *at == link),
                "{found:?}"
            );
        }
    }

    #[test]
    fn a_folder_in_which_everybody_may_rename_is_refused_unless_forced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("b");
        mode(folder.path(), 0o777);
        assert!(matches!(open(&path), Err(PlaceError::Unsafe(_))));
        assert!(Place::open(&Output::File(path.clone()), true).is_ok());
        for fine in [0o1777, 0o775] {
            mode(folder.path(), fine);
            assert!(open(&path).is_ok(), "{fine:o}");
        }
    }
}
