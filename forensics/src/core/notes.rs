//! The notes of a core: threads, files, the process. Offsets are those of the kernel's structures
//! on 64-bit machines (`elf_prstatus`, `elf_prpsinfo`, `NT_FILE`).

use std::collections::BTreeMap;

use bundle::notes::{OWNER, RANGES, Ranges, THREAD, ThreadRecord};

use super::signal::SignalInfo;
use crate::addr::{Addr, AddrRange};

const NT_PRSTATUS: u32 = 1;
const NT_PRPSINFO: u32 = 3;
const NT_AUXV: u32 = 6;
const NT_FILE: u32 = 0x4649_4c45;
const NT_SIGINFO: u32 = 0x5349_4749;

/// One thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thread {
    /// Its thread ID as the core counts it (`pr_pid`).
    pub tid: u32,
    /// The signal that it died of or was stopped by (`pr_cursig`); 0 for none.
    pub signal: u16,
    /// Its general registers as the kernel orders them (`pr_reg`).
    pub registers: Vec<u64>,
    /// Its name and the trust in its registers; only in the collector's cores.
    pub record: Option<ThreadRecord>,
}

/// `NT_PRPSINFO`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessInfo {
    /// Process ID.
    pub pid: u32,
    /// Its parent's.
    pub parent: u32,
    /// Name of the executable, at most 15 bytes.
    pub name: String,
    /// Command line, at most 79 bytes.
    pub arguments: String,
}

/// One mapping of a file, from `NT_FILE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MappedFile {
    /// Where.
    pub range: AddrRange,
    /// Offset in the file of the first byte, in bytes.
    pub offset: u64,
    /// The file's path on the host.
    pub path: String,
}

/// All that the notes say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// The threads, in the order of the core; the first is the one that crashed, or the leader.
    pub threads: Vec<Thread>,
    /// The process.
    pub process: Option<ProcessInfo>,
    /// The mapped files, by address.
    pub files: Vec<MappedFile>,
    /// The auxiliary vector: (type, value).
    pub auxv: Vec<(u64, u64)>,
    /// What the kernel said of the signal of a thread (`NT_SIGINFO`), by thread ID: of the one that
    /// died in the kernel's cores, of every thread in gcore's.
    pub signals: BTreeMap<u32, SignalInfo>,
    /// What became of each range; only in the collector's cores.
    pub ranges: Option<Ranges>,
    /// All notes but our own, as they stand in the file, to be written again.
    pub raw: Vec<(String, u32, Vec<u8>)>,
}

impl Notes {
    /// Takes one note in. What it does not know it keeps in [`Notes::raw`].
    ///
    /// # Errors
    /// Words for a person, if the note is shorter than its structure.
    pub fn add(&mut self, owner: &[u8], kind: u32, content: &[u8]) -> Result<(), String> {
        let owner = String::from_utf8_lossy(owner).trim_end_matches('\0').to_owned();
        if owner == OWNER {
            return self.add_own(kind, content);
        }
        if owner == "CORE" {
            let short = |name: &str| format!("{name} is too short ({} bytes)", content.len());
            match kind {
                NT_PRSTATUS => {
                    let thread = thread(content).ok_or_else(|| short("NT_PRSTATUS"))?;
                    self.threads.push(thread);
                }
                NT_PRPSINFO => {
                    let process = process(content).ok_or_else(|| short("NT_PRPSINFO"))?;
                    self.process = Some(process);
                }
                NT_AUXV => {
                    let pairs = content.chunks_exact(16);
                    self.auxv = pairs.filter_map(|p| Some((word(p, 0)?, word(p, 8)?))).collect();
                }
                NT_SIGINFO => {
                    let signal = SignalInfo::read(content).ok_or_else(|| short("NT_SIGINFO"))?;
                    // It follows the registers of its thread.
                    if let Some(thread) = self.threads.last() {
                        self.signals.insert(thread.tid, signal);
                    }
                }
                NT_FILE => self.files = files(content).ok_or_else(|| short("NT_FILE"))?,
                _ => {}
            }
        }
        self.raw.push((owner, kind, content.to_vec()));
        Ok(())
    }

