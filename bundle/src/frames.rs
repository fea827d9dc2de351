//! The outer file: one zstd stream of independent frames, and a seek table at its end.
//!
//! Plain `zstd -d` and `tar --zstd` read it from front to back; [`FrameIndex`] lets a reader open
//! any frame by itself. Each frame records its own content size and checksum, so the frames of a
//! cut file are found without the table.

use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::ops::Range;

use thiserror::Error;
use zeekstd::SeekTable;
use zeekstd::seek_table::Format;
use zstd_safe::CParameter;

/// Uncompressed bytes in each frame but the last. 256 KiB cost 2 % in size against one frame and
/// make a random read cheap (measured on a 1.8 GB heap).
pub const FRAME_SIZE: usize = 256 * 1024;

/// Frames that are compressed at a time by each worker.
const BATCH: usize = 4;

/// Compresses what is written to it into independent frames, several at a time.
///
/// Nothing is complete until [`FrameWriter::finish`] has written the seek table.
pub struct FrameWriter<W: Write> {
    out: W,
    pending: Vec<u8>,
    batch: usize,
    workers: NonZeroUsize,
    level: i32,
    table: SeekTable,
    content: u64,
}

impl<W: Write> std::fmt::Debug for FrameWriter<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FrameWriter")
            .field("pending", &self.pending.len())
            .field("content", &self.content)
            .finish_non_exhaustive()
    }
}

impl<W: Write> FrameWriter<W> {
    /// Starts a stream at zstd `level`, compressing on `workers` threads.
    pub fn new(out: W, level: i32, workers: NonZeroUsize) -> Self {
        let batch = FRAME_SIZE.saturating_mul(BATCH).saturating_mul(workers.get());
        let table = SeekTable::new();
        Self { out, pending: Vec::with_capacity(batch), batch, workers, level, table, content: 0 }
    }

    /// Uncompressed bytes taken so far.
    pub fn content_length(&self) -> u64 {
        self.content
    }

    /// Uncompressed bytes that are not yet in the writer below.
    pub fn pending(&self) -> u64 {
        u64::try_from(self.pending.len()).unwrap_or(u64::MAX)
    }

    /// Frames that are whole in the writer below.
    pub fn frames(&self) -> u32 {
        self.table.num_frames()
    }

    /// The writer below; what is still pending is not in it.
    pub fn get_ref(&self) -> &W {
        &self.out
    }

    /// Writes what is pending as frames (the last one short), so that all that was taken so far
    /// survives if the program ends here.
    ///
    /// # Errors
    /// Those of the writer below, or of the compressor.
    pub fn end_frame(&mut self) -> io::Result<()> {
        let chunks: Vec<&[u8]> = self.pending.chunks(FRAME_SIZE).collect();
        let share = chunks.len().div_ceil(self.workers.get()).max(1);
        let level = self.level;
        let compressed: Vec<io::Result<Vec<Vec<u8>>>> = std::thread::scope(|scope| {
            let running: Vec<_> = chunks
                .chunks(share)
                .map(|part| scope.spawn(move || compress_all(part, level)))
                .collect();
            let joined = running.into_iter().map(|worker| {
                worker.join().unwrap_or_else(|_| Err(io::Error::other("a compressor panicked")))
            });
            joined.collect()
        });
        let mut lengths = chunks.iter().map(|chunk| chunk.len());
        for part in compressed {
            for frame in part? {
                let length = lengths.next().unwrap_or_default();
                self.out.write_all(&frame)?;
                let (Ok(compressed), Ok(length)) =
                    (u32::try_from(frame.len()), u32::try_from(length))
                else {
                    return Err(io::Error::other("a frame is too large"));
                };
                self.table.log_frame(compressed, length).map_err(io::Error::other)?;
            }
        }
        self.pending.clear();
        Ok(())
    }

    /// Writes the last frames and the seek table, and gives the writer back.
    ///
    /// # Errors
    /// Those of the writer below, or of the compressor.
    pub fn finish(mut self) -> io::Result<W> {
        self.end_frame()?;
        io::copy(&mut self.table.into_format_serializer(Format::Foot), &mut self.out)?;
        self.out.flush()?;
        Ok(self.out)
    }
}

