//! A compressed core, unpacked into a file without a name; and a file read as it lies on the disk,
//! its holes not read.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::stored::fill;
use crate::number::{bytes, size};
use crate::spans::Span;
use crate::sys;

const PIECE: usize = 256 * 1024;
const SHORTER: &str = "the file became shorter while it was read";

/// An unpacked core.
#[derive(Debug)]
pub(crate) struct Spooled {
    /// Its bytes; runs of zeroes are holes.
    pub(crate) file: File,
    /// Why it ends before its own end, where it does.
    pub(crate) ended: Option<String>,
}

/// How much may come out of a compressed file, both in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Length of the content.
    pub(crate) length: u64,
    /// Of it, what is no run of zeroes: room on the disk.
    pub(crate) room: u64,
}

/// Unpacks `reader` into a file without a name in `folder`; what came before an error is kept.
///
/// # Errors
/// The file cannot be made or written.
pub(crate) fn unpack(reader: &mut dyn Read, folder: &Path, limits: Limits) -> io::Result<Spooled> {
    let file = tempfile::tempfile_in(folder)?;
    let mut piece = vec![0; PIECE];
    let (mut length, mut used) = (0_u64, 0_u64);
    let ended = loop {
        if sys::interrupted() {
            break Some("interrupted".to_owned());
        }
        let filled = match fill(reader, &mut piece) {
            Ok(0) => break None,
            Ok(filled) => filled,
            Err(error) => break Some(error.to_string()),
        };
        let content = piece.get(..filled).unwrap_or_default();
        if length.saturating_add(bytes(filled)) > limits.length {
            break Some(format!("more than {} bytes are not unpacked", limits.length));
        }
        if content.iter().any(|byte| *byte != 0) {
            used = used.saturating_add(bytes(filled));
            if used > limits.room {
                break Some(format!(
                    "the disk has no room to unpack more than {} bytes; give another place with -o, \
                     or send the packed file itself",
                    limits.room
                ));
            }
            file.write_all_at(content, length)?;
        }
        length = length.saturating_add(bytes(filled));
    };
    file.set_len(length)?;
    Ok(Spooled { file, ended })
}

/// Reads exactly `length` bytes of a file from its start: its holes as zeroes without reading them,
/// what cannot be read as zeroes that are counted.
#[derive(Debug)]
pub(crate) struct Sparse<'a> {
    file: &'a File,
    length: u64,
    at: u64,
    /// The run of data that `at` is in or before.
    data: Option<Span>,
    /// The first byte that could not be read, and why.
    pub(crate) failed: Option<(u64, String)>,
}

impl<'a> Sparse<'a> {
    pub(crate) fn new(file: &'a File, length: u64) -> Self {
        Self { file, length, at: 0, data: None, failed: None }
    }

    /// The next run of data that ends behind `at`.
    fn data(&mut self) -> Span {
        if let Some(data) = self.data.filter(|data| self.at < data.end) {
            return data;
        }
        let rest = Span::new(self.at, self.length);
        let none = Span::new(self.length, self.length);
        let data = match sys::next_data(self.file, self.at) {
            Ok(Some(found)) => found,
            Ok(None) => {
                if self.file.metadata().map_or(0, |found| found.len()) < self.length {
                    self.fail(SHORTER.to_owned());
                }
                none
            }
            // A file system without holes.
            Err(_) => rest,
        };
        let data = if data.end > self.at { data } else { rest };
        self.data = Some(data);
        data
    }

    fn fail(&mut self, why: String) {
        let at = self.at;
        self.failed.get_or_insert((at, why));
    }
}

impl Read for Sparse<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let room = bytes(into.len()).min(self.length.saturating_sub(self.at));
        if room == 0 {
            return Ok(0);
        }
        let data = self.data();
        let mut length = room;
        let mut is_data = self.failed.is_none() && data.start <= self.at;
        if is_data {
            length = length.min(data.end.saturating_sub(self.at));
        } else if self.failed.is_none() {
            length = length.min(data.start.saturating_sub(self.at));
        }
        let Some(piece) = into.get_mut(..size(length)) else { return Ok(0) };
        if is_data {
            match self.file.read_at(piece, self.at) {
                Ok(0) => {
                    self.fail(SHORTER.to_owned());
                    is_data = false;
                }
                Ok(read) => length = bytes(read),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
                Err(error) => {
                    self.fail(error.to_string());
                    is_data = false;
                }
            }
        }
        if !is_data {
            piece.fill(0);
        }
        self.at = self.at.saturating_add(length);
        Ok(size(length))
    }
}

/// Bytes of a file that are on the disk, of its first `length`.
pub(crate) fn data_length(file: &File, length: u64) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    // Blocks are of 512 bytes whatever the file system's own are.
    file.metadata().map_or(length, |found| found.blocks().saturating_mul(512).min(length))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sparse_file() -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(64 << 20).unwrap();
        file.write_all_at(&[7; 5000], 1 << 20).unwrap();
        file.write_all_at(&[9], (64 << 20) - 1).unwrap();
        file
    }

    #[test]
    fn holes_are_zeroes_and_data_is_itself() {
        let file = sparse_file();
        let mut expected = vec![0; 64 << 20];
        expected[1 << 20..][..5000].fill(7);
        *expected.last_mut().unwrap() = 9;
        let mut found = Vec::new();
        let mut reader = Sparse::new(&file, 64 << 20);
        reader.read_to_end(&mut found).unwrap();
        assert!(found == expected);
        assert_eq!(reader.failed, None);
    }

    #[test]
    fn a_file_that_shrinks_is_filled_up_and_said() {
        let file = sparse_file();
        let mut reader = Sparse::new(&file, 64 << 20);
        let mut start = vec![0; 1 << 20];
        reader.read_exact(&mut start).unwrap();
        file.set_len((1 << 20) + 100).unwrap();
        let mut rest = Vec::new();
        reader.read_to_end(&mut rest).unwrap();
        assert_eq!(rest.len(), 63 << 20);
        assert!(rest[..100].iter().all(|byte| *byte == 7));
        assert!(rest[100..].iter().all(|byte| *byte == 0));
        let (at, why) = reader.failed.unwrap();
        assert_eq!((at, why.contains("shorter")), ((1 << 20) + 100, true));
    }

    #[test]
    fn unpacking_stops_at_its_limits_and_keeps_what_came() {
        let folder = tempfile::tempdir().unwrap();
        let unpack = |length, room| {
            let mut reader = io::repeat(1).take(1 << 20).chain(io::repeat(0).take(1 << 20));
            let limits = Limits { length, room };
            let spooled = super::unpack(&mut reader, folder.path(), limits).unwrap();
            (spooled.file.metadata().unwrap().len(), spooled.ended)
        };
        assert_eq!(unpack(4 << 20, 1 << 20), (2 << 20, None));
        let (length, ended) = unpack(4 << 20, 512 << 10);
        assert_eq!(length, 512 << 10);
        assert!(ended.unwrap().contains("no room to unpack"));
        let (length, ended) = unpack(1 << 20, 4 << 20);
        assert_eq!(length, 1 << 20);
        assert!(ended.unwrap().contains("not unpacked"));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
