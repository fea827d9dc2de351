//! Processes put together by hand. The numbers are those of the kernel's and glibc's structures,
//! written out.

use super::*;
use crate::bytes::Blob;
use crate::core::{CoreFile, Load, MappedFile, Notes, Thread, Writer};
use crate::input::ModuleInput;
use crate::memory::{Content, Segment, SegmentMap};
use crate::modules::{Files, Library, LibraryOptions, ModuleMap};

const PROGRAM: u64 = 0x5555_0000_0000;
const HEAP: u64 = 0x5555_0100_0000;
const PKG: u64 = 0x7f00_0000_0000;
const SHM: u64 = 0x7f10_0000_0000;
const STACK: u64 = 0x7ffd_0000_0000;
const ARENA: u64 = 0x7f20_0000_0000;

/// Writable memory that holds `words` from `offset` on, and zeroes.
fn memory(start: u64, length: u64, words: &[(u64, u64)]) -> Segment {
    let mut bytes = vec![0; usize::try_from(length).unwrap()];
    for (offset, word) in words {
        let at = usize::try_from(*offset).unwrap();
        bytes[at..at + 8].copy_from_slice(&word.to_le_bytes());
    }
    let content = Content::Bytes { blob: Blob::from_bytes(bytes), offset: 0 };
    Segment { range: AddrRange::new(Addr(start), length), writable: Some(true), content }
}

