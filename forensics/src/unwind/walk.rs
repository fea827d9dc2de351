//! From frame to frame.
//!
//! Every chain ends: frames rise strictly on one stack; a signal may lead to another stack, lower
//! down, but not twice to the same frame; and frames, unwind information read and frames found by
//! guessing are counted.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustc_hash::FxHashMap;

use super::end::Mark;
use super::guess::{self, Guess, Guessed};
use super::images::Place;
use super::registers::{RIP, RSP, Registers};
use super::rules::{Callee, Trouble};
use super::{End, Frame, FrameTrust, Stack, Unwinder, signal};
use crate::addr::Addr;
use crate::memory::{Cursor, Why};
use crate::modules::Scratch;

/// Unwind information that is read for one stack, in bytes; true stacks need some KiB.
const MOST_WORK: usize = 64 << 20;
/// Signal handlers within signal handlers; each may use another stack.
const MOST_SIGNALS: usize = 64;
/// Frames of one stack that are found by guessing.
const MOST_GUESSES: usize = 256;

/// The stack of a thread with these registers, at most so many frames.
pub(super) fn stack(unwinder: &Unwinder<'_>, registers: Registers, most: usize) -> Stack {
    let (Some(pc), Some(_)) = (registers.get(RIP), registers.get(RSP)) else {
        return Stack { frames: Vec::new(), end: End::NoRegisters };
    };
    let mut walk = Walk {
        unwinder,
        most,
        stack: Cursor::new(&unwinder.process.memory),
        scratch: Scratch::new(),
        places: FxHashMap::default(),
        work_left: MOST_WORK,
        guesses_left: MOST_GUESSES,
        landings: Vec::new(),
    };
    let mut frame = Frame {
        pc: Addr(pc),
        is_return_address: false,
        cfa: None,
        registers,
        trust: FrameTrust::Context,
        is_signal_frame: false,
    };
    let mut frames: Vec<Frame> = Vec::new();
    let end = loop {
        let caller = walk.caller(&mut frame).and_then(|caller| {
            walk.check_order(frames.last(), &frame)?;
            walk.check_count(frames.len())?;
            Ok(caller)
        });
        frames.push(frame);
        match caller {
            Ok(caller) => frame = caller,
            Err(end) => break end,
        }
    };
    Stack { frames, end }
}

struct Walk<'u, 'a> {
    unwinder: &'u Unwinder<'a>,
    most: usize,
    stack: Cursor<'u>,
    scratch: Scratch,
    /// Rules by look-up address: recursion asks for the same ones again and again.
    places: FxHashMap<Addr, Result<Arc<Place>, String>>,
    work_left: usize,
    guesses_left: usize,
    /// Frames that lie below the one before them.
    landings: Vec<(Addr, Addr)>,
}

impl Walk<'_, '_> {
    /// Finds a frame's address and its caller.
    fn caller(&mut self, frame: &mut Frame) -> Result<Frame, End> {
        let place = self.place(frame.lookup());
        if self.is_undescribed_trampoline(frame, place.as_deref().ok()) {
            return self.interrupted(frame);
        }
        let trouble = match place {
            Ok(place) => match self.by_rules(frame, &place) {
                Ok(caller) => return Ok(caller),
                Err(Trouble::Outermost(mark)) => return Err(End::Outermost(mark)),
                // The rules lead to the stack's next word, and the snapshot does not have it.
                Err(Trouble::Absent(absent)) if absent.why != Why::Unmapped => {
                    return Err(End::Absent(absent));
                }
                Err(trouble) => trouble.to_string(),
            },
            Err(_) if self.was_never_called(frame) => {
                return Err(End::Outermost(Mark::NeverCalled));
            }
            Err(why) => why,
        };
        self.by_guess(frame, trouble)
    }

    /// Whether a return address, before which there is no function, begins one.
    fn was_never_called(&mut self, frame: &Frame) -> bool {
        let starts = |place: &Place| Addr(place.rules.start.wrapping_add(place.bias)) == frame.pc;
        frame.is_return_address && self.place(frame.pc).is_ok_and(|place| starts(&place))
    }

