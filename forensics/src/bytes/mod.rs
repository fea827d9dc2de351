//! Bytes of an input, wherever they live: a mapped file, a buffer, or frames that are decompressed
//! when asked for. Nothing here knows what the bytes mean.

mod blob;
mod chunk;
mod frame_store;

use std::fs::File;
use std::io;
use std::path::Path;

use memmap2::Mmap;
use thiserror::Error;

pub use blob::{Blob, BlobReader};
pub use chunk::Chunk;
pub use frame_store::FrameStore;

/// Why bytes of an input cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BlobError {
    /// The file ends before them.
    #[error("the file ends there")]
    End,
    /// They are compressed, and the compressed bytes are damaged.
    #[error("{0}")]
    Damaged(String),
}

/// Maps a file for reading.
///
/// # Errors
/// The system's words.
#[expect(unsafe_code, reason = "a mapping has no safe constructor")]
pub fn map_file(file: &File) -> io::Result<Mmap> {
    // SAFETY: the mapping is read only and private to this program. Another program that cuts the
    // file short while it is read would end this one with SIGBUS, as with every mapped file;
    // inputs are finished files.
    unsafe { Mmap::map(file) }
}

/// Maps a file by its path.
///
/// # Errors
/// The system's words.
pub fn map_path(path: &Path) -> io::Result<Blob> {
    map_file(&File::open(path)?).map(Blob::from_map)
}
