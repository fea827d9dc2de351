//! What sources note in passing: facts for the first words on the terminal, and what one source
//! learns that a later one must know.
//!
//! Cheap facts only: what a source sees anyway. A fact is one variant; the words for it are in
//! `verdict`.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use crate::evidence::HostSample;
use crate::kamailio::memory::Look;
use crate::watch::Looks;

/// Something worth telling at once.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fact {
    /// The kernel killed a process for want of memory.
    OomKill {
        /// Its name, as the kernel gives it.
        program: String,
        /// Its PID, as the kernel counts.
        pid: u32,
        /// When, as far as it is known: a time, or seconds since boot.
        when: String,
    },
    /// The kernel saw a process fault.
    Segfault {
        /// Its name, as the kernel gives it.
        program: String,
        /// Its PID, as the kernel counts.
        pid: u32,
        /// When, as far as it is known.
        when: String,
    },
    /// Processes of that name were killed or faulted that belonged to another run or instance.
    EarlierEnds {
        /// How many.
        count: usize,
        /// When the last of them was, as far as it is known.
        last: String,
    },
    /// A block device had hardly a free moment between the two samples.
    DiskBusy {
        /// Its name, for instance `sda`.
        device: String,
        /// Share of the time in which it had work, in percent.
        percent: u32,
    },
    /// A file system has hardly any room left.
    DiskFull {
        /// A path on it that matters to the program.
        path: String,
        /// What is used up: bytes or inodes.
        what: &'static str,
        /// Percent that is in use.
        percent: u32,
    },
    /// The port that the program wants belongs to somebody else.
    PortHeldBy {
        /// The port.
        port: u16,
        /// Who listens on it.
        pid: u32,
        /// Its program.
        program: String,
    },
    /// The program's own interface took a question and gave no answer.
    Silent {
        /// The way on which it was asked.
        way: String,
        /// For how long an answer was waited for, in seconds.
        seconds: u64,
    },
    /// How the service is restarted.
    RestartCommand {
        /// The command, as one types it.
        words: String,
    },
}

/// What the snapshot says of the lock of Kamailio's shared memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ShmLock {
    /// Nobody had it.
    Free,
    /// Somebody had it, each time it was looked at.
    Held,
    /// It was not found, or not looked for.
    #[default]
    Unknown,
}

/// Where it is noted.
#[derive(Debug, Default)]
pub struct Board {
    facts: Mutex<Vec<Fact>>,
    threads: Mutex<Looks>,
    thread_roles: Mutex<BTreeMap<u32, String>>,
    kamailio: OnceLock<(Look, ShmLock)>,
    host: OnceLock<HostSample>,
}

impl Board {
    /// Notes a fact, once.
    pub fn note(&self, fact: Fact) {
        let mut facts = self.facts.lock().unwrap_or_else(PoisonError::into_inner);
        if !facts.contains(&fact) {
            facts.push(fact);
        }
    }

    /// All facts, in the order in which they were noted.
    pub fn facts(&self) -> Vec<Fact> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What the samples show of the threads.
    pub(crate) fn threads(&self) -> MutexGuard<'_, Looks> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what threads do, in the program's own words, by thread ID as it counts them.
    pub(crate) fn note_thread_roles(&self, roles: BTreeMap<u32, String>) {
        self.thread_roles.lock().unwrap_or_else(PoisonError::into_inner).extend(roles);
    }

    /// What a thread does.
    pub(crate) fn thread_role(&self, tid: u32) -> Option<String> {
        self.thread_roles.lock().unwrap_or_else(PoisonError::into_inner).get(&tid).cloned()
    }

    /// Notes what Kamailio's own variables say; the first time counts.
    pub(crate) fn note_kamailio(&self, look: Look, lock: ShmLock) {
        self.kamailio.set((look, lock)).unwrap_or_default();
    }

    /// Keeps the first sample of the host's counters.
    pub(crate) fn note_host(&self, sample: HostSample) {
        self.host.set(sample).unwrap_or_default();
    }

    /// The first sample of the host's counters.
    pub(crate) fn host(&self) -> Option<&HostSample> {
        self.host.get()
    }

    /// What Kamailio's own variables say.
    pub(crate) fn kamailio(&self) -> Option<&Look> {
        self.kamailio.get().map(|(look, _)| look)
    }

    /// Who has the lock of the shared memory.
    pub fn shm_lock(&self) -> ShmLock {
        self.kamailio.get().map_or(ShmLock::Unknown, |(_, lock)| *lock)
    }
}
