//! What `forensics` says of a bundle, in the three forms that these tests read.

use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use testbed::analysis::{Finding, Report};
use testbed::hang::Process;
use testbed::kamailio::Instance;
use testbed::tools;

/// All that is asked.
#[derive(Debug)]
pub(crate) struct Answers {
    report: Report,
    threads: Threads,
    locks: Locks,
}

#[derive(Debug, Deserialize)]
struct Threads {
    processes: Vec<Stacks>,
}

#[derive(Debug, Deserialize)]
struct Stacks {
    pid: u32,
    role: Option<String>,
    threads: Vec<Thread>,
}

/// One thread.
#[derive(Debug, Deserialize)]
pub(crate) struct Thread {
    /// In words.
    pub(crate) state: String,
    /// `None` without two samples.
    pub(crate) cpu_percent: Option<f64>,
    /// The innermost one first.
    pub(crate) frames: Vec<Frame>,
}

/// One frame.
#[derive(Debug, Deserialize)]
pub(crate) struct Frame {
    /// As exported, or nothing.
    pub(crate) function: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Locks {
    waits: Vec<Wait>,
    cycles: Vec<serde_json::Value>,
}

/// One wait.
#[derive(Debug, Deserialize)]
pub(crate) struct Wait {
    /// Who waits.
    pub(crate) pid: u32,
    /// For the lock with this address, `0x…`.
    pub(crate) lock: String,
    /// Who holds it.
    pub(crate) holder: Option<Holder>,
}

/// The holder of a lock.
#[derive(Debug, Deserialize)]
pub(crate) struct Holder {
    /// The process.
    pub(crate) pid: u32,
}

/// Collects from `pid`'s group and asks.
#[track_caller]
pub(crate) fn of_group(name: &str, pid: u32) -> Answers {
    let directory = tools::scratch(&format!("hangs-{name}"));
    let bundle = directory.join("bundle.tar.zst");
    tools::collect(pid, &bundle);
    let answers = Answers::of(&bundle);
    std::fs::remove_dir_all(directory).unwrap();
    answers
}

/// The same for the whole of an instance.
#[track_caller]
pub(crate) fn of(name: &str, instance: &Instance) -> Answers {
    of_group(name, instance.main_pid())
}

#[track_caller]
fn ask<T: DeserializeOwned>(command: &[&str], input: &Path) -> T {
    let mut forensics = tools::forensics();
    forensics.args(command).arg("--json").arg(input);
    tools::run(&mut forensics, tools::PATIENCE).expect(&[0, 1]).json()
}

impl Answers {
    /// Asks about `input`.
    #[track_caller]
    pub(crate) fn of(input: &Path) -> Self {
        let (threads, locks) = (ask(&["threads"], input), ask(&["locks"], input));
        Self { report: ask(&[], input), threads, locks }
    }

    /// The first finding: `rule`, from warning upwards, with all `words`.
    #[track_caller]
    pub(crate) fn assert_first(&self, rule: &str, words: &[&str]) {
        let [first, ..] = &self.report.findings[..] else { panic!("nothing was found") };
        assert_eq!(first.rule, rule, "{first:#?}");
        assert!(is_warning(first), "{first:#?}");
        let text = text(first);
        for word in words {
            assert!(text.contains(word), "`{word}` is not in the first finding: {first:#?}");
        }
    }

    /// The first finding names the lock and each of the processes.
    #[track_caller]
    pub(crate) fn assert_first_names<'a>(
        &self,
        lock: u64,
        processes: impl IntoIterator<Item = &'a Process>,
    ) {
        let text = text(&self.report.findings[0]);
        assert!(text.contains(&format!("{lock:#x}")), "no lock {lock:#x} in {text}");
        for process in processes {
            assert!(text.contains(short(&process.role)), "no {} in {text}", process.role);
        }
    }

    /// Nothing from warning upwards.
    #[track_caller]
    pub(crate) fn assert_healthy(&self) {
        let warnings: Vec<&Finding> =
            self.report.findings.iter().filter(|finding| is_warning(finding)).collect();
        assert!(warnings.is_empty(), "{warnings:#?}");
        assert!(self.locks.cycles.is_empty(), "{:?}", self.locks.cycles);
    }

    /// The one thread of a process, which has its role.
    #[track_caller]
    pub(crate) fn thread(&self, process: &Process) -> &Thread {
        let found = self.threads.processes.iter().find(|stacks| stacks.pid == process.pid);
        let stacks = found.unwrap_or_else(|| panic!("no stacks of {process:?}"));
        assert_eq!(stacks.role.as_deref(), Some(&*process.role));
        let [thread] = &stacks.threads[..] else { panic!("{} threads", stacks.threads.len()) };
        thread
    }

    /// The processes that are said to wait for `lock`, by PID; each names `holder`.
    #[track_caller]
    pub(crate) fn assert_waits(&self, lock: u64, waiters: &[Process], holder: Option<&Process>) {
        let address = format!("{lock:#x}");
        let waits: Vec<&Wait> = self.locks.waits.iter().filter(|w| w.lock == address).collect();
        let mut pids: Vec<u32> = waits.iter().map(|wait| wait.pid).collect();
        pids.sort_unstable();
        let mut expected: Vec<u32> = waiters.iter().map(|process| process.pid).collect();
        expected.sort_unstable();
        assert_eq!(pids, expected, "who waits for {address}: {:#?}", self.locks.waits);
        for wait in waits {
            assert_eq!(
                wait.holder.as_ref().map(|holder| holder.pid),
                holder.map(|process| process.pid),
                "who holds {address}"
            );
        }
    }

    /// How many waits there are, for any lock.
    pub(crate) fn wait_count(&self) -> usize {
        self.locks.waits.len()
    }

    /// The cycles.
    pub(crate) fn cycles(&self) -> &[serde_json::Value] {
        &self.locks.cycles
    }
}

impl Thread {
    /// Whether one of its frames is in `function`.
    #[track_caller]
    pub(crate) fn assert_in(&self, function: &str) {
        let mut names = self.frames.iter().filter_map(|frame| frame.function.as_deref());
        assert!(names.any(|name| name == function), "no {function} in {self:#?}");
    }
}

/// A role without the socket.
pub(crate) fn short(role: &str) -> &str {
    role.split(" sock=").next().unwrap()
}

fn is_warning(finding: &Finding) -> bool {
    finding.severity != "note"
}

/// All the words of a finding.
fn text(finding: &Finding) -> String {
    let facts = finding.facts.iter();
    let facts =
        facts.map(|fact| format!("{} {}", fact.text, fact.address.as_deref().unwrap_or("")));
    std::iter::once(finding.summary.clone()).chain(facts).collect::<Vec<_>>().join("\n")
}
