//! A compressed file of independent frames, read at random places: a frame is decompressed when a
//! byte of it is asked for, and kept until the cache is full.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bundle::frames::{FrameIndex, IndexSource, decompress};
use memmap2::Mmap;

use super::{BlobError, Chunk};
use crate::num::narrow;

/// The file, its index and the frames in use.
pub struct FrameStore {
    file: Mmap,
    index: FrameIndex,
    cache: Mutex<Cache>,
}

struct Cache {
    /// Decompressed bytes that are kept.
    limit: usize,
    frames: HashMap<usize, (u64, Arc<Vec<u8>>)>,
    /// Why a frame cannot be decompressed: found out once.
    damaged: HashMap<usize, String>,
    bytes: usize,
    clock: u64,
}

impl std::fmt::Debug for FrameStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FrameStore").field("frames", &self.index.frames.len()).finish()
    }
}

impl FrameStore {
    /// A store over `file`, whose frames `index` lists. Of what it has decompressed it keeps `limit`
    /// bytes: the links of a pool lead from one end to the other and back, and a frame that was
    /// dropped in between is decompressed again for each.
    pub fn new(file: Mmap, index: FrameIndex, limit: usize) -> Self {
        let (frames, damaged) = (HashMap::new(), HashMap::new());
        Self {
            file,
            index,
            cache: Mutex::new(Cache { limit, frames, damaged, bytes: 0, clock: 0 }),
        }
    }

    /// Length of the uncompressed content, as far as it is there.
    pub fn content_length(&self) -> u64 {
        self.index.content_length()
    }

    /// Bytes at the end of the file that belong to no whole frame; 0 for a finished file.
    pub fn lost(&self) -> u64 {
        match self.index.source {
            IndexSource::SeekTable => 0,
            IndexSource::Walk { lost } => lost,
        }
    }

    /// The rest of the frame at `offset`, at most `want` bytes.
    pub fn peek(&self, offset: u64, want: usize) -> Result<Chunk<'static>, BlobError> {
        let number = self.index.at(offset).ok_or(BlobError::End)?;
        let frame = self.index.frames.get(number).ok_or(BlobError::End)?;
        let inside = narrow(offset.saturating_sub(frame.content.start));
        let content = self.frame(number)?;
        let end = inside.saturating_add(want).min(content.len());
        Ok(Chunk::Shared(content, inside..end))
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn frame(&self, number: usize) -> Result<Arc<Vec<u8>>, BlobError> {
        {
            let mut cache = self.cache();
            cache.clock = cache.clock.wrapping_add(1);
            let now = cache.clock;
            if let Some((used, content)) = cache.frames.get_mut(&number) {
                *used = now;
                return Ok(Arc::clone(content));
            }
        }
        // Decompressed without the lock, so that several threads can; twice at worst.
        let frame = self.index.frames.get(number).ok_or(BlobError::End)?;
        if let Some(why) = self.cache().damaged.get(&number) {
            return Err(BlobError::Damaged(why.clone()));
        }
        let content = decompress(&self.file, frame).map_err(|error| {
            let why = error.to_string();
            self.cache().damaged.insert(number, why.clone());
            BlobError::Damaged(why)
        })?;
        let content = Arc::new(content);
        let mut cache = self.cache();
        cache.keep(number, Arc::clone(&content));
        Ok(content)
    }
}

impl Cache {
    fn keep(&mut self, number: usize, content: Arc<Vec<u8>>) {
        while self.bytes.saturating_add(content.len()) > self.limit {
            let oldest = self.frames.iter().min_by_key(|(_, (used, _))| *used).map(|(n, _)| *n);
            let Some((_, dropped)) = oldest.and_then(|number| self.frames.remove(&number)) else {
                break;
            };
            self.bytes = self.bytes.saturating_sub(dropped.len());
        }
        self.bytes = self.bytes.saturating_add(content.len());
        if let Some((_, replaced)) = self.frames.insert(number, (self.clock, content)) {
            self.bytes = self.bytes.saturating_sub(replaced.len());
        }
    }
}