    fn add_own(&mut self, kind: u32, content: &[u8]) -> Result<(), String> {
        match kind {
            RANGES => {
                let ranges = Ranges::decode(content).map_err(|error| error.to_string())?;
                self.ranges = Some(ranges);
            }
            THREAD => {
                let record = ThreadRecord::decode(content).map_err(|error| error.to_string())?;
                let tid = record.tid;
                if let Some(thread) = self.threads.iter_mut().find(|thread| thread.tid == tid) {
                    thread.record = Some(record);
                }
            }
            _ => {}
        }
        Ok(())
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

fn half(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

/// `elf_prstatus`: `pr_cursig` at 12, `pr_pid` at 32, `pr_reg` from 112 to 8 bytes before the end.
fn thread(content: &[u8]) -> Option<Thread> {
    let signal = content.get(12..)?.first_chunk().map(|bytes| u16::from_le_bytes(*bytes))?;
    let registers = content.get(112..content.len().checked_sub(8)?)?;
    let registers = registers.chunks_exact(8).filter_map(|bytes| word(bytes, 0)).collect();
    Some(Thread { tid: half(content, 32)?, signal, registers, record: None })
}

/// `elf_prpsinfo`: `pr_pid` at 24, `pr_ppid` at 28, `pr_fname` at 40, `pr_psargs` at 56.
fn process(content: &[u8]) -> Option<ProcessInfo> {
    Some(ProcessInfo {
        pid: half(content, 24)?,
        parent: half(content, 28)?,
        name: text(content.get(40..56)?),
        arguments: text(content.get(56..136)?).trim_end().to_owned(),
    })
}

fn text(field: &[u8]) -> String {
    let end = field.iter().position(|&byte| byte == 0).unwrap_or(field.len());
    String::from_utf8_lossy(field.get(..end).unwrap_or_default()).into_owned()
}

/// `NT_FILE`: count, page size, then (start, end, page offset) for each, then the names.
fn files(content: &[u8]) -> Option<Vec<MappedFile>> {
    let count = usize::try_from(word(content, 0)?).ok()?;
    let page = word(content, 8)?;
    let names_at = count.checked_mul(24)?.checked_add(16)?;
    let (table, names) = content.split_at_checked(names_at)?;
    let entries = table.get(16..)?.chunks_exact(24);
    let names = names.split(|&byte| byte == 0);
    entries
        .zip(names)
        .map(|(entry, name)| {
            let (start, end) = (Addr(word(entry, 0)?), Addr(word(entry, 8)?));
            Some(MappedFile {
                range: AddrRange { start, end: end.max(start) },
                offset: word(entry, 16)?.checked_mul(page)?,
                path: String::from_utf8_lossy(name).into_owned(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nt_file_gives_offsets_in_bytes() {
        let mut note = Vec::new();
        for number in [2_u64, 4096, 0x1000, 0x3000, 0, 0x3000, 0x4000, 2] {
            note.extend_from_slice(&number.to_le_bytes());
        }
        note.extend_from_slice(b"/usr/sbin/kamailio\0/dev/zero (deleted)\0");
        let files = files(&note).unwrap();
        assert_eq!(
            files,
            [
                MappedFile {
                    range: AddrRange::new(Addr(0x1000), 0x2000),
                    offset: 0,
                    path: "/usr/sbin/kamailio".into()
                },
                MappedFile {
                    range: AddrRange::new(Addr(0x3000), 0x1000),
                    offset: 8192,
                    path: "/dev/zero (deleted)".into()
                },
            ]
        );
    }

    #[test]
    fn a_lying_count_is_refused() {
        let mut note = u64::MAX.to_le_bytes().to_vec();
        note.extend_from_slice(&4096_u64.to_le_bytes());
        assert_eq!(files(&note), None);
        assert!(Notes::default().add(b"CORE\0", NT_FILE, &note).is_err());
    }
}
