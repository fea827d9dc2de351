//! What lies at an address in a file: its section and the symbol that covers it.
//!
//! Reads: section headers and `.symtab`, or `.dynsym` where the file was stripped. Promises: a
//! symbol is named only for addresses that its own size covers (a symbol without a size reaches to
//! the next one or to the end of its section), so a static function of a stripped file has no
//! name rather than its neighbour's. Names stay as the linker wrote them. Not for sources' lines.

use object::read::{Object as _, ObjectSection as _, ObjectSymbol as _, ObjectSymbolTable as _};
use object::{SectionFlags, SymbolIndex, SymbolKind, elf};

/// Symbols that may lie within one another; linkers nest them two or three deep.
const NESTED: usize = 16;
/// Names of one address that are compared.
const ALIASES: usize = 16;
/// Longest name that is shown, in characters.
const LONGEST: usize = 256;
/// Longest name that is read, in characters: those of C++ templates are long before they are
/// demangled.
const LONGEST_RAW: usize = 4096;

/// What lies at an address in a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spot {
    /// Name of the section, for instance `.text`.
    pub section: Option<String>,
    /// The symbol that covers the address.
    pub symbol: Option<NearSymbol>,
}

/// A symbol that covers an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NearSymbol {
    /// Its name: at most 256 characters in a [`Spot`].
    pub name: String,
    /// From its start to the address, in bytes.
    pub offset: u64,
}

/// The sections and symbols of one file, sorted; the names stay in the file.
#[derive(Debug, Default)]
pub(super) struct AddressTable {
    sections: Vec<Section>,
    symbols: Vec<Entry>,
    /// Whether `symbols` come from `.dynsym`.
    dynamic: bool,
}

#[derive(Debug)]
struct Section {
    start: u64,
    end: u64,
    name: String,
}

/// `start` and `end` are addresses in the file (`st_value`), half-open.
#[derive(Debug)]
struct Entry {
    start: u64,
    end: u64,
    index: SymbolIndex,
    rank: Rank,
}

/// Which of several symbols at one address is the better name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Global,
    Weak,
    Local,
}

impl AddressTable {
    /// Reads a file's tables; one that cannot be parsed has none.
    pub(super) fn read(bytes: &[u8]) -> Self {
        let Ok(file) = object::File::parse(bytes) else { return Self::default() };
        let sections = sections(&file);
        let mut symbols = entries(file.symbols());
        let dynamic = symbols.is_empty();
        if dynamic {
            symbols = entries(file.dynamic_symbols());
        }
        symbols.sort_by_key(|entry| (entry.start, std::cmp::Reverse(entry.end), entry.rank));
        let mut table = Self { sections, symbols, dynamic };
        table.give_sizes();
        table
    }

    /// A symbol without a size reaches to the next address that has one, within its section.
    fn give_sizes(&mut self) {
        let mut next = u64::MAX;
        let mut following = u64::MAX;
        for entry in self.symbols.iter_mut().rev() {
            if entry.start < following {
                next = following;
                following = entry.start;
            }
            if entry.end == entry.start {
                let section = section_at(&self.sections, entry.start);
                entry.end = section.map_or(entry.start, |section| section.end.min(next));
            }
        }
    }

    /// What lies at `value`; `bytes` is the file that the table was read from.
    pub(super) fn at(&self, value: u64, bytes: &[u8]) -> Spot {
        let symbol = self.symbol(value, bytes).map(|symbol| NearSymbol {
            name: symbol.name.chars().take(LONGEST).collect(),
            ..symbol
        });
        Spot { section: self.section(value).map(str::to_owned), symbol }
    }

    /// Name of the section at `value`.
    pub(super) fn section(&self, value: u64) -> Option<&str> {
        section_at(&self.sections, value).map(|section| section.name.as_str())
    }

    /// Whether the symbols are those that the file exports, for lack of others.
    pub(super) fn is_dynamic(&self) -> bool {
        self.dynamic
    }

    /// The symbol that covers `value`, its name whole.
    pub(super) fn symbol(&self, value: u64, bytes: &[u8]) -> Option<NearSymbol> {
        let behind = self.symbols.partition_point(|entry| entry.start <= value);
        let before = self.symbols.get(..behind)?.iter().rev();
        let innermost = before.take(NESTED).find(|entry| value < entry.end)?;
        let first = self.symbols.partition_point(|entry| entry.start < innermost.start);
        let same = self.symbols.get(first..)?.iter();
        let aliases = same
            .take(ALIASES)
            .take_while(|entry| entry.start == innermost.start)
            .filter(|entry| value < entry.end);
        let file = object::File::parse(bytes).ok()?;
        let named = aliases.filter_map(|entry| Some((entry.rank, self.name(entry, &file)?)));
        // Of `malloc` and `__libc_malloc` people know the plain one.
        let plainest = |(rank, name): &(Rank, String)| {
            (*rank, name.len().saturating_sub(name.trim_start_matches('_').len()), name.len())
        };
        let (_, name) = named.min_by_key(plainest)?;
        Some(NearSymbol { name, offset: value.saturating_sub(innermost.start) })
    }

    fn name(&self, entry: &Entry, file: &object::File<'_>) -> Option<String> {
        let symbol = match self.dynamic {
            true => file.dynamic_symbol_table()?.symbol_by_index(entry.index),
            false => file.symbol_by_index(entry.index),
        };
        let symbol = symbol.ok()?;
        let name = String::from_utf8_lossy(symbol.name_bytes().ok()?).into_owned();
        (!name.is_empty()).then(|| name.chars().take(LONGEST_RAW).collect())
    }
}

