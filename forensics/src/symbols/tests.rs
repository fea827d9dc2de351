//! Names of this test's own code, by its own debug information and by separate files.

use std::fs;
use std::hint::black_box;
use std::os::unix::fs::symlink;
use std::path::Path;

use object::write::{Object, SectionId, StandardSection, Symbol, SymbolSection};
use object::{Architecture, BinaryFormat, Endianness, SectionKind, SymbolFlags, SymbolScope};

use super::*;
use crate::AddrRange;
use crate::bytes::Blob;
use crate::modules::{ModuleFile, open};

#[inline(always)]
fn innermost(number: u64) -> u64 {
    black_box(number) * 3
}
const INNERMOST_LINE: u32 = line!() - 2;

#[inline(always)]
fn middle(number: u64) -> u64 {
    innermost(number) + black_box(1)
}
const MIDDLE_LINE: u32 = line!() - 2;

#[inline(never)]
fn holder(number: u64) -> u64 {
    black_box(number) + middle(number)
}
const HOLDER_LINE: u32 = line!() - 2;

/// A module at address 0, so that addresses in memory are those in the file.
fn module(file: Result<ModuleFile, String>, build_id: Option<&str>) -> Module {
    let range = AddrRange { start: Addr(0), end: Addr(u64::MAX) };
    Module {
        path: "/opt/kamailio/sbin/kamailio".to_owned(),
        range,
        image: range,
        segments: Vec::new(),
        bias: 0,
        build_id: build_id.map(str::to_owned),
        file: file.map(Arc::new),
    }
}

fn this_program() -> ModuleFile {
    open(&std::env::current_exe().unwrap()).unwrap()
}

/// Where `holder` is in this program's file.
fn address_of_holder() -> Addr {
    assert_eq!(holder(2), 9);
    let file = this_program();
    let own = std::env::current_exe().unwrap();
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let first = maps.lines().find(|line| line.ends_with(own.to_str().unwrap())).unwrap();
    let start: Addr = first.split('-').next().unwrap().parse().unwrap();
    #[expect(clippy::as_conversions, reason = "the address of a function")]
    let address = u64::try_from(holder as *const () as usize).unwrap();
    Addr(address - start.0 + file.lowest_address())
}

/// The first address of `holder` at which `innermost` was inlined, with what is said of it.
fn inlined(symbols: &Symbols, module: &Module) -> Vec<CodePlace> {
    let start = address_of_holder();
    let all = (0..200).map(|offset| symbols.locate(module, Addr(start.0 + offset)));
    all.take_while(|places| !places.is_empty()).find(|places| places.len() == 3).unwrap()
}

fn names(places: &[CodePlace]) -> Vec<(&str, Option<u32>, bool)> {
    let name = |place: &'_ CodePlace| (place.line, place.is_inlined);
    let functions = places.iter().map(|place| place.function.as_deref().unwrap());
    functions.zip(places.iter().map(name)).map(|(f, (line, inlined))| (f, line, inlined)).collect()
}

#[test]
fn this_test_knows_its_own_functions_files_and_lines() {
    let symbols = Symbols::new(SymbolOptions::default());
    let module = module(Ok(this_program()), None);
    let start = address_of_holder();
    let places = symbols.locate(&module, start);
    assert_eq!(
        places,
        [CodePlace {
            function: Some("forensics::symbols::tests::holder".to_owned()),
            offset: Some(0),
            file: places[0].file.clone(),
            line: Some(HOLDER_LINE - 1),
            is_inlined: false,
            source: NameSource::DebugInformation,
        }]
    );
    let file = places[0].file.clone().unwrap();
    assert!(file.starts_with('/') && file.ends_with("src/symbols/tests.rs"), "{file}");
    assert_eq!(symbols.locate(&module, Addr(start.0 + 1))[0].offset, Some(1));
    assert_eq!(symbols.gaps(), []);
}

#[test]
fn inlined_functions_are_told_with_the_lines_of_their_calls() {
    let symbols = Symbols::new(SymbolOptions::default());
    let places = inlined(&symbols, &module(Ok(this_program()), None));
    let own = "forensics::symbols::tests";
    assert_eq!(
        names(&places),
        [
            (format!("{own}::innermost").as_str(), Some(INNERMOST_LINE), true),
            (format!("{own}::middle").as_str(), Some(MIDDLE_LINE), true),
            (format!("{own}::holder").as_str(), Some(HOLDER_LINE), false),
        ]
    );
}

