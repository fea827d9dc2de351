//! An ELF file without its code: what remains names symbols, and holds the texts that owners of
//! memory are called by.
//!
//! Every byte stays at its offset. A section that was left out is zero in the file, which packs to
//! nothing, and its header says `SHT_NOBITS`, as in the debug files of distributions: so the file
//! says itself that those bytes are not there.

use object::elf::{FileHeader64, SHF_EXECINSTR, SHT_NOBITS};
use object::read::elf::{FileHeader as _, SectionHeader as _};
use object::{Endianness, U32, pod};

use crate::number::{bytes, size};

type Header = FileHeader64<Endianness>;

/// A part of a file: offset and length.
type Part = (u64, u64);

/// Where a section's `sh_type` lies in its header.
const TYPE: u64 = 4;

/// Takes code and debug information out of a 64-bit ELF file and adds to `left_out` how many bytes
/// that were. A file that cannot be read so, or has no sections, stays whole.
pub(super) fn without_code(mut content: Vec<u8>, left_out: &mut u64) -> Vec<u8> {
    let Some((endian, sections)) = unneeded(&content) else { return content };
    let no_bits = U32::new(endian, SHT_NOBITS);
    for (header, (offset, length)) in sections {
        let part = |at: u64, length: u64| size(at)..size(at.saturating_add(length));
        let Some(kind) = content.get_mut(part(header.saturating_add(TYPE), 4)) else { continue };
        kind.copy_from_slice(pod::bytes_of(&no_bits));
        if let Some(code) = content.get_mut(part(offset, length)) {
            code.fill(0);
            *left_out += bytes(code.len());
        }
    }
    content
}

/// Of each section to leave out: offset of its header, and where its bytes are.
fn unneeded(content: &[u8]) -> Option<(Endianness, Vec<(u64, Part)>)> {
    let header = Header::parse(content).ok()?;
    let endian = header.endian().ok()?;
    let sections = header.sections(endian, content).ok()?;
    let first = header.e_shoff.get(endian);
    let length = u64::from(header.e_shentsize.get(endian));
    let mut unneeded = Vec::new();
    for (index, section) in sections.iter().enumerate() {
        let debug = sections.section_name(endian, section);
        let debug = debug.is_ok_and(|name| name.starts_with(b".debug_"));
        let code = section.sh_flags(endian).0 & SHF_EXECINSTR.0 != 0;
        if let Some(part) = section.file_range(endian).filter(|_| code || debug) {
            let at = first.checked_add(bytes(index).checked_mul(length)?)?;
            unneeded.push((at, part));
        }
    }
    Some((endian, unneeded))
}

#[cfg(test)]
mod tests {
    use object::{Object, ObjectSection, ObjectSymbol, SectionKind};

    use super::*;

    #[test]
    fn constants_and_symbols_stay_and_code_goes() {
        let whole = std::fs::read("/proc/self/exe").unwrap();
        let mut left_out = 0;
        let tables = without_code(whole.clone(), &mut left_out);
        assert_eq!(tables.len(), whole.len());
        let (before, after) =
            (object::File::parse(&*whole).unwrap(), object::File::parse(&*tables).unwrap());
        let code = before.section_by_name(".text").unwrap();
        assert!(left_out >= code.size());
        let gone = after.section_by_name(".text").unwrap();
        assert_eq!(gone.kind(), SectionKind::UninitializedData);
        let (start, length) = code.file_range().unwrap();
        let place = usize::try_from(start).unwrap()..usize::try_from(start + length).unwrap();
        assert!(tables[place].iter().all(|byte| *byte == 0));
        let constants = |file: &object::File<'_>| {
            file.section_by_name(".rodata").unwrap().data().unwrap().to_vec()
        };
        assert!(constants(&before) == constants(&after));
        assert_eq!(before.build_id().unwrap(), after.build_id().unwrap());
        let count = |file: &object::File<'_>| file.symbols().filter(|one| one.is_global()).count();
        assert_eq!(count(&before), count(&after));
    }

    #[test]
    fn what_is_no_elf_file_stays_whole() {
        let mut left_out = 0;
        assert_eq!(
            without_code(b"\x7fELF and no more".to_vec(), &mut left_out),
            b"\x7fELF and no more"
        );
        assert_eq!(left_out, 0);
    }
}
