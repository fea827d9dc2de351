//! Facts that sources note in passing, for the first words on the terminal.
//!
//! Cheap facts only: what a source sees anyway. A fact is one variant; the words for it are in
//! `verdict`.

use std::sync::{Mutex, PoisonError};

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
    /// A block device had hardly a free moment between the two samples.
    DiskBusy {
        /// Its name, for instance `sda`.
        device: String,
        /// Share of the time in which it had work, in percent.
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
    /// How the service is restarted.
    RestartCommand {
        /// The command, as one types it.
        words: String,
    },
}

/// Where facts are noted.
#[derive(Debug, Default)]
pub struct Board(Mutex<Vec<Fact>>);

impl Board {
    /// Notes a fact, once.
    pub fn note(&self, fact: Fact) {
        let mut facts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !facts.contains(&fact) {
            facts.push(fact);
        }
    }

    /// All facts, in the order in which they were noted.
    pub fn facts(&self) -> Vec<Fact> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
