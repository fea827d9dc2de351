//! Frames without call frame information.

use super::*;
use crate::unwind::registers::RBP;

/// An image without any call frame entry, with calls before these addresses.
fn calls_before(addresses: &[u64]) -> Vec<u8> {
    let mut image = image(&[]);
    addresses.iter().for_each(|address| call_before(&mut image, *address));
    image
}

fn stack_with(process: &Process, known: &[(u16, u64)]) -> Stack {
    whole(&Unwinder::new(process), registers(known))
}

#[test]
fn frame_pointers_lead_to_callers_and_are_marked() {
    let image = calls_before(&[CODE + 0x110, CODE + 0x210]);
    // Two frames, each: saved rbp, return address; then the mark of the first.
    let words = [0, STACK + 0x20, CODE + 0x110, 0, STACK + 0x38, CODE + 0x210, 0, 0, 0];
    let stack =
        stack_with(&process(image, &words), &[(RIP, CODE + 0x50), (RSP, STACK), (RBP, STACK + 8)]);
    let expected = [(0x50, Some(0x18)), (0x110, Some(0x30)), (0x210, None)];
    assert_eq!(places(&stack), expected);
    let pointer = FrameTrust::FramePointer;
    assert_eq!(trusts(&stack), [FrameTrust::Context, pointer, pointer]);
    assert_eq!(stack.end, End::Outermost(Mark::NullFramePointer));
}

#[test]
fn a_scan_takes_only_addresses_behind_a_call() {
    let image = calls_before(&[CODE + 0x110]);
    // A number, code without a call before it, a place outside all code, a return address.
    let words = [7, CODE + 0x300, STACK, CODE + 0x110, 0];
    let stack = stack_with(&process(image, &words), &[(RIP, CODE + 0x50), (RSP, STACK)]);
    assert_eq!(places(&stack), [(0x50, Some(0x20)), (0x110, None)]);
    assert_eq!(trusts(&stack), [FrameTrust::Context, FrameTrust::Scan]);
    let said = stack.end.to_string();
    assert_eq!(
        said,
        "the caller of 0x70001110 was not found: no unwind information covers it; neither its \
         frame pointer nor the words above its stack pointer lead to a return address"
    );
}

#[test]
fn a_scan_gives_up_after_8_kib() {
    let image = calls_before(&[CODE + 0x110]);
    let frames = |word: usize| {
        let mut words = vec![0; 1030];
        words[word] = CODE + 0x110;
        let process = process(image.clone(), &words);
        stack_with(&process, &[(RIP, CODE + 0x50), (RSP, STACK)]).frames.len()
    };
    assert_eq!([frames(1023), frames(1024)], [2, 1]);
}

#[test]
fn a_call_through_a_null_pointer_returns_to_its_caller_with_every_register() {
    for wild in [0, 0x1234, STACK] {
        let functions = [function(CODE + 0x100, &frame_of(16)), function(CODE + 0x200, &FIRST)];
        let mut image = image(&functions);
        call_before(&mut image, CODE + 0x110);
        let words = [CODE + 0x110, 0, CODE + 0x220, 0];
        let known = [(RIP, wild), (RSP, STACK), (RBP, STACK + 0x10), (0, 0xaa)];
        let stack = stack_with(&process(image, &words), &known);
        let pcs: Vec<u64> = stack.frames.iter().map(|frame| frame.pc.0).collect();
        assert_eq!(pcs, [wild, CODE + 0x110, CODE + 0x220]);
        assert_eq!(stack.frames[0].cfa, Some(Addr(STACK + 8)));
        assert_eq!(stack.frames[1].trust, FrameTrust::Scan);
        assert_eq!(stack.frames[1].registers.named("rax"), Some(0xaa));
        assert!(stack.end.is_outermost());
    }
}

#[test]
fn a_function_that_has_not_set_its_frame_pointer_does_not_hide_its_caller() {
    // rbp is the caller's: following it would skip the caller.
    let words = [STACK + 0x18, CODE + 0x110, 0, 0, CODE + 0x210, 0];
    let callers = |pc: u64, code: &[u8], pointer: u64, frame: u64| {
        let mut image = calls_before(&[CODE + 0x110, CODE + 0x210]);
        put(&mut image, CODE + 0x50, code);
        let process = process(image, &words);
        let stack = stack_with(&process, &[(RIP, pc), (RSP, pointer), (RBP, frame)]);
        places(&stack).into_iter().map(|(pc, _)| pc).collect::<Vec<_>>()
    };
    let begins = [0x55, 0x48, 0x89, 0xe5]; // push %rbp; mov %rsp, %rbp
    assert_eq!(callers(CODE + 0x50, &begins, STACK + 8, STACK + 0x18), [0x50, 0x110, 0x210]);
    assert_eq!(callers(CODE + 0x51, &begins, STACK, STACK + 0x18), [0x51, 0x110, 0x210]);
    assert_eq!(callers(CODE + 0x54, &begins, STACK, STACK), [0x54, 0x110, 0x210]);
    assert_eq!(callers(CODE + 0x50, &[0xc3], STACK + 8, STACK + 0x18), [0x50, 0x110, 0x210]);
}

#[test]
fn frames_found_by_guessing_are_limited() {
    let image = calls_before(&[CODE + 0x110]);
    let process = process(image, &[CODE + 0x110; 1000]);
    let stack = stack_with(&process, &[(RIP, CODE + 0x50), (RSP, STACK)]);
    assert_eq!(stack.frames.len(), 257);
    let said = stack.end.to_string();
    assert!(said.contains("too many frames before it were found by guessing"), "{said}");
}
