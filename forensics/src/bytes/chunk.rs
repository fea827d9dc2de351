//! A run of known bytes: borrowed from a mapped file, or shared with a cache.

use std::ops::{Deref, Range};
use std::sync::Arc;

/// Bytes, wherever they live.
#[derive(Clone, Debug)]
pub enum Chunk<'a> {
    /// Bytes of a mapped file.
    Borrowed(&'a [u8]),
    /// Part of a buffer that a cache may also hold.
    Shared(Arc<Vec<u8>>, Range<usize>),
}

impl Deref for Chunk<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Borrowed(bytes) => bytes,
            Self::Shared(buffer, range) => buffer.get(range.clone()).unwrap_or_default(),
        }
    }
}

impl From<Vec<u8>> for Chunk<'_> {
    fn from(bytes: Vec<u8>) -> Self {
        let length = bytes.len();
        Self::Shared(Arc::new(bytes), 0..length)
    }
}
