//! The executable and the libraries of a process: where they were mapped, which file each is, and
//! the symbols in it.
//!
//! Reads: a core's file mappings and its memory (each ELF file's first page, which carries the
//! build ID), and the files that [`Library`] knows. Promises: a file is used only for a mapping
//! whose build ID it has; where the core does not tell the build ID the module says so. Not for
//! unwinding or types.

mod file;
mod library;
mod symbols;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

pub use file::{ModuleFile, Symbol};
pub use library::{Library, LibraryOptions};
pub use symbols::{NearSymbol, Spot};

use crate::addr::{Addr, AddrRange};
use crate::core::MappedFile;
use crate::memory::Memory;
use crate::num::wide;

/// One ELF file, mapped into one process.
#[derive(Clone, Debug)]
pub struct Module {
    /// Path on the host, as the core says it.
    pub path: String,
    /// From its lowest to its highest mapping.
    pub range: AddrRange,
    /// From its lowest mapping to the end of its last segment in memory: `range` and the part of
    /// `.bss` that no file backs.
    pub image: AddrRange,
    /// What is added to an address in the file (`p_vaddr`, `st_value`) to get one in memory.
    pub bias: u64,
    /// Its build ID as the core's memory says it, lower-case hex.
    pub build_id: Option<String>,
    /// The file, or why there is none.
    pub file: Result<Arc<ModuleFile>, String>,
}

impl Module {
    /// Its file name without folders.
    pub fn name(&self) -> &str {
        let path = self.path.strip_suffix(" (deleted)").unwrap_or(&self.path);
        path.rsplit('/').next().unwrap_or(path)
    }

    /// Address of an exported symbol.
    pub fn symbol(&self, name: &str) -> Option<Addr> {
        let symbol = self.file.as_ref().ok()?.symbol(name)?;
        Some(Addr(symbol.value.wrapping_add(self.bias)))
    }

    /// The address in the file (`p_vaddr`, `st_value`) of an address in memory.
    pub fn address_in_file(&self, at: Addr) -> u64 {
        at.0.wrapping_sub(self.bias)
    }

    /// What lies at an address in memory; empty without the file.
    pub fn spot(&self, at: Addr) -> Spot {
        let file = self.file.as_ref().ok();
        file.map(|file| file.at(self.address_in_file(at))).unwrap_or_default()
    }
}

/// All modules of a process, by address.
#[derive(Clone, Debug, Default)]
pub struct ModuleMap {
    modules: Vec<Module>,
    paths: HashMap<String, usize>,
}

impl ModuleMap {
    /// Finds the modules among the mapped files of a core. `memory` is what the core itself holds.
    pub fn find(files: &[MappedFile], memory: &dyn Memory, library: &Library) -> Self {
        let mut by_path: BTreeMap<&str, Vec<&MappedFile>> = BTreeMap::new();
        for file in files {
            by_path.entry(&file.path).or_default().push(file);
        }
        let mut modules: Vec<Module> = by_path
            .into_iter()
            .filter_map(|(path, files)| module(path, &files, memory, library))
            .collect();
        modules.sort_by_key(|module| module.range.start);
        let paths = modules.iter().enumerate();
        let paths = paths.map(|(index, module)| (module.path.clone(), index)).collect();
        Self { modules, paths }
    }

    /// The modules, by address.
    pub fn iter(&self) -> impl Iterator<Item = &Module> {
        self.modules.iter()
    }

    /// The module that was mapped from a path.
    pub fn by_path(&self, path: &str) -> Option<&Module> {
        self.paths.get(path).and_then(|index| self.modules.get(*index))
    }

    /// The module that holds an address.
    pub fn at(&self, at: Addr) -> Option<&Module> {
        self.modules.iter().find(|module| module.range.contains(at))
    }

    /// The module in whose image an address lies, `.bss` included.
    pub fn covering(&self, at: Addr) -> Option<&Module> {
        self.at(at).or_else(|| self.modules.iter().find(|module| module.image.contains(at)))
    }

    /// The first module, by address, that exports a symbol, and the symbol's address.
    pub fn symbol(&self, name: &str) -> Option<(&Module, Addr)> {
        self.modules.iter().find_map(|module| Some((module, module.symbol(name)?)))
    }
}

