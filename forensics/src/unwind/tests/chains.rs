//! Frames by call frame information.

use std::sync::atomic::Ordering;

use super::*;

/// A function with a frame of 16 bytes, called by one with 24 that saved `rbx`, called by the
/// first.
fn three() -> Process {
    let functions = [
        function(CODE, &frame_of(16)),
        // rbx at two words below the frame's address
        function(CODE + 0x100, &[0x0e, 24, 0x83, 2]),
        function(CODE + 0x200, &FIRST),
    ];
    let stack = [0, CODE + 0x110, 0, 0xbb, CODE + 0x220, 0, 0];
    process(image(&functions), &stack)
}

#[test]
fn a_chain_of_calls_is_followed_to_the_first_function() {
    let stack = stack_at(&three(), CODE + 0x50);
    let expected = [(0x50, Some(16)), (0x110, Some(40)), (0x220, Some(48))];
    assert_eq!(places(&stack), expected);
    assert_eq!(stack.end, End::Outermost(Mark::CallFrameInfo));
    assert!(stack.end.is_outermost());
    assert_eq!(
        stack.end.to_string(),
        "the first function of the thread: its unwind information says so"
    );
    let rules = FrameTrust::CallFrameInfo;
    assert_eq!(trusts(&stack), [FrameTrust::Context, rules, rules]);
    assert_eq!(
        stack.frames.iter().map(|f| f.is_return_address).collect::<Vec<_>>(),
        [false, true, true]
    );
}

#[test]
fn a_caller_has_the_registers_that_functions_keep() {
    let process = three();
    let known = registers(&[(RIP, CODE + 0x50), (RSP, STACK), (3, 5), (0, 1), (12, 12)]);
    let stack = whole(&Unwinder::new(&process), known);
    let named = |frame: usize, name| stack.frames[frame].registers.named(name);
    assert_eq!([named(0, "rax"), named(0, "rbx"), named(0, "r12")], [Some(1), Some(5), Some(12)]);
    assert_eq!([named(1, "rax"), named(1, "rbx"), named(1, "r12")], [None, Some(5), Some(12)]);
    assert_eq!([named(2, "rbx"), named(2, "r12")], [Some(0xbb), Some(12)]);
    assert_eq!([named(2, "rsp"), named(2, "rip")], [Some(STACK + 40), Some(CODE + 0x220)]);
}

#[test]
fn a_call_at_the_very_end_of_a_function_belongs_to_it() {
    let functions = [
        function(CODE, &frame_of(8)),
        function(CODE + 0x100, &frame_of(32)),
        function(CODE + 0x200, &FIRST),
    ];
    // The return address is the first byte of the third function.
    let stack = [CODE + 0x200, 0, 0, 0, CODE + 0x210, 0];
    let stack = stack_at(&process(image(&functions), &stack), CODE);
    assert_eq!(places(&stack), [(0, Some(8)), (0x200, Some(40)), (0x210, Some(48))]);
    assert_eq!(stack.frames[1].lookup(), Addr(CODE + 0x1ff));
    assert_eq!(stack.frames[0].lookup(), Addr(CODE));
}

#[test]
fn every_rule_gives_its_register() {
    let rules = [
        &[0x0e, 64][..],                  // the frame's address is rsp + 64
        &[0x07, 3],                       // rbx: undefined
        &[0x08, 6],                       // rbp: same value
        &[0x09, 12, 0],                   // r12: in rax
        &[0x8d, 2],                       // r13: saved at -16
        &[0x14, 14, 3],                   // r14: is the frame's address - 24
        &[0x10, 15, 3, 0x23, 0x10, 0x1c], // r15: saved where an expression says
        &[0x16, 0, 3, 0x77, 8, 0x06],     // rax: *(rsp + 8)
    ];
    let functions = [function(CODE, &rules.concat()), function(CODE + 0x100, &FIRST)];
    let rules = functions[0].instructions.clone();
    let broken = process(image(&functions), &[0, 0xa, 0, 0, 0, 0, 0xd, CODE + 0x110, 0]);
    let known = [(RIP, CODE), (RSP, STACK), (0, 0xaa), (3, 3), (6, 6), (15, 15)];
    let caller = |process: &Process| {
        let stack = whole(&Unwinder::new(process), registers(&known));
        stack.frames[1].registers
    };
    let values = |registers: Registers| {
        ["rbx", "rbp", "r12", "r13", "r14", "r15", "rax"].map(|name| registers.named(name))
    };
    let frame = STACK + 64;
    let expected = [None, Some(6), Some(0xaa), Some(0xd), Some(frame - 24), None, Some(0xa)];
    assert_eq!(values(caller(&broken)), expected, "r15's expression ends in a minus too many");

    let mut whole = functions;
    let at = rules.windows(3).position(|bytes| bytes == [0x23, 0x10, 0x1c]).unwrap();
    // DW_OP_lit16, DW_OP_minus, DW_OP_nop
    whole[0].instructions[at..at + 3].copy_from_slice(&[0x40, 0x1c, 0x96]);
    let process = process(image(&whole), &[0, 0xa, 0, 0, 0, 0, 0xd, CODE + 0x110, 0]);
    assert_eq!(caller(&process).named("r15"), Some(0xd));
}