fn compress_all(chunks: &[&[u8]], level: i32) -> io::Result<Vec<Vec<u8>>> {
    let mut compressor = zstd::bulk::Compressor::new(level)?;
    compressor.set_parameter(CParameter::ChecksumFlag(true))?;
    chunks.iter().map(|chunk| compressor.compress(chunk)).collect()
}

impl<W: Write> Write for FrameWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = self.batch.saturating_sub(self.pending.len());
        let taken = bytes.split_at_checked(room).map_or(bytes, |(taken, _)| taken);
        self.pending.extend_from_slice(taken);
        self.content = self.content.saturating_add(u64::try_from(taken.len()).unwrap_or(u64::MAX));
        if self.pending.len() >= self.batch {
            self.end_frame()?;
        }
        Ok(taken.len())
    }

    /// Keeps pending bytes pending: a short frame for every flush would ruin the ratio.
    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Where one frame lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Its bytes in the compressed file.
    pub compressed: Range<u64>,
    /// Its bytes in the uncompressed stream.
    pub content: Range<u64>,
}

/// How the frames were found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndexSource {
    /// From the seek table: the stream was finished.
    SeekTable,
    /// By walking the frames: no seek table, the file was cut.
    Walk {
        /// Bytes at the end of the file that belong to no whole frame.
        lost: u64,
    },
}

/// A file that is not a stream of such frames.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FrameError {
    /// Neither a seek table nor one whole frame with a recorded size.
    #[error("not a zstd stream of independent frames")]
    NotFrames,
    /// The seek table names bytes that the file does not have.
    #[error("the seek table does not fit the file")]
    BadTable,
    /// A frame that does not decompress to what its header says.
    #[error("the frame at offset {at} is damaged: {why}")]
    BadFrame {
        /// Offset in the compressed file.
        at: u64,
        /// The decompressor's words.
        why: String,
    },
}

/// Every frame of a stream, by rising offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameIndex {
    /// The frames; their `content` ranges touch one another.
    pub frames: Vec<Frame>,
    /// How they were found.
    pub source: IndexSource,
}

impl FrameIndex {
    /// Finds the frames of `file`.
    ///
    /// # Errors
    /// [`FrameError::NotFrames`] for any other file, among them zstd files of one big frame
    /// without a recorded size.
    pub fn read(file: &[u8]) -> Result<Self, FrameError> {
        match SeekTable::from_seekable(&mut zeekstd::BytesWrapper::new(file)) {
            Ok(table) => Self::from_table(&table, file),
            Err(_) => Self::walk(file),
        }
    }

    fn from_table(table: &SeekTable, file: &[u8]) -> Result<Self, FrameError> {
        let end = u64::try_from(file.len()).map_err(|_| FrameError::BadTable)?;
        let mut frames = Vec::new();
        for index in 0..table.num_frames() {
            let range = |start: zeekstd::Result<u64>, end: zeekstd::Result<u64>| match (start, end)
            {
                (Ok(start), Ok(end)) => Ok(start..end),
                _ => Err(FrameError::BadTable),
            };
            let compressed = range(table.frame_start_comp(index), table.frame_end_comp(index))?;
            let content = range(table.frame_start_decomp(index), table.frame_end_decomp(index))?;
            if compressed.end > end {
                return Err(FrameError::BadTable);
            }
            frames.push(Frame { compressed, content });
        }
        Ok(Self { frames, source: IndexSource::SeekTable })
    }

    fn walk(file: &[u8]) -> Result<Self, FrameError> {
        let mut frames = Vec::new();
        let (mut offset, mut content) = (0_u64, 0_u64);
        let mut rest = file;
        while let Ok(length) = zstd_safe::find_frame_compressed_size(rest) {
            let Ok(Some(size)) = zstd_safe::get_frame_content_size(rest) else { break };
            let (Some(after), Ok(advance)) = (rest.get(length..), u64::try_from(length)) else {
                break;
            };
            let (Some(end), Some(content_end)) =
                (offset.checked_add(advance), content.checked_add(size))
            else {
                break;
            };
            frames.push(Frame { compressed: offset..end, content: content..content_end });
            (offset, content, rest) = (end, content_end, after);
        }
        if frames.is_empty() {
            return Err(FrameError::NotFrames);
        }
        let lost = u64::try_from(rest.len()).unwrap_or(u64::MAX);
        Ok(Self { frames, source: IndexSource::Walk { lost } })
    }

