//! The notes of a core that say whose it is.
//!
//! Notes are stepped over in the file, and only those of interest are read, each up to a limit: a
//! core of ten thousand threads has a hundred megabytes of registers.

use std::fs::File;

use object::elf;

use super::core::read_at;
use crate::number::{bytes, size};

/// Longer descriptors are passed over: a list of 65,530 files with the longest paths fits.
const LONGEST: u64 = 64 << 20;
/// A thread has five notes or six; ten thousand threads fit twenty times.
const MOST_NOTES: u32 = 1 << 20;
/// The least length of a thread's status on a 64-bit machine; its PID is at 32.
const STATUS: u64 = 40;
/// `NT_SIGINFO`
const NT_SIGINFO: u32 = 0x5349_4749;
/// Signals by which a process ends with a core: SIGQUIT, SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE,
/// SIGSEGV, SIGXCPU, SIGXFSZ, SIGSYS. gcore leaves others in the notes of a process that lives.
const DEADLY: [u32; 10] = [3, 4, 5, 6, 7, 8, 11, 24, 25, 31];
/// Keys of the auxiliary vector: where the program's headers are, and where it begins.
const AT_PHDR: u64 = 3;
const AT_ENTRY: u64 = 9;

/// One entry of `NT_FILE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mapped {
    pub(super) start: u64,
    pub(super) end: u64,
    /// In the file, in pages.
    pub(super) offset: u64,
    pub(super) path: String,
}

/// What a process died of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Death {
    /// Signal number.
    pub(crate) signal: u32,
    /// It was sent by a process (`kill`, `abort`), not raised by the processor.
    pub(crate) sent: bool,
}

/// What the notes say.
#[derive(Clone, Debug, Default)]
pub(crate) struct Notes {
    /// PID as the process's own namespace counts it.
    pub(crate) pid: Option<u32>,
    /// Its parent.
    pub(crate) parent: u32,
    /// Its session, which all processes of a daemon share.
    pub(crate) session: u32,
    /// The first 15 bytes of its name.
    pub(crate) name: String,
    /// The first 79 bytes of its command line.
    pub(crate) command_line: String,
    /// Threads that have registers.
    pub(crate) threads: u32,
    /// What it died of; `None` for a live process.
    pub(crate) death: Option<Death>,
    /// Every mapping of a file.
    pub(super) files: Vec<Mapped>,
    /// `AT_PHDR` and `AT_ENTRY`.
    inside_executable: Vec<u64>,
}

impl Notes {
    /// Reads the notes between two offsets.
    pub(super) fn read(&mut self, file: &File, from: u64, to: u64) {
        let mut at = from;
        for _ in 0..MOST_NOTES {
            if to.saturating_sub(at) < 12 {
                return;
            }
            // The header, and the owner's name (`CORE` or `LINUX`, in 8 bytes).
            let Ok(header) = read_at(file, at, 20) else { return };
            let (Some(name), Some(length), Some(kind)) =
                (u32_at(&header, 0), u32_at(&header, 4), u32_at(&header, 8))
            else {
                return;
            };
            let content = at.saturating_add(12).saturating_add(padded(name));
            let next = content.saturating_add(padded(length));
            if next <= at || content > to {
                return;
            }
            if name == 5 && header.get(12..16) == Some(b"CORE") {
                let there = u64::from(length).min(to.saturating_sub(content));
                self.add(file, kind, content, there);
            }
            at = next;
        }
    }

