//! A small reader of cores, independent of the one that is under test.

use std::collections::BTreeMap;
use std::path::Path;

use object::read::elf::{FileHeader, ProgramHeader};
use object::{Endianness, elf};

const NT_PRSTATUS: u32 = 1;
const NT_PRPSINFO: u32 = 3;
const NT_AUXV: u32 = 6;
const NT_FILE: u32 = 0x4649_4c45;

/// Writes a note with another descriptor.
fn push_note(notes: &mut Vec<u8>, like: &Note, content: &[u8]) {
    let lengths = [like.owner.len() + 1, content.len()];
    for length in lengths {
        notes.extend(u32::try_from(length).unwrap().to_le_bytes());
    }
    notes.extend(like.kind.to_le_bytes());
    notes.extend(like.owner.as_bytes());
    notes.push(0);
    notes.resize(notes.len().next_multiple_of(4), 0);
    notes.extend(content);
    notes.resize(notes.len().next_multiple_of(4), 0);
}

/// A core, whole in memory.
pub struct Core {
    bytes: Vec<u8>,
    /// By first address.
    segments: BTreeMap<u64, Segment>,
    notes: Vec<Note>,
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core").field("segments", &self.segments.len()).finish_non_exhaustive()
    }
}

/// One `PT_LOAD`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// First address.
    pub start: u64,
    /// Length in memory, in bytes.
    pub memory: u64,
    /// Length in the file, in bytes.
    pub file: u64,
    /// Offset in the file, in bytes.
    pub offset: u64,
}

/// One note.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// `CORE`, `LINUX` or another owner.
    pub owner: String,
    /// Its type.
    pub kind: u32,
    /// Its descriptor.
    pub content: Vec<u8>,
}

/// A run of bytes at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content<'a> {
    /// These bytes are in the file.
    Bytes(&'a [u8]),
    /// In a segment's memory, beyond its file bytes: a debugger reads zero.
    Zero,
    /// In no segment.
    Absent,
}

impl Content<'_> {
    /// Whether it reads as `bytes`.
    pub fn equals(&self, bytes: &[u8]) -> bool {
        match self {
            Self::Bytes(own) => *own == bytes,
            Self::Zero => bytes.iter().all(|byte| *byte == 0),
            Self::Absent => false,
        }
    }
}

impl Core {
    /// Reads a core file.
    #[track_caller]
    pub fn open(path: &Path) -> Self {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) => panic!("{}: {error}", path.display()),
        };
        let data = bytes.as_slice();
        let header = elf::FileHeader64::<Endianness>::parse(data)
            .unwrap_or_else(|error| panic!("{} is not ELF: {error}", path.display()));
        let endian = header.endian().unwrap();
        assert_eq!(header.e_type(endian), elf::ET_CORE, "{}", path.display());
        let mut segments = BTreeMap::new();
        let mut notes = Vec::new();
        for program in header.program_headers(endian, data).unwrap() {
            if let Some(mut list) = program.notes(endian, data).unwrap() {
                while let Some(note) = list.next().unwrap() {
                    notes.push(Note {
                        owner: String::from_utf8_lossy(note.name()).into_owned(),
                        kind: note.n_type(endian).0,
                        content: note.desc().to_owned(),
                    });
                }
            } else if program.p_type(endian) == elf::PT_LOAD {
                let segment = Segment {
                    start: program.p_vaddr(endian),
                    memory: program.p_memsz(endian),
                    file: program.p_filesz(endian),
                    offset: program.p_offset(endian),
                };
                if segment.memory > 0 {
                    segments.insert(segment.start, segment);
                }
            }
        }
        Self { bytes, segments, notes }
    }

    /// The segments by rising address.
    pub fn segments(&self) -> impl Iterator<Item = &Segment> {
        self.segments.values()
    }

    /// The notes in the order of the file.
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }

    /// The threads in the order of the file (`NT_PRSTATUS`).
    pub fn threads(&self) -> Vec<u32> {
        let prstatus = |note: &&Note| note.owner == "CORE" && note.kind == 1;
        let tid = |note: &Note| u32::from_le_bytes(note.content[32..36].try_into().unwrap());
        self.notes.iter().filter(prstatus).map(tid).collect()
    }

    /// `length` bytes at `address`; the run must not cross a border between kinds of content.
    pub fn at(&self, address: u64, length: u64) -> Content<'_> {
        let end = address + length;
        let Some((_, segment)) = self.segments.range(..=address).next_back() else {
            return Content::Absent;
        };
        let file_end = segment.start + segment.file;
        if end <= file_end {
            let first = usize::try_from(segment.offset + (address - segment.start)).unwrap();
            let last = first + usize::try_from(length).unwrap();
            return match self.bytes.get(first..last) {
                Some(bytes) => Content::Bytes(bytes),
                None => panic!("the core is shorter than its program headers say: {segment:x?}"),
            };
        }
        if address >= file_end && end <= segment.start + segment.memory {
            return Content::Zero;
        }
        Content::Absent
    }

    /// Where in the file `length` bytes of memory stand, which must be there.
    #[track_caller]
    pub fn offset(&self, address: u64, length: u64) -> u64 {
        let Content::Bytes(_) = self.at(address, length) else {
            panic!("{length} bytes at {address:#x} are not in the core")
        };
        let (_, segment) = self.segments.range(..=address).next_back().unwrap();
        segment.offset + (address - segment.start)
    }

    /// Overwrites bytes that are in the file, and gives the whole file back.
    #[track_caller]
    pub fn patched(&self, changes: &[(u64, u64)]) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        for &(address, word) in changes {
            let first = usize::try_from(self.offset(address, 8)).unwrap();
            bytes[first..first + 8].copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }
}

