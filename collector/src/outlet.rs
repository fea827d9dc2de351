//! The lowest layer of a bundle that is being written: the file or the pipe, and how much went in.
//!
//! A file has a temporary name until it is sealed, and gets its own without taking another's. A pipe
//! that nobody reads is given up; the group stands still at no time while it is waited for.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, RenameFlags, openat, renameat2};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, fsync, linkat, unlinkat};

use crate::budget::{self, Space};
use crate::number::bytes;
use crate::place::{Place, PlaceError, Spot};

/// Nobody reads the pipe for so long: it is given up.
const PIPE_PATIENCE: Duration = Duration::from_secs(60);
/// POSIX: a pipe that can be written to takes so many bytes without blocking (`PIPE_BUF`).
const PIPE_PIECE: usize = 4096;

/// Where the bytes of a bundle go.
#[derive(Debug)]
pub(crate) struct Outlet {
    kind: Kind,
    gauge: Gauge,
}

/// What an [`Outlet`] has taken so far, for those above it.
#[derive(Clone, Debug)]
pub(crate) struct Gauge {
    spot: Option<Arc<Spot>>,
    written: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Kind {
    File { spot: Arc<Spot>, file: File },
    Stream { stream: File, is_file: bool },
    Nowhere,
}

impl Outlet {
    /// Makes the file, readable by its owner only, or takes over standard output.
    ///
    /// # Errors
    /// The name is taken meanwhile, or the folder cannot be written to.
    pub(crate) fn create(place: Place) -> Result<Self, PlaceError> {
        let kind = match place {
            Place::File(spot) => {
                let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL;
                let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
                let mode = Mode::S_IRUSR | Mode::S_IWUSR;
                let made = openat(&spot.folder, spot.partial().as_os_str(), flags, mode);
                let file = made.map_err(|error| match error {
                    Errno::EEXIST => PlaceError::Exists(spot.partial_path()),
                    error => PlaceError::Folder(folder_of(&spot.path), error.into()),
                })?;
                Kind::File { spot: Arc::new(spot), file: file.into() }
            }
            Place::Stream => {
                let duplicate = io::stdout().as_fd().try_clone_to_owned();
                let stream = duplicate.map(File::from).map_err(stdout_failed)?;
                let is_file = stream.metadata().map_err(stdout_failed)?.is_file();
                Kind::Stream { stream, is_file }
            }
            Place::Nowhere => Kind::Nowhere,
        };
        let spot = match &kind {
            Kind::File { spot, .. } => Some(Arc::clone(spot)),
            Kind::Stream { .. } | Kind::Nowhere => None,
        };
        Ok(Self { kind, gauge: Gauge { spot, written: Arc::default() } })
    }

    /// Tells how much went in, also while this lies below an encryption.
    pub(crate) fn gauge(&self) -> Gauge {
        self.gauge.clone()
    }

    /// Waits for the disk. With `rename` the file gets its name; gives what it is called, and words
    /// if it could not be given its name.
    ///
    /// # Errors
    /// Those of the disk.
    pub(crate) fn seal(self, rename: bool) -> io::Result<(PathBuf, Option<String>)> {
        match self.kind {
            Kind::Stream { .. } | Kind::Nowhere => Ok((self.gauge.partial(), None)),
            Kind::File { spot, file } => {
                file.sync_all()?;
                if !rename {
                    return Ok((spot.partial_path(), None));
                }
                if let Err(error) = give_name(&spot) {
                    let words =
                        format!("it could not be renamed to {}: {error}", spot.path.display());
                    return Ok((spot.partial_path(), Some(words)));
                }
                sync_folder(spot.folder.as_fd());
                Ok((spot.path.clone(), None))
            }
        }
    }
}

impl Gauge {
    /// Bytes so far.
    pub(crate) fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// What the file is called until it is sealed.
    pub(crate) fn partial(&self) -> PathBuf {
        match &self.spot {
            Some(spot) => spot.partial_path(),
            None => PathBuf::from("standard output"),
        }
    }

    /// Room on the file system of a file.
    pub(crate) fn space(&self) -> Option<Space> {
        budget::space(&self.spot.as_ref()?.folder).ok()
    }

