//! Finding a caller without unwind information: by what the next instruction tells, by the frame
//! pointer, by scanning the stack for a return address. None of them is proof; every frame found so
//! says how.

use super::FrameTrust;
use super::code::{Code, Hint};
use super::end::Mark;
use super::registers::{RBP, RIP, RSP, Registers};
use super::rules::word;
use crate::addr::Addr;
use crate::memory::Cursor;

/// Words of the stack that are searched for a return address: 8 KiB.
const SCANNED_WORDS: u64 = 1024;
/// A frame pointer that leads further than this leads astray, in bytes.
const LONGEST_FRAME: u64 = 1 << 20;

/// A frame's address and its caller's registers, and how both were found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Guess {
    pub(super) cfa: Addr,
    pub(super) caller: Registers,
    pub(super) trust: FrameTrust,
}

/// What guessing came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Guessed {
    Caller(Guess),
    Outermost(Mark),
    Nothing,
}

/// The caller of a frame of which nothing but its registers is known. `exact`: its program counter
/// is the instruction that comes next, and not a return address.
pub(super) fn caller(
    registers: &Registers,
    exact: bool,
    code: &Code<'_>,
    stack: &mut Cursor<'_>,
) -> Guessed {
    let (Some(pc), Some(pointer)) = (registers.get(RIP), registers.get(RSP)) else {
        return Guessed::Nothing;
    };
    let (pc, pointer) = (Addr(pc), Addr(pointer));
    if exact && let Some(guess) = at_stack_pointer(registers, pc, pointer, code, stack) {
        return Guessed::Caller(guess);
    }
    match by_frame_pointer(registers, pointer, code, stack) {
        Guessed::Nothing => {}
        found => return found,
    }
    match scan(registers, pointer, code, stack) {
        // By the System V convention the first function's frame pointer is 0.
        Guessed::Nothing if registers.get(RBP) == Some(0) => {
            Guessed::Outermost(Mark::NullFramePointer)
        }
        found => found,
    }
}

/// A function that has not begun, or is about to return. A call through a null or wild pointer leads
/// to where there is no code: nothing has run since the call, and every register is its caller's.
fn at_stack_pointer(
    registers: &Registers,
    pc: Addr,
    pointer: Addr,
    code: &Code<'_>,
    stack: &mut Cursor<'_>,
) -> Option<Guess> {
    let above = match (code.is_executable(pc), code.hint(pc)) {
        (false, _) => 0,
        (true, Hint::AtStackPointer(above)) => above,
        (true, Hint::None) => return None,
    };
    let place = pointer.checked_add(above)?;
    let target =
        word(stack, place).ok().filter(|target| code.may_be_return_address(Addr(*target)))?;
    let cfa = place.checked_add(8)?;
    let mut caller = registers.with(RIP, target).with(RSP, cfa.0);
    if above > 0 {
        // rbp was pushed and is not changed yet.
        caller.set(RBP, word(stack, pointer).ok());
    }
    Some(Guess { cfa, caller, trust: FrameTrust::Scan })
}

/// `rbp` leads to the caller's `rbp`, and behind that is the return address.
fn by_frame_pointer(
    registers: &Registers,
    pointer: Addr,
    code: &Code<'_>,
    stack: &mut Cursor<'_>,
) -> Guessed {
    let Some(frame) = registers.get(RBP).map(Addr) else { return Guessed::Nothing };
    let inside = frame.offset_from(pointer).is_some_and(|distance| distance < LONGEST_FRAME);
    if !inside || frame.0 % 8 != 0 {
        return Guessed::Nothing;
    }
    let place = Addr(frame.0.saturating_add(8));
    let (Ok(saved), Ok(target)) = (word(stack, frame), word(stack, place)) else {
        return Guessed::Nothing;
    };
    if (saved, target) == (0, 0) {
        return Guessed::Outermost(Mark::NullFramePointer);
    }
    if !code.may_be_return_address(Addr(target)) {
        return Guessed::Nothing;
    }
    let cfa = Addr(frame.0.saturating_add(16));
    let caller = Registers::default().with(RIP, target).with(RSP, cfa.0).with(RBP, saved);
    Guessed::Caller(Guess { cfa, caller, trust: FrameTrust::FramePointer })
}

/// The first word from the stack pointer on that may be a return address. It may be a stale one.
fn scan(registers: &Registers, pointer: Addr, code: &Code<'_>, stack: &mut Cursor<'_>) -> Guessed {
    let Some(mut place) = pointer.0.checked_next_multiple_of(8).map(Addr) else {
        return Guessed::Nothing;
    };
    for _ in 0..SCANNED_WORDS {
        let (Ok(target), Some(next)) = (word(stack, place), place.checked_add(8)) else { break };
        if code.may_be_return_address(Addr(target)) {
            // A frame pointer that leads further up may still be the caller's.
            let kept = registers.get(RBP).filter(|frame| *frame >= next.0);
            let mut caller = Registers::default().with(RIP, target).with(RSP, next.0);
            caller.set(RBP, kept);
            return Guessed::Caller(Guess { cfa: next, caller, trust: FrameTrust::Scan });
        }
        place = next;
    }
    Guessed::Nothing
}
