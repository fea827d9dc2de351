//! Many small reads near one another: keeps the piece that served the last one.

use super::{Absent, Known, Memory};
use crate::addr::Addr;
use crate::bytes::Chunk;
use crate::num::{narrow, wide};

/// How much is asked for at a time; a mapped core gives it without copying.
const WANT: usize = 1 << 30;

/// A reader with a place in it. Cheap to make; make one for each walk.
pub struct Cursor<'a> {
    memory: &'a dyn Memory,
    piece: Chunk<'a>,
    start: Addr,
    joined: Vec<u8>,
}

impl std::fmt::Debug for Cursor<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cursor").field("start", &self.start).finish_non_exhaustive()
    }
}

impl<'a> Cursor<'a> {
    /// A cursor that holds nothing yet.
    pub fn new(memory: &'a dyn Memory) -> Self {
        Self { memory, piece: Chunk::Borrowed(&[]), start: Addr::NULL, joined: Vec::new() }
    }

    /// Exactly `length` bytes.
    ///
    /// # Errors
    /// [`Absent`] names the first byte that is not known.
    #[inline]
    pub fn bytes(&mut self, at: Addr, length: usize) -> Known<&[u8]> {
        let offset = narrow(at.0.wrapping_sub(self.start.0));
        let end = offset.saturating_add(length);
        // Asked twice: the borrow checker cannot return the first answer and go on otherwise.
        if self.piece.get(offset..end).is_some() {
            return Ok(self.piece.get(offset..end).unwrap_or_default());
        }
        self.refill(at, length)
    }

    /// The rest of the piece at `at`, never empty.
    ///
    /// # Errors
    /// [`Absent`] if not even its first byte is known.
    pub fn piece(&mut self, at: Addr) -> Known<&[u8]> {
        self.bytes(at, 1)?;
        let offset = narrow(at.0.wrapping_sub(self.start.0));
        Ok(self.piece.get(offset..).unwrap_or_default())
    }

    #[cold]
    fn refill(&mut self, at: Addr, length: usize) -> Known<&[u8]> {
        self.piece = self.memory.peek(at, WANT)?;
        self.start = at;
        if self.piece.len() >= length {
            return Ok(self.piece.get(..length).unwrap_or_default());
        }
        // The bytes lie in two pieces or more.
        self.joined.clear();
        self.joined.extend_from_slice(&self.piece);
        while self.joined.len() < length {
            let reached = at.checked_add(wide(self.joined.len()));
            let reached = reached.ok_or(Absent { at, why: super::Why::Unmapped })?;
            self.piece = self.memory.peek(reached, WANT)?;
            self.start = reached;
            let missing = length.saturating_sub(self.joined.len()).min(self.piece.len());
            self.joined.extend_from_slice(self.piece.get(..missing).unwrap_or_default());
        }
        Ok(&self.joined)
    }
}
