//! The first page of an ELF file, in a file or where it was mapped: its segments and its build ID.
//!
//! Promises: any bytes are read; what does not fit in the page is not known. Not for sections or
//! symbols.

use super::hex;
use crate::addr::{Addr, AddrRange};
use crate::memory::Memory;

const PAGE: u64 = 4096;
/// `PT_LOAD` and `PT_NOTE`.
const LOAD: u64 = 1;
const NOTE: u64 = 4;
/// `PT_GNU_EH_FRAME`: where `.eh_frame_hdr` is.
const CALL_FRAMES: u64 = 0x6474_e550;
/// `PF_X`
const EXECUTABLE: u64 = 1;
/// `PF_W`
const WRITABLE: u64 = 2;
/// More program headers than any linker makes, and as many as a page holds.
const MOST_PROGRAMS: usize = 64;
/// No module is longer in memory: a header that says so is damaged.
const LONGEST: u64 = 4 << 30;

/// A `PT_LOAD` of an ELF file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileSegment {
    /// Its address in the file (`p_vaddr`).
    pub address: u64,
    /// Length in memory, in bytes (`p_memsz`).
    pub memory: u64,
    /// Offset in the file, in bytes (`p_offset`).
    pub offset: u64,
    /// Bytes in the file (`p_filesz`).
    pub length: u64,
    /// Whether the program may write there; its bytes in memory then need not be the file's.
    pub writable: bool,
    /// Whether it holds code.
    pub executable: bool,
}

impl FileSegment {
    /// The pages that a loader maps from the file, and the first one's offset in it, for a module
    /// loaded at `bias`; `None` for a segment without bytes or of absurd length.
    pub fn pages(&self, bias: u64) -> Option<(AddrRange, u64)> {
        if self.length == 0 || self.length > LONGEST {
            return None;
        }
        let start = bias.wrapping_add(self.address);
        let end = start.checked_add(self.length)?.checked_next_multiple_of(PAGE)?;
        let start = start & !(PAGE.saturating_sub(1));
        let range = AddrRange { start: Addr(start), end: Addr(end) };
        Some((range, self.offset & !(PAGE.saturating_sub(1))))
    }

    /// First address behind it in memory, for a module loaded at `bias`.
    pub fn end(&self, bias: u64) -> Option<Addr> {
        let start = Addr(bias.wrapping_add(self.address));
        start.checked_add(self.memory).filter(|_| self.memory <= LONGEST)
    }
}

/// What the first page says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Header {
    /// Its segments, in the order of the file.
    pub(super) segments: Vec<FileSegment>,
    /// Its runs of notes: (offset, length), in bytes.
    pub(super) notes: Vec<(u64, u64)>,
    /// `.eh_frame_hdr`: its address in the file (`p_vaddr`) and its length in bytes.
    pub(super) call_frames: Option<(u64, u64)>,
}

impl Header {
    /// Reads the first bytes of a file; `None` for anything but 64-bit ELF.
    pub(super) fn read(page: &[u8]) -> Option<Self> {
        if !page.starts_with(b"\x7fELF\x02") {
            return None;
        }
        let mut header = Self::default();
        let count = page.get(56..58)?.first_chunk().map(|bytes| u16::from_le_bytes(*bytes))?;
        for number in 0..usize::from(count).min(MOST_PROGRAMS) {
            // Elf64_Phdr: p_type at 0, p_flags 4, p_offset 8, p_vaddr 16, p_filesz 32, p_memsz 40;
            // the table is at 64.
            let at = number.saturating_mul(56).saturating_add(64);
            let Some(entry) = page.get(at..at.saturating_add(56)) else { break };
            let word = |at: usize| {
                let bytes = entry.get(at..).and_then(|bytes| bytes.first_chunk());
                bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes))
            };
            match word(0) & 0xffff_ffff {
                LOAD => header.segments.push(FileSegment {
                    address: word(16),
                    memory: word(40),
                    offset: word(8),
                    length: word(32),
                    writable: (word(0) >> 32) & WRITABLE != 0,
                    executable: (word(0) >> 32) & EXECUTABLE != 0,
                }),
                CALL_FRAMES => header.call_frames = Some((word(16), word(40))),
                NOTE => header.notes.push((word(8), word(32))),
                _ => {}
            }
        }
        Some(header)
    }

    /// Lowest address of its segments, rounded down to a page; 0 for libraries.
    pub(super) fn lowest(&self) -> u64 {
        let addresses = self.segments.iter().map(|segment| segment.address & !0xfff);
        addresses.min().unwrap_or(0)
    }

    /// Its build ID, lower-case hex; `bytes` gives a run of its bytes by offset and length.
    pub(super) fn build_id(
        &self,
        mut bytes: impl FnMut(u64, u64) -> Option<Vec<u8>>,
    ) -> Option<String> {
        let short = self.notes.iter().filter(|(_, length)| *length < PAGE);
        short.copied().find_map(|(offset, length)| build_id_in(&bytes(offset, length)?))
    }
}

