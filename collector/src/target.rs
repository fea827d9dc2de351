//! The group that was chosen, with what its cores' notes need; read before the freeze.

use std::fs;
use std::io;
use std::path::Path;

use crate::corefile::ProcessFacts;
use crate::files::Root;
use crate::group::{Entry, Instance};
use crate::known;
use crate::procfs::{self, Fields, ThreadFacts};

/// One process of the group.
#[derive(Clone, Debug, Default)]
pub struct Process {
    /// PID as we count it.
    pub pid: u32,
    /// A thread through which its memory is reached; mostly `pid` itself.
    pub id: u32,
    /// PID as it counts itself.
    pub inner_pid: u32,
    /// Its parent.
    pub parent: u32,
    /// Its program as the kernel names it.
    pub executable: String,
    /// Why it belongs, for a person.
    pub belongs_because: String,
    /// It was in state T before we came.
    pub was_stopped: bool,
    /// What its core's notes need.
    pub facts: ProcessFacts,
}

/// The group.
#[derive(Clone, Debug, Default)]
pub struct Target {
    /// File name of the program.
    pub program: String,
    /// [`known::of`] it.
    pub profile: &'static str,
    /// Its first process.
    pub main: u32,
    /// Its processes, rising.
    pub processes: Vec<Process>,
}

impl Target {
    /// Reads what there is to know of an instance; processes that have ended are left out.
    pub fn read(instance: &Instance, table: &[Entry]) -> Self {
        let entry = |pid: u32| table.iter().find(|entry| entry.pid == pid);
        let program = entry(instance.main).map(|main| main.program().to_owned());
        let program = program.unwrap_or_default();
        let processes = instance.members.iter().filter_map(|(pid, why)| {
            let mut process = Process::read(*pid)?;
            process.belongs_because.clone_from(why);
            if let Some(entry) = entry(*pid) {
                process.parent = entry.parent;
                process.executable.clone_from(&entry.path);
            }
            Some(process)
        });
        Self {
            profile: known::of(&program),
            program,
            main: instance.main,
            processes: processes.collect(),
        }
    }
}

impl Target {
    /// The files as its processes see them; through the main process if that can be looked into.
    ///
    /// # Errors
    /// None of them lets us.
    pub fn root(&self) -> io::Result<Root> {
        let main = self.processes.iter().filter(|process| process.pid == self.main);
        let roots = main.chain(&self.processes).map(|process| Root::of_process(process.id));
        let mut failed = io::Error::from(io::ErrorKind::NotFound);
        for root in roots {
            match root {
                Ok(root) => return Ok(root),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    /// When its first process was started, in microseconds since boot.
    pub(crate) fn started_micros(&self) -> Option<u64> {
        let leader =
            |process: &Process| Some(process.facts.threads.get(&process.pid)?.stat.started);
        let ticks = self.processes.iter().filter_map(leader).min()?;
        Some(ticks.saturating_mul(procfs::tick_nanoseconds() / 1000))
    }

    /// Whether its only process shares no page with another one, as far as can be told: processes
    /// share what they had when they were forked, and the kernel can merge equal pages (KSM).
    pub fn is_sole(&self) -> bool {
        let [process] = self.processes.as_slice() else { return false };
        let parent = fs::read_link(format!("/proc/{}/exe", process.parent));
        let forked = parent.is_ok_and(|parent| parent.to_string_lossy() == process.executable);
        let merging = fs::read_to_string("/sys/kernel/mm/ksm/run");
        !forked && merging.map_or(true, |run| run.trim() == "0")
    }
}

impl Process {
    fn read(pid: u32) -> Option<Self> {
        let folder = format!("/proc/{pid}");
        let status = Fields::read(&Path::new(&folder).join("status")).ok()?;
        let id = procfs::memory_thread(pid).unwrap_or(pid);
        let small = |key: &str| status.number(key).and_then(|number| u32::try_from(number).ok());
        let inner = status.last_number("NSpid").and_then(|inner| u32::try_from(inner).ok());
        let tids = procfs::numbers_in(format!("{folder}/task"));
        let threads = tids.into_iter().filter_map(|tid| Some((tid, ThreadFacts::read(pid, tid)?)));
        let facts = ProcessFacts {
            pid,
            owner: (small("Uid").unwrap_or(0), small("Gid").unwrap_or(0)),
            command_line: Vec::new(),
            auxiliary: Vec::new(),
            threads: threads.collect(),
        };
        Some(Self {
            pid,
            id,
            inner_pid: inner.unwrap_or(pid),
            was_stopped: facts.threads.get(&pid).is_some_and(|leader| leader.stat.state == b'T'),
            facts,
            ..Self::default()
        })
    }

    /// Reads what may hang with the process; only once a survey of it came back.
    pub fn read_memory_facts(&mut self) {
        self.facts.command_line =
            fs::read(format!("/proc/{}/cmdline", self.id)).unwrap_or_default();
        self.facts.auxiliary = fs::read(format!("/proc/{}/auxv", self.id)).unwrap_or_default();
    }
}
