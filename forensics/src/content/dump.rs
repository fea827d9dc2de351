//! Payloads as files, one each, with an index that names their owners.
//!
//! File names are made of addresses and PIDs alone. They are created relative to the opened
//! directory and never through a link, so that nothing outside of it is written.

use std::fmt;
use std::fs::{DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};
use serde::Serialize;
use thiserror::Error;

use super::classify::{LOOK, classify};
use crate::addr::{Addr, AddrRange};
use crate::kamailio::{OwnerName, PoolKind};
use crate::memory::{Cursor, Memory};
use crate::num::{narrow, wide};
use crate::units::{count, size};

/// Files that are written at most.
const FILES: usize = 100_000;
/// Bytes that are copied at a time.
const PIECE: u64 = 1 << 20;
/// Name of the list of all files.
const INDEX: &str = "index.json";

/// Where to, and how much.
#[derive(Clone, Debug)]
pub struct DumpOptions {
    /// Made if it is missing; its parent must be there.
    pub directory: PathBuf,
    /// Write into a directory that holds something already, and replace files of the same name.
    pub force: bool,
    /// Payload that is written at most, in bytes.
    pub max_bytes: u64,
}

/// A fragment whose payload is written.
pub struct Selected<'a> {
    /// Its pool.
    pub pool: PoolKind,
    /// The process; `None` for shared memory.
    pub pid: Option<u32>,
    /// Who allocated it.
    pub owner: &'a OwnerName,
    /// Where its bytes lie.
    pub payload: AddrRange,
    /// What holds them.
    pub memory: &'a dyn Memory,
}

impl std::fmt::Debug for Selected<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Selected").field("payload", &self.payload).finish_non_exhaustive()
    }
}

/// What was written, and what was not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DumpReport {
    /// Where to.
    pub directory: String,
    /// Payloads written, one file each.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Payloads left out since the limit on bytes or files was reached.
    pub over_limit: u64,
    /// Their bytes.
    pub over_limit_bytes: u64,
    /// Payloads left out since the input does not hold all of their bytes.
    pub not_known: u64,
}

/// For a person, in lines.
impl fmt::Display for DumpReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { directory, files, bytes, over_limit, over_limit_bytes, not_known } = self;
        writeln!(f, "Dumped: {} payloads, {}, to {directory}", count(*files), size(*bytes))?;
        write!(f, "  {INDEX} names their owners; the files hold private content as it is")?;
        if *over_limit > 0 {
            let (number, bytes) = (count(*over_limit), size(*over_limit_bytes));
            write!(f, "\n  left out: {number} payloads, {bytes}, beyond the limit (--dump-max)")?;
        }
        if *not_known > 0 {
            let number = count(*not_known);
            write!(f, "\n  left out: {number} payloads whose bytes are not all in the input")?;
        }
        Ok(())
    }
}

/// Why a dump ended before its end; files that were written by then stay.
#[derive(Debug, Error)]
pub enum DumpError {
    /// The directory cannot be made, opened or listed.
    #[error("cannot use {} for payloads", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// It is not empty.
    #[error("{}: is not empty (--force writes into it all the same)", .0.display())]
    NotEmpty(PathBuf),
    /// A file could not be written.
    #[error("cannot write {} (the {written} payloads written before stay)", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
        /// Files that are whole.
        written: u64,
    },
}

/// A line of the index.
#[derive(Serialize)]
struct Entry<'a> {
    name: String,
    pool: Pool,
    address: Addr,
    bytes: u64,
    /// [`super::Kind::id`] of the most telling thing that it holds.
    kind: &'static str,
    #[serde(flatten)]
    owner: &'a OwnerName,
}

#[derive(Serialize)]
struct Pool {
    kind: PoolKind,
    pid: Option<u32>,
}

