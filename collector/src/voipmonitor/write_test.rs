//! How fast a folder's disk takes what is written: some megabytes, past the page cache, into a file
//! without a name, so that nothing is left whenever this ends, killed or not.
//!
//! It loads the disk, so it is bounded by bytes and by time, wants twenty times the room that it
//! uses, and is only done when asked for.

use std::ffi::CString;
use std::fs::File;
use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};
use serde::Serialize;

use super::spool::FileSystem;
use crate::files::{self, Root};
use crate::number::{bytes, human, size};

/// Bytes of one write.
const BLOCK: u64 = 1 << 20;
/// What memory and length must be a multiple of, past the page cache.
const ALIGNED: usize = 4096;

/// How much is written at most.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// In bytes.
    pub bytes: u64,
    /// From the first write to the start of the last one.
    pub time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 256 << 20, time: Duration::from_secs(5) }
    }
}

/// What was measured.
#[derive(Debug, Serialize)]
pub struct Measured {
    /// Bytes that were written.
    pub bytes: u64,
    /// Bytes of each write.
    pub block: u64,
    /// Written past the page cache (`O_DIRECT`); else each block was waited for (`fdatasync`).
    pub direct: bool,
    /// From the first write to the end of the last one, in microseconds.
    pub micros: u64,
    /// Millions of bytes a second.
    pub megabytes_per_second: f64,
    /// Microseconds of a write: half of them took no longer.
    pub p50_micros: u64,
    /// 90 of a hundred took no longer.
    pub p90_micros: u64,
    /// 99 of a hundred took no longer.
    pub p99_micros: u64,
    /// The longest one.
    pub max_micros: u64,
    /// How long `fsync` took at the end, in microseconds.
    pub sync_micros: u64,
}

/// Writes to `folder` and measures it; ends early when `stop` says so.
///
/// # Errors
/// There is not the room, or the folder cannot be written to.
pub fn run(
    files: &Root,
    folder: &Path,
    limits: Limits,
    stop: impl Fn() -> bool,
) -> io::Result<Measured> {
    let found = files.find(folder)?;
    let system = FileSystem::of(&found)?;
    let most = limits.bytes.min(system.available / 20) / BLOCK * BLOCK;
    if most == 0 {
        let words =
            format!("only {} ({} bytes) are free there", human(system.available), system.available);
        return Err(io::Error::new(io::ErrorKind::StorageFull, words));
    }
    let folder = File::open(files::through(&found))?.into();
    let (mut file, direct) = nameless(&folder)?;
    write(&mut file, direct, most, limits.time, stop)
}

/// A file without a name, and whether it is written past the page cache.
fn nameless(folder: &OwnedFd) -> io::Result<(File, bool)> {
    let mut last = Errno::EINVAL;
    for direct in [OFlag::O_DIRECT, OFlag::empty()] {
        for make in [unnamed, unlinked] {
            match make(folder, direct) {
                Ok(file) => return Ok((file.into(), !direct.is_empty())),
                Err(error) => last = error,
            }
        }
    }
    Err(last.into())
}

fn unnamed(folder: &OwnedFd, direct: OFlag) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_TMPFILE | OFlag::O_WRONLY | OFlag::O_CLOEXEC | direct;
    openat(folder, ".", flags, Mode::S_IRUSR | Mode::S_IWUSR)
}

/// For file systems that know only named files: its name goes before anything is written.
fn unlinked(folder: &OwnedFd, direct: OFlag) -> nix::Result<OwnedFd> {
    let random = RandomState::new().hash_one("write test");
    let name = CString::new(format!(".write-test-{random:016x}")).unwrap_or_default();
    let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW;
    let flags = flags | OFlag::O_WRONLY | OFlag::O_CLOEXEC | direct;
    // Where O_DIRECT is refused, the file has been made all the same.
    let file = openat(folder, name.as_c_str(), flags, Mode::S_IRUSR | Mode::S_IWUSR);
    match unlinkat(folder, name.as_c_str(), UnlinkatFlags::NoRemoveDir) {
        Err(error) if file.is_ok() => Err(error),
        _ => file,
    }
}