/// The sections that are mapped, by address. Thread-local zeroes (`.tbss`) take no room there.
fn sections(file: &object::File<'_>) -> Vec<Section> {
    let mapped = |section: &object::Section<'_, '_>| match section.flags() {
        SectionFlags::Elf { sh_flags, .. } => {
            sh_flags.contains(elf::SHF_ALLOC) && section.size() > 0
        }
        _ => false,
    };
    let zeroes =
        |section: &object::Section<'_, '_>| section.kind() == object::SectionKind::UninitializedTls;
    let named = |section: object::Section<'_, '_>| {
        let name = String::from_utf8_lossy(section.name_bytes().ok()?);
        Some(Section {
            start: section.address(),
            end: section.address().checked_add(section.size())?,
            name: name.chars().take(LONGEST).collect(),
        })
    };
    let mut sections: Vec<Section> = file
        .sections()
        .filter(|section| mapped(section) && !zeroes(section))
        .filter_map(named)
        .collect();
    sections.sort_by_key(|section| section.start);
    sections
}

fn section_at(sections: &[Section], value: u64) -> Option<&Section> {
    let behind = sections.partition_point(|section| section.start <= value);
    let section = sections.get(behind.checked_sub(1)?)?;
    (value < section.end).then_some(section)
}

/// Defined functions and objects. Symbols without a type are marks (`$x`, `_edata`), not things.
fn entries<'data, 'file>(symbols: impl Iterator<Item = object::Symbol<'data, 'file>>) -> Vec<Entry>
where
    'data: 'file,
{
    let thing = |symbol: &object::Symbol<'data, 'file>| {
        let kind = matches!(symbol.kind(), SymbolKind::Text | SymbolKind::Data);
        kind && symbol.is_definition() && symbol.address() != 0
    };
    let entry = |symbol: object::Symbol<'data, 'file>| Entry {
        start: symbol.address(),
        end: symbol.address().saturating_add(symbol.size()),
        index: symbol.index(),
        rank: match (symbol.is_local(), symbol.is_weak()) {
            (true, _) => Rank::Local,
            (false, true) => Rank::Weak,
            (false, false) => Rank::Global,
        },
    };
    symbols.filter(thing).map(entry).collect()
}

#[cfg(test)]
mod tests {
    use object::write::{Object, StandardSection, Symbol, SymbolSection};
    use object::{Architecture, BinaryFormat, Endianness, SymbolFlags, SymbolScope};

    use super::*;

    /// A file whose `.text` is 0x100 bytes long, with (name, address, size, scope).
    fn file(symbols: &[(&str, u64, u64, SymbolScope)]) -> Vec<u8> {
        let mut object = Object::new(BinaryFormat::Elf, Architecture::X86_64, Endianness::Little);
        let text = object.section_id(StandardSection::Text);
        object.append_section_data(text, &[0xc3; 0x100], 16);
        for &(name, value, size, scope) in symbols {
            object.add_symbol(Symbol {
                name: name.as_bytes().to_vec(),
                value,
                size,
                kind: SymbolKind::Text,
                scope,
                weak: false,
                section: SymbolSection::Section(text),
                flags: SymbolFlags::None,
            });
        }
        object.write().unwrap()
    }

    fn symbol(bytes: &[u8], value: u64) -> Option<(String, u64)> {
        let spot = AddressTable::read(bytes).at(value, bytes);
        assert_eq!(spot.section.as_deref(), Some(".text"), "at {value:#x}");
        spot.symbol.map(|symbol| (symbol.name, symbol.offset))
    }

    fn known(name: &str, offset: u64) -> Option<(String, u64)> {
        Some((name.to_owned(), offset))
    }

    #[test]
    fn a_symbol_covers_its_size_and_not_a_byte_more() {
        use SymbolScope::Dynamic;
        let bytes = file(&[("t_relay", 0x10, 0x20, Dynamic), ("t_reply", 0x40, 8, Dynamic)]);
        assert_eq!(symbol(&bytes, 0x10), known("t_relay", 0));
        assert_eq!(symbol(&bytes, 0x2f), known("t_relay", 0x1f));
        assert_eq!(symbol(&bytes, 0x30), None);
        assert_eq!(symbol(&bytes, 0x44), known("t_reply", 4));
        assert_eq!(symbol(&bytes, 0xff), None);
    }

    #[test]
    fn a_symbol_without_a_size_reaches_to_the_next_one_or_to_the_section_end() {
        use SymbolScope::Dynamic;
        let bytes = file(&[("one", 0x10, 0, Dynamic), ("two", 0x20, 0, Dynamic)]);
        assert_eq!(symbol(&bytes, 0x1f), known("one", 0xf));
        assert_eq!(symbol(&bytes, 0xff), known("two", 0xdf));
        let outside = AddressTable::read(&bytes).at(0x100, &bytes);
        assert_eq!(outside, Spot::default());
    }

    #[test]
    fn inside_a_symbol_another_one_may_lie() {
        use SymbolScope::Dynamic;
        let bytes = file(&[("outer", 0x10, 0x80, Dynamic), ("inner", 0x20, 0x10, Dynamic)]);
        assert_eq!(symbol(&bytes, 0x28), known("inner", 8));
        assert_eq!(symbol(&bytes, 0x30), known("outer", 0x20));
    }

    #[test]
    fn of_several_names_the_plain_global_one_is_taken() {
        let bytes = file(&[
            ("a", 0x10, 8, SymbolScope::Compilation),
            ("__libc_malloc", 0x10, 8, SymbolScope::Dynamic),
            ("malloc", 0x10, 8, SymbolScope::Dynamic),
        ]);
        assert_eq!(symbol(&bytes, 0x12), known("malloc", 2));
    }

    #[test]
    fn bytes_that_are_no_file_have_nothing() {
        assert_eq!(AddressTable::read(b"\x7fELF").at(0x10, b"\x7fELF"), Spot::default());
    }
}
