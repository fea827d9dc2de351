//! Compressed files without an index: unpacked once, into memory up to a limit, beyond it into a
//! temporary file that has no name. Runs of zeroes take no room in either.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};

use memmap2::{Mmap, MmapOptions};

use crate::bytes::{Blob, map_file};
use crate::num::{narrow, wide};

const PIECE: usize = 256 * 1024;

/// A compression that is known by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compression {
    /// Zstandard.
    Zstd,
    /// gzip.
    Gzip,
    /// xz.
    Xz,
    /// LZ4 frames.
    Lz4,
}

impl Compression {
    /// Recognises a compressed file.
    pub(super) fn of(start: &[u8]) -> Option<Self> {
        let is = |magic: &[u8]| start.starts_with(magic);
        // A zstd stream may begin with a skippable frame, 0x184D2A50 to 0x184D2A5F.
        let skippable = matches!(start, [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..]);
        if is(&[0x28, 0xb5, 0x2f, 0xfd]) || skippable {
            Some(Self::Zstd)
        } else if is(&[0x1f, 0x8b]) {
            Some(Self::Gzip)
        } else if is(&[0xfd, b'7', b'z', b'X', b'Z', 0]) {
            Some(Self::Xz)
        } else if is(&[0x04, 0x22, 0x4d, 0x18]) {
            Some(Self::Lz4)
        } else {
            None
        }
    }

    /// Its name as users write it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zst",
            Self::Gzip => "gz",
            Self::Xz => "xz",
            Self::Lz4 => "lz4",
        }
    }
}

/// What came out of a compressed file.
#[derive(Debug)]
pub(super) struct Unpacked {
    /// The content, as far as it could be unpacked.
    pub content: Blob,
    /// Why it ends early, where it does.
    pub ended: Option<String>,
}

/// Unpacks all of `file`, keeping at most `memory` bytes of non-zero content in memory.
///
/// # Errors
/// Only where nothing can be kept: no memory, no room for the temporary file. Damaged or cut input
/// is kept up to the damage.
pub(super) fn unpack(file: &[u8], compression: Compression, memory: u64) -> io::Result<Unpacked> {
    let mut reader: Box<dyn Read + '_> = match compression {
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::new(file)?;
            // As `zstd --long=31` writes it.
            decoder.window_log_max(31)?;
            Box::new(decoder)
        }
        Compression::Gzip => Box::new(flate2::read::MultiGzDecoder::new(file)),
        Compression::Xz => Box::new(liblzma::read::XzDecoder::new_multi_decoder(file)),
        Compression::Lz4 => Box::new(lz4_flex::frame::FrameDecoder::new(file)),
    };
    let mut store = Store::Memory { pieces: Vec::new(), used: 0, limit: memory };
    let mut length = 0_u64;
    let mut buffer = vec![0; PIECE];
    let ended = loop {
        let (filled, end) = fill(&mut *reader, &mut buffer);
        let piece = buffer.get(..filled).unwrap_or_default();
        store.push(length, piece)?;
        length = length.saturating_add(wide(filled));
        match end {
            End::Full => {}
            End::Clean => break None,
            End::Damaged(error) => break Some(error.to_string()),
        }
    };
    Ok(Unpacked { content: store.finish(length)?, ended })
}

enum End {
    Full,
    Clean,
    Damaged(io::Error),
}

/// Reads until the buffer is full, so that zero pieces are found whole; keeps what came before an
/// error.
fn fill(reader: &mut dyn Read, buffer: &mut [u8]) -> (usize, End) {
    let mut filled = 0_usize;
    while let Some(room) = buffer.get_mut(filled..).filter(|room| !room.is_empty()) {
        match reader.read(room) {
            Ok(0) => return (filled, End::Clean),
            Ok(read) => filled = filled.saturating_add(read),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (filled, End::Damaged(error)),
        }
    }
    (filled, End::Full)
}