fn write(
    file: &mut File,
    direct: bool,
    most: u64,
    time: Duration,
    stop: impl Fn() -> bool,
) -> io::Result<Measured> {
    let buffer = noise();
    let start = buffer.as_ptr().align_offset(ALIGNED);
    let block = buffer.get(start..start.saturating_add(size(BLOCK))).unwrap_or_default();
    let mut took = Vec::new();
    let mut written = 0;
    let begun = Instant::now();
    while written < most && begun.elapsed() < time && !stop() {
        let one = Instant::now();
        file.write_all(block)?;
        if !direct {
            file.sync_data()?;
        }
        took.push(micros(one.elapsed()));
        written += bytes(block.len());
    }
    let micros_in_all = micros(begun.elapsed());
    let syncing = Instant::now();
    file.sync_all()?;
    took.sort_unstable();
    let rank = |hundredth: usize| {
        let at = (took.len().saturating_mul(hundredth).div_ceil(100)).saturating_sub(1);
        took.get(at).copied().unwrap_or(0)
    };
    Ok(Measured {
        bytes: written,
        block: BLOCK,
        direct,
        micros: micros_in_all,
        megabytes_per_second: rate(written, micros_in_all),
        p50_micros: rank(50),
        p90_micros: rank(90),
        p99_micros: rank(99),
        max_micros: rank(100),
        sync_micros: micros(syncing.elapsed()),
    })
}

/// A block, and room to align it, of bytes that no file system packs.
fn noise() -> Vec<u8> {
    let mut state = RandomState::new().hash_one("noise") | 1;
    let words = (0..size(BLOCK).saturating_add(ALIGNED) / 8).flat_map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.collect()
}

/// Bytes a microsecond are millions of bytes a second; to one hundredth.
fn rate(bytes: u64, micros: u64) -> f64 {
    let hundredths = u128::from(bytes) * 100 / u128::from(micros.max(1));
    f64::from(u32::try_from(hundredths).unwrap_or(u32::MAX)) / 100.0
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measure(folder: &Path, limits: Limits) -> io::Result<Measured> {
        run(&Root::own(), folder, limits, || false)
    }

    #[test]
    fn it_writes_no_more_than_it_may_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let limits = Limits { bytes: 8 << 20, time: Duration::from_secs(5) };
        let measured = measure(folder.path(), limits).unwrap();
        assert_eq!((measured.bytes, measured.block), (8 << 20, 1 << 20));
        assert!(measured.megabytes_per_second > 0.0);
        assert!(measured.p50_micros <= measured.p90_micros);
        assert!(measured.p90_micros <= measured.p99_micros);
        assert!(measured.p99_micros <= measured.max_micros);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn it_ends_in_time_and_when_told() {
        let folder = tempfile::tempdir().unwrap();
        let none = Limits { time: Duration::ZERO, ..Limits::default() };
        assert_eq!(measure(folder.path(), none).unwrap().bytes, 0);
        let stopped = run(&Root::own(), folder.path(), Limits::default(), || true).unwrap();
        assert_eq!((stopped.bytes, stopped.megabytes_per_second), (0, 0.0));
    }

    #[test]
    fn files_have_no_name_from_the_first_byte_on() {
        let folder = tempfile::tempdir().unwrap();
        let opened = File::open(folder.path()).unwrap().into();
        for make in [unnamed, unlinked] {
            let file = make(&opened, OFlag::empty()).unwrap();
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
            assert_eq!(File::from(file).metadata().unwrap().len(), 0);
        }
    }

    #[test]
    fn a_folder_that_cannot_be_written_to_is_said() {
        assert!(measure(Path::new("/proc"), Limits::default()).is_err());
        assert!(measure(Path::new("/no/such/folder"), Limits::default()).is_err());
    }

    #[test]
    fn rates_are_millions_of_bytes_a_second() {
        assert_eq!(rate(250_000_000, 1_000_000), 250.0);
        assert_eq!(rate(1, 0), 1.0);
        assert_eq!(rate(u64::MAX, 1), 42_949_672.95);
    }
}
