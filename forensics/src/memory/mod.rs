//! Reading a process's memory from whatever holds it.
//!
//! Promise: a byte that comes back was in that process at the time of the snapshot. A byte that is
//! not known is [`Absent`] with its reason, never 0. Not for writing, and not for a live process.
//!
//! [`Memory`] is the trait; [`SegmentMap`] puts a process together from a core, shared members and
//! module files; [`Cursor`] reads many small things near one another.

mod cursor;
mod segments;

use std::sync::Arc;

use thiserror::Error;

pub use cursor::Cursor;
pub use segments::{Content, Coverage, Segment, SegmentMap};

use crate::addr::Addr;
use crate::bytes::Chunk;

/// Why a byte is not known.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Why {
    /// Nothing was mapped there.
    #[error("not mapped")]
    Unmapped,
    /// It was mapped, but whoever wrote the core left it out.
    #[error("not in the core: {0}")]
    NotSaved(Arc<str>),
    /// It was in the part of the file that is missing.
    #[error("not in the core: file cut short")]
    Truncated,
    /// The compressed data that held it is damaged.
    #[error("not readable: {0}")]
    Damaged(String),
    /// It is a byte of a file that is not at hand.
    #[error("in {path}, which is not at hand")]
    ModuleMissing {
        /// The file's path on the host.
        path: Arc<str>,
    },
}

/// A byte that is not known.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{at} is {why}")]
pub struct Absent {
    /// The first byte that is not known.
    pub at: Addr,
    /// Why.
    pub why: Why,
}

/// Something read from a process, or the reason why it is not known.
pub type Known<T> = Result<T, Absent>;

/// The memory of one process.
pub trait Memory: Sync {
    /// The longest run of known bytes from `at` that lies in one piece, at most `want`; `Ok` is
    /// never empty for a `want` above 0.
    ///
    /// # Errors
    /// [`Absent`] with `at` itself where not even its first byte is known.
    fn peek(&self, at: Addr, want: usize) -> Known<Chunk<'_>>;

    /// The first address, from `at` on, whose byte a file holds: searches jump over holes and over
    /// pages that never existed.
    fn next_saved(&self, at: Addr) -> Option<Addr>;

    /// Exactly `length` bytes, joined from several pieces where needed.
    ///
    /// # Errors
    /// [`Absent`] names the first byte that is not known.
    fn bytes(&self, at: Addr, length: usize) -> Known<Chunk<'_>> {
        let first = self.peek(at, length)?;
        if first.len() == length {
            return Ok(first);
        }
        let mut joined = first.to_vec();
        while joined.len() < length {
            let reached = Addr(at.0.saturating_add(crate::num::wide(joined.len())));
            joined.extend_from_slice(&self.peek(reached, length.saturating_sub(joined.len()))?);
        }
        Ok(Chunk::from(joined))
    }

    /// A little-endian `u64`.
    ///
    /// # Errors
    /// [`Absent`] names the first byte that is not known.
    fn word(&self, at: Addr) -> Known<u64> {
        let bytes = self.bytes(at, 8)?;
        Ok(bytes.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes)))
    }

    /// A pointer.
    ///
    /// # Errors
    /// [`Absent`] names the first byte that is not known.
    fn pointer(&self, at: Addr) -> Known<Addr> {
        self.word(at).map(Addr)
    }

    /// A little-endian `i32`.
    ///
    /// # Errors
    /// [`Absent`] names the first byte that is not known.
    fn int(&self, at: Addr) -> Known<i32> {
        let bytes = self.bytes(at, 4)?;
        Ok(bytes.first_chunk().map_or(0, |bytes| i32::from_le_bytes(*bytes)))
    }

    /// The text up to a zero byte, at most `limit` bytes; invalid UTF-8 is replaced.
    ///
    /// # Errors
    /// [`Absent`] if a byte before the end is not known.
    fn text(&self, at: Addr, limit: usize) -> Known<String> {
        let mut text = Vec::new();
        while text.len() < limit {
            let reached = Addr(at.0.saturating_add(crate::num::wide(text.len())));
            let chunk = self.peek(reached, limit.saturating_sub(text.len()))?;
            match chunk.iter().position(|&byte| byte == 0) {
                Some(end) => {
                    text.extend(chunk.iter().take(end));
                    break;
                }
                None => text.extend_from_slice(&chunk),
            }
        }
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}
