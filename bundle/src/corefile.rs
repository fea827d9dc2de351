//! An ELF core, planned first and written after: all sizes are known before the first byte of
//! memory is copied.
//!
//! The plan's [`Plan::prefix`] holds the file header, the program headers and the notes; the bytes
//! of the segments follow it, one after the other, in the order given. Both the collector and
//! `forensics extract` write cores through this. More than 65,534 segments are written with
//! `PN_XNUM`, as the kernel does.

use object::elf;
use object::write::elf::{Encoder, FileHeader, FileHeaderLayout, ProgramHeader};
use thiserror::Error;

use crate::PAGE_SIZE;

/// A machine that cores are written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machine {
    /// `EM_X86_64`
    X86_64,
    /// `EM_AARCH64`
    Aarch64,
}

impl Machine {
    /// The machine that this program was compiled for; `None` where cores cannot be written.
    pub const fn current() -> Option<Self> {
        if cfg!(target_arch = "x86_64") {
            Some(Self::X86_64)
        } else if cfg!(target_arch = "aarch64") {
            Some(Self::Aarch64)
        } else {
            None
        }
    }
}

/// One `PT_LOAD`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// First address (`p_vaddr`).
    pub start: u64,
    /// Length in memory, in bytes (`p_memsz`).
    pub memory: u64,
    /// Length in the file, in bytes (`p_filesz`); at most `memory`. What lies beyond reads as zero.
    pub file: u64,
    /// `PF_R`, `PF_W`, `PF_X`.
    pub flags: u32,
}

/// A core that cannot be planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PlanError {
    /// The file would be longer than 2^64 bytes, or have more than 2^32 segments.
    #[error("the core would be too large for the ELF format")]
    TooLarge,
    /// The ELF writer refused the header.
    #[error("the core's file header cannot be written")]
    Header,
}

/// A core file whose every offset is decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Everything before the first segment's bytes; its length is a multiple of the page size.
    pub prefix: Vec<u8>,
    /// Length of the whole file, in bytes.
    pub size: u64,
}

/// Decides the layout of a core with `notes` (see [`Notes`]) and `segments` in this order.
///
/// # Errors
/// [`PlanError`], only for absurd sizes.
pub fn plan(machine: Machine, notes: &Notes, segments: &[Segment]) -> Result<Plan, PlanError> {
    let machine = match machine {
        Machine::X86_64 => elf::EM_X86_64,
        Machine::Aarch64 => elf::EM_AARCH64,
    };
    let encoder = Encoder::new(object::Endianness::Little, true, machine);
    let header = FileHeader {
        os_abi: elf::ELFOSABI_NONE,
        e_type: elf::ET_CORE,
        e_machine: machine,
        ..FileHeader::default()
    };
    let count = u32::try_from(segments.len()).ok().and_then(|count| count.checked_add(1));
    let count = count.ok_or(PlanError::TooLarge)?;
    let overflow = count >= u32::from(elf::PN_XNUM);
    let headers_at = encoder.file_header_size();
    let sections_at = u64::from(count)
        .checked_mul(encoder.program_header_size())
        .and_then(|length| length.checked_add(headers_at))
        .ok_or(PlanError::TooLarge)?;
    // PN_XNUM: the true count of program headers stands in section header 0.
    let notes_at = if overflow {
        sections_at.checked_add(encoder.section_header_size()).ok_or(PlanError::TooLarge)?
    } else {
        sections_at
    };
    let notes_length = u64::try_from(notes.0.len()).map_err(|_| PlanError::TooLarge)?;
    let data_at = notes_at
        .checked_add(notes_length)
        .and_then(|end| end.checked_next_multiple_of(PAGE_SIZE))
        .ok_or(PlanError::TooLarge)?;

    let layout = FileHeaderLayout {
        e_phoff: headers_at,
        segment_num: count,
        e_shoff: if overflow { sections_at } else { 0 },
        section_num: u32::from(overflow),
        shstrtab_index: 0,
    };
    let mut prefix: Vec<u8> = Vec::new();
    encoder.file_header(&mut prefix, &header, &layout).map_err(|_| PlanError::Header)?;
    encoder.program_header(
        &mut prefix,
        &ProgramHeader {
            p_type: elf::PT_NOTE,
            p_flags: elf::ProgramFlags(0),
            p_offset: notes_at,
            p_vaddr: 0,
            p_paddr: 0,
            p_filesz: notes_length,
            p_memsz: 0,
            p_align: 4,
        },
    );
    let mut offset = data_at;
    for segment in segments {
        encoder.program_header(
            &mut prefix,
            &ProgramHeader {
                p_type: elf::PT_LOAD,
                p_flags: elf::ProgramFlags(segment.flags),
                p_offset: offset,
                p_vaddr: segment.start,
                p_paddr: 0,
                p_filesz: segment.file,
                p_memsz: segment.memory,
                p_align: PAGE_SIZE,
            },
        );
        offset = offset.checked_add(segment.file).ok_or(PlanError::TooLarge)?;
    }
    if overflow {
        encoder.null_section_header(&mut prefix, &layout);
    }
    prefix.extend_from_slice(&notes.0);
    prefix.resize(usize::try_from(data_at).map_err(|_| PlanError::TooLarge)?, 0);
    Ok(Plan { prefix, size: offset })
}