impl Core {
    /// The same memory as a core of an aarch64 machine: its number in the header, its
    /// `NT_PRSTATUS` (392 bytes, 34 registers), and no notes that only x86-64 has.
    pub fn as_aarch64(&self) -> Vec<u8> {
        let mut notes = Vec::new();
        for note in &self.notes {
            match (note.owner.as_str(), note.kind) {
                ("CORE", NT_PRSTATUS) => {
                    // All in front of the registers is the same on 64-bit machines.
                    let mut content = note.content[..112].to_vec();
                    content.extend((0..34_u64).flat_map(u64::to_le_bytes));
                    content.extend([0; 8]);
                    push_note(&mut notes, note, &content);
                }
                ("CORE", NT_PRPSINFO | NT_AUXV | NT_FILE) => {
                    push_note(&mut notes, note, &note.content);
                }
                _ => {}
            }
        }
        let mut bytes = self.bytes.clone();
        bytes[18..20].copy_from_slice(&elf::EM_AARCH64.0.to_le_bytes());
        let notes_at = u64::try_from(bytes.len().next_multiple_of(4)).unwrap();
        let word = |at: usize| u64::from_le_bytes(self.bytes[at..at + 8].try_into().unwrap());
        let (table, count) = (usize::try_from(word(32)).unwrap(), usize::from(self.bytes[56]));
        let is_note = |at: &usize| self.bytes[*at..*at + 4] == elf::PT_NOTE.0.to_le_bytes();
        let note = (0..count).map(|index| table + index * 56).find(is_note).unwrap();
        let length = u64::try_from(notes.len()).unwrap();
        bytes[note + 8..note + 16].copy_from_slice(&notes_at.to_le_bytes());
        bytes[note + 32..note + 40].copy_from_slice(&length.to_le_bytes());
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes.extend(notes);
        bytes
    }

    /// The addresses, multiples of 8, where these words stand in the file.
    pub fn find(&self, words: &[u64]) -> Vec<u64> {
        let wanted: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let mut found = Vec::new();
        for segment in self.segments.values() {
            let Content::Bytes(bytes) = self.at(segment.start, segment.file) else { continue };
            let places = bytes.windows(wanted.len()).step_by(8).zip((segment.start..).step_by(8));
            found.extend(places.filter(|(run, _)| *run == wanted).map(|(_, address)| address));
        }
        found
    }
}
