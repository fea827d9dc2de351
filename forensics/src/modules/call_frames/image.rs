//! The call frame table of a file that is not at hand, or that is none (the vDSO), from its image in
//! a process's memory: the program headers name `.eh_frame_hdr`, and that names `.eh_frame`.

use super::CallFrames;
use super::table::{Kind, Section, Table, entries_address};
use crate::addr::Addr;
use crate::bytes::Blob;
use crate::memory::Memory;
use crate::modules::header::ElfInMemory;
use crate::num::{narrow, wide};

/// Longest section that is copied, in bytes; a browser's is 10 MiB long.
const LONGEST: u64 = 16 << 20;

impl CallFrames {
    /// Of the image whose ELF header is at `start`, loaded at `bias`; empty where the memory lacks
    /// it.
    pub fn of_image(memory: &dyn Memory, start: Addr, bias: u64) -> Self {
        Self { tables: table(memory, start, bias).into_iter().collect() }
    }
}

fn table(memory: &dyn Memory, start: Addr, bias: u64) -> Option<Table> {
    let ElfInMemory::Read { header, .. } = ElfInMemory::read(memory, start) else { return None };
    let section = |address: u64, length: u64| Section {
        bytes: Blob::from_bytes(known(memory, Addr(bias.wrapping_add(address)), length)),
        address,
    };
    let (address, length) = header.call_frames?;
    let search = section(address, length);
    let entries_at = entries_address(&search)?;
    // Where the entries end only section headers tell, which are not in memory: at the latest with
    // their segment.
    let ends = header.segments.iter().filter_map(|segment| {
        let inside = entries_at.checked_sub(segment.address)?;
        segment.length.checked_sub(inside).filter(|left| *left > 0)
    });
    let entries = section(entries_at, ends.max()?);
    Some(Table::new(Kind::Eh, entries, Some(search)))
}

/// The bytes from `at` up to the first that is not known.
fn known(memory: &dyn Memory, at: Addr, length: u64) -> Vec<u8> {
    let length = narrow(length.min(LONGEST));
    let mut bytes = Vec::new();
    while bytes.len() < length {
        let Some(reached) = at.checked_add(wide(bytes.len())) else { break };
        let Ok(chunk) = memory.peek(reached, length.saturating_sub(bytes.len())) else { break };
        bytes.extend_from_slice(&chunk);
    }
    bytes
}
