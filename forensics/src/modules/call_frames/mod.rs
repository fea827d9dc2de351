//! Where the functions of an ELF file keep their callers' registers: DWARF call frame information.
//!
//! Reads: `.eh_frame` with the search table in `.eh_frame_hdr`, and `.debug_frame`, of a file or of
//! its image in a process's memory. Promises: any bytes; only the entry that is asked for is parsed,
//! and an entry of absurd length is refused. Addresses are those in the file. Not for memory and
//! registers: that is [`crate::unwind`].

mod image;
mod rules;
mod table;

#[cfg(test)]
mod tests;

use object::{Object as _, ObjectSection as _};

pub use rules::{CfaRule, Expression, FrameRules, RegisterRule, Scratch};
use table::{Kind, Section, Table};

use crate::bytes::Blob;

/// Longest section that is decompressed, in bytes.
const LONGEST_SECTION: u64 = 256 << 20;

/// The call frame tables of one file or image.
#[derive(Debug, Default)]
pub struct CallFrames {
    /// `.eh_frame`, which every program of today has, goes before `.debug_frame`.
    tables: Vec<Table>,
}

impl CallFrames {
    /// Of a file; one that cannot be parsed has none.
    pub(super) fn of_file(file: &Blob) -> Self {
        let bytes = file.all_in_place().unwrap_or_default();
        let Ok(elf) = object::File::parse(bytes) else { return Self::default() };
        let section = |name| section(file, &elf, name);
        let header = section(".eh_frame_hdr");
        let eh_frame = section(".eh_frame").map(|entries| Table::new(Kind::Eh, entries, header));
        let debug_frame = section(".debug_frame");
        let debug_frame = debug_frame.map(|entries| Table::new(Kind::Debug, entries, None));
        Self { tables: eh_frame.into_iter().chain(debug_frame).collect() }
    }

    /// Whether there is nothing to look up in.
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    /// The rules that hold at an address in the file; `None` where no entry covers it.
    ///
    /// # Errors
    /// Words for a person, where an entry covers it and cannot be read.
    pub fn at(&self, address: u64, scratch: &mut Scratch) -> Result<Option<FrameRules>, String> {
        let mut damaged = None;
        for table in &self.tables {
            match table.at(address, scratch) {
                Ok(Some(rules)) => return Ok(Some(rules)),
                Ok(None) => {}
                Err(why) => damaged = damaged.or(Some(why)),
            }
        }
        damaged.map_or(Ok(None), Err)
    }
}

/// A section that has bytes; decompressed if it was compressed.
fn section(file: &Blob, elf: &object::File<'_>, name: &str) -> Option<Section> {
    let section = elf.section_by_name(name)?;
    let stored = section.compressed_file_range().ok()?;
    if stored.uncompressed_size == 0 || stored.uncompressed_size > LONGEST_SECTION {
        return None;
    }
    let bytes = match stored.format {
        object::CompressionFormat::None => file.slice(stored.offset, stored.uncompressed_size),
        _ => Blob::from_bytes(section.uncompressed_data().ok()?.into_owned()),
    };
    Some(Section { bytes, address: section.address() })
}
