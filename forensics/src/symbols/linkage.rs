//! The procedure linkage table: an address in it belongs to the stub of a function of another
//! module.
//!
//! Each stub jumps through a word of the global offset table, which the stub's code names; a
//! relocation says which function's address the loader writes there. For x86-64 and aarch64.

use std::collections::HashMap;

use object::read::{Object as _, ObjectSection as _, ObjectSymbol as _, ObjectSymbolTable as _};
use object::{Architecture, RelocationTarget};

use crate::modules::{ModuleFile, NearSymbol};
use crate::num::narrow;

/// `adrp x16, PAGE` and `ldr x17, [x16, #OFFSET]`: what is fixed in them.
const ADRP: (u32, u32) = (0x9f00_001f, 0x9000_0010);
const LDR: (u32, u32) = (0xffc0_03ff, 0xf940_0211);

/// The functions behind the words of one file's global offset table, by the words' addresses.
#[derive(Debug, Default)]
pub(super) struct Linkage {
    names: HashMap<u64, String>,
}

impl Linkage {
    pub(super) fn read(file: &ModuleFile) -> Self {
        let Ok(elf) = object::File::parse(file.bytes()) else { return Self::default() };
        let (Some(relocations), Some(symbols)) =
            (elf.dynamic_relocations(), elf.dynamic_symbol_table())
        else {
            return Self::default();
        };
        let name = |target| match target {
            RelocationTarget::Symbol(index) => {
                let symbol = symbols.symbol_by_index(index).ok()?;
                let name = symbol.name().ok().filter(|name| !name.is_empty())?;
                Some(name.to_owned())
            }
            _ => None,
        };
        let named = relocations.filter_map(|(at, one)| Some((at, name(one.target())?)));
        Self { names: named.collect() }
    }

    /// The function whose stub holds an address, by its own name, and where in the stub that is.
    pub(super) fn at(&self, value: u64, file: &ModuleFile) -> Option<NearSymbol> {
        let elf = object::File::parse(file.bytes()).ok()?;
        let stub = match elf.architecture() {
            Architecture::X86_64 => x86_64(&elf, value)?,
            Architecture::Aarch64 => aarch64(&elf, value)?,
            _ => return None,
        };
        let name = self.names.get(&stub.word)?.clone();
        Some(NearSymbol { name, offset: value.checked_sub(stub.start)? })
    }
}

/// A stub, and the word that it jumps through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stub {
    start: u64,
    word: u64,
}

/// Stubs are 16 bytes long, or 8 in `.plt.got`; `jmp *WORD(%rip)` may follow `endbr64` and `bnd`.
fn x86_64(elf: &object::File<'_>, value: u64) -> Option<Stub> {
    [8, 16].into_iter().find_map(|length: u64| {
        let start = value.checked_sub(value.checked_rem(length)?)?;
        let code = code(elf, start, 16)?;
        let place = |at: usize| code.get(at..).filter(|rest| rest.starts_with(&[0xff, 0x25]));
        let at = match (code.get(..4)?, place(0)) {
            (_, Some(_)) => 0,
            ([0xf3, 0x0f, 0x1e, 0xfa], _) => [4, 5].into_iter().find(|at| place(*at).is_some())?,
            ([0xf2, ..], _) => 1,
            _ => return None,
        };
        let distance = i32::from_le_bytes(*place(at)?.get(2..)?.first_chunk()?);
        let behind = start.checked_add(u64::try_from(at).ok()?)?.checked_add(6)?;
        Some(Stub { start, word: behind.checked_add_signed(i64::from(distance))? })
    })
}

/// `adrp` and `ldr` name the word; at most three instructions of the stub follow `adrp`.
fn aarch64(elf: &object::File<'_>, value: u64) -> Option<Stub> {
    let value = value & !3;
    (0..4).find_map(|back: u64| {
        let start = value.checked_sub(back.checked_mul(4)?)?;
        let code = code(elf, start, 8)?;
        let adrp = u32::from_le_bytes(*code.first_chunk()?);
        let ldr = u32::from_le_bytes(*code.get(4..)?.first_chunk()?);
        if adrp & ADRP.0 != ADRP.1 || ldr & LDR.0 != LDR.1 {
            return None;
        }
        // 21 bits of pages, the low two of them at bit 29, and 12 bits of words.
        let pages = u64::from((adrp >> 5) & 0x7_ffff) << 2 | u64::from((adrp >> 29) & 3);
        let words = u64::from((ldr >> 10) & 0xfff);
        let negative = pages & (1 << 20) != 0;
        let distance = if negative { pages | !0x1f_ffff } else { pages } << 12;
        let page = (start & !0xfff).wrapping_add(distance);
        Some(Stub { start, word: page.wrapping_add(words << 3) })
    })
}

/// At most `length` bytes of code, from a table of stubs only.
fn code<'a>(elf: &object::File<'a>, at: u64, length: usize) -> Option<&'a [u8]> {
    let holds = |section: &object::Section<'a, '_>| {
        let inside = at.checked_sub(section.address()).is_some_and(|into| into < section.size());
        inside && section.name().is_ok_and(|name| name.starts_with(".plt"))
    };
    let section = elf.sections().find(holds)?;
    let bytes = section.data().ok()?.get(narrow(at.checked_sub(section.address())?)..)?;
    Some(bytes.get(..length).unwrap_or(bytes))
}
