//! An ELF core: its program headers and notes, by the kernel, by gcore or by our collector.
//!
//! Reads: a [`Blob`]. Promises: a core that was cut gives the segments and notes that it still has,
//! and [`CoreFile::gaps`] names the rest; nothing is read that no one asks for. Not for knowing
//! where bytes that the core lacks may be found: that is [`crate::process`].

mod notes;
mod registers;
mod signal;

use object::elf;
use object::read::elf::{FileHeader as _, ProgramHeader as _};
use object::{Endianness, ReadCache, ReadRef};
use thiserror::Error;

pub use notes::{MappedFile, Notes, ProcessInfo, Thread};
pub use registers::Register;
pub use signal::{SI_KERNEL, SignalInfo, is_crash, names_address, signal_name};

use crate::addr::{Addr, AddrRange};
use crate::bytes::Blob;
use crate::gap::Gap;

/// A file that is not a core this program can read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CoreError {
    /// Its ELF header or program headers cannot be read.
    #[error("not readable as ELF: {0}")]
    Elf(String),
    /// An ELF file of another type.
    #[error("an ELF file, but not a core (it is {0})")]
    NotCore(&'static str),
    /// A machine whose structures this program does not know.
    #[error("not supported: {0}; only 64-bit little-endian cores of x86-64 and aarch64 are read")]
    Unsupported(String),
}

/// Who wrote a core, as far as its form tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writer {
    /// Our collector: the core says what became of each range.
    Collector,
    /// The kernel or a program that writes like it: notes first.
    Kernel,
    /// gdb's gcore: notes at the end.
    Gcore,
}

impl Writer {
    /// For a person.
    pub fn name(self) -> &'static str {
        match self {
            Self::Collector => "collect-evidence",
            Self::Kernel => "kernel",
            Self::Gcore => "gcore",
        }
    }
}

/// One `PT_LOAD`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Addresses it covers, `p_memsz` long.
    pub range: AddrRange,
    /// Bytes of it in the file (`p_filesz`), from the start; at most its length.
    pub saved: u64,
    /// Offset of the first of them in the file.
    pub offset: u64,
    /// Whether the process could write there (`PF_W`).
    pub writable: bool,
    /// Whether it could run code there (`PF_X`).
    pub executable: bool,
}

/// A core's headers.
#[derive(Clone, Debug)]
pub struct CoreFile {
    /// The file.
    pub blob: Blob,
    /// Its machine, for a person.
    pub machine: &'static str,
    /// Who wrote it.
    pub writer: Writer,
    /// Its segments, in the order of the file.
    pub loads: Vec<Load>,
    /// What its notes say.
    pub notes: Notes,
    /// Length that its headers promise, in bytes; longer than the file for a cut core.
    pub promised: u64,
    /// What could not be read of it.
    pub gaps: Vec<Gap>,
}

impl CoreFile {
    /// Reads the headers and notes of a core.
    ///
    /// # Errors
    /// [`CoreError`] where not even the program headers are there.
    pub fn read(blob: &Blob) -> Result<Self, CoreError> {
        match blob.all_in_place() {
            Some(bytes) => Self::parse(blob, bytes),
            None => Self::parse(blob, &ReadCache::new(blob.reader())),
        }
    }

