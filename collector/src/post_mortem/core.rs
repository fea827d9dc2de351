//! What a core says of itself: whose it is, what it died of, which files were mapped, and how much
//! of it is there.
//!
//! Reads headers, notes and the first page of each mapped ELF file, at their places in the file;
//! never its memory. A cut or hostile core costs only what cannot be read of it: counts are held
//! against the file's length and against limits of this module.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use object::elf;
use thiserror::Error;

use super::note::{self, Notes};
use crate::build_id;
use crate::evidence::MappedFile;
use crate::number::{bytes, size};

/// Of more program headers the rest is not read; the kernel's own limit of mappings is 65,530
/// where nobody changed it.
const MOST_HEADERS: u64 = 1 << 20;
/// ELF headers and the build ID of a mapped file are within its first page.
const PAGE: u64 = bundle::PAGE_SIZE;
const SIGTRAP: u32 = 5;

/// A file that is no core of ours.
#[derive(Debug, Error)]
pub(crate) enum CoreError {
    /// It cannot be read.
    #[error("cannot be read: {0}")]
    Read(#[from] io::Error),
    /// It does not begin like an ELF file.
    #[error("is no ELF file")]
    NotElf,
    /// An ELF file of another type.
    #[error("is an ELF file, but no core")]
    NotCore,
    /// A machine whose cores have another form.
    #[error("is a core of a 32-bit or big-endian program, which is not read")]
    Unsupported,
}

/// Who wrote a core, as far as its form tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Writer {
    /// The kernel, or what writes like it: notes first.
    Kernel,
    /// gdb's gcore: notes at the end.
    Gcore,
}

/// A core's facts.
#[derive(Clone, Debug)]
pub(crate) struct CoreFacts {
    /// Who wrote it.
    pub(crate) writer: Writer,
    /// Bytes that its headers promise; more than `length` where it was cut.
    pub(crate) promised: u64,
    /// Bytes that there are.
    pub(crate) length: u64,
    /// What its notes say; all empty where they were cut off.
    pub(crate) notes: Notes,
    /// Path of the program, as the process saw it.
    pub(crate) executable: Option<String>,
    /// Every file that was mapped from its start, by path.
    pub(crate) files: Vec<MappedFile>,
    /// Build IDs of ELF files in memory whose path is not known, since the notes are lost.
    pub(crate) nameless: Vec<String>,
}

impl CoreFacts {
    /// Reads them.
    ///
    /// # Errors
    /// [`CoreError`]: it is no core, or nothing of it can be read.
    pub(crate) fn read(file: &File) -> Result<Self, CoreError> {
        let length = file.metadata()?.len();
        let header = read_at(file, 0, 64)?;
        let programs = Program::table(file, &header, length)?;
        let loads: Vec<Program> =
            programs.iter().filter(|program| program.kind == elf::PT_LOAD.0).copied().collect();
        let mut notes = Notes::default();
        let noted = programs.iter().filter(|program| program.kind == elf::PT_NOTE.0);
        for program in noted.clone() {
            notes.read(file, program.offset, program.end().min(length));
        }
        let first_load = loads.iter().filter(|load| load.saved > 0).map(|load| load.offset).min();
        let first_note = noted.map(|program| program.offset).min();
        let promised = programs.iter().map(|program| program.end()).max().unwrap_or(0);
        let mut facts = Self {
            writer: if first_note > first_load { Writer::Gcore } else { Writer::Kernel },
            promised,
            length,
            executable: notes.executable().map(str::to_owned),
            notes,
            files: Vec::new(),
            nameless: Vec::new(),
        };
        // To a process that it stops to copy it, gdb's own stop looks like a death.
        let trap = facts.notes.death.is_some_and(|death| death.signal == SIGTRAP);
        if facts.writer == Writer::Gcore && trap {
            facts.notes.death = None;
        }
        facts.find_files(file, &loads);
        Ok(facts)
    }

    /// How many bytes of it are lost.
    pub(crate) fn lost(&self) -> u64 {
        self.promised.saturating_sub(self.length)
    }

    /// The program's file name: of its path, else the name that the kernel kept (15 bytes of it).
    pub(crate) fn program(&self) -> &str {
        let path = self.executable.as_deref().map(note::without_deleted);
        let name = path.and_then(|path| path.rsplit('/').next()).filter(|name| !name.is_empty());
        name.unwrap_or(&self.notes.name)
    }

    /// Build ID of the program.
    pub(crate) fn executable_id(&self) -> Option<&str> {
        let path = self.executable.as_deref()?;
        self.files.iter().find(|file| file.path == path)?.build_id.as_deref()
    }