    fn add(&mut self, file: &File, kind: u32, at: u64, length: u64) {
        let read = |most: u64| read_at(file, at, length.min(most)).unwrap_or_default();
        if kind == elf::NT_PRSTATUS.0 {
            self.threads = self.threads.saturating_add(1);
            if self.threads == 1 {
                self.add_status(&read(STATUS));
            }
        } else if kind == elf::NT_PRPSINFO.0 {
            self.add_process(&read(136));
        } else if kind == NT_SIGINFO && self.threads == 1 {
            let information = read(12);
            if let (Some(signal), Some(code)) = (u32_at(&information, 0), u32_at(&information, 8)) {
                // Codes of the kernel are above 0; those of senders are 0 or negative.
                let sent = code == 0 || code >= 1 << 31;
                self.death = DEADLY.contains(&signal).then_some(Death { signal, sent });
            }
        } else if kind == elf::NT_AUXV.0 {
            let vector = read(1 << 16);
            let pairs = vector
                .chunks_exact(16)
                .filter_map(|pair| Some((u64_at(pair, 0)?, u64_at(pair, 8)?)));
            let wanted = pairs.filter(|(key, _)| [AT_PHDR, AT_ENTRY].contains(key));
            self.inside_executable = wanted.map(|(_, value)| value).collect();
        } else if kind == elf::NT_FILE.0 && length <= LONGEST {
            self.files = mapped_files(&read(LONGEST));
        }
    }

    fn add_status(&mut self, status: &[u8]) {
        self.pid = self.pid.or(u32_at(status, 32));
        let signal = u32::from(u16_at(status, 12).unwrap_or(0));
        self.death = DEADLY.contains(&signal).then_some(Death { signal, sent: false });
    }

    /// `struct elf_prpsinfo`
    fn add_process(&mut self, information: &[u8]) {
        let Some(pid) = u32_at(information, 24) else { return };
        self.pid = Some(pid);
        self.parent = u32_at(information, 28).unwrap_or(0);
        self.session = u32_at(information, 36).unwrap_or(0);
        self.name = text(information.get(40..56).unwrap_or_default());
        self.command_line = text(information.get(56..).unwrap_or_default());
    }

    /// The file that the program's first instruction is in.
    pub(super) fn executable(&self) -> Option<&str> {
        let holds = |mapped: &&Mapped| {
            self.inside_executable.iter().any(|at| (mapped.start..mapped.end).contains(at))
        };
        let by_place = self.files.iter().find(holds);
        // Without the auxiliary vector the program's short name serves.
        let by_name = || {
            let name = |mapped: &&Mapped| {
                let file = without_deleted(&mapped.path).rsplit('/').next().unwrap_or_default();
                !self.name.is_empty() && file.starts_with(&self.name)
            };
            self.files.iter().find(name)
        };
        by_place.or_else(by_name).map(|mapped| mapped.path.as_str())
    }
}

/// The descriptor of `NT_FILE`, as far as it is whole.
fn mapped_files(note: &[u8]) -> Vec<Mapped> {
    let Some(count) = u64_at(note, 0) else { return Vec::new() };
    // Each entry has three words and at least the end of its path.
    let count = size(count.min(bytes(note.len()) / 25));
    let table = 16_usize.saturating_add(count.saturating_mul(24));
    let (Some(entries), Some(names)) = (note.get(16..table), note.get(table..)) else {
        return Vec::new();
    };
    let entries = entries.chunks_exact(24).zip(names.split(|byte| *byte == 0));
    let entry = |(words, name): (&[u8], &[u8])| {
        Some(Mapped {
            start: u64_at(words, 0)?,
            end: u64_at(words, 8)?,
            offset: u64_at(words, 16)?,
            path: text(name),
        })
    };
    entries.filter_map(entry).collect()
}

/// A path without the kernel's mark of a file that is gone.
pub(super) fn without_deleted(path: &str) -> &str {
    path.strip_suffix(" (deleted)").unwrap_or(path)
}

/// Up to the first zero; control characters as `?`.
fn text(field: &[u8]) -> String {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    let text = String::from_utf8_lossy(field.get(..end).unwrap_or(field));
    let shown =
        text.trim_end().chars().map(|letter| if letter.is_control() { '?' } else { letter });
    shown.collect()
}

fn padded(length: u32) -> u64 {
    u64::from(length).next_multiple_of(4)
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let (word, _) = bytes.get(at..)?.split_first_chunk()?;
    Some(u16::from_le_bytes(*word))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let (word, _) = bytes.get(at..)?.split_first_chunk()?;
    Some(u32::from_le_bytes(*word))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    let (word, _) = bytes.get(at..)?.split_first_chunk()?;
    Some(u64::from_le_bytes(*word))
}