/// What the first page of a mapped file says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ElfInMemory {
    /// An ELF file: its header and its build ID.
    Read { header: Header, build_id: Option<String> },
    /// The page is not in the core.
    Unknown,
    /// Not an ELF file.
    Other,
}

impl ElfInMemory {
    pub(super) fn read(memory: &dyn Memory, start: Addr) -> Self {
        let Ok(page) = memory.bytes(start, 4096) else { return Self::Unknown };
        let Some(header) = Header::read(&page) else { return Self::Other };
        let build_id = header.build_id(|offset, length| {
            let bytes = memory.bytes(start.checked_add(offset)?, usize::try_from(length).ok()?);
            Some(bytes.ok()?.to_vec())
        });
        Self::Read { header, build_id }
    }
}

/// The build ID in a run of ELF notes: owner `GNU`, type 3.
fn build_id_in(mut rest: &[u8]) -> Option<String> {
    loop {
        let number = |at: usize| {
            let bytes = rest.get(at..)?.first_chunk()?;
            usize::try_from(u32::from_le_bytes(*bytes)).ok()
        };
        let (owner, content, kind) = (number(0)?, number(4)?, number(8)?);
        let content_at = owner.checked_next_multiple_of(4)?.checked_add(12)?;
        let end = content_at.checked_add(content)?;
        if kind == 3 && rest.get(12..16) == Some(b"GNU\0") {
            return Some(hex(rest.get(content_at..end)?));
        }
        rest = rest.get(end.checked_next_multiple_of(4)?..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ELF header page with these program headers: (type, flags, offset, address, file, memory).
    fn page(programs: &[(u32, u32, u64, u64, u64, u64)]) -> Vec<u8> {
        let mut page = vec![0; 4096];
        page[..5].copy_from_slice(b"\x7fELF\x02");
        page[56] = u8::try_from(programs.len()).unwrap();
        for (number, (kind, flags, offset, address, file, memory)) in programs.iter().enumerate() {
            let at = 64 + number * 56;
            page[at..at + 4].copy_from_slice(&kind.to_le_bytes());
            page[at + 4..at + 8].copy_from_slice(&flags.to_le_bytes());
            for (place, word) in [(8, offset), (16, address), (32, file), (40, memory)] {
                page[at + place..at + place + 8].copy_from_slice(&word.to_le_bytes());
            }
        }
        page
    }

    #[test]
    fn segments_are_mapped_in_whole_pages() {
        let page = page(&[(1, 5, 0, 0, 0x900, 0x900), (1, 6, 0x2f00, 0x3f00, 0x200, 0x5000)]);
        let header = Header::read(&page).unwrap();
        let pages: Vec<_> = header.segments.iter().filter_map(|s| s.pages(0x7000_0000)).collect();
        assert_eq!(
            pages,
            [
                (AddrRange::new(Addr(0x7000_0000), 0x1000), 0),
                (AddrRange::new(Addr(0x7000_3000), 0x2000), 0x2000)
            ]
        );
        let ends: Vec<_> = header.segments.iter().filter_map(|s| s.end(0x7000_0000)).collect();
        assert_eq!(ends, [Addr(0x7000_0900), Addr(0x7000_8f00)]);
        assert_eq!(header.segments.iter().map(|s| s.writable).collect::<Vec<_>>(), [false, true]);
        assert_eq!(header.segments.iter().map(|s| s.executable).collect::<Vec<_>>(), [true, false]);
    }

    #[test]
    fn absurd_lengths_give_no_pages() {
        let page = page(&[(1, 4, 0, u64::MAX, u64::MAX, u64::MAX)]);
        let segment = Header::read(&page).unwrap().segments[0];
        assert_eq!(segment.pages(0x1000), None);
        assert_eq!(segment.end(0x1000), None);
    }

    #[test]
    fn the_build_id_is_found_behind_other_notes() {
        let mut notes = Vec::new();
        for (kind, content) in [(5_u32, &[1_u8; 3][..]), (3, &[0xab, 0xcd, 0xef, 0x01])] {
            notes.extend_from_slice(&4_u32.to_le_bytes());
            notes.extend_from_slice(&u32::try_from(content.len()).unwrap().to_le_bytes());
            notes.extend_from_slice(&kind.to_le_bytes());
            notes.extend_from_slice(b"GNU\0");
            notes.extend_from_slice(content);
            notes.resize(notes.len().next_multiple_of(4), 0);
        }
        assert_eq!(build_id_in(&notes).as_deref(), Some("abcdef01"));
        assert_eq!(build_id_in(&notes[..20]), None);
    }
}
