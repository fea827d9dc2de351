//! What each thread does, in words: idle, running, waiting for a lock, blocked.
//!
//! Reads: stacks with names, system calls, the samples of `/proc`, the waits for locks. Promises: a
//! thread that waits for input in the loop it was made for is idle, whatever it waits with; one
//! that waits in the middle of its work is blocked. Not for whether that is a fault: rules say so.

use std::fmt;

use crate::addr::Addr;
use crate::core::signal_name;
use crate::locks::Wait;
use crate::threads::{ThreadView, Waits};

/// What a thread does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Doing {
    /// It dies of a signal.
    Crashing {
        /// The signal's number.
        signal: u16,
    },
    /// Somebody has stopped it (SIGSTOP, a debugger); what it did then.
    Stopped(Box<Doing>),
    /// It sleeps for a lock.
    WaitingForLock {
        /// The lock.
        lock: Addr,
    },
    /// It asks for a lock again and again.
    SpinningOnLock {
        /// The lock.
        lock: Addr,
    },
    /// It is inside a handler of a signal that interrupted something else; what it does there.
    InSignalHandler(Box<Doing>),
    /// It waits in the middle of its work: for a peer, a disk, a child.
    Blocked {
        /// The call, for a person.
        call: String,
    },
    /// It waits for work in its normal loop.
    Idle {
        /// The call, for a person.
        call: String,
    },
    /// It sleeps for a time.
    Sleeping {
        /// The call, for a person.
        call: String,
    },
    /// It runs, in its own code or in the kernel.
    Running,
    /// Its registers do not tell.
    Unknown,
}

impl Doing {
    /// What a thread does; `wait` is its wait for a lock.
    pub(super) fn of(
        thread: &ThreadView,
        wait: Option<(&Wait, Addr)>,
        describe: impl Fn() -> String,
    ) -> Self {
        if thread.signal != 0 {
            return Self::Crashing { signal: thread.signal };
        }
        let inner = Self::of_call(thread, wait, describe);
        let inner = match handles_signal(thread) {
            true => Self::InSignalHandler(Box::new(inner)),
            false => inner,
        };
        match thread.is_stopped() {
            true => Self::Stopped(Box::new(inner)),
            false => inner,
        }
    }

    fn of_call(
        thread: &ThreadView,
        wait: Option<(&Wait, Addr)>,
        describe: impl Fn() -> String,
    ) -> Self {
        if let Some((wait, lock)) = wait {
            return match wait.spins {
                true => Self::SpinningOnLock { lock },
                false => Self::WaitingForLock { lock },
            };
        }
        match thread.waits() {
            Some(Waits::ForWork) => Self::Idle { call: describe() },
            Some(Waits::InWork) => Self::Blocked { call: describe() },
            Some(Waits::ForTime) => Self::Sleeping { call: describe() },
            None if thread.frames.is_empty() => Self::Unknown,
            None => Self::Running,
        }
    }

    /// For scripts.
    pub fn id(&self) -> &'static str {
        match self {
            Self::Crashing { .. } => "crashing",
            Self::Stopped(_) => "stopped",
            Self::WaitingForLock { .. } => "waiting-for-lock",
            Self::SpinningOnLock { .. } => "spinning-on-lock",
            Self::InSignalHandler(_) => "in-signal-handler",
            Self::Blocked { .. } => "blocked",
            Self::Idle { .. } => "idle",
            Self::Sleeping { .. } => "sleeping",
            Self::Running => "running",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for Doing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Crashing { signal } => write!(f, "crashing ({})", signal_name(*signal)),
            Self::Stopped(inner) => write!(f, "stopped, {inner}"),
            Self::WaitingForLock { lock } => write!(f, "waiting on lock {lock}"),
            Self::SpinningOnLock { lock } => write!(f, "spinning on lock {lock}"),
            Self::InSignalHandler(inner) => write!(f, "in a signal handler, {inner}"),
            Self::Blocked { call } => write!(f, "blocked in {call}"),
            Self::Idle { call } => write!(f, "idle in {call}"),
            Self::Sleeping { call } => write!(f, "sleeping in {call}"),
            Self::Running => f.write_str("running"),
            Self::Unknown => f.write_str("not known"),
        }
    }
}

/// Whether a signal interrupted it and its handler has not returned.
fn handles_signal(thread: &ThreadView) -> bool {
    thread.frames.iter().any(|frame| frame.frame.is_signal_frame)
}
