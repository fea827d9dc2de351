//! A window into an input: cheap to clone, and holding no more in memory than the source does.
//! Reading a hole of a sparse file costs nothing that was not asked for.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use memmap2::Mmap;

use super::{BlobError, Chunk, FrameStore};
use crate::num::{narrow, wide};

#[derive(Debug)]
enum Source {
    Mapped(Mmap),
    Owned(Vec<u8>),
    Frames(FrameStore),
}

/// A window into an input.
#[derive(Clone, Debug)]
pub struct Blob {
    source: Arc<Source>,
    start: u64,
    length: u64,
}

impl Blob {
    /// A whole mapped file.
    pub fn from_map(map: Mmap) -> Self {
        let length = wide(map.len());
        Self { source: Arc::new(Source::Mapped(map)), start: 0, length }
    }

    /// A buffer.
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        let length = wide(bytes.len());
        Self { source: Arc::new(Source::Owned(bytes)), start: 0, length }
    }

    /// The uncompressed content of a file of independent frames.
    pub fn from_frames(store: FrameStore) -> Self {
        let length = store.content_length();
        Self { source: Arc::new(Source::Frames(store)), start: 0, length }
    }

    /// Length in bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The part from `offset`, at most `length` bytes; shorter where this one ends.
    pub fn slice(&self, offset: u64, length: u64) -> Self {
        let offset = offset.min(self.length);
        Self {
            source: Arc::clone(&self.source),
            start: self.start.saturating_add(offset),
            length: length.min(self.length.saturating_sub(offset)),
        }
    }

    /// The longest run of bytes from `offset` that lies in one piece, at most `want`.
    ///
    /// # Errors
    /// [`BlobError::End`] from the end on; [`BlobError::Damaged`] for damaged frames.
    pub fn peek(&self, offset: u64, want: usize) -> Result<Chunk<'_>, BlobError> {
        let left =
            self.length.checked_sub(offset).filter(|&left| left > 0).ok_or(BlobError::End)?;
        let want = want.min(narrow(left));
        let at = self.start.saturating_add(offset);
        let range = narrow(at)..narrow(at).saturating_add(want);
        match &*self.source {
            Source::Mapped(map) => map.get(range).map(Chunk::Borrowed).ok_or(BlobError::End),
            Source::Owned(bytes) => bytes.get(range).map(Chunk::Borrowed).ok_or(BlobError::End),
            Source::Frames(store) => store.peek(at, want),
        }
    }

    /// Exactly the bytes of `range`, joined where they lie in several pieces.
    ///
    /// # Errors
    /// Those of [`Blob::peek`] for the first byte that is not there.
    pub fn bytes(&self, range: Range<u64>) -> Result<Chunk<'_>, BlobError> {
        let length = narrow(range.end.saturating_sub(range.start));
        if length == 0 {
            return Ok(Chunk::Borrowed(&[]));
        }
        if range.end > self.length {
            return Err(BlobError::End);
        }
        let first = self.peek(range.start, length)?;
        if first.len() == length {
            return Ok(first);
        }
        let mut joined = first.to_vec();
        while joined.len() < length {
            let reached = range.start.saturating_add(wide(joined.len()));
            joined.extend_from_slice(&self.peek(reached, length.saturating_sub(joined.len()))?);
        }
        Ok(Chunk::from(joined))
    }

    /// All of it, if it lies in memory or in a mapped file in one piece.
    pub fn all_in_place(&self) -> Option<&[u8]> {
        let start = narrow(self.start);
        let range = start..start.saturating_add(narrow(self.length));
        match &*self.source {
            Source::Mapped(map) => map.get(range),
            Source::Owned(bytes) => bytes.get(range),
            Source::Frames(_) => None,
        }
    }

    /// All of it.
    ///
    /// # Errors
    /// Those of [`Blob::peek`].
    pub fn all(&self) -> Result<Chunk<'_>, BlobError> {
        self.bytes(0..self.length)
    }

    /// Reads it from the front, as a stream.
    pub fn reader(&self) -> BlobReader {
        BlobReader { blob: self.clone(), position: 0 }
    }
}

/// A [`Blob`] as `io::Read` and `io::Seek`, for parsers that want those.
#[derive(Debug)]
pub struct BlobReader {
    blob: Blob,
    position: u64,
}

impl io::Read for BlobReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        match self.blob.peek(self.position, out.len()) {
            Ok(chunk) => {
                let length = chunk.len().min(out.len());
                if let (Some(out), Some(chunk)) = (out.get_mut(..length), chunk.get(..length)) {
                    out.copy_from_slice(chunk);
                }
                self.position = self.position.saturating_add(wide(length));
                Ok(length)
            }
            Err(BlobError::End) => Ok(0),
            Err(BlobError::Damaged(why)) => Err(io::Error::new(io::ErrorKind::InvalidData, why)),
        }
    }
}

impl io::Seek for BlobReader {
    fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
        let position = match to {
            io::SeekFrom::Start(offset) => Some(offset),
            io::SeekFrom::End(offset) => self.blob.length.checked_add_signed(offset),
            io::SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
        };
        self.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}