/// The content of a `PT_NOTE` segment under construction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notes(Vec<u8>);

impl Notes {
    /// Notes that were already laid out, for instance taken from another core.
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// Appends a note; `owner` without its terminating zero, for instance `CORE` or `LINUX`.
    pub fn push(&mut self, owner: &str, kind: u32, content: &[u8]) {
        let owner_length = u32::try_from(owner.len()).unwrap_or(u32::MAX).saturating_add(1);
        let length = u32::try_from(content.len()).unwrap_or(u32::MAX);
        self.0.extend_from_slice(&owner_length.to_le_bytes());
        self.0.extend_from_slice(&length.to_le_bytes());
        self.0.extend_from_slice(&kind.to_le_bytes());
        self.0.extend_from_slice(owner.as_bytes());
        self.0.push(0);
        self.pad();
        self.0.extend_from_slice(content);
        self.pad();
    }

    /// Length so far, in bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no note was pushed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn pad(&mut self) {
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use object::read::elf::{FileHeader as _, ProgramHeader as _};
    use object::{Endianness, elf::FileHeader64};

    use super::*;

    /// Reads the plan back with the `object` crate: (`p_vaddr`, `p_offset`, `p_filesz`).
    fn loads(plan: &Plan) -> Vec<(u64, u64, u64)> {
        let header = FileHeader64::<Endianness>::parse(plan.prefix.as_slice()).unwrap();
        let endian = header.endian().unwrap();
        header
            .program_headers(endian, plan.prefix.as_slice())
            .unwrap()
            .iter()
            .filter(|program| program.p_type(endian) == elf::PT_LOAD)
            .map(|program| {
                (program.p_vaddr(endian), program.p_offset(endian), program.p_filesz(endian))
            })
            .collect()
    }

    #[test]
    fn segments_follow_the_notes_page_by_page() {
        let mut notes = Notes::default();
        notes.push("CORE", 1, &[7; 5]);
        assert_eq!(notes.len(), 12 + 8 + 8);
        let segments = [
            Segment { start: 0x10000, memory: 0x3000, file: 0x2000, flags: 6 },
            Segment { start: 0x20000, memory: 0x1000, file: 0x1000, flags: 4 },
        ];
        let plan = plan(Machine::X86_64, &notes, &segments).unwrap();
        assert_eq!(plan.prefix.len(), 4096);
        assert_eq!(plan.size, 4096 + 0x3000);
        assert_eq!(loads(&plan), [(0x10000, 0x1000, 0x2000), (0x20000, 0x3000, 0x1000)]);
    }

    #[test]
    fn more_segments_than_the_header_can_count() {
        let segments: Vec<Segment> = (0..70_000_u64)
            .map(|n| Segment { start: n * 8192, memory: 4096, file: 4096, flags: 6 })
            .collect();
        let plan = plan(Machine::X86_64, &Notes::default(), &segments).unwrap();
        let seen = loads(&plan);
        assert_eq!(seen.len(), 70_000);
        assert_eq!(seen[69_999].0, 69_999 * 8192);
        assert_eq!(plan.size, u64::try_from(plan.prefix.len()).unwrap() + 70_000 * 4096);
    }
}
