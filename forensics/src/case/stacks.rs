//! The threads of a case: their stacks, the locks they wait for, what each does.

use super::{Case, Doing};
use crate::activity::Descriptors;
use crate::gap::Gap;
use crate::locks::{self, Holder, Locks, Sight};
use crate::symbols::Symbols;
use crate::threads::{self, ThreadView};

impl Case {
    /// Unwinds every thread, finds the locks and says what each thread does.
    pub(super) fn look_at_threads(&mut self) {
        let symbols = Symbols::new(self.symbols.clone());
        let members = self.members.iter().enumerate();
        let threads: Vec<ThreadView> = members
            .flat_map(|(index, member)| {
                threads::threads(index, &member.process, &symbols, &self.activity)
            })
            .collect();
        self.gaps.extend(symbols.gaps());
        if threads.is_empty() {
            let why = "the input has no registers";
            self.gaps.push(Gap::new("stacks of threads, and the locks they wait for", why));
        }
        self.threads = threads;
        let locks = self.find_locks();
        self.doings = (0..self.threads.len())
            .filter_map(|index| Some(self.say_doing(index, self.threads.get(index)?, &locks)))
            .collect();
        self.locks = locks;
    }

    fn find_locks(&self) -> Locks {
        let places = self.places();
        let mut locks = locks::find(&Sight {
            processes: self.members.iter().map(|member| &member.process).collect(),
            threads: &self.threads,
            table: &self.table,
            group: self.evidence.manifest.as_ref().map(|manifest| {
                manifest.processes.iter().map(|process| process.inner_pid).collect()
            }),
            places: &places,
        });
        self.name_locks(&mut locks, &places);
        locks
    }

    fn say_doing(&self, index: usize, thread: &ThreadView, locks: &Locks) -> Doing {
        let wait = locks.wait_of(index);
        let wait = wait.and_then(|wait| Some((wait, locks.lock_of(wait)?.at)));
        Doing::of(thread, wait, || self.call_words(thread).unwrap_or_default())
    }

    /// What a thread of [`Case::threads`] does.
    pub fn doing(&self, thread: usize) -> &Doing {
        self.doings.get(thread).unwrap_or(&Doing::Unknown)
    }

    /// The system call in which a thread waits, for a person.
    pub fn call_words(&self, thread: &ThreadView) -> Option<String> {
        let call = thread.call.as_ref()?;
        let process = &self.members.get(thread.member)?.process;
        let none = Descriptors::new();
        let of_process = process.pid.and_then(|pid| self.activity.processes.get(&pid));
        let descriptors = of_process.map_or(&none, |process| &process.descriptors);
        Some(call.describe(descriptors, &process.memory))
    }

    /// What the process that holds a lock does, from Kamailio's process table.
    pub fn role_of_holder(&self, holder: &Holder) -> Option<String> {
        if let Some(thread) = holder.thread.and_then(|thread| self.threads.get(thread)) {
            return self.members.get(thread.member)?.role().map(str::to_owned);
        }
        let mut entries = self.table.iter();
        let entry = entries.find(|entry| u32::try_from(entry.pid) == Ok(holder.pid))?;
        Some(entry.description.clone())
    }

    /// The threads that handle SIP messages: those of processes whose rank in Kamailio's table is
    /// above 0.
    pub fn workers(&self) -> Vec<usize> {
        let handles_sip = |thread: &ThreadView| {
            let entry = self.members.get(thread.member).and_then(|member| member.entry.as_ref());
            entry.is_some_and(|entry| entry.rank > 0)
        };
        let threads = self.threads.iter().enumerate();
        threads.filter(|(_, thread)| handles_sip(thread)).map(|(index, _)| index).collect()
    }
}