    fn find_files(&mut self, file: &File, loads: &[Program]) {
        let mut first_pages: BTreeMap<u64, &Program> = BTreeMap::new();
        for load in loads.iter().filter(|load| load.saved >= 64) {
            first_pages.entry(load.address).or_insert(load);
        }
        let page = |load: &Program| read_at(file, load.offset, load.saved.min(PAGE)).ok();
        if self.notes.files.is_empty() {
            let pages = first_pages.values().filter_map(|load| page(load));
            let found: std::collections::BTreeSet<String> =
                pages.filter_map(|page| build_id::of_page(&page)).collect();
            self.nameless = found.into_iter().collect();
            return;
        }
        let mut seen: BTreeMap<&str, MappedFile> = BTreeMap::new();
        for mapped in self.notes.files.iter().filter(|mapped| mapped.offset == 0) {
            let start = first_pages.get(&mapped.start).and_then(|load| page(load));
            let found = MappedFile {
                path: mapped.path.clone(),
                build_id: start.as_deref().and_then(build_id::of_page),
                is_elf: start.is_some_and(|page| page.starts_with(b"\x7fELF")),
            };
            let known = seen.entry(&mapped.path).or_insert_with(|| found.clone());
            if known.build_id.is_none() && found.build_id.is_some() {
                *known = found;
            }
        }
        self.files = seen.into_values().collect();
    }
}

/// One program header.
#[derive(Clone, Copy, Debug)]
struct Program {
    kind: u32,
    offset: u64,
    address: u64,
    /// Bytes of it in the file.
    saved: u64,
}

impl Program {
    fn end(&self) -> u64 {
        self.offset.saturating_add(self.saved)
    }

    /// The table, as far as the file has it.
    fn table(file: &File, header: &[u8], length: u64) -> Result<Vec<Self>, CoreError> {
        const LENGTH: u64 = 56;
        if !header.starts_with(b"\x7fELF") {
            return Err(CoreError::NotElf);
        }
        // 64 bits, little-endian.
        if header.get(4..6) != Some(&[2, 1]) {
            return Err(CoreError::Unsupported);
        }
        let short = |at| note::u16_at(header, at);
        if short(16) != Some(elf::ET_CORE.0) {
            return Err(CoreError::NotCore);
        }
        let (Some(table), Some(count)) = (note::u64_at(header, 32), short(56)) else {
            return Err(CoreError::NotElf);
        };
        let mut count = u64::from(count);
        if count == u64::from(elf::PN_XNUM) {
            // The true count stands in the first section header (`sh_info`).
            let sections = note::u64_at(header, 40).unwrap_or(0);
            let section = read_at(file, sections, 64).unwrap_or_default();
            count = u64::from(note::u32_at(&section, 44).unwrap_or(0));
        }
        let there = length.saturating_sub(table) / LENGTH;
        let count = count.min(there).min(MOST_HEADERS);
        let bytes = read_at(file, table, count.saturating_mul(LENGTH))?;
        let program = |bytes: &[u8]| {
            Some(Self {
                kind: note::u32_at(bytes, 0)?,
                offset: note::u64_at(bytes, 8)?,
                address: note::u64_at(bytes, 16)?,
                saved: note::u64_at(bytes, 32)?,
            })
        };
        Ok(bytes.chunks_exact(size(LENGTH)).filter_map(program).collect())
    }
}