fn module(
    path: &str,
    files: &[&MappedFile],
    memory: &dyn Memory,
    library: &Library,
) -> Option<Module> {
    // Shared anonymous memory is listed as a file too; it is none, and must never be opened.
    let pseudo = path.starts_with("/dev/") || path.starts_with("/SYSV") || path.starts_with('[');
    if pseudo || path.starts_with("/memfd:") {
        return None;
    }
    let start = files.iter().map(|file| file.range.start).min()?;
    let end = files.iter().map(|file| file.range.end).max()?;
    let first = files.iter().find(|file| file.offset == 0)?;
    let header = ElfInMemory::read(memory, first.range.start);
    if header == ElfInMemory::Other {
        return None;
    }
    let build_id = match &header {
        ElfInMemory::Read { build_id, .. } => build_id.clone(),
        ElfInMemory::Unknown | ElfInMemory::Other => None,
    };
    let file = library.find(build_id.as_deref(), path);
    // Programs map data files too (locales, caches). Where the core lacks a file's first page,
    // only a name tells.
    let known = header != ElfInMemory::Unknown || file.is_ok();
    if !known && !path.contains(".so") && !path.contains("/bin/") && !path.contains("/sbin/") {
        return None;
    }
    let lowest = match (&header, &file) {
        (ElfInMemory::Read { lowest, .. }, _) => *lowest,
        (_, Ok(file)) => file.lowest_address(),
        _ => 0,
    };
    let highest = match (&header, &file) {
        (ElfInMemory::Read { highest, .. }, _) => *highest,
        (_, Ok(file)) => file.highest_address(),
        _ => 0,
    };
    let bias = first.range.start.0.wrapping_sub(lowest);
    let in_memory = highest.checked_add(bias).and_then(|at| at.checked_next_multiple_of(4096));
    Some(Module {
        path: path.to_owned(),
        range: AddrRange { start, end },
        image: AddrRange { start, end: in_memory.map_or(end, Addr).max(end) },
        bias,
        build_id,
        file,
    })
}

/// What the first page of a mapped file says.
#[derive(Debug, PartialEq, Eq)]
enum ElfInMemory {
    /// An ELF file: the lowest `p_vaddr` of its segments (page-aligned), the first address behind
    /// the last of them, and its build ID.
    Read { lowest: u64, highest: u64, build_id: Option<String> },
    /// The page is not in the core.
    Unknown,
    /// Not an ELF file.
    Other,
}

impl ElfInMemory {
    fn read(memory: &dyn Memory, start: Addr) -> Self {
        let Ok(page) = memory.bytes(start, 4096) else { return Self::Unknown };
        if !page.starts_with(b"\x7fELF") {
            return Self::Other;
        }
        let (mut lowest, mut highest, mut build_id) = (u64::MAX, 0, None);
        let count = page.get(56..58).and_then(|bytes| bytes.first_chunk()).copied();
        let count = usize::from(count.map_or(0, u16::from_le_bytes)).min(64);
        for number in 0..count {
            // Elf64_Phdr: p_type at 0, p_offset 8, p_vaddr 16, p_filesz 32, p_memsz 40; the
            // table is at 64.
            let at = number.saturating_mul(56).saturating_add(64);
            let Some(entry) = page.get(at..at.saturating_add(56)) else { break };
            let word = |at: usize| {
                let bytes = entry.get(at..).and_then(|bytes| bytes.first_chunk());
                bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes))
            };
            let kind = word(0) & 0xffff_ffff;
            if kind == 1 {
                lowest = lowest.min(word(16) & !0xfff);
                highest = highest.max(word(16).saturating_add(word(40)));
            } else if kind == 4 && build_id.is_none() && word(32) < 4096 {
                let notes = start.checked_add(word(8));
                build_id = notes.and_then(|at| build_id_in(memory, at, word(32)));
            }
        }
        let lowest = if lowest == u64::MAX { 0 } else { lowest };
        Self::Read { lowest, highest, build_id }
    }
}

/// The build ID in a run of ELF notes: owner `GNU`, type 3.
fn build_id_in(memory: &dyn Memory, at: Addr, length: u64) -> Option<String> {
    let notes = memory.bytes(at, usize::try_from(length).ok()?).ok()?;
    let mut rest: &[u8] = &notes;
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

/// Lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len().saturating_mul(2)), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Makes file mappings out of ELF headers in memory, for cores whose notes are lost. A file's
/// other mappings are not known then; the module's range is its first mapping's segment.
pub fn mapped_files_by_header(starts: &[AddrRange], memory: &dyn Memory) -> Vec<MappedFile> {
    let is_elf = |range: &&AddrRange| {
        memory.bytes(range.start, 4).is_ok_and(|bytes| bytes.starts_with(b"\x7fELF"))
    };
    let named = |(number, range): (usize, &AddrRange)| MappedFile {
        range: *range,
        offset: 0,
        path: format!("unnamed-module-{}", wide(number).saturating_add(1)),
    };
    starts.iter().filter(is_elf).enumerate().map(named).collect()
}
