//! Stacks of a process made by hand: one ELF image in memory, which the auxiliary vector names as it
//! names the vDSO, with the call frame table that a test gives it, and one stack.

mod chains;
mod garbage;
mod guesses;
mod signals;

use super::*;
use crate::bytes::Blob;
use crate::core::{CoreFile, Load, Notes, Writer};
use crate::memory::{Content, Segment, SegmentMap};
use crate::modules::ModuleMap;
use crate::num::wide;
use crate::unwind::registers::{RIP, RSP};

/// Where the image lies, and its code in it.
const IMAGE: u64 = 0x7000_0000;
const CODE: u64 = IMAGE + 0x1000;
const HEADER: usize = 0x2000;
const ENTRIES: usize = 0x2800;
const IMAGE_LENGTH: usize = 0x4000;
/// Where the stack lies.
const STACK: u64 = 0x7fff_0000;

/// The whole stack of a thread with these registers.
fn whole(unwinder: &Unwinder<'_>, registers: Registers) -> Stack {
    walk::stack(unwinder, registers, MOST_FRAMES)
}

/// A function of 0x100 bytes and its call frame instructions.
#[derive(Clone, Debug)]
struct Function {
    start: u64,
    is_signal_frame: bool,
    instructions: Vec<u8>,
}

fn function(start: u64, instructions: &[u8]) -> Function {
    Function { start, is_signal_frame: false, instructions: instructions.to_vec() }
}

/// `DW_CFA_def_cfa_offset`
fn frame_of(bytes: u8) -> Vec<u8> {
    vec![0x0e, bytes]
}

/// `DW_CFA_undefined` of the return address.
const FIRST: [u8; 2] = [0x07, 16];

/// An entry: its length, and the body filled up with `DW_CFA_nop`.
fn entry(body: &[u8]) -> Vec<u8> {
    let length = body.len().next_multiple_of(8) + 4;
    let mut entry = u32::try_from(length).unwrap().to_le_bytes().to_vec();
    entry.extend_from_slice(body);
    entry.resize(length + 4, 0);
    entry
}

/// A common entry: version 1, pointers relative to their own place, 4 bytes each; the frame's
/// address is `rsp + 8` and the return address lies right below it.
fn common(augmentation: &[u8]) -> Vec<u8> {
    let mut body = vec![0, 0, 0, 0, 1];
    body.extend_from_slice(augmentation);
    body.extend_from_slice(&[0, 1, 0x78, 16, 1, 0x1b, 0x0c, 7, 8, 0x90, 1]);
    entry(&body)
}

fn distance(to: u64, from: u64) -> [u8; 4] {
    i32::try_from(i64::try_from(to).unwrap() - i64::try_from(from).unwrap()).unwrap().to_le_bytes()
}

/// An image with one segment and these functions; the code is `nop`s.
fn image(functions: &[Function]) -> Vec<u8> {
    let mut image = vec![0x90; IMAGE_LENGTH];
    image[..0x1000].fill(0);
    image[HEADER..].fill(0);
    image[..5].copy_from_slice(b"\x7fELF\x02");
    image[56] = 2;
    let mut program = |number: usize, words: [u64; 6]| {
        for (index, word) in words.into_iter().enumerate() {
            let at = 64 + number * 56 + index * 8;
            image[at..at + 8].copy_from_slice(&word.to_le_bytes());
        }
    };
    let (length, header, entries) = (wide(IMAGE_LENGTH), wide(HEADER), wide(ENTRIES));
    program(0, [5 << 32 | 1, 0, 0, 0, length, length]);
    program(1, [4 << 32 | 0x6474_e550, header, header, header, 0x800, 0x800]);

    let mut table = common(b"zR");
    let of_signals = wide(table.len());
    table.extend(common(b"zRS"));
    let mut pairs = Vec::new();
    for function in functions {
        let place = entries + wide(table.len());
        let shared = entries + if function.is_signal_frame { of_signals } else { 0 };
        let mut body = distance(place + 4, shared).to_vec();
        body.extend(distance(function.start - IMAGE, place + 8));
        body.extend(0x100_u32.to_le_bytes());
        body.push(0);
        body.extend_from_slice(&function.instructions);
        table.extend(entry(&body));
        pairs.push((function.start - IMAGE, place));
    }
    pairs.sort_unstable();
    let mut search = vec![1, 0x1b, 0x03, 0x3b];
    search.extend(distance(entries, header + 4));
    search.extend(u32::try_from(pairs.len()).unwrap().to_le_bytes());
    for (start, place) in pairs {
        search.extend(distance(start, header));
        search.extend(distance(place, header));
    }
    image[HEADER..HEADER + search.len()].copy_from_slice(&search);
    image[ENTRIES..ENTRIES + table.len()].copy_from_slice(&table);
    image
}

/// Puts `call rel32` right before an address of the image.
fn call_before(image: &mut [u8], address: u64) {
    put(image, address - 5, &[0xe8, 0, 0, 0, 0]);
}

fn put(image: &mut [u8], address: u64, bytes: &[u8]) {
    let at = usize::try_from(address - IMAGE).unwrap();
    image[at..at + bytes.len()].copy_from_slice(bytes);
}

fn memory(start: u64, bytes: Vec<u8>, writable: bool) -> Segment {
    Segment {
        range: crate::AddrRange::new(Addr(start), wide(bytes.len())),
        writable: Some(writable),
        content: Content::Bytes { blob: Blob::from_bytes(bytes), offset: 0 },
    }
}

/// A process with this image, and this stack from [`STACK`] on.
fn process(image: Vec<u8>, stack: &[u64]) -> Process {
    let stack: Vec<u8> = stack.iter().flat_map(|word| word.to_le_bytes()).collect();
    let segments = vec![memory(IMAGE, image, false), memory(STACK, stack, true)];
    let load = |segment: &Segment| Load {
        range: segment.range,
        saved: segment.range.length(),
        offset: 0,
        writable: segment.writable == Some(true),
        executable: segment.writable == Some(false),
    };
    let core = CoreFile {
        blob: Blob::from_bytes(Vec::new()),
        machine: "x86-64",
        writer: Writer::Kernel,
        loads: segments.iter().map(load).collect(),
        notes: Notes { auxv: vec![(33, IMAGE)], ..Notes::default() },
        promised: 0,
        gaps: Vec::new(),
    };
    Process {
        label: "core".to_owned(),
        pid: Some(7),
        inner_pid: None,
        core,
        memory: SegmentMap::new(segments),
        modules: ModuleMap::default(),
        gaps: Vec::new(),
    }
}

/// Registers of which only these are known, by DWARF's numbers.
fn registers(values: &[(u16, u64)]) -> Registers {
    let mut registers = Registers::default();
    for (number, value) in values {
        registers.set(*number, Some(*value));
    }
    registers
}

/// The stack of a thread at `pc` whose stack pointer is at the stack's lowest word.
fn stack_at(process: &Process, pc: u64) -> Stack {
    whole(&Unwinder::new(process), registers(&[(RIP, pc), (RSP, STACK)]))
}

/// Program counters and frames' addresses, from the code and the stack.
fn places(stack: &Stack) -> Vec<(u64, Option<u64>)> {
    let place = |frame: &Frame| (frame.pc.0.wrapping_sub(CODE), frame.cfa.map(|cfa| cfa.0 - STACK));
    stack.frames.iter().map(place).collect()
}

fn trusts(stack: &Stack) -> Vec<FrameTrust> {
    stack.frames.iter().map(|frame| frame.trust).collect()
}