    /// Takes a file away that is of no use to anybody; whether there was one.
    pub(crate) fn discard(&self) -> bool {
        self.spot.as_ref().is_some_and(|spot| {
            unlinkat(&spot.folder, spot.partial().as_os_str(), UnlinkatFlags::NoRemoveDir).is_ok()
        })
    }
}

fn stdout_failed(error: io::Error) -> PlaceError {
    PlaceError::Folder(PathBuf::from("standard output"), error)
}

fn folder_of(path: &Path) -> PathBuf {
    path.parent().unwrap_or(Path::new(".")).to_owned()
}

/// Renames without overwriting; where the file system cannot do that, by a second link.
fn give_name(spot: &Spot) -> nix::Result<()> {
    let (folder, partial) = (&spot.folder, spot.partial());
    let (from, to) = (partial.as_os_str(), spot.name.as_os_str());
    match renameat2(folder, from, folder, to, RenameFlags::RENAME_NOREPLACE) {
        Err(Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP) => {}
        done => return done,
    }
    linkat(folder, from, folder, to, AtFlags::empty())?;
    unlinkat(folder, from, UnlinkatFlags::NoRemoveDir)
}

/// Best effort: a folder that cannot be read cannot be synced either.
fn sync_folder(folder: BorrowedFd<'_>) {
    let opened: nix::Result<OwnedFd> =
        openat(folder, ".", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty());
    if let Err(error) = opened.and_then(fsync) {
        tracing::debug!(%error, "fsync of the folder");
    }
}

impl Write for Outlet {
    fn write(&mut self, content: &[u8]) -> io::Result<usize> {
        let length = match &mut self.kind {
            Kind::File { file, .. } => file.write(content)?,
            Kind::Stream { stream, is_file: true } => stream.write(content)?,
            Kind::Stream { stream, is_file: false } => {
                wait_for_reader(stream.as_fd())?;
                stream.write(content.get(..PIPE_PIECE).unwrap_or(content))?
            }
            Kind::Nowhere => content.len(),
        };
        self.gauge.written.fetch_add(bytes(length), Ordering::Relaxed);
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn wait_for_reader(pipe: BorrowedFd<'_>) -> io::Result<()> {
    let mut waited = [PollFd::new(pipe, PollFlags::POLLOUT)];
    let patience = PollTimeout::try_from(PIPE_PATIENCE).unwrap_or(PollTimeout::MAX);
    match poll(&mut waited, patience) {
        Ok(0) => {
            let seconds = PIPE_PATIENCE.as_secs();
            let words = format!("nobody has read standard output for {seconds} s");
            Err(io::Error::new(io::ErrorKind::TimedOut, words))
        }
        Ok(_) => Ok(()),
        // An interrupted wait is asked again by whoever writes.
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::place::Output;

    fn outlet(path: &Path) -> Outlet {
        let place = Place::open(&Output::File(path.to_owned()), false).unwrap();
        Outlet::create(place).unwrap()
    }

    #[test]
    fn a_file_gets_its_name_when_it_is_sealed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("b");
        let mut outlet = outlet(&path);
        outlet.write_all(b"content").unwrap();
        assert_eq!(outlet.gauge().written(), 7);
        let mode = fs::metadata(outlet.gauge().partial()).unwrap().permissions().mode();
        assert_eq!((mode & 0o777, path.exists()), (0o600, false));
        assert_eq!(outlet.seal(true).unwrap(), (path.clone(), None));
        assert_eq!(fs::read(&path).unwrap(), b"content");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_name_that_is_taken_in_between_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("b"), folder.path().join("other"));
        fs::write(&other, b"mine").unwrap();
        let mut outlet = outlet(&path);
        outlet.write_all(b"content").unwrap();
        symlink(&other, &path).unwrap();
        let (name, words) = outlet.seal(true).unwrap();
        assert_eq!(name, folder.path().join("b.partial"));
        assert!(words.unwrap().contains("File exists"));
        assert_eq!(fs::read(&name).unwrap(), b"content");
        assert_eq!(fs::read(&other).unwrap(), b"mine");
        assert!(path.is_symlink());
    }

    #[test]
    fn a_temporary_name_that_is_taken_in_between_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("b"), folder.path().join("other"));
        fs::write(&other, b"mine").unwrap();
        let place = Place::open(&Output::File(path.clone()), false).unwrap();
        symlink(&other, folder.path().join("b.partial")).unwrap();
        assert!(matches!(Outlet::create(place), Err(PlaceError::Exists(_))));
        assert_eq!(fs::read(&other).unwrap(), b"mine");
    }

    #[test]
    fn a_folder_that_is_exchanged_in_between_is_not_written_to() {
        let folder = tempfile::tempdir().unwrap();
        let (first, moved) = (folder.path().join("first"), folder.path().join("moved"));
        fs::create_dir(&first).unwrap();
        let outlet = outlet(&first.join("b"));
        fs::rename(&first, &moved).unwrap();
        fs::create_dir(&first).unwrap();
        outlet.seal(true).unwrap();
        assert!(moved.join("b").exists() && fs::read_dir(&first).unwrap().count() == 0);
    }
}