/// Where unpacked bytes go.
enum Store {
    Memory { pieces: Vec<(u64, Vec<u8>)>, used: u64, limit: u64 },
    File(File),
}

impl Store {
    fn push(&mut self, at: u64, piece: &[u8]) -> io::Result<()> {
        if piece.iter().all(|&byte| byte == 0) {
            return Ok(());
        }
        if let Self::Memory { pieces, used, limit } = self {
            let sum = used.saturating_add(wide(piece.len()));
            if sum <= *limit {
                *used = sum;
                pieces.push((at, piece.to_vec()));
                return Ok(());
            }
            let mut file = tempfile::tempfile()?;
            for (at, piece) in pieces.drain(..) {
                write_at(&mut file, at, &piece)?;
            }
            *self = Self::File(file);
        }
        match self {
            Self::File(file) => write_at(file, at, piece),
            Self::Memory { .. } => Ok(()),
        }
    }

    fn finish(self, length: u64) -> io::Result<Blob> {
        if length == 0 {
            return Ok(Blob::from_bytes(Vec::new()));
        }
        match self {
            Self::Memory { pieces, .. } => Ok(Blob::from_map(sparse(length, pieces)?)),
            Self::File(file) => {
                file.set_len(length)?;
                Ok(Blob::from_map(map_file(&file)?))
            }
        }
    }
}

fn write_at(file: &mut File, at: u64, piece: &[u8]) -> io::Result<()> {
    file.seek(SeekFrom::Start(at))?;
    file.write_all(piece)
}

/// An anonymous mapping: pages that nobody writes do not exist.
fn sparse(length: u64, pieces: Vec<(u64, Vec<u8>)>) -> io::Result<Mmap> {
    // Not reserved: mostly holes, and longer than this machine's memory if need be.
    let mut map = MmapOptions::new().len(narrow(length)).no_reserve_swap().map_anon()?;
    for (at, piece) in pieces {
        let start = narrow(at);
        if let Some(place) = map.get_mut(start..start.saturating_add(piece.len())) {
            place.copy_from_slice(&piece);
        }
    }
    map.make_read_only()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content() -> Vec<u8> {
        let mut bytes = vec![0; 3 * PIECE];
        bytes[PIECE + 5] = 7;
        bytes[3 * PIECE - 1] = 9;
        bytes
    }

    fn gzip() -> Vec<u8> {
        let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        writer.write_all(&content()).unwrap();
        writer.finish().unwrap()
    }

    fn samples() -> Vec<(Compression, Vec<u8>)> {
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
        xz.write_all(&content()).unwrap();
        let mut lz4 = lz4_flex::frame::FrameEncoder::new(Vec::new());
        lz4.write_all(&content()).unwrap();
        vec![
            (Compression::Zstd, zstd::stream::encode_all(content().as_slice(), 1).unwrap()),
            (Compression::Gzip, gzip()),
            (Compression::Xz, xz.finish().unwrap()),
            (Compression::Lz4, lz4.finish().unwrap()),
        ]
    }

    #[test]
    fn every_compression_unpacks_in_memory_and_in_a_file() {
        for (compression, file) in samples() {
            assert_eq!(Compression::of(&file), Some(compression));
            for limit in [1 << 30, 1] {
                let unpacked = unpack(&file, compression, limit).unwrap();
                assert_eq!(unpacked.ended, None);
                assert!(*unpacked.content.all().unwrap() == content()[..], "{compression:?}");
            }
        }
    }

    #[test]
    fn a_cut_file_keeps_what_came_before_the_cut() {
        let file = gzip();
        let unpacked = unpack(&file[..file.len() - 12], Compression::Gzip, 1 << 30).unwrap();
        assert!(unpacked.ended.is_some());
        assert!(unpacked.content.length() > wide(PIECE));
        assert_eq!(unpacked.content.bytes(0..8).unwrap().to_vec(), [0; 8]);
    }
}