/// Writes payloads, in their order, and the index.
///
/// # Errors
/// A directory that is not empty without `force`; the system's words. What was written stays, and
/// the index lists it if it can be written itself.
pub fn dump<'a>(
    selected: impl Iterator<Item = Selected<'a>>,
    options: &DumpOptions,
) -> Result<DumpReport, DumpError> {
    let folder = Folder::open(options)?;
    let mut report =
        DumpReport { directory: options.directory.display().to_string(), ..Default::default() };
    let mut index = Vec::new();
    let mut failed = None;
    for one in selected {
        let bytes = one.payload.length();
        let total = report.bytes.saturating_add(bytes);
        if total > options.max_bytes || index.len() >= FILES {
            report.over_limit = report.over_limit.saturating_add(1);
            report.over_limit_bytes = report.over_limit_bytes.saturating_add(bytes);
            continue;
        }
        if !is_known(one.memory, one.payload) {
            report.not_known = report.not_known.saturating_add(1);
            continue;
        }
        let name = name(&one);
        if let Err(source) = folder.write(&name, &one) {
            let path = options.directory.join(name);
            failed = Some(DumpError::File { path, source, written: report.files });
            break;
        }
        let pool = Pool { kind: one.pool, pid: one.pid };
        let (address, kind) = (one.payload.start, kind(&one));
        index.push(Entry { name, pool, address, bytes, kind, owner: one.owner });
        report.files = report.files.saturating_add(1);
        report.bytes = total;
    }
    let listed = folder.write_index(&index).map_err(|source| DumpError::File {
        path: options.directory.join(INDEX),
        source,
        written: report.files,
    });
    match failed {
        Some(error) => Err(error),
        None => listed.map(|()| report),
    }
}

/// `shm-0x7f….bin`, `pkg-4242-0x7f….bin`
fn name(one: &Selected<'_>) -> String {
    let (pool, start) = (one.pool.name().to_ascii_lowercase(), one.payload.start);
    match one.pid {
        Some(pid) => format!("{pool}-{pid}-{start}.bin"),
        None => format!("{pool}-{start}.bin"),
    }
}

fn kind(one: &Selected<'_>) -> &'static str {
    let want = narrow(one.payload.length()).min(LOOK);
    let Ok(bytes) = one.memory.bytes(one.payload.start, want) else { return "not-known" };
    let found = classify(one.payload, &bytes, &mut |_| None);
    found.iter().map(|found| &found.kind).min().map_or("nothing-recognised", |kind| kind.id())
}

/// Whether every byte can be read.
fn is_known(memory: &dyn Memory, range: AddrRange) -> bool {
    let mut at = range.start;
    while at < range.end {
        let wanted = range.end.0.saturating_sub(at.0).min(PIECE);
        let Ok(piece) = memory.peek(at, narrow(wanted)) else { return false };
        at = Addr(at.0.saturating_add(wide(piece.len().max(1))));
    }
    true
}

/// The opened directory.
struct Folder {
    directory: File,
    force: bool,
}

impl Folder {
    fn open(options: &DumpOptions) -> Result<Self, DumpError> {
        let path = &options.directory;
        let failed = |source| DumpError::Directory { path: path.clone(), source };
        match DirBuilder::new().mode(0o700).create(path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed(error)),
        }
        let directory = File::options()
            .read(true)
            .custom_flags(OFlag::O_DIRECTORY.bits())
            .open(path)
            .map_err(failed)?;
        if !options.force && !is_empty(path).map_err(failed)? {
            return Err(DumpError::NotEmpty(path.clone()));
        }
        Ok(Self { directory, force: options.force })
    }

    /// A new file; with `force` in the place of one that has its name.
    fn create(&self, name: &str) -> io::Result<File> {
        if self.force {
            match unlinkat(&self.directory, name, UnlinkatFlags::NoRemoveDir) {
                Ok(()) | Err(Errno::ENOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let flags =
            OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = openat(&self.directory, name, flags, Mode::from_bits_truncate(0o600))?;
        Ok(File::from(file))
    }

    /// A payload as a file; nothing stays of one that cannot be written whole.
    fn write(&self, name: &str, one: &Selected<'_>) -> io::Result<()> {
        let mut file = self.create(name)?;
        let written = Self::copy(one, &mut file);
        if written.is_err() {
            // The first error is the one to tell.
            let _ = unlinkat(&self.directory, name, UnlinkatFlags::NoRemoveDir);
        }
        written
    }

    fn copy(one: &Selected<'_>, file: &mut File) -> io::Result<()> {
        let mut cursor = Cursor::new(one.memory);
        let (mut at, end) = (one.payload.start, one.payload.end);
        while at < end {
            let wanted = end.0.saturating_sub(at.0).min(PIECE);
            let piece = cursor.bytes(at, narrow(wanted)).map_err(io::Error::other)?;
            file.write_all(piece)?;
            at = Addr(at.0.saturating_add(wanted));
        }
        Ok(())
    }

    fn write_index(&self, index: &[Entry<'_>]) -> io::Result<()> {
        let mut file = io::BufWriter::new(self.create(INDEX)?);
        serde_json::to_writer_pretty(&mut file, index)?;
        writeln!(file)?;
        file.flush()
    }
}

fn is_empty(directory: &Path) -> io::Result<bool> {
    Ok(std::fs::read_dir(directory)?.next().is_none())
}