    fn parse<'data, R: ReadRef<'data>>(blob: &Blob, data: R) -> Result<Self, CoreError> {
        let broken = |error: object::Error| CoreError::Elf(error.to_string());
        let ident = data.read_bytes_at(0, 20).map_err(|()| CoreError::Elf("cut short".into()))?;
        if ident.get(4) == Some(&1) {
            return Err(CoreError::Unsupported("a 32-bit core".into()));
        }
        if ident.get(5) == Some(&2) {
            return Err(CoreError::Unsupported("a big-endian core".into()));
        }
        let header = elf::FileHeader64::<Endianness>::parse(data).map_err(broken)?;
        let endian = header.endian().map_err(broken)?;
        match header.e_type(endian) {
            elf::ET_CORE => {}
            elf::ET_EXEC | elf::ET_DYN => {
                return Err(CoreError::NotCore("a program or library; give it with --module"));
            }
            _ => return Err(CoreError::NotCore("of another type")),
        }
        let machine = match header.e_machine(endian) {
            elf::EM_X86_64 => "x86-64",
            elf::EM_AARCH64 => "aarch64",
            other => return Err(CoreError::Unsupported(format!("machine number {}", other.0))),
        };
        let programs = header.program_headers(endian, data).map_err(broken)?;
        let mut core = Self {
            blob: blob.clone(),
            machine,
            writer: Writer::Kernel,
            loads: Vec::new(),
            notes: Notes::default(),
            promised: 0,
            gaps: Vec::new(),
        };
        let mut notes_at = None;
        for program in programs {
            let (offset, saved) = (program.p_offset(endian), program.p_filesz(endian));
            core.promised = core.promised.max(offset.saturating_add(saved));
            match program.p_type(endian) {
                elf::PT_LOAD => core.loads.push(Load {
                    range: AddrRange::new(Addr(program.p_vaddr(endian)), program.p_memsz(endian)),
                    saved: saved.min(program.p_memsz(endian)),
                    offset,
                    writable: program.p_flags(endian).contains(elf::PF_W),
                    executable: program.p_flags(endian).contains(elf::PF_X),
                }),
                elf::PT_NOTE => {
                    notes_at = Some(offset);
                    core.read_notes(endian, program, data);
                }
                _ => {}
            }
        }
        core.find_writer(notes_at);
        if core.notes.threads.is_empty() && core.gaps.is_empty() {
            core.gaps.push(Gap::new("registers of every thread", "the core has no readable notes"));
        } else if machine == "aarch64" {
            let why = "not supported yet: of aarch64 cores only memory and heaps are read";
            core.gaps.push(Gap::new("registers and stacks of aarch64 threads", why));
        }
        if core.is_cut() {
            let lost = core.promised.saturating_sub(blob.length());
            core.gaps.push(Gap::new(
                format!("the last {lost} bytes of the core"),
                format!("file cut short: {} of {} bytes", blob.length(), core.promised),
            ));
        }
        Ok(core)
    }

    fn read_notes<'data, R: ReadRef<'data>>(
        &mut self,
        endian: Endianness,
        program: &elf::ProgramHeader64<Endianness>,
        data: R,
    ) {
        let iterator = match program.notes(endian, data) {
            Ok(Some(iterator)) => iterator,
            Ok(None) => return,
            Err(error) => {
                let end = program.p_offset(endian).saturating_add(program.p_filesz(endian));
                let cut = self.blob.length() < end;
                let why = match cut {
                    true => "behind the end of the file, which was cut short".to_owned(),
                    false => error.to_string(),
                };
                let what = "notes of the core (registers, mapped files, process name)";
                self.gaps.push(Gap::new(what, why));
                return;
            }
        };
        for note in iterator {
            match note {
                Ok(note) => {
                    let (owner, kind) = (note.name(), note.n_type(endian).0);
                    if let Err(why) = self.notes.add(owner, kind, note.desc()) {
                        self.gaps.push(Gap::new("a note of the core", why));
                    }
                }
                Err(error) => {
                    self.gaps.push(Gap::new("the rest of the core's notes", error));
                    break;
                }
            }
        }
    }

    fn find_writer(&mut self, notes_at: Option<u64>) {
        let first_load = self.loads.iter().filter(|load| load.saved > 0).map(|load| load.offset);
        self.writer = if self.notes.ranges.is_some() {
            Writer::Collector
        } else if notes_at.zip(first_load.min()).is_some_and(|(notes, load)| notes > load) {
            Writer::Gcore
        } else {
            Writer::Kernel
        };
    }

    /// Whether the file is shorter than its headers promise.
    pub fn is_cut(&self) -> bool {
        self.blob.length() < self.promised
    }

    /// The process's PID as the core says it: of its first thread, else of its process note.
    pub fn pid(&self) -> Option<u32> {
        let process = self.notes.process.as_ref().map(|process| process.pid);
        process.or_else(|| self.notes.threads.first().map(|thread| thread.tid))
    }
}