/// At most `most` bytes from `offset` on, fewer at the end of the file.
pub(super) fn read_at(file: &File, offset: u64, most: u64) -> io::Result<Vec<u8>> {
    let there = file.metadata()?.len().saturating_sub(offset);
    let mut buffer = vec![0; size(most.min(there))];
    let mut filled = 0_usize;
    while let Some(room) = buffer.get_mut(filled..).filter(|room| !room.is_empty()) {
        match file.read_at(room, offset.saturating_add(bytes(filled))) {
            Ok(0) => break,
            Ok(read) => filled = filled.saturating_add(read),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    buffer.truncate(filled);
    Ok(buffer)
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Write as _;

    use bundle::corefile::{self, Machine, Notes, Segment};

    use super::*;

    const PROGRAM: &str = "/usr/sbin/kamailio";
    const START: u64 = 0x5555_0000_0000;

    /// Notes as the kernel writes them of a process that died of SIGSEGV, its program at [`START`].
    pub(in super::super) fn notes(pid: u32, session: u32) -> Notes {
        let mut notes = Notes::default();
        let mut status = vec![0; 336];
        status[12] = 11;
        status[32..36].copy_from_slice(&pid.to_le_bytes());
        notes.push("CORE", elf::NT_PRSTATUS.0, &status);
        let mut process = vec![0; 136];
        for (at, word) in [(24, pid), (28, 1), (32, session), (36, session)] {
            process[at..at + 4].copy_from_slice(&word.to_le_bytes());
        }
        process[40..48].copy_from_slice(b"kamailio");
        process[56..74].copy_from_slice(b"kamailio -w /srv/k");
        notes.push("CORE", elf::NT_PRPSINFO.0, &process);
        let mut signal = vec![0; 128];
        (signal[0], signal[8]) = (11, 1);
        notes.push("CORE", 0x5349_4749, &signal);
        let auxiliary: Vec<u8> =
            [9, START + 0x40, 0, 0].into_iter().flat_map(u64::to_le_bytes).collect();
        notes.push("CORE", elf::NT_AUXV.0, &auxiliary);
        let words = [2, 4096, START, START + 0x2000, 0, 0x7000_0000, 0x7000_1000, 0];
        let mut files: Vec<u8> = words.into_iter().flat_map(u64::to_le_bytes).collect();
        files.extend_from_slice(b"/usr/sbin/kamailio\0/dev/zero (deleted)\0");
        notes.push("CORE", elf::NT_FILE.0, &files);
        notes
    }

    /// A core with these notes whose first segment begins like a program of this host, with that
    /// program's build ID.
    pub(in super::super) fn core(notes: &Notes) -> (File, String) {
        let program = std::fs::read("/usr/bin/env").unwrap();
        let segment = |start| Segment { start, memory: 0x2000, file: 0x1000, flags: 5 };
        let segments = [segment(START), segment(0x7000_0000)];
        let plan = corefile::plan(Machine::X86_64, notes, &segments).unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&plan.prefix).unwrap();
        file.write_all(&program[..4096]).unwrap();
        file.write_all(&[1; 4096]).unwrap();
        (file, build_id::of_file(&program).unwrap())
    }

    #[test]
    fn a_core_says_whose_it_is_and_what_was_mapped() {
        let (file, build_id) = core(&notes(4711, 4700));
        let facts = CoreFacts::read(&file).unwrap();
        assert_eq!((facts.notes.pid, facts.notes.session), (Some(4711), 4700));
        assert_eq!(facts.notes.command_line, "kamailio -w /srv/k");
        let death = note::Death { signal: 11, sent: false };
        assert_eq!((facts.notes.death, facts.notes.threads), (Some(death), 1));
        assert_eq!((facts.program(), facts.executable.as_deref()), ("kamailio", Some(PROGRAM)));
        assert_eq!(facts.executable_id(), Some(build_id.as_str()));
        let mapped =
            |path: &str, build_id, is_elf| MappedFile { path: path.to_owned(), build_id, is_elf };
        let shared = mapped("/dev/zero (deleted)", None, false);
        assert_eq!(facts.files, [shared, mapped(PROGRAM, Some(build_id), true)]);
        assert_eq!((facts.writer, facts.lost()), (Writer::Kernel, 0));
    }

    #[test]
    fn without_notes_a_program_is_known_by_its_build_id_only() {
        let (file, build_id) = core(&Notes::default());
        let facts = CoreFacts::read(&file).unwrap();
        assert_eq!((facts.notes.pid, facts.program()), (None, ""));
        assert_eq!(facts.nameless, [build_id]);
    }

    #[test]
    fn a_core_that_is_cut_anywhere_says_how_much_is_lost() {
        let (file, _) = core(&notes(1, 1));
        let whole = file.metadata().unwrap().len();
        for length in (0..whole).rev().step_by(37) {
            file.set_len(length).unwrap();
            match CoreFacts::read(&file) {
                Ok(facts) if length >= 64 + 3 * 56 => assert_eq!(facts.lost(), whole - length),
                Ok(_) => {}
                Err(error) => assert!(length < 64, "{length}: {error}"),
            }
        }
    }

    #[test]
    fn damage_anywhere_in_headers_and_notes_is_survived() {
        let (file, _) = core(&notes(1, 1));
        let prefix = read_at(&file, 0, 4096).unwrap();
        for at in 0..prefix.len() {
            for damage in [0xff, 0x80, 0] {
                let offset = bytes(at);
                file.write_at(&[damage], offset).unwrap();
                let _ = CoreFacts::read(&file);
                file.write_at(&prefix[at..=at], offset).unwrap();
            }
        }
        assert_eq!(CoreFacts::read(&file).unwrap().notes.pid, Some(1));
    }

    #[test]
    fn counts_that_the_file_cannot_hold_cost_nothing() {
        let (file, _) = core(&notes(1, 1));
        // PN_XNUM, and a section header that claims four thousand million program headers.
        file.write_at(&0xffff_u16.to_le_bytes(), 56).unwrap();
        file.write_at(&64_u64.to_le_bytes(), 40).unwrap();
        file.write_at(&u32::MAX.to_le_bytes(), 64 + 44).unwrap();
        file.set_len(1 << 40).unwrap();
        let begun = std::time::Instant::now();
        CoreFacts::read(&file).unwrap();
        assert!(begun.elapsed() < std::time::Duration::from_secs(20), "{:?}", begun.elapsed());
    }

    #[test]
    fn what_is_no_core_is_told() {
        let error = |content: &[u8]| {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(content).unwrap();
            CoreFacts::read(&file).unwrap_err().to_string()
        };
        assert_eq!(error(b"text"), "is no ELF file");
        assert_eq!(error(&std::fs::read("/usr/bin/env").unwrap()), "is an ELF file, but no core");
        assert_eq!(error(b"\x7fELF\x01\x01"), CoreError::Unsupported.to_string());
    }
}
