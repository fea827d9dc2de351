//! One ELF file at hand: its segments, build ID and symbols.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::OnceLock;

use object::{Object as _, ObjectSection as _, SectionKind};

use super::call_frames::CallFrames;
use super::header::{FileSegment, Header};
use super::symbols::{AddressTable, NearSymbol, Spot};
use crate::bytes::Blob;

/// A symbol that has an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Symbol {
    /// Its address in the file (`st_value`).
    pub value: u64,
    /// Its size in bytes (`st_size`).
    pub size: u64,
}

/// An executable or library as a file.
#[derive(Debug)]
pub struct ModuleFile {
    /// Where it was found, for a person.
    pub origin: String,
    /// Its build ID, lower-case hex.
    pub build_id: Option<String>,
    /// Whether it holds symbols and types only, split off the program by its distribution: its
    /// bytes are not those that a process maps.
    pub debug_only: bool,
    /// What it lacks of what a process maps, as rising offsets in the file: the code, in a bundle
    /// that holds modules without it.
    pub lacking: Vec<Range<u64>>,
    blob: Blob,
    header: Header,
    symbols: OnceLock<HashMap<String, Symbol>>,
    by_address: OnceLock<AddressTable>,
    call_frames: OnceLock<CallFrames>,
}

impl ModuleFile {
    /// Reads an ELF file's headers.
    ///
    /// # Errors
    /// Words for a person, if it is not one.
    pub fn read(blob: &Blob, origin: impl Into<String>) -> Result<Self, String> {
        // Modules are small, and every parser wants them in one piece.
        let blob = match blob.all_in_place() {
            Some(_) => blob.clone(),
            None => Blob::from_bytes(blob.all().map_err(|error| error.to_string())?.to_vec()),
        };
        let bytes = blob.all_in_place().unwrap_or_default();
        let elf = object::File::parse(bytes).map_err(|error| format!("not readable: {error}"))?;
        let build_id = elf.build_id().ok().flatten().map(super::hex);
        let empty = |name: &str| {
            let section = elf.section_by_name(name);
            section.map(|section| section.kind() == SectionKind::UninitializedData)
        };
        // What was split off lacks the constants, too; a bundle's module may lack the code only.
        let debug_only = empty(".text") == Some(true) && empty(".rodata") != Some(false);
        let header = Header::read(bytes).unwrap_or_default();
        let lacking = if debug_only { Vec::new() } else { lacking(&elf, &header) };
        Ok(Self {
            origin: origin.into(),
            build_id,
            debug_only,
            lacking,
            header,
            symbols: OnceLock::new(),
            by_address: OnceLock::new(),
            call_frames: OnceLock::new(),
            blob,
        })
    }

    /// How much of it there is, to prefer the better one of two.
    pub(super) fn completeness(&self) -> u8 {
        match (self.debug_only, self.lacking.is_empty()) {
            (true, _) => 0,
            (false, false) => 1,
            (false, true) => 2,
        }
    }

    /// Lowest address of its segments, rounded down to a page; 0 for libraries.
    pub fn lowest_address(&self) -> u64 {
        self.header.lowest()
    }

    /// Its `PT_LOAD`s.
    pub fn segments(&self) -> &[FileSegment] {
        &self.header.segments
    }

    /// What lies at an address in the file (`p_vaddr`, `st_value`).
    pub fn at(&self, value: u64) -> Spot {
        self.table().at(value, self.bytes())
    }

    /// The symbol that covers an address in the file, its name whole.
    pub fn symbol_at(&self, value: u64) -> Option<NearSymbol> {
        self.table().symbol(value, self.bytes())
    }

    /// Name of the section at an address in the file.
    pub fn section_at(&self, value: u64) -> Option<&str> {
        self.table().section(value)
    }

    /// Whether only exported symbols are left of its names (`.dynsym`).
    pub fn is_stripped(&self) -> bool {
        self.table().is_dynamic()
    }

    fn table(&self) -> &AddressTable {
        self.by_address.get_or_init(|| AddressTable::read(self.bytes()))
    }

    /// Where its functions keep their callers' registers.
    pub fn call_frames(&self) -> &CallFrames {
        self.call_frames.get_or_init(|| CallFrames::of_file(&self.blob))
    }

    /// Its bytes as a blob.
    pub fn blob(&self) -> &Blob {
        &self.blob
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        self.blob.all_in_place().unwrap_or_default()
    }