/// The rule that linkers write for a PLT: an entry of 16 bytes pushes a word at its 11th byte.
const OF_PLT: [u8; 13] = [0x0f, 11, 0x77, 8, 0x80, 0, 0x3f, 0x1a, 0x3b, 0x2a, 0x33, 0x24, 0x22];

#[test]
fn the_frame_of_a_plt_entry_is_computed_from_its_program_counter() {
    let functions = [function(CODE, &OF_PLT), function(CODE + 0x100, &FIRST)];
    let words = [CODE + 0x120, CODE + 0x110, 0];
    let mut process = process(image(&functions), &words);
    assert_eq!(places(&stack_at(&process, CODE + 0x36)), [(0x36, Some(8)), (0x120, Some(16))]);
    assert_eq!(places(&stack_at(&process, CODE + 0x3b)), [(0x3b, Some(16)), (0x110, Some(24))]);
    // Of a thread in another state the same code says what it lacks.
    process.core.machine = "aarch64";
    let thread = Thread { tid: 7, signal: 0, registers: vec![0; 34], record: None };
    let stack = Unwinder::new(&process).stack(&thread);
    assert_eq!(
        (stack.frames.len(), &*stack.end.to_string()),
        (0, "not supported: stacks of aarch64")
    );
}

#[test]
fn a_return_address_in_a_register_leaves_the_frame_at_the_stack_pointer() {
    // As in vfork: the frame's address is rsp, the return address is in rdi.
    let functions = [function(CODE, &[0x0e, 0, 0x09, 16, 5]), function(CODE + 0x100, &FIRST)];
    let process = process(image(&functions), &[0, 0]);
    let known = registers(&[(RIP, CODE), (RSP, STACK), (5, CODE + 0x110)]);
    let stack = whole(&Unwinder::new(&process), known);
    assert_eq!(places(&stack), [(0, Some(0)), (0x110, Some(8))]);
}

#[test]
fn a_register_that_is_not_known_is_named() {
    // The frame's address is rbp + 16.
    let functions = [function(CODE, &[0x0c, 6, 16])];
    let stack = stack_at(&process(image(&functions), &[0, 0]), CODE);
    let said = stack.end.to_string();
    assert_eq!(places(&stack), [(0, None)]);
    assert!(said.contains("its unwind information needs rbp, which is not known"), "{said}");
}

#[test]
fn a_stack_that_the_snapshot_lacks_ends_with_the_first_missing_byte() {
    let functions = [function(CODE, &frame_of(0x48))];
    let mut process = process(image(&functions), &[0; 8]);
    let missing = Segment {
        range: crate::AddrRange::new(Addr(STACK + 0x40), 0x1000),
        writable: Some(true),
        content: Content::Absent(crate::memory::Why::Truncated),
    };
    let segments = process.memory.segments().iter().cloned().chain([missing]);
    process.memory = SegmentMap::new(segments.collect());
    let stack = stack_at(&process, CODE);
    assert_eq!(places(&stack), [(0, Some(0x48))]);
    assert_eq!(
        stack.end.to_string(),
        "the stack goes on, but 0x7fff0040 is not in the core: file cut short"
    );
}

#[test]
fn a_return_address_of_0_is_the_end() {
    let functions = [function(CODE, &frame_of(16))];
    let stack = stack_at(&process(image(&functions), &[1, 0, 1]), CODE);
    assert_eq!((stack.frames.len(), stack.end), (1, End::Outermost(Mark::NullReturn)));
}

#[test]
fn a_function_that_is_returned_to_at_its_start_was_never_called() {
    let functions = [function(CODE, &frame_of(16)), function(CODE + 0x200, &frame_of(16))];
    let stack = stack_at(&process(image(&functions), &[0, CODE + 0x200, 0, CODE + 0x50]), CODE);
    assert_eq!(places(&stack), [(0, Some(16)), (0x200, None)]);
    assert_eq!(stack.end, End::Outermost(Mark::NeverCalled));
}

#[test]
fn a_hundred_thousand_frames_are_followed_one_by_one() {
    let functions = [function(CODE, &frame_of(8)), function(CODE + 0x100, &FIRST)];
    let mut words = vec![CODE + 0x20; 100_000];
    words.extend([CODE + 0x110, 0]);
    let stack = stack_at(&process(image(&functions), &words), CODE + 0x10);
    assert_eq!(stack.frames.len(), 100_002);
    assert!(stack.end.is_outermost());
}

#[test]
fn the_frames_of_a_process_are_limited() {
    let functions = [function(CODE, &frame_of(8))];
    let process = process(image(&functions), &[CODE + 0x20; 100]);
    let unwinder = Unwinder::new(&process);
    let start = registers(&[(RIP, CODE), (RSP, STACK)]);
    let said = ["there are more than 10 frames", "there are more than 6 frames"];
    unwinder.frames_left.store(9, Ordering::Relaxed);
    assert_eq!(whole(&unwinder, start).end.to_string(), said[0]);
    unwinder.frames_left.store(5, Ordering::Relaxed);
    assert_eq!(whole(&unwinder, start).end.to_string(), said[1]);
}

#[test]
fn a_thread_without_registers_has_no_frames() {
    let process = process(image(&[]), &[0]);
    let stack = whole(&Unwinder::new(&process), registers(&[(RIP, CODE)]));
    assert_eq!((stack.frames.len(), stack.end), (0, End::NoRegisters));
}
