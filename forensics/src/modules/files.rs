//! Where which file was mapped: by the core's notes, or what can be recovered where they are lost.

use std::collections::BTreeSet;

use super::header::ElfInMemory;
use super::{Library, Place, link_map};
use crate::addr::AddrRange;
use crate::core::{CoreFile, Load, MappedFile};
use crate::memory::Memory;

/// The mapped files of a process.
#[derive(Clone, Debug, Default)]
pub struct Files {
    /// Where which part of which file was mapped.
    pub mapped: Vec<MappedFile>,
    /// Those of which even the path is lost: words in its place, to tell the files apart.
    lost: BTreeSet<String>,
    /// Path of the program by its command line, where the paths are lost.
    program: Option<String>,
}

/// More modules than any process has.
const MOST_MODULES: usize = 4096;

impl Files {
    /// From the core's notes, or, where these are lost, from what is in memory: the ELF headers at
    /// the start of segments, which promise where the rest of their files was mapped, and the
    /// loader's own list.
    pub fn of(core: &CoreFile, memory: &dyn Memory, library: &Library) -> Self {
        let notes = &core.notes;
        if !notes.files.is_empty() {
            return Self { mapped: notes.files.clone(), ..Self::default() };
        }
        let arguments = notes.process.as_ref().map(|process| process.arguments.as_str());
        let program = arguments.and_then(|words| words.split(' ').next());
        let program = program.filter(|program| program.starts_with('/')).map(str::to_owned);
        let mut files = Self { program, ..Self::default() };
        let held = |load: &Load| {
            let held = core.blob.length().saturating_sub(load.offset).min(load.saved);
            AddrRange::new(load.range.start, held)
        };
        let writable: Vec<AddrRange> =
            core.loads.iter().filter(|load| load.writable).map(held).collect();
        let mut listed = link_map::libraries(&writable, memory);
        for load in &core.loads {
            let pages = by_header(load.range, memory);
            if pages.is_empty() || files.lost.len() >= MOST_MODULES {
                continue;
            }
            let path = match listed.remove(&load.range.start) {
                Some(known) => known.path,
                None => {
                    let words = format!("(module at {}, name lost)", load.range.start);
                    files.lost.insert(words.clone());
                    words
                }
            };
            files.add(&path, pages);
        }
        for listed in listed.into_values() {
            let pages = by_list(&listed, library);
            files.add(&listed.path, pages);
        }
        files
    }

    fn add(&mut self, path: &str, pages: Vec<(AddrRange, u64)>) {
        let file = |(range, offset)| MappedFile { range, offset, path: path.to_owned() };
        self.mapped.extend(pages.into_iter().map(file));
    }

    pub(super) fn place<'a>(&'a self, path: &'a str) -> Place<'a> {
        match self.lost.contains(path) {
            true => Place::Lost(self.program.as_deref()),
            false => Place::Path(path),
        }
    }
}

/// The mappings of the file whose header begins a segment: ranges and offsets in the file. None if
/// no ELF file does, or if the segment is the whole file as it is in memory (the vDSO, which is no
/// file).
fn by_header(segment: AddrRange, memory: &dyn Memory) -> Vec<(AddrRange, u64)> {
    let ElfInMemory::Read { header, .. } = ElfInMemory::read(memory, segment.start) else {
        return Vec::new();
    };
    let bias = segment.start.0.wrapping_sub(header.lowest());
    let pages: Vec<_> = header.segments.iter().filter_map(|part| part.pages(bias)).collect();
    match pages[..] {
        [(only, _)] if only.end <= segment.end => Vec::new(),
        _ => pages,
    }
}

/// The mappings of a file that only the loader's list names: as the file of that name says, else
/// what lies before its dynamic section.
fn by_list(listed: &link_map::Library, library: &Library) -> Vec<(AddrRange, u64)> {
    match library.find(None, Place::Path(&listed.path)) {
        Ok(file) => {
            let parts = file.segments().iter();
            parts.filter_map(|part| part.pages(listed.start.0)).collect()
        }
        Err(_) => vec![(AddrRange { start: listed.start, end: listed.dynamic }, 0)],
    }
}