#[test]
fn a_debug_file_by_build_id_names_a_module_that_is_not_at_hand() {
    let build_id = this_program().build_id.unwrap();
    let (first, rest) = build_id.split_at(2);
    let own = std::env::current_exe().unwrap();
    let by_id = format!(".build-id/{first}/{rest}.debug");
    let places = [
        by_id.clone(),
        format!("usr/lib/debug/{by_id}"),
        format!("{build_id}/debuginfo"),
        "anywhere/of/any.name".to_owned(),
    ];
    for place in places {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(&place);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(&own, &path).unwrap();
        let given = SymbolOptions {
            debug_dirs: vec![folder.path().to_owned()],
            ..SymbolOptions::default()
        };
        let cached =
            SymbolOptions { caches: vec![folder.path().to_owned()], ..SymbolOptions::default() };
        let is_cache = place.ends_with("/debuginfo");
        let symbols = Symbols::new(if is_cache { cached } else { given });
        let module = module(Err("not at hand".to_owned()), Some(&build_id));
        let found = inlined(&symbols, &module);
        assert_eq!(found[0].line, Some(INNERMOST_LINE), "{place}");
        assert!(found.iter().all(|one| one.source == NameSource::DebugFile), "{place}");
        assert_eq!(symbols.gaps(), [], "{place}");
    }
}

#[test]
fn a_debug_file_of_another_build_is_refused_with_both_build_ids() {
    let own = this_program().build_id.unwrap();
    let other = "00112233445566778899aabbccddeeff00112233";
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(".build-id/00/112233445566778899aabbccddeeff00112233.debug");
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    symlink(std::env::current_exe().unwrap(), &path).unwrap();
    let debug_dirs = vec![folder.path().to_owned(), folder.path().join("missing")];
    let symbols = Symbols::new(SymbolOptions { debug_dirs, ..SymbolOptions::default() });
    let module = module(Err("not at hand".to_owned()), Some(other));
    assert_eq!(symbols.locate(&module, address_of_holder()), []);
    assert_eq!(
        symbols.gaps(),
        [
            Gap::new(
                format!("--debug-dir {}", folder.path().join("missing").display()),
                "there is no such folder"
            ),
            Gap::new(
                format!("debug file {}", path.display()),
                format!("of another build: the module's build ID is {other}, the file's is {own}")
            ),
        ]
    );
}

/// A small file with 0x100 bytes of code, with these functions (name, address, size) and sections.
fn small(functions: &[(&str, u64, u64)], sections: &[(&str, &[u8])]) -> Vec<u8> {
    let mut object = Object::new(BinaryFormat::Elf, Architecture::X86_64, Endianness::Little);
    let text: SectionId = object.section_id(StandardSection::Text);
    object.append_section_data(text, &[0xc3; 0x100], 16);
    for &(name, value, size) in functions {
        object.add_symbol(Symbol {
            name: name.as_bytes().to_vec(),
            value,
            size,
            kind: object::SymbolKind::Text,
            scope: SymbolScope::Dynamic,
            weak: false,
            section: SymbolSection::Section(text),
            flags: SymbolFlags::None,
        });
    }
    for (name, bytes) in sections {
        let id = object.add_section(Vec::new(), name.as_bytes().to_vec(), SectionKind::Debug);
        object.append_section_data(id, bytes, 1);
    }
    object.write().unwrap()
}

fn read(bytes: Vec<u8>, origin: &Path) -> ModuleFile {
    ModuleFile::read(&Blob::from_bytes(bytes), origin.display().to_string()).unwrap()
}

/// `.gnu_debuglink`: a name, zeroes up to a multiple of 4, a checksum.
fn debug_link(name: &str, checksum: u32) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.push(0);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes.extend(checksum.to_le_bytes());
    bytes
}

#[test]
fn a_debug_file_by_link_must_have_the_checksum_that_the_module_names() {
    let folder = tempfile::tempdir().unwrap();
    let debug_file = folder.path().join("kamailio.debug");
    let content = small(&[("_Z7t_relayPv", 0x10, 0x20)], &[]);
    fs::write(&debug_file, &content).unwrap();
    let mut checksum = flate2::Crc::new();
    checksum.update(&content);
    let found_with = |name: &str, checksum: u32| {
        let program = small(&[], &[(".gnu_debuglink", &debug_link(name, checksum))]);
        let debug_dirs = vec![folder.path().to_owned()];
        let symbols = Symbols::new(SymbolOptions { debug_dirs, ..SymbolOptions::default() });
        let module = module(Ok(read(program, Path::new("kamailio in the bundle"))), None);
        (symbols.locate(&module, Addr(0x18)), symbols.gaps())
    };
    let (places, gaps) = found_with("kamailio.debug", checksum.sum());
    assert_eq!(names(&places), [("t_relay(void*)", None, false)]);
    assert_eq!((places[0].offset, places[0].source), (Some(8), NameSource::DebugFile));
    assert_eq!(gaps, []);

    let (places, gaps) = found_with("kamailio.debug", checksum.sum() ^ 1);
    assert_eq!(places, []);
    let why = "its checksum is not the one that the module names";
    assert_eq!(gaps, [Gap::new(format!("debug file {}", debug_file.display()), why)]);

    let outside = format!("../{}/kamailio.debug", folder.path().file_name().unwrap().display());
    assert_eq!(found_with(&outside, checksum.sum()), (Vec::new(), Vec::new()));
}