/// An ELF file without sections whose only segment is 0x3000 bytes long in memory, of which the
/// file backs 0x1000.
fn program() -> Vec<u8> {
    let mut file = vec![0; 0x1000];
    file[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    put(16, &3_u16.to_le_bytes()); // a shared object
    put(18, &62_u16.to_le_bytes()); // x86-64
    put(20, &1_u32.to_le_bytes());
    put(32, &64_u64.to_le_bytes()); // program headers
    put(52, &64_u16.to_le_bytes());
    put(54, &56_u16.to_le_bytes());
    put(56, &1_u16.to_le_bytes());
    put(64, &1_u32.to_le_bytes()); // PT_LOAD
    put(64 + 4, &6_u32.to_le_bytes());
    put(64 + 32, &0x1000_u64.to_le_bytes());
    put(64 + 40, &0x3000_u64.to_le_bytes());
    file
}

/// A thread whose `rsp` (the 20th register) is `stack_pointer`.
fn thread(tid: u32, stack_pointer: u64) -> Thread {
    let mut registers = vec![0; 27];
    registers[19] = stack_pointer;
    Thread { tid, signal: 0, registers, record: None }
}

/// A core by the kernel with these segments, the program mapped at [`PROGRAM`].
fn process(threads: Vec<Thread>, mut segments: Vec<Segment>) -> Process {
    let file = Blob::from_bytes(program());
    segments.push(Segment {
        range: AddrRange::new(Addr(PROGRAM), 0x1000),
        writable: Some(false),
        content: Content::Bytes { blob: file.clone(), offset: 0 },
    });
    segments.push(memory(PROGRAM + 0x1000, 0x2000, &[])); // .bss
    let load = |segment: &Segment| Load {
        range: segment.range,
        saved: segment.range.length(),
        offset: 0,
        writable: segment.writable == Some(true),
        executable: false,
    };
    let files = vec![MappedFile {
        range: AddrRange::new(Addr(PROGRAM), 0x1000),
        offset: 0,
        path: "/usr/sbin/kamailio".to_owned(),
    }];
    let core = CoreFile {
        blob: Blob::from_bytes(Vec::new()),
        machine: "x86-64",
        writer: Writer::Kernel,
        loads: segments.iter().map(load).collect(),
        notes: Notes { threads, files, ..Notes::default() },
        promised: 0,
        gaps: Vec::new(),
    };
    let input = ModuleInput { build_id: String::new(), name: "kamailio".to_owned(), blob: file };
    let library = Library::new(&[input], &LibraryOptions::default(), &mut Vec::new());
    let memory = SegmentMap::new(segments);
    let modules = ModuleMap::find(&Files::of(&core, &memory, &library), &memory, &library);
    Process {
        label: "core".to_owned(),
        pid: Some(100),
        inner_pid: None,
        core,
        memory,
        modules,
        gaps: Vec::new(),
    }
}

fn ask(process: &Process, evidence: &Evidence, value: u64) -> Option<String> {
    let named = Named { process, name: "process 100 (timer)".to_owned() };
    let places = Places::new(evidence, vec![named], Vec::new());
    places.of(0, value).map(|place| place.to_string())
}

/// The same for a process of which nothing but the core is known.
fn of(process: &Process, value: u64) -> Option<String> {
    ask(process, &Evidence::default(), value)
}

fn said(text: &str) -> Option<String> {
    Some(text.to_owned())
}

/// Two chunks and the top chunk, 0x2000 bytes together.
const CHUNKS: [(u64, u64); 3] = [(0x8, 0x291), (0x298, 0x41), (0x2d8, 0x1d31)];

#[test]
fn null_patterns_and_numbers() {
    let process = process(vec![], vec![]);
    assert_eq!(of(&process, 0), said("NULL"));
    assert_eq!(of(&process, 0x18), said("NULL + 0x18"));
    assert_eq!(of(&process, 0xf0f0_f0f0), said("the allocator's start check"));
    assert_eq!(of(&process, 0xc0c0_c0c0), said("the allocator's first end check"));
    assert_eq!(of(&process, 0xabcd_efed), said("the allocator's second end check"));
    assert_eq!(of(&process, 0xabcd_efee), None);
    assert_eq!(of(&process, 4096), None);
    assert_eq!(of(&process, u64::MAX), None);
}

#[test]
fn the_process_decides_whose_private_memory_an_address_is() {
    let pool = |start| memory(start, 0x1000, &[]);
    let one = process(vec![], vec![pool(PKG), pool(SHM)]);
    let other = process(vec![], vec![pool(PKG), pool(SHM)]);
    let named = |process, name: &str| Named { process, name: name.to_owned() };
    let place = |kind, process, start| PoolPlace {
        kind,
        process,
        range: AddrRange::new(Addr(start), 0x800),
    };
    let evidence = Evidence::default();
    let places = Places::new(
        &evidence,
        vec![named(&one, "process 1 (main)"), named(&other, "process 2 (timer)")],
        vec![
            place(PoolKind::Shm, 0, SHM),
            place(PoolKind::Pkg, 0, PKG),
            place(PoolKind::Pkg, 1, PKG),
        ],
    );
    let say = |process, value| places.of(process, value).map(|place| place.to_string());
    assert_eq!(say(0, PKG), said("PKG of process 1 (main)"));
    assert_eq!(say(1, PKG + 0x7ff), said("PKG of process 2 (timer)"));
    assert_eq!(say(1, PKG + 0x800), said("mapped, not known what"));
    assert_eq!(say(1, SHM + 8), said("SHM"));
    assert_eq!(say(2, PKG), None);
    let shared = |value| places.in_shared_memory(1, value).map(|place| place.to_string());
    assert_eq!(shared(PKG), said("PKG of one of the processes"));
    assert_eq!(shared(SHM), said("SHM"));
}

#[test]
fn a_stack_is_where_a_stack_pointer_leads() {
    let stacks = vec![memory(STACK, 0x4000, &[]), memory(PKG, 0x4000, &[])];
    // Two threads whose stacks have no guard between them, and one with a stack of its own.
    let threads =
        vec![thread(100, STACK + 0x3f00), thread(101, PKG + 0x1f00), thread(102, PKG + 0x3e00)];
    let process = process(threads, stacks);
    assert_eq!(of(&process, STACK), said("stack of thread 100"));
    assert_eq!(of(&process, STACK + 0x3fff), said("stack of thread 100"));
    assert_eq!(of(&process, STACK + 0x4000), None);
    assert_eq!(of(&process, PKG + 0x1000), said("stack of thread 101"));
    assert_eq!(of(&process, PKG + 0x2000), said("stack of thread 101"));
    assert_eq!(of(&process, PKG + 0x3e00), said("stack of thread 102"));
}

#[test]
fn the_heap_is_recognised_by_its_chunks() {
    let with = |chunks: &[(u64, u64)]| {
        of(&process(vec![], vec![memory(HEAP, 0x2000, chunks)]), HEAP + 0x300)
    };
    assert_eq!(with(&CHUNKS), said("C heap"));
    let mut broken = CHUNKS;
    broken[1].1 = 0x43; // a chunk that was mapped on its own
    assert_eq!(with(&broken), said("mapped, not known what"));
    broken[1].1 = 0x4001; // beyond the end
    assert_eq!(with(&broken), said("mapped, not known what"));
    assert_eq!(with(&[]), said("mapped, not known what"));
    // Sixteen chunks in a row are no chance, whatever comes after them.
    let many: Vec<(u64, u64)> = (0..16).map(|number| (number * 0x20 + 8, 0x21)).collect();
    assert_eq!(with(&many), said("C heap"));
    assert_eq!(with(&many[..15]), said("mapped, not known what"));
}

#[test]
fn a_heap_that_grew_after_a_fork_is_still_one() {
    let chunks = [(0x8, 0x291), (0x298, 0x3d71)];
    let pieces = |behind| {
        let first = memory(HEAP, 0x2000, &chunks);
        process(vec![], vec![first, memory(HEAP + behind, 0x2000, &[])])
    };
    assert_eq!(of(&pieces(0x2000), HEAP + 0x3000), said("C heap"));
    assert_eq!(of(&pieces(0x3000), HEAP + 0x3000), said("mapped, not known what"));
    assert_eq!(of(&pieces(0x3000), HEAP + 0x10), said("mapped, not known what"));
}

#[test]
fn far_from_the_executable_chunks_prove_nothing() {
    let process = process(vec![], vec![memory(PKG, 0x2000, &CHUNKS)]);
    assert_eq!(of(&process, PKG + 0x10), said("mapped, not known what"));
}

/// `heap_info`: arena at 0, previous at 8, size at 16, accessible at 24.
fn heap_info(arena: u64, previous: u64, size: u64) -> [(u64, u64); 4] {
    [(0, arena), (8, previous), (16, size), (24, size)]
}

#[test]
fn a_thread_s_arena_is_recognised_by_its_heap_info() {
    const NEXT: u64 = ARENA + (64 << 20);
    let first = heap_info(ARENA + 0x30, 0, 0x21000);
    let next = heap_info(ARENA + 0x30, ARENA, 0x3000);
    let segments = || vec![memory(ARENA, 0x21000, &first), memory(NEXT, 0x4000, &next)];
    let process_of = |segments| process(vec![], segments);
    let whole = process_of(segments());
    assert_eq!(of(&whole, ARENA + 0x20fff), said("C heap"));
    assert_eq!(of(&whole, NEXT + 0x2fff), said("C heap"));
    assert_eq!(of(&whole, NEXT + 0x3000), said("mapped, not known what"));
    // Without the first reservation nothing vouches for the second one.
    let second_only = process_of(segments().split_off(1));
    assert_eq!(of(&second_only, NEXT + 0x100), said("mapped, not known what"));
    let elsewhere = heap_info(ARENA + 0x500, 0, 0x21000);
    let wrong = process_of(vec![memory(ARENA, 0x21000, &elsewhere)]);
    assert_eq!(of(&wrong, ARENA + 0x100), said("mapped, not known what"));
}

#[test]
fn bss_belongs_to_its_module() {
    let process = process(vec![], vec![]);
    assert_eq!(of(&process, PROGRAM + 0x10), said("module kamailio+0x10"));
    assert_eq!(of(&process, PROGRAM + 0x2fff), said("module kamailio+0x2fff"));
    assert_eq!(of(&process, PROGRAM + 0x3000), None);
}

#[test]
fn the_names_of_the_snapshot_come_first() {
    let segments = [HEAP, STACK, PKG].map(|start| memory(start, 0x1000, &[])).to_vec();
    let process = process(vec![], segments);
    let maps = format!(
        "{HEAP:x}-{:x} rw-p 00000000 00:00 0      [heap]\n\
         {PKG:x}-{:x} rw-s 00000000 00:01 7     /dev/shm/a b\n\
         nonsense\n\
         {STACK:x}-{:x} rw-p 00000000 00:00 0     [stack]\n",
        HEAP + 0x1000,
        PKG + 0x1000,
        STACK + 0x1000
    );
    let text = Blob::from_bytes(maps.into_bytes());
    let texts = [("processes/100/maps".to_owned(), text)].into();
    let evidence = Evidence { texts, ..Evidence::default() };
    assert_eq!(ask(&process, &evidence, HEAP), said("C heap"));
    assert_eq!(ask(&process, &evidence, PKG), said("mapped file /dev/shm/a b"));
    // No thread's registers are known; the name says that it is the first one's.
    assert_eq!(ask(&process, &evidence, STACK), said("stack of thread 100"));
}