    /// A defined symbol of `.dynsym` or `.symtab`; thread-local ones and imports are left out.
    pub fn symbol(&self, name: &str) -> Option<Symbol> {
        self.symbols.get_or_init(|| self.read_symbols()).get(name).copied()
    }

    /// Its named things of `size` bytes: names and addresses in the file (`st_value`).
    pub fn symbols_of(&self, size: u64) -> impl Iterator<Item = (&str, u64)> {
        let symbols = self.symbols.get_or_init(|| self.read_symbols()).iter();
        let right = symbols.filter(move |(_, symbol)| symbol.size == size);
        right.map(|(name, symbol)| (name.as_str(), symbol.value))
    }

    /// A file that goblin refuses has no symbols for us; its mapping and bytes still serve.
    fn read_symbols(&self) -> HashMap<String, Symbol> {
        let mut symbols = HashMap::new();
        let Ok(elf) = goblin::elf::Elf::parse(self.bytes()) else { return symbols };
        let tables = [(&elf.dynsyms, &elf.dynstrtab), (&elf.syms, &elf.strtab)];
        for (table, names) in tables {
            for symbol in table.iter() {
                let kind = symbol.st_type();
                let useful = !symbol.is_import()
                    && symbol.st_value != 0
                    && kind != goblin::elf::sym::STT_TLS
                    && kind != goblin::elf::sym::STT_SECTION;
                if let Some(name) = names.get_at(symbol.st_name).filter(|_| useful) {
                    let value = Symbol { value: symbol.st_value, size: symbol.st_size };
                    symbols.entry(name.to_owned()).or_insert(value);
                }
            }
        }
        symbols
    }
}

/// Sections without bytes where the program headers promise some, as offsets in the file.
fn lacking(elf: &object::File<'_>, header: &Header) -> Vec<Range<u64>> {
    let mut lacking = Vec::new();
    let empty = elf.sections().filter(|one| one.kind() == SectionKind::UninitializedData);
    for section in empty {
        let (start, length) = (section.address(), section.size());
        for segment in &header.segments {
            let inside = start.checked_sub(segment.address);
            let Some(inside) = inside.filter(|inside| *inside < segment.length) else { continue };
            let end = inside.saturating_add(length).min(segment.length);
            lacking.push(segment.offset.saturating_add(inside)..segment.offset.saturating_add(end));
        }
    }
    lacking.sort_by_key(|range| range.start);
    lacking
}

#[cfg(test)]
mod tests {
    use object::Endianness;
    use object::elf::{FileHeader64, SHT_NOBITS};
    use object::read::elf::{FileHeader as _, SectionHeader as _};

    use super::*;

    /// Where in this test's own program the header of a section and its bytes are.
    fn place(section: &str) -> (usize, Range<u64>) {
        let bytes = std::fs::read("/proc/self/exe").unwrap();
        let header = FileHeader64::<Endianness>::parse(&*bytes).unwrap();
        let endian = header.endian().unwrap();
        let sections = header.sections(endian, &*bytes).unwrap();
        let (index, found) = sections.section_by_name(endian, section.as_bytes()).unwrap();
        let (offset, length) = found.file_range(endian).unwrap();
        let table = usize::try_from(header.e_shoff.get(endian)).unwrap();
        (table + index.0 * 64, offset..offset + length)
    }

    fn without(sections: &[&str]) -> (ModuleFile, Vec<Range<u64>>) {
        let mut bytes = std::fs::read("/proc/self/exe").unwrap();
        let mut gone = Vec::new();
        for section in sections {
            let (header, range) = place(section);
            bytes[header + 4..header + 8].copy_from_slice(&SHT_NOBITS.0.to_le_bytes());
            gone.push(range);
        }
        (ModuleFile::read(&Blob::from_bytes(bytes), "program").unwrap(), gone)
    }

    #[test]
    fn a_file_without_its_code_says_so() {
        let (file, gone) = without(&[".text"]);
        assert_eq!((file.debug_only, file.completeness()), (false, 1));
        assert_eq!(file.lacking, gone);
    }

    #[test]
    fn a_file_without_code_and_constants_is_debug_information() {
        let (file, _) = without(&[".text", ".rodata"]);
        assert_eq!((file.debug_only, file.completeness()), (true, 0));
        assert_eq!(file.lacking, []);
    }

    #[test]
    fn a_whole_file_lacks_nothing_whatever_its_bss() {
        let (file, _) = without(&[]);
        assert_eq!((file.debug_only, file.completeness()), (false, 2));
        assert_eq!(file.lacking, []);
    }
}
