//! The sections of debug information of one file, unpacked where they are compressed.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use gimli::{EndianSlice, LittleEndian, SectionId};
use object::{CompressionFormat, Object as _, ObjectSection as _};

use crate::modules::ModuleFile;
use crate::num::narrow;

/// Bytes of a section.
pub(super) type Slice<'a> = EndianSlice<'a, LittleEndian>;

/// What names, lines and inlined calls need; types' and variables' sections are left alone.
const WANTED: &[SectionId] = &[
    SectionId::DebugAbbrev,
    SectionId::DebugAddr,
    SectionId::DebugAranges,
    SectionId::DebugInfo,
    SectionId::DebugLine,
    SectionId::DebugLineStr,
    SectionId::DebugRanges,
    SectionId::DebugRngLists,
    SectionId::DebugStr,
    SectionId::DebugStrOffsets,
];

/// Longest compressed section that is unpacked, in bytes.
const LONGEST: u64 = 2 << 30;

#[derive(Debug)]
pub(super) struct Sections {
    file: Arc<ModuleFile>,
    parts: BTreeMap<&'static str, Part>,
}

#[derive(Debug)]
enum Part {
    InFile(Range<usize>),
    Unpacked(Vec<u8>),
}

impl Sections {
    /// Finds them; `None` in a file without debug information.
    ///
    /// # Errors
    /// Words for a person.
    pub(super) fn read(file: &Arc<ModuleFile>) -> Result<Option<Self>, String> {
        let elf = object::File::parse(file.bytes()).map_err(|error| error.to_string())?;
        if !elf.is_little_endian() {
            return Err("of a big-endian machine, which is not read".to_owned());
        }
        let mut parts = BTreeMap::new();
        for id in WANTED {
            if let Some(section) = elf.section_by_name(id.name())
                && let Some(part) =
                    part(&section).map_err(|why| format!("section {}: {why}", id.name()))?
            {
                parts.insert(id.name(), part);
            }
        }
        let has_units = parts.contains_key(SectionId::DebugInfo.name());
        Ok(has_units.then(|| Self { file: Arc::clone(file), parts }))
    }

    /// A section's bytes; none where the file lacks it.
    pub(super) fn bytes(&self, id: SectionId) -> &[u8] {
        match self.parts.get(id.name()) {
            Some(Part::InFile(range)) => self.file.bytes().get(range.clone()).unwrap_or_default(),
            Some(Part::Unpacked(bytes)) => bytes,
            None => &[],
        }
    }

    /// The sections as gimli reads them.
    pub(super) fn dwarf(&self) -> gimli::Dwarf<Slice<'_>> {
        let section = |id| EndianSlice::new(self.bytes(id), LittleEndian);
        let loaded = gimli::Dwarf::load(|id| Ok::<_, std::convert::Infallible>(section(id)));
        match loaded {
            Ok(dwarf) => dwarf,
            Err(never) => match never {},
        }
    }
}

fn part(section: &object::Section<'_, '_>) -> Result<Option<Part>, String> {
    let packed = section.compressed_data().map_err(|error| error.to_string())?;
    if packed.format == CompressionFormat::None {
        let Some((offset, length)) = section.file_range() else { return Ok(None) };
        let end = offset.checked_add(length).ok_or("beyond the end of the file")?;
        return Ok(Some(Part::InFile(narrow(offset)..narrow(end))));
    }
    if packed.uncompressed_size > LONGEST {
        return Err(format!("unpacked it would have {} bytes", packed.uncompressed_size));
    }
    let bytes = packed.decompress().map_err(|error| error.to_string())?;
    Ok(Some(Part::Unpacked(bytes.into_owned())))
}
