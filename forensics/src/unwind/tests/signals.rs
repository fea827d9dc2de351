//! Frames that a signal interrupted.

use super::*;

/// Restores registers from the `struct ucontext` at the stack pointer, as glibc's trampoline does.
fn trampoline(start: u64) -> Function {
    // DW_OP_breg7 and an offset of two bytes: rsp + offset.
    let place = |offset: u8| [0x77, offset | 0x80, offset >> 7];
    let mut instructions = [&[0x0f, 4][..], &place(160), &[0x06]].concat();
    for (register, offset) in [(7, 160), (16, 168), (0, 144), (6, 120)] {
        instructions.extend([0x10, register, 3]);
        instructions.extend(place(offset));
    }
    Function { start, is_signal_frame: true, instructions }
}

/// `struct ucontext` in words, with these general registers.
fn context(rip: u64, rsp: u64, rax: u64, rbp: u64) -> [u64; 32] {
    let mut words = [0; 32];
    for (offset, value) in [(168, rip), (160, rsp), (144, rax), (120, rbp)] {
        words[offset / 8] = value;
    }
    words
}

/// A handler with a frame of 8 bytes, called on a stack of its own above the interrupted one.
fn interrupted(functions: &[Function], returns_to: u64, code: &[(u64, &[u8])]) -> Process {
    let mut image = image(functions);
    for (address, bytes) in code {
        put(&mut image, *address, bytes);
    }
    // The interrupted function's stack lies from word 40 on; the handler's frame at word 2.
    let mut words = vec![0; 60];
    words[2] = returns_to;
    words[3..35].copy_from_slice(&context(CODE + 0x200, STACK + 40 * 8, 0xaa, 0x66));
    words[41] = CODE + 0x310;
    process(image, &words)
}

fn stack_in_handler(process: &Process) -> Stack {
    let start = registers(&[(RIP, CODE), (RSP, STACK + 16)]);
    whole(&Unwinder::new(process), start)
}

fn others() -> [Function; 3] {
    [
        function(CODE, &frame_of(8)),
        function(CODE + 0x200, &frame_of(16)),
        function(CODE + 0x300, &FIRST),
    ]
}

#[test]
fn an_interrupted_function_is_exactly_where_it_stood() {
    let mut functions = others().to_vec();
    functions.push(trampoline(CODE + 0x100));
    let process = interrupted(&functions, CODE + 0x101, &[]);
    let stack = stack_in_handler(&process);
    let expected = [(0, Some(24)), (0x101, Some(320)), (0x200, Some(336)), (0x310, Some(344))];
    assert_eq!(places(&stack), expected);
    let exact: Vec<bool> = stack.frames.iter().map(|frame| !frame.is_return_address).collect();
    assert_eq!(exact, [true, false, true, false]);
    let trampolines: Vec<bool> = stack.frames.iter().map(|frame| frame.is_signal_frame).collect();
    assert_eq!(trampolines, [false, true, false, false]);
    assert_eq!(stack.frames[2].lookup(), Addr(CODE + 0x200));
    assert_eq!(stack.frames[2].registers.named("rax"), Some(0xaa));
    assert_eq!(stack.frames[2].registers.named("rbp"), Some(0x66));
}

/// `mov $15, %rax; syscall`
const SIGNAL_RETURN: [u8; 9] = [0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05];

#[test]
fn a_trampoline_without_unwind_information_is_known_by_its_bytes() {
    // It follows a function that has some.
    let process = interrupted(&others(), CODE + 0x100, &[(CODE + 0x100, &SIGNAL_RETURN)]);
    let stack = stack_in_handler(&process);
    let expected = [(0, Some(24)), (0x100, Some(32)), (0x200, Some(336)), (0x310, Some(344))];
    assert_eq!(places(&stack), expected);
    assert!(stack.frames[1].is_signal_frame);
    assert_eq!(stack.frames[2].registers.named("rax"), Some(0xaa));
    assert_eq!(stack.frames[2].trust, FrameTrust::CallFrameInfo);
}

#[test]
fn a_signal_on_a_stack_of_its_own_leads_back_down_but_not_in_circles() {
    let mut functions = others().to_vec();
    functions.push(trampoline(CODE + 0x100));
    let mut image = image(&functions);
    call_before(&mut image, CODE + 0x10);
    // The interrupted code is the handler itself, with the same stack pointer.
    let mut words = vec![0; 60];
    words[2] = CODE + 0x101;
    words[3..35].copy_from_slice(&context(CODE, STACK + 16, 0, 0));
    let process = process(image, &words);
    let stack = stack_in_handler(&process);
    assert_eq!(stack.end, End::Repeated(Addr(STACK + 16)), "{:?}", places(&stack));
    assert!(stack.frames.len() < 10);
    let said = "the frame at 0x7fff0010 was met before: the stack is damaged";
    assert_eq!(stack.end.to_string(), said);
}