    /// Length of the uncompressed stream, as far as it is there.
    pub fn content_length(&self) -> u64 {
        self.frames.last().map_or(0, |frame| frame.content.end)
    }

    /// Index of the frame that holds byte `offset` of the uncompressed stream.
    pub fn at(&self, offset: u64) -> Option<usize> {
        let index = self.frames.partition_point(|frame| frame.content.end <= offset);
        (index < self.frames.len()).then_some(index)
    }
}

/// Decompresses one frame of `file`.
///
/// # Errors
/// [`FrameError::BadFrame`]: a size or checksum that does not hold, or bytes that are not there.
pub fn decompress(file: &[u8], frame: &Frame) -> Result<Vec<u8>, FrameError> {
    let bad = |why: &str| FrameError::BadFrame { at: frame.compressed.start, why: why.to_owned() };
    let bounds = usize::try_from(frame.compressed.start)
        .and_then(|start| usize::try_from(frame.compressed.end).map(|end| start..end));
    let bytes = bounds.ok().and_then(|range| file.get(range)).ok_or_else(|| bad("cut off"))?;
    let wanted = frame.content.end.saturating_sub(frame.content.start);
    // The table is input: never allocate what the frame itself does not claim.
    match zstd_safe::get_frame_content_size(bytes) {
        Ok(Some(size)) if size == wanted => {}
        _ => return Err(bad("its size is not what the index says")),
    }
    let capacity = usize::try_from(wanted).map_err(|_| bad("too large for this machine"))?;
    if capacity > FRAME_SIZE.saturating_mul(1024) {
        return Err(bad("it claims to be larger than any frame that is written"));
    }
    let content =
        zstd::bulk::decompress(bytes, capacity).map_err(|error| bad(&error.to_string()))?;
    if content.len() == capacity { Ok(content) } else { Err(bad("it is shorter than it says")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(content: &[u8]) -> Vec<u8> {
        let workers = NonZeroUsize::new(2).unwrap();
        let mut writer = FrameWriter::new(Vec::new(), 1, workers);
        writer.write_all(content).unwrap();
        writer.finish().unwrap()
    }

    fn content() -> Vec<u8> {
        (0..5_000_000_u32).map(|n| (n / 1000 % 251).to_le_bytes()[0]).collect()
    }

    fn read_all(file: &[u8], index: &FrameIndex) -> Vec<u8> {
        index.frames.iter().flat_map(|frame| decompress(file, frame).unwrap()).collect()
    }

    #[test]
    fn frames_are_read_back_through_the_table() {
        let file = stream(&content());
        let index = FrameIndex::read(&file).unwrap();
        assert_eq!(index.source, IndexSource::SeekTable);
        assert_eq!(index.frames.len(), 20);
        assert_eq!(index.content_length(), 5_000_000);
        assert_eq!(index.at(262_144), Some(1));
        assert_eq!(index.at(5_000_000), None);
        assert!(read_all(&file, &index) == content());
    }

    #[test]
    fn plain_zstd_reads_the_same_stream() {
        let file = stream(&content());
        assert!(zstd::stream::decode_all(file.as_slice()).unwrap() == content());
    }

    #[test]
    fn a_cut_stream_keeps_its_whole_frames() {
        let file = stream(&content());
        let whole = FrameIndex::read(&file).unwrap();
        let cut_at = usize::try_from(whole.frames[7].compressed.end).unwrap() + 10;
        let cut = &file[..cut_at];
        let index = FrameIndex::read(cut).unwrap();
        assert_eq!(index.source, IndexSource::Walk { lost: 10 });
        assert_eq!(index.frames, whole.frames[..8]);
        assert!(read_all(cut, &index) == content()[..8 * FRAME_SIZE]);
    }

    #[test]
    fn a_flipped_bit_is_noticed() {
        let mut file = stream(&content());
        let index = FrameIndex::read(&file).unwrap();
        let frame = index.frames[3].clone();
        let middle = usize::try_from((frame.compressed.start + frame.compressed.end) / 2).unwrap();
        file[middle] ^= 1;
        assert!(matches!(decompress(&file, &frame), Err(FrameError::BadFrame { .. })));
    }

    #[test]
    fn other_files_are_refused() {
        assert_eq!(FrameIndex::read(b""), Err(FrameError::NotFrames));
        assert_eq!(FrameIndex::read(&[0x7f; 4096]), Err(FrameError::NotFrames));
    }
}
