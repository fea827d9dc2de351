//! The stacks of threads.
//!
//! Reads: a thread's registers, the stack, the call frame tables of the modules. Promises: frames
//! by DWARF call frame information wherever there is some, with all registers that can be
//! recovered, through signal handlers and the vDSO; frames found by frame pointer or by scanning
//! only where there is none, and marked so; the reason why the stack ends; an end, whatever the
//! bytes. Not for names: a frame is an address. Machines other than x86-64 are not supported, and
//! their stacks say so.

mod code;
mod end;
mod expression;
mod guess;
mod images;
mod registers;
mod rules;
mod signal;
mod walk;

#[cfg(test)]
mod tests;

use std::sync::atomic::AtomicUsize;

use code::Code;
use images::Images;
use serde::Serialize;

pub use end::{End, Mark};
pub use registers::Registers;

use crate::addr::Addr;
use crate::core::Thread;
use crate::process::Process;

/// Most frames of one stack: a default stack of 8 MiB, full of the smallest frames (16 bytes).
const MOST_FRAMES: usize = 1 << 19;
/// Most frames of all stacks of one process together: what they take in memory is bounded.
const MOST_FRAMES_OF_PROCESS: usize = 1 << 20;

/// The frames of one thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stack {
    /// Innermost first.
    pub frames: Vec<Frame>,
    /// Why there are no more.
    pub end: End,
}

/// One frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The instruction that comes next: exact for the innermost frame and for one that a signal
    /// interrupted, else the address that a call returns to.
    pub pc: Addr,
    /// Whether `pc` is the address that a call returns to.
    pub is_return_address: bool,
    /// The frame's address, as DWARF and gdb understand it: the stack pointer of the caller after
    /// the return. `None` for a frame whose caller was not found.
    pub cfa: Option<Addr>,
    /// The registers in this frame, as far as they are known. Callers' are those that functions
    /// keep, and what signal frames recorded.
    pub registers: Registers,
    /// How the frame was found.
    pub trust: FrameTrust,
    /// Whether it is no function but the code that a signal handler returns to.
    pub is_signal_frame: bool,
}

/// How a frame was found, the most trustworthy way first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FrameTrust {
    /// By the thread's own registers: the innermost frame.
    Context,
    /// By the unwind information of the frame that it called, or by what the kernel saved when a
    /// signal interrupted it.
    CallFrameInfo,
    /// By the frame pointer: right for code that keeps one.
    FramePointer,
    /// By searching the stack for an address behind a call: it may be left over from another call.
    Scan,
}

impl Frame {
    /// An address inside the instruction that the frame executes: where to look for its function,
    /// line and unwind information. A call may be the last instruction of its function.
    pub fn lookup(&self) -> Addr {
        match self.is_return_address {
            true => Addr(self.pc.0.saturating_sub(1)),
            false => self.pc,
        }
    }
}

/// What the stacks of one process have in common. Threads may be unwound in parallel.
#[derive(Debug)]
pub struct Unwinder<'a> {
    process: &'a Process,
    images: Images<'a>,
    code: Code<'a>,
    frames_left: AtomicUsize,
}

impl<'a> Unwinder<'a> {
    /// Of a process. Nothing is read before a stack needs it.
    pub fn new(process: &'a Process) -> Self {
        let frames_left = AtomicUsize::new(MOST_FRAMES_OF_PROCESS);
        Self { process, images: Images::of(process), code: Code::of(process), frames_left }
    }

    /// The stack of one of its threads.
    pub fn stack(&self, thread: &Thread) -> Stack {
        self.innermost(thread, MOST_FRAMES)
    }

    /// The innermost frames of one of its threads, so many at most.
    pub fn innermost(&self, thread: &Thread, most: usize) -> Stack {
        let machine = self.process.core.machine;
        if machine != "x86-64" {
            return Stack { frames: Vec::new(), end: End::NotSupported(machine) };
        }
        walk::stack(self, Registers::of_thread(thread, machine), most.min(MOST_FRAMES))
    }
}
