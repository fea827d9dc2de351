//! A thread's registers: by ptrace where it stands still, else as little as the kernel shows of a
//! running one.

use std::fs;
use std::io;

use bundle::notes::RegisterSource;

use crate::arch::{self, SystemCall};
use crate::sys;

const NT_PRSTATUS: u32 = 1;

/// A register set beyond the general one, ready to be a note.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtendedSet {
    /// Owner of the note.
    pub owner: &'static str,
    /// Type of the note.
    pub kind: u32,
    /// Its content.
    pub content: Vec<u8>,
}

/// What was read of a thread's registers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registers {
    /// Where they come from.
    pub source: RegisterSource,
    /// The general ones, [`arch::GENERAL_LENGTH`] bytes; zeroes where the source has none.
    pub general: Vec<u8>,
    /// Floating point, XSTATE; as far as the machine has them.
    pub extended: Vec<ExtendedSet>,
    /// `siginfo_t` of the stop.
    pub signal: Option<Vec<u8>>,
}

impl Registers {
    /// Nothing is known.
    pub fn none() -> Self {
        Self {
            source: RegisterSource::None,
            general: vec![0; arch::GENERAL_LENGTH],
            extended: Vec::new(),
            signal: None,
        }
    }

    /// Of a tracee of the calling thread that stands still.
    ///
    /// # Errors
    /// It ended meanwhile, or is a process of another machine mode (32-bit).
    pub fn of_stopped(tid: u32) -> io::Result<Self> {
        let general = sys::register_set(tid, NT_PRSTATUS)?;
        if general.len() != arch::GENERAL_LENGTH {
            return Err(io::Error::other("a 32-bit thread; its registers are not understood"));
        }
        let read = |&(owner, kind): &(&'static str, u32)| {
            let content = sys::register_set(tid, kind).ok()?;
            Some(ExtendedSet { owner, kind, content })
        };
        let extended = arch::EXTENDED.iter().filter_map(read).collect();
        let signal = sys::signal_information(tid).ok();
        Ok(Self { source: RegisterSource::Stopped, general, extended, signal })
    }

    /// Of a thread that runs on: where its system call stands, if it is in one.
    pub fn of_running(pid: u32, tid: u32) -> Self {
        let text = fs::read_to_string(format!("/proc/{pid}/task/{tid}/syscall"));
        match text.ok().as_deref().and_then(SystemCall::parse) {
            Some(call) => Self {
                source: RegisterSource::SystemCallFile,
                general: arch::from_system_call(&call),
                ..Self::none()
            },
            None => Self::none(),
        }
    }
}
