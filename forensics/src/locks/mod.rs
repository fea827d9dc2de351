//! Who waits for which lock, who holds it, and where that ends.
//!
//! Reads: the threads' stacks and system calls, the locks' words, and what Kamailio and glibc write
//! beside them. Promises: a wait is claimed only where a thread sleeps in the kernel for the lock's
//! word, or gives up its turn before it; a holder is *recorded* where the lock itself names it, else
//! *inferred*, with what that rests on. A plain lock of Kamailio's is one word and names nobody.
//!
//! `kind` tells locks from other sleeps, `glibc` reads the C library's locks, `kamailio` Kamailio's,
//! `infer` looks for holders on stacks, `graph` follows them, `search` does it all in order.

mod glibc;
mod graph;
mod infer;
mod kamailio;
mod kind;
mod search;

use std::fmt;
use std::time::Duration;

use crate::addr::{Addr, AddrRange};
use crate::kamailio::OwnerName;
use crate::threads::LONG_WAIT;
use crate::units::size;

pub use kind::LockKind;
pub use search::{Sight, find};

/// All locks that somebody waits for.
#[derive(Clone, Debug, Default)]
pub struct Locks {
    /// The locks, those with most waiters first.
    pub locks: Vec<Lock>,
    /// The waits, by process and thread.
    pub waits: Vec<Wait>,
    /// Circles of waits, each as indexes into `waits`: every wait's lock is held by the thread of
    /// the next one, the last one's by the first. A circle of one is a thread that waits for itself.
    pub cycles: Vec<Vec<usize>>,
}

/// A lock that somebody waits for.
#[derive(Clone, Debug)]
pub struct Lock {
    /// Address of its word.
    pub at: Addr,
    /// The process whose private memory it is in; `None` for shared memory.
    pub member: Option<usize>,
    /// What it is.
    pub kind: LockKind,
    /// What its word held.
    pub word: Option<u32>,
    /// How many threads hold it for reading; 0 for locks that know no readers.
    pub readers: u32,
    /// What it is called, or where it lies.
    pub name: LockName,
    /// Who holds it, as far as that can be told.
    pub holder: Option<Holder>,
}

/// What a lock is called, or where it lies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LockName {
    /// A name of its own, for instance `the lock of the shared pool`.
    pub own: Option<String>,
    /// The variable that leads to it or holds it.
    pub variable: Option<String>,
    /// The fragment that it lies in.
    pub fragment: Option<LockFragment>,
    /// What else the address is, for a person.
    pub place: Option<String>,
    /// Whether it lies on a stack: of the process that waits, or at the same address in another.
    pub on_stack: bool,
}

/// The fragment of a pool that a lock lies in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockFragment {
    /// Its payload.
    pub payload: AddrRange,
    /// Who allocated it; `None` if it is free.
    pub owner: Option<OwnerName>,
}

/// Who holds a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its PID: on the host where that is known, else as the lock names it.
    pub pid: u32,
    /// The thread that the lock names, as it names it, where that is not in the input.
    pub tid: Option<u32>,
    /// Index in the case's threads, if it is in the input.
    pub thread: Option<usize>,
    /// How it is known.
    pub how: How,
    /// Where it is.
    pub presence: Presence,
}

/// How a holder is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum How {
    /// Kamailio's recursive locks keep the holder's PID beside the word.
    LockerPid,
    /// glibc's locks keep the holder's thread ID.
    OwnerField,
    /// Its stack is where only a holder's can be.
    Inferred {
        /// What that rests on, for a person.
        because: String,
    },
}

/// Where the holder of a lock is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// In the input.
    Captured,
    /// Kamailio's process table has it, the input does not.
    NotInInput,
    /// It has ended: the group had no such process when it was captured, or neither the input nor
    /// Kamailio's process table has it.
    Ended,
}

/// A thread that waits for a lock.
#[derive(Clone, Debug)]
pub struct Wait {
    /// Index in the case's threads.
    pub thread: usize,
    /// Index in [`Locks::locks`].
    pub lock: usize,
    /// The function that takes the lock: the innermost one outside the C library.
    pub function: Option<String>,
    /// For how long at least, by two samples of `/proc`: zero if it did something else in between,
    /// `None` if there are no samples.
    pub lasted: Option<Duration>,
    /// Whether it does not sleep but asks again and again.
    pub spins: bool,
    /// Whether it gives up after a time.
    pub has_limit: bool,
}

impl How {
    /// For scripts: `locker-pid`, `owner-field` or `inferred`.
    pub fn id(&self) -> &'static str {
        match self {
            Self::LockerPid => "locker-pid",
            Self::OwnerField => "owner-field",
            Self::Inferred { .. } => "inferred",
        }
    }
}

impl Locks {
    /// The waits for a lock.
    pub fn waits_for(&self, lock: usize) -> impl Iterator<Item = &Wait> {
        self.waits.iter().filter(move |wait| wait.lock == lock)
    }

    /// The wait of a thread.
    pub fn wait_of(&self, thread: usize) -> Option<&Wait> {
        self.waits.iter().find(|wait| wait.thread == thread)
    }

    /// The lock of a wait.
    pub fn lock_of(&self, wait: &Wait) -> Option<&Lock> {
        self.locks.get(wait.lock)
    }
}

impl Wait {
    /// Whether the samples show that it does nothing else, for longer than a lock is held in a
    /// healthy program.
    pub fn is_stuck(&self) -> bool {
        self.lasted.is_some_and(|lasted| lasted >= LONG_WAIT)
    }
}

impl LockKind {
    /// Whether it is one of Kamailio's, which are for several processes.
    pub fn is_kamailio(self) -> bool {
        matches!(self, Self::KamailioLock | Self::KamailioRecursiveLock | Self::KamailioFastLock)
    }
}

/// `the lock of the shared pool, at 0 in the fragment at 0x… (4 bytes, of core: …)`
impl fmt::Display for LockName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fragment = self.fragment.as_ref().map(|fragment| {
            let (at, length) = (fragment.payload.start, size(fragment.payload.length()));
            match &fragment.owner {
                Some(owner) => format!("in the fragment at {at} ({length}, of {owner})"),
                None => format!("in the free fragment at {at} ({length})"),
            }
        });
        let variable = self.variable.as_ref().map(|variable| format!("{variable} leads to it"));
        let place = self.place.clone().filter(|_| fragment.is_none());
        let parts: Vec<String> =
            self.own.clone().into_iter().chain(variable).chain(fragment).chain(place).collect();
        match parts.is_empty() {
            true => f.write_str("where it lies is not known"),
            false => f.write_str(&parts.join(", ")),
        }
    }
}
