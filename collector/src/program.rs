//! Variables that the group's program exports, and words of its processes.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use object::{Object, ObjectSegment, ObjectSymbol};

use crate::mappings::Mapping;
use crate::number::page_floor;

/// How far each of these variables lies behind the start of the program that `main` runs, in bytes.
pub(crate) fn distances<const N: usize>(main: u32, names: [&str; N]) -> [Option<u64>; N] {
    let program = fs::read(format!("/proc/{main}/exe")).unwrap_or_default();
    distances_in(&program, names)
}

/// From the lowest page of an ELF file in memory to each symbol.
fn distances_in<const N: usize>(program: &[u8], names: [&str; N]) -> [Option<u64>; N] {
    let mut found = [None; N];
    let Ok(file) = object::File::parse(program) else { return found };
    let Some(lowest) = file.segments().map(|segment| segment.address()).min() else { return found };
    for symbol in file.dynamic_symbols().chain(file.symbols()).filter(|one| one.is_definition()) {
        let Ok(name) = symbol.name() else { continue };
        for (wanted, place) in names.iter().zip(&mut found) {
            if *wanted == name && place.is_none() {
                *place = symbol.address().checked_sub(page_floor(lowest));
            }
        }
    }
    found
}

/// Where the process with the thread `id` has its program.
pub(crate) fn base(id: u32, mappings: &[Mapping]) -> Option<u64> {
    let program = fs::read_link(format!("/proc/{id}/exe")).ok()?;
    let program = program.to_str()?;
    let first = mappings.iter().find(|one| one.offset == 0 && one.name == program)?;
    Some(first.span.start)
}

/// Reads words of a process. Not by `process_vm_readv`, which would take the page from those that
/// share it.
#[derive(Debug)]
pub(crate) struct Words(File);

impl Words {
    /// Of the process with the thread `id`.
    pub(crate) fn of(id: u32) -> Option<Self> {
        File::open(format!("/proc/{id}/mem")).ok().map(Self)
    }

    /// `length` bytes.
    pub(crate) fn bytes<const LENGTH: usize>(&self, at: u64) -> Option<[u8; LENGTH]> {
        let mut bytes = [0; LENGTH];
        self.0.read_exact_at(&mut bytes, at).ok()?;
        Some(bytes)
    }

    /// A word, which may be a pointer.
    pub(crate) fn word(&self, at: u64) -> Option<u64> {
        self.bytes(at).map(u64::from_le_bytes)
    }

    /// An `int`.
    pub(crate) fn int(&self, at: u64) -> Option<i32> {
        self.bytes(at).map(i32::from_le_bytes)
    }

    /// A text of at most `most` bytes.
    pub(crate) fn text(&self, at: u64, most: u64) -> Option<String> {
        let length = self.text_length(at, most)?;
        let mut text = vec![0; crate::number::size(length)];
        self.0.read_exact_at(&mut text, at).ok()?;
        Some(String::from_utf8_lossy(&text).into_owned())
    }

    /// Length of a text of at most `most` bytes, its zero not counted.
    pub(crate) fn text_length(&self, at: u64, most: u64) -> Option<u64> {
        let mut length = 0;
        while length < most {
            let at = at.checked_add(length)?;
            // No read goes beyond a page, where the next one may not exist.
            let mut buffer = [0; 64];
            let left = bundle::PAGE_SIZE - at % bundle::PAGE_SIZE;
            let piece = buffer.get_mut(..crate::number::size(left.min(64)))?;
            self.0.read_exact_at(piece, at).ok()?;
            let piece: &[u8] = piece;
            match piece.iter().position(|byte| *byte == 0) {
                Some(end) => return Some(length + crate::number::bytes(end)),
                None => length += crate::number::bytes(piece.len()),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::number::bytes;

    #[test]
    fn a_symbol_is_found_at_its_distance() {
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        let libc = Mapping::parse_all(&maps).into_iter();
        let libc = libc.filter(|one| one.offset == 0).find(|one| one.name.contains("libc.so"));
        let libc = libc.unwrap();
        let file = fs::read(&libc.name).unwrap();
        let call: unsafe extern "C" fn() -> libc::pid_t = libc::getpid;
        let here = u64::from_str_radix(&format!("{call:p}")[2..], 16).unwrap();
        let found = distances_in(&file, ["getpid", "no_such_symbol"]);
        assert_eq!(found, [Some(here - libc.span.start), None]);
        assert_eq!(distances_in(b"no program", ["getpid"]), [None]);
    }

    #[test]
    fn words_and_texts_of_a_process_are_read() {
        let words = Words::of(std::process::id()).unwrap();
        let text = b"libexample.so\0behind".to_vec();
        let at = bytes(text.as_ptr().expose_provenance());
        assert_eq!(words.word(at), Some(u64::from_le_bytes(*b"libexamp")));
        assert_eq!(words.int(at + 3), Some(i32::from_le_bytes(*b"exam")));
        assert_eq!(words.text_length(at, 4096), Some(13));
        assert_eq!(words.text_length(at, 0), None);
        assert_eq!(words.word(8), None);
        let long = [vec![b'x'; 10_000], vec![0]].concat();
        let at = bytes(long.as_ptr().expose_provenance());
        assert_eq!(words.text_length(at, 20_000), Some(10_000));
        assert_eq!(words.text_length(at, 5000), None);
    }
}