    /// The rules of a place in the code, or why there are none.
    fn place(&mut self, at: Addr) -> Result<Arc<Place>, String> {
        if let Some(known) = self.places.get(&at) {
            return known.clone();
        }
        if self.work_left == 0 {
            return Err("so much unwind information was read that it cannot be true".to_owned());
        }
        let found = self.unwinder.images.rules(at, &mut self.scratch).map(Arc::new);
        let cost = found.as_ref().map_or(0, |place| place.rules.cost);
        self.work_left = self.work_left.saturating_sub(cost);
        self.places.insert(at, found.clone());
        found
    }

    fn by_rules(&mut self, frame: &mut Frame, place: &Place) -> Result<Frame, Trouble> {
        frame.is_signal_frame = place.rules.is_signal_frame;
        let registers = frame.registers;
        let mut callee = Callee {
            rules: &place.rules,
            registers: &registers,
            memory: &mut self.stack,
            bias: place.bias,
        };
        let cfa = callee.frame_address()?;
        frame.cfa = Some(cfa);
        let caller = callee.caller(cfa)?;
        Ok(next(caller, FrameTrust::CallFrameInfo, frame.is_signal_frame))
    }

    /// Whether a handler returns to code that no unwind information describes. Such code may follow
    /// a function that has some, which then ends right before it.
    fn is_undescribed_trampoline(&self, frame: &Frame, place: Option<&Place>) -> bool {
        let described = place.is_some_and(|place| {
            let end = Addr(place.rules.end.wrapping_add(place.bias));
            place.rules.is_signal_frame || end != frame.pc
        });
        !described && self.unwinder.code.is_signal_return(frame.pc)
    }

    fn interrupted(&mut self, frame: &mut Frame) -> Result<Frame, End> {
        let pointer = frame.registers.get(RSP).map(Addr).unwrap_or_default();
        frame.is_signal_frame = true;
        frame.cfa = pointer.checked_add(8);
        let interrupted = signal::interrupted(pointer, &mut self.stack).map_err(End::Absent)?;
        Ok(next(interrupted, FrameTrust::CallFrameInfo, true))
    }

    fn by_guess(&mut self, frame: &mut Frame, trouble: String) -> Result<Frame, End> {
        let lost = |why| End::Lost { pc: frame.pc, why };
        let Some(left) = self.guesses_left.checked_sub(1) else {
            return Err(lost(format!(
                "{trouble}; too many frames before it were found by guessing"
            )));
        };
        self.guesses_left = left;
        let exact = !frame.is_return_address;
        let code = &self.unwinder.code;
        match guess::caller(&frame.registers, exact, code, &mut self.stack) {
            Guessed::Caller(Guess { cfa, caller, trust }) => {
                frame.cfa = Some(cfa);
                Ok(next(caller, trust, false))
            }
            Guessed::Outermost(mark) => Err(End::Outermost(mark)),
            Guessed::Nothing => {
                let searched = "neither its frame pointer nor the words above its stack pointer \
                                lead to a return address";
                Err(lost(format!("{trouble}; {searched}")))
            }
        }
    }

    /// Frames rise; where a signal changed to another stack they may fall, but not twice to one
    /// place.
    fn check_order(&mut self, before: Option<&Frame>, frame: &Frame) -> Result<(), End> {
        let Some((before, cfa)) = before.zip(frame.cfa) else { return Ok(()) };
        if before.cfa.is_some_and(|before| before < cfa) {
            return Ok(());
        }
        if !before.is_signal_frame && !frame.is_signal_frame {
            return Err(End::Downwards(cfa));
        }
        let landing = (frame.pc, cfa);
        if self.landings.contains(&landing) || self.landings.len() >= MOST_SIGNALS {
            return Err(End::Repeated(cfa));
        }
        self.landings.push(landing);
        Ok(())
    }

    /// `count`: frames before the one whose caller was found.
    fn check_count(&self, count: usize) -> Result<(), End> {
        let spent =
            self.unwinder
                .frames_left
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        let most = self.most.saturating_sub(1);
        match spent.is_ok() && count < most {
            true => Ok(()),
            false => Err(End::Limit(crate::num::wide(count.saturating_add(1)))),
        }
    }
}

/// The caller with these registers; one that a signal interrupted is exactly where they say.
fn next(registers: Registers, trust: FrameTrust, was_interrupted: bool) -> Frame {
    Frame {
        pc: registers.get(RIP).map(Addr).unwrap_or_default(),
        is_return_address: !was_interrupted,
        cfa: None,
        registers,
        trust,
        is_signal_frame: false,
    }
}
