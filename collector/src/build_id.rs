//! The GNU build ID: of an ELF file, and of the first page of one in memory.

use object::Object as _;
use object::read::elf::{FileHeader as _, ProgramHeader as _};

/// GNU build ID of an ELF file, in lower-case hex.
pub(crate) fn of_file(content: &[u8]) -> Option<String> {
    let file = object::File::parse(content).ok()?;
    let id = file.build_id().ok()??;
    Some(hex(id))
}

/// GNU build ID in the first bytes of a mapped ELF file, in lower-case hex.
pub(crate) fn of_page(page: &[u8]) -> Option<String> {
    let header = object::elf::FileHeader64::<object::Endianness>::parse(page).ok()?;
    let endian = header.endian().ok()?;
    for program in header.program_headers(endian, page).ok()? {
        let Ok(Some(mut notes)) = program.notes(endian, page) else { continue };
        while let Ok(Some(note)) = notes.next() {
            if note.n_type(endian) == object::elf::NT_GNU_BUILD_ID && note.name() == b"GNU" {
                return Some(hex(note.desc()));
            }
        }
    }
    None
}

/// Lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_and_its_first_page_have_one_build_id() {
        let content = std::fs::read("/usr/bin/env").unwrap();
        let id = of_file(&content);
        assert!(id.is_some());
        assert_eq!(of_page(&content[..4096]), id);
        assert_eq!(of_page(&content[..64]), None);
        assert_eq!(of_file(b"\x7fELF"), None);
    }
}
