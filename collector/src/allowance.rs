//! How much more may go into a bundle: up to the size that the operator allows, and as long as enough
//! of the disk stays free for everybody else.
//!
//! What the manifest will need is always set aside. A member's compressed size is not known before;
//! one that would not be sure to fit is compressed once into nothing.

use std::io::{self, Read, Write};
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use bundle::frames::{FRAME_SIZE, FrameWriter};

use crate::number::{bytes, human};
use crate::outlet::Gauge;

/// What the manifest needs besides its entries, its own tar header, the seek table's end.
const ASIDE: u64 = 64 * 1024;
/// Compressed bytes of the manifest for each member, gap or process: a hash of 32 bytes, a path, a
/// size.
const ASIDE_EACH: u64 = 160;
/// Bytes of the seek table for each frame.
const TABLE_EACH: u64 = 8;
/// age: a chunk that is not full is not yet in the file; each is 16 bytes longer there.
const CHUNK: u64 = 64 * 1024;
/// The disk is asked again after so long, or so many bytes.
const FRESH: (Duration, u64) = (Duration::from_millis(500), 4 << 20);

/// What a bundle must not pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ceiling {
    /// Bytes of its file.
    pub(crate) most: Option<u64>,
    /// Bytes that stay free on its disk.
    pub(crate) keep_free: u64,
}

/// Room that is left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Left {
    pub(crate) bytes: u64,
    /// What ends it, for a person.
    pub(crate) why: String,
}

/// Knows how much is left.
#[derive(Debug)]
pub(crate) struct Allowance {
    pub(crate) ceiling: Ceiling,
    pub(crate) encrypted: bool,
    gauge: Gauge,
    /// When the disk was asked, how much was written then, and what it had.
    asked: Option<(Instant, u64, u64)>,
}

impl Allowance {
    pub(crate) fn new(ceiling: Ceiling, gauge: Gauge, encrypted: bool) -> Self {
        Self { ceiling, encrypted, gauge, asked: None }
    }

    /// The most that a member of `size` bytes takes: incompressible, with its tar header, its share
    /// of the frames and of the encryption.
    pub(crate) fn at_most(size: u64) -> u64 {
        size.saturating_add(size / 128).saturating_add(4096)
    }

    /// What is left besides the pending bytes and the end of the file; `None` without a limit.
    pub(crate) fn left(&mut self, pending: u64, frames: u32, entries: u64) -> Option<Left> {
        let written = self.gauge.written();
        let by_size = self.ceiling.most.map(|most| Left {
            bytes: most.saturating_sub(written),
            why: format!("the bundle would pass {} (--max-size)", human(most)),
        });
        let by_disk = self.free(written).map(|free| Left {
            bytes: free.saturating_sub(self.ceiling.keep_free),
            why: format!(
                "less than {} would stay free on the disk (--keep-free)",
                human(self.ceiling.keep_free)
            ),
        });
        let mut least = by_size.into_iter().chain(by_disk).min_by_key(|left| left.bytes)?;
        let table = TABLE_EACH.saturating_mul(u64::from(frames));
        let manifest = ASIDE_EACH.saturating_mul(entries);
        let pending = if pending == 0 { 0 } else { Self::at_most(pending) };
        let chunk = if self.encrypted { CHUNK } else { 0 };
        for aside in [ASIDE, table, manifest, pending, chunk] {
            least.bytes = least.bytes.saturating_sub(aside);
        }
        Some(least)
    }

    /// Bytes that the disk has.
    fn free(&mut self, written: u64) -> Option<u64> {
        if self.ceiling.keep_free == 0 {
            return None;
        }
        if let Some((when, then, free)) = self.asked {
            let since = written.saturating_sub(then);
            if when.elapsed() < FRESH.0 && since < FRESH.1 {
                return Some(free.saturating_sub(since));
            }
        }
        let free = self.gauge.space()?.free;
        self.asked = Some((Instant::now(), written, free));
        Some(free)
    }

    /// Whether `content` fits into `room` bytes once it is compressed.
    pub(crate) fn measure(
        &self,
        content: impl Read,
        room: u64,
        level: i32,
        workers: NonZeroUsize,
    ) -> bool {
        // The encryption takes 16 bytes of 64 KiB; frames and the table round up.
        let room = room.saturating_sub(room / 2048).saturating_sub(4096);
        let mut frames = FrameWriter::new(Counted { left: room }, level, workers);
        let mut content = content;
        let copied = io::copy(&mut content, &mut frames).and_then(|length| {
            frames.end_frame()?;
            let table = (length / bytes(FRAME_SIZE) + 1) * TABLE_EACH;
            Ok(frames.get_ref().left >= table)
        });
        copied.unwrap_or(false)
    }
}

/// Takes so many bytes and no more.
struct Counted {
    left: u64,
}

impl Write for Counted {
    fn write(&mut self, content: &[u8]) -> io::Result<usize> {
        match self.left.checked_sub(bytes(content.len())) {
            Some(left) => self.left = left,
            None => return Err(io::ErrorKind::StorageFull.into()),
        }
        Ok(content.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
