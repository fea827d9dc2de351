//! One ELF file at hand: its segments, build ID and symbols.

use std::collections::HashMap;
use std::sync::OnceLock;

use object::{Object as _, ObjectSection as _, SectionKind};

use super::header::{FileSegment, Header};
use super::symbols::{AddressTable, Spot};
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
    blob: Blob,
    header: Header,
    symbols: OnceLock<HashMap<String, Symbol>>,
    by_address: OnceLock<AddressTable>,
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
        let code = elf.section_by_name(".text");
        let debug_only = code.is_some_and(|code| code.kind() == SectionKind::UninitializedData);
        let header = Header::read(bytes).unwrap_or_default();
        Ok(Self {
            origin: origin.into(),
            build_id,
            debug_only,
            header,
            symbols: OnceLock::new(),
            by_address: OnceLock::new(),
            blob,
        })
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
        let table = self.by_address.get_or_init(|| AddressTable::read(self.bytes()));
        table.at(value, self.bytes())
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
