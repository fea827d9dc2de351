//! The executable and the libraries of a process: where they were mapped, which file each is, and
//! the symbols in it.
//!
//! Reads: a core's file mappings and its memory (each ELF file's first page, which carries the
//! build ID), and the files that [`Library`] knows. Promises: a file is used only for a mapping
//! whose build ID it has; where the core does not tell the build ID the module says so. Not for
//! types.

mod call_frames;
mod file;
mod files;
mod header;
mod library;
mod link_map;
mod search;
mod symbols;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

pub use call_frames::{CallFrames, CfaRule, Expression, FrameRules, RegisterRule, Scratch};
pub use file::{ModuleFile, Symbol};
pub use files::Files;
pub use header::FileSegment;
pub use library::{Library, LibraryOptions, Place};
pub(crate) use library::{below, open};
pub(crate) use search::files_by_build_id;
pub use symbols::{NearSymbol, Spot};

use crate::addr::{Addr, AddrRange};
use crate::core::MappedFile;
use crate::memory::Memory;
use header::ElfInMemory;

/// One ELF file, mapped into one process.
#[derive(Clone, Debug)]
pub struct Module {
    /// Path on the host, as the core says it; where the core has lost it, that of the file with
    /// its build ID, else words that say where it lies.
    pub path: String,
    /// From its lowest to its highest mapping.
    pub range: AddrRange,
    /// Its segments, if its program headers are known.
    pub segments: Vec<FileSegment>,
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

    /// Whether the program may have written to an address inside it.
    pub fn is_writable(&self, at: Addr) -> bool {
        let holds = |segment: &FileSegment| {
            segment.pages(self.bias).is_some_and(|(range, _)| range.contains(at))
        };
        self.segments.iter().any(|segment| segment.writable && holds(segment))
    }

    /// Address of an exported symbol.
    pub fn symbol(&self, name: &str) -> Option<Addr> {
        let symbol = self.file.as_ref().ok()?.symbol(name)?;
        Some(Addr(symbol.value.wrapping_add(self.bias)))
    }

    /// Its named variables that are as long as a pointer: names and addresses, in no order.
    pub fn pointers(&self) -> impl Iterator<Item = (&str, Addr)> {
        let symbols = self.file.as_ref().ok().into_iter().flat_map(|file| file.symbols_of(8));
        let in_memory = symbols.map(|(name, value)| (name, Addr(value.wrapping_add(self.bias))));
        in_memory.filter(|(_, at)| self.is_writable(*at) || !self.range.contains(*at))
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
    pub fn find(files: &Files, memory: &dyn Memory, library: &Library) -> Self {
        let mut by_path: BTreeMap<&str, Vec<&MappedFile>> = BTreeMap::new();
        for file in &files.mapped {
            by_path.entry(&file.path).or_default().push(file);
        }
        let mut modules: Vec<(&str, Module)> = by_path
            .into_iter()
            .filter_map(|(path, mapped)| {
                Some((path, module(path, files.place(path), &mapped, memory, library)?))
            })
            .collect();
        modules.sort_by_key(|(_, module)| module.range.start);
        let paths = modules.iter().enumerate();
        let paths = paths.map(|(index, (path, _))| ((*path).to_owned(), index)).collect();
        Self { modules: modules.into_iter().map(|(_, module)| module).collect(), paths }
    }

    /// The modules, by address.
    pub fn iter(&self) -> impl Iterator<Item = &Module> {
        self.modules.iter()
    }

    /// The module that was mapped from a path of [`Files`].
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
    place: Place<'_>,
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
    let (header, build_id) = match ElfInMemory::read(memory, first.range.start) {
        ElfInMemory::Read { header, build_id } => (Some(header), build_id),
        ElfInMemory::Unknown => (None, None),
        ElfInMemory::Other => return None,
    };
    let file = library.find(build_id.as_deref(), place);
    // Programs map data files too (locales, caches). Where the core lacks a file's first page,
    // only a name tells.
    let known = header.is_some() || file.is_ok();
    if !known && !path.contains(".so") && !path.contains("/bin/") && !path.contains("/sbin/") {
        return None;
    }
    let (lowest, segments) = match (header, &file) {
        (Some(header), _) => (header.lowest(), header.segments),
        (None, Ok(file)) => (file.lowest_address(), file.segments().to_vec()),
        (None, Err(_)) => (0, Vec::new()),
    };
    let bias = first.range.start.0.wrapping_sub(lowest);
    let path = match (place, &file) {
        (Place::Lost(_), Ok(file)) => file.origin.clone(),
        _ => path.to_owned(),
    };
    // Behind the last mapping of the file lies what the program headers promise besides.
    let reach = segments.iter().filter_map(|segment| segment.end(bias)).max();
    let in_memory = reach.and_then(|reach| reach.0.checked_next_multiple_of(4096)).map(Addr);
    let image = AddrRange { start, end: in_memory.map_or(end, |reach| reach.max(end)) };
    let end = end.max(reach.filter(|_| matches!(place, Place::Lost(_))).unwrap_or(end));
    let range = AddrRange { start, end };
    Some(Module { path, range, image, segments, bias, build_id, file })
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
