//! On this test's own program, which the linker gave a search table.

use object::{Object as _, ObjectSection as _};

use super::*;
use crate::addr::{Addr, AddrRange};
use crate::memory::{Content, Segment, SegmentMap};
use crate::modules::ModuleFile;

fn program() -> Blob {
    Blob::from_bytes(std::fs::read("/proc/self/exe").unwrap())
}

/// Addresses all over the program's code, and some outside it.
fn addresses(file: &Blob) -> Vec<u64> {
    let elf = object::File::parse(file.all_in_place().unwrap()).unwrap();
    let text = elf.section_by_name(".text").unwrap();
    let step = usize::try_from(text.size() / 500).unwrap();
    let inside = (text.address()..text.address() + text.size()).step_by(step);
    inside.chain([0, text.address() - 1, u64::MAX]).collect()
}

fn found(tables: &CallFrames, addresses: &[u64]) -> Vec<Option<FrameRules>> {
    let mut scratch = Scratch::new();
    addresses.iter().map(|address| tables.at(*address, &mut scratch).unwrap()).collect()
}

#[test]
fn the_linkers_table_and_our_own_lead_to_the_same_entries() {
    let file = program();
    let addresses = addresses(&file);
    let linked = CallFrames::of_file(&file);
    let elf = object::File::parse(file.all_in_place().unwrap()).unwrap();
    let entries = section(&file, &elf, ".eh_frame").unwrap();
    let made = CallFrames { tables: vec![Table::new(Kind::Eh, entries, None)] };
    let by_linker = found(&linked, &addresses);
    assert_eq!(by_linker, found(&made, &addresses));
    let covered = by_linker.iter().flatten().count();
    assert!(covered > 400, "{covered} of {} addresses are covered", addresses.len());
    for (rules, address) in by_linker.iter().zip(&addresses) {
        let Some(rules) = rules else { continue };
        assert!(rules.start <= *address && *address < rules.end);
        assert_eq!(rules.return_address, 16);
    }
}

#[test]
fn an_image_in_memory_has_the_entries_of_its_file() {
    const BIAS: u64 = 0x5555_0000_0000;
    let file = program();
    let module = ModuleFile::read(&file, "program").unwrap();
    let segment = |segment: &crate::modules::FileSegment| {
        let (range, offset) = segment.pages(BIAS).unwrap();
        let content = Content::Bytes { blob: file.clone(), offset };
        Segment { range, writable: Some(false), content }
    };
    let memory = SegmentMap::new(module.segments().iter().map(segment).collect());
    let addresses = addresses(&file);
    let image = CallFrames::of_image(&memory, Addr(BIAS), BIAS);
    assert_eq!(found(&image, &addresses), found(module.call_frames(), &addresses));
    // Where the memory ends before the entries, there are none, and nothing else.
    let page = AddrRange::new(Addr(BIAS), 0x1000);
    let content = Content::Bytes { blob: file.clone(), offset: 0 };
    let memory = SegmentMap::new(vec![Segment { range: page, writable: None, content }]);
    assert!(
        found(&CallFrames::of_image(&memory, Addr(BIAS), BIAS), &addresses)
            .iter()
            .all(Option::is_none)
    );
}

#[test]
fn an_absurdly_long_entry_is_refused() {
    // A common entry, then one that covers 0x1000 to 0x1100 with 2 MiB of instructions.
    let mut table =
        vec![20, 0, 0, 0, 0, 0, 0, 0, 1, b'z', b'R', 0, 1, 0x78, 16, 1, 0x00, 0x0c, 7, 8];
    table.extend([0; 4]);
    let length = 2_u32 << 20;
    table.extend((length + 21).to_le_bytes());
    table.extend(28_u32.to_le_bytes());
    table.extend(0x1000_u64.to_le_bytes());
    table.extend(0x100_u64.to_le_bytes());
    table.resize(table.len() + crate::num::narrow(length.into()) + 1, 0);
    let entries = Section { bytes: Blob::from_bytes(table), address: 0x4000 };
    let tables = CallFrames { tables: vec![Table::new(Kind::Eh, entries, None)] };
    let said = tables.at(0x1050, &mut Scratch::new()).unwrap_err();
    assert!(said.contains("too long to be true"), "{said}");
    assert_eq!(tables.at(0x1100, &mut Scratch::new()), Ok(None));
}