#[test]
fn the_small_table_of_stripped_files_names_static_functions() {
    use std::io::Write as _;
    let mut packed = liblzma::write::XzEncoder::new(Vec::new(), 6);
    packed.write_all(&small(&[("build_res_buf", 0x40, 0x10)], &[])).unwrap();
    let packed = packed.finish().unwrap();
    let symbols = Symbols::new(SymbolOptions::default());
    let whole = read(small(&[], &[(".gnu_debugdata", &packed)]), Path::new("whole"));
    let whole = module(Ok(whole), None);
    let places = symbols.locate(&whole, Addr(0x48));
    assert_eq!(names(&places), [("build_res_buf", None, false)]);
    assert_eq!(places[0].source, NameSource::MiniDebugInformation);
    assert_eq!(symbols.locate(&whole, Addr(0x50)), []);

    let cut = read(small(&[], &[(".gnu_debugdata", &packed[..40])]), Path::new("cut"));
    let cut = module(Ok(cut), None);
    assert_eq!(symbols.locate(&cut, Addr(0x48)), []);
    let gaps = symbols.gaps();
    assert_eq!(gaps.len(), 1, "{gaps:?}");
    assert_eq!(gaps[0].what, ".gnu_debugdata of /opt/kamailio/sbin/kamailio");
}

#[test]
fn without_any_file_nothing_is_named() {
    let symbols = Symbols::new(SymbolOptions::default());
    assert_eq!(symbols.locate(&module(Err("none".into()), None), Addr(0x10)), []);
    assert_eq!(symbols.locate(&module(Err("none".into()), Some("ab")), Addr(0x10)), []);
    assert_eq!(symbols.gaps(), []);
}

/// Debug information of one function at 0x10 to 0x90, in which calls were inlined so many times
/// within one another that a reader that recurses would end the process.
fn nested(depth: usize) -> Vec<u8> {
    // Code, tag, whether it has children, pairs of attribute and form.
    let abbreviations: &[&[u8]] = &[
        &[1, 0x11, 1, 0x11, 0x01, 0x12, 0x07, 0, 0],
        &[2, 0x2e, 1, 0x03, 0x08, 0x11, 0x01, 0x12, 0x07, 0, 0],
        &[3, 0x1d, 1, 0x03, 0x08, 0x11, 0x01, 0x12, 0x07, 0, 0],
        &[0],
    ];
    let code = |bytes: &mut Vec<u8>| {
        bytes.extend(0x10_u64.to_le_bytes());
        bytes.extend(0x80_u64.to_le_bytes());
    };
    // Version 4, abbreviations at 0, addresses of 8 bytes.
    let mut unit = vec![4, 0, 0, 0, 0, 0, 8];
    unit.push(1);
    code(&mut unit);
    for (number, name) in [(2, b"f\0")].into_iter().chain(vec![(3, b"i\0"); depth]) {
        unit.push(number);
        unit.extend(name);
        code(&mut unit);
    }
    unit.resize(unit.len() + depth + 2, 0);
    let mut information = u32::try_from(unit.len()).unwrap().to_le_bytes().to_vec();
    information.extend(unit);
    let abbreviations = abbreviations.concat();
    small(&[], &[(".debug_info", &information), (".debug_abbrev", &abbreviations)])
}

#[test]
fn inlined_calls_without_end_are_cut() {
    let locate = |depth: usize| {
        let symbols = Symbols::new(SymbolOptions::default());
        let module = module(Ok(read(nested(depth), Path::new("nested"))), None);
        symbols.locate(&module, Addr(0x20))
    };
    let three = locate(2);
    assert_eq!(names(&three), [("i", None, true), ("i", None, true), ("f", None, false)]);
    assert_eq!(locate(1_000_000).len(), 129);
}

#[test]
fn debug_information_damaged_anywhere_ends_no_process() {
    let whole = nested(3);
    // A generator of its own, so that a failure can be had again.
    let mut state = 7_u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        usize::try_from(state >> 33).unwrap() % below
    };
    for _ in 0..3000 {
        let mut bytes = whole.clone();
        for _ in 0..=random(4) {
            let at = random(bytes.len());
            bytes[at] = u8::try_from(random(256)).unwrap();
        }
        bytes.truncate(bytes.len() - random(3));
        let Ok(file) = ModuleFile::read(&Blob::from_bytes(bytes), "damaged") else { continue };
        let symbols = Symbols::new(SymbolOptions::default());
        let module = module(Ok(file), None);
        for at in [0x10, 0x20, 0x90] {
            assert!(symbols.locate(&module, Addr(at)).len() <= 4);
        }
    }
}
