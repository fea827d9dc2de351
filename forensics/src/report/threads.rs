//! What `forensics threads` tells: every thread, what it does, and its stack.

use std::collections::BTreeMap;

use serde::Serialize;

use super::crashes::{self, CrashReport};
use crate::addr::Addr;
use crate::case::{Case, Member};
use crate::diagnose::{Finding, Severity, diagnose};
use crate::gap::Gap;
use crate::threads::{NamedFrame, ThreadView};
use crate::unwind::FrameTrust;

/// The report of `forensics threads`.
#[derive(Clone, Debug, Serialize)]
pub struct ThreadsReport {
    /// Version of this form.
    pub schema: u32,
    /// The processes with their threads.
    pub processes: Vec<ProcessThreads>,
    /// Threads with equal stacks, most frequent first.
    pub groups: Vec<StackGroup>,
    /// The processes that died, the likely first failure first.
    pub crashes: Vec<CrashReport>,
    /// What the rules say of threads.
    pub findings: Vec<Finding>,
    /// What is not known.
    pub gaps: Vec<Gap>,
}

/// The threads of one process.
#[derive(Clone, Debug, Serialize)]
pub struct ProcessThreads {
    /// PID on the host.
    pub pid: Option<u32>,
    /// What it does, from Kamailio's process table.
    pub role: Option<String>,
    /// Its threads, in the order of the core.
    pub threads: Vec<ThreadReport>,
}

/// One thread.
#[derive(Clone, Debug, Serialize)]
pub struct ThreadReport {
    /// Its thread ID, as the core counts it.
    pub tid: u32,
    /// Its name.
    pub name: Option<String>,
    /// What it does, for a person.
    pub state: String,
    /// The same for scripts, for instance `idle` or `waiting-for-lock`.
    pub doing: &'static str,
    /// Its share of one CPU between the two samples of `/proc`, in percent; null without them.
    pub cpu_percent: Option<f64>,
    /// Of that: the share in the kernel; null where it is not known.
    pub kernel_percent: Option<f64>,
    /// The system call that it is in, for a person.
    pub call: Option<String>,
    /// The same as it was made: number, name and arguments.
    pub system_call: Option<CallReport>,
    /// How often it left its CPU between the samples, to wait or because its time was over; null
    /// without them.
    pub switches: Option<SwitchReport>,
    /// For how long at least it has waited in that call, in seconds: 0 if it did something else
    /// between the samples, null without them.
    pub waited_seconds: Option<f64>,
    /// Where it waits in the kernel (`wchan`).
    pub wait_channel: Option<String>,
    /// Its frames, innermost first; an inlined function has a frame of its own before the one that
    /// holds its code.
    pub frames: Vec<StackFrame>,
    /// Why the frames end, for a person.
    pub end: String,
}

/// A system call as it was made.
#[derive(Clone, Debug, Serialize)]
pub struct CallReport {
    /// Its number.
    pub number: u64,
    /// Its name; null for an unknown number.
    pub name: Option<&'static str>,
    /// The registers that hold its arguments; those that it does not have mean nothing.
    pub arguments: [Addr; 6],
}

/// How often a thread left its CPU.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct SwitchReport {
    /// To wait for something; the capture itself is two of them.
    pub voluntary: u64,
    /// Because its time was over.
    pub involuntary: u64,
}

/// A frame.
#[derive(Clone, Debug, Serialize)]
pub struct StackFrame {
    /// Its program counter: of callers, the address that the call returns to.
    pub address: Addr,
    /// The function; null without a name.
    pub function: Option<String>,
    /// From the function's start to the address, in bytes.
    pub offset: Option<u64>,
    /// File name of the module.
    pub module: Option<String>,
    /// The address in that file, as addr2line wants it.
    pub address_in_file: Option<Addr>,
    /// The source file.
    pub file: Option<String>,
    /// The line in it.
    pub line: Option<u32>,
    /// How it was found.
    pub trust: FrameTrust,
    /// The canonical frame address: the caller's stack pointer after the return.
    pub cfa: Option<Addr>,
    /// Whether the function was inlined into the next frame's.
    pub inlined: bool,
    /// Whether it is the kernel's call of a signal handler.
    pub signal: bool,
}

/// Threads with equal stacks.
#[derive(Clone, Debug, Serialize)]
pub struct StackGroup {
    /// What they do, for scripts.
    pub doing: &'static str,
    /// What they do, for a person; as for scripts if they wait for different things.
    pub state: String,
    /// Who they are.
    pub threads: Vec<ThreadName>,
    /// The functions, innermost first; module and offset, or the address, without a name.
    pub functions: Vec<String>,
}

/// A thread, by its numbers.
#[derive(Clone, Debug, Serialize)]
pub struct ThreadName {
    /// PID on the host.
    pub pid: Option<u32>,
    /// Its thread ID.
    pub tid: u32,
    /// What its process does.
    pub role: Option<String>,
}

/// Rules that speak of what threads do.
const THREADS: [&str; 8] = [
    "crashed",
    "lock-cycle",
    "lock-held",
    "lock-on-stack",
    "blocked-on-io",
    "cpu-loop",
    "process-stopped",
    "input-cut",
];

impl ThreadsReport {
    /// Of a case whose threads were looked at.
    pub fn of(case: &Case) -> Self {
        let findings = diagnose(case).into_iter();
        let processes = processes(case);
        Self {
            schema: super::SCHEMA,
            groups: groups(&processes),
            processes,
            crashes: crashes::crashes(case),
            findings: findings.filter(|finding| THREADS.contains(&finding.rule)).collect(),
            gaps: case.gaps.clone(),
        }
    }

    /// Leaves the other processes out.
    pub fn only(&mut self, pid: Option<u32>) {
        self.processes.retain(|process| process.pid == pid);
        self.crashes.retain(|crash| crash.pid == pid);
        self.groups = groups(&self.processes);
    }

    /// The worst finding.
    pub fn worst(&self) -> Option<Severity> {
        self.findings.iter().map(|finding| finding.severity).max()
    }
}

/// The threads of every process; nothing if they were not looked at.
pub(super) fn processes(case: &Case) -> Vec<ProcessThreads> {
    if case.threads.is_empty() {
        return Vec::new();
    }
    case.members.iter().enumerate().map(|(index, member)| process(case, index, member)).collect()
}

fn process(case: &Case, index: usize, member: &Member) -> ProcessThreads {
    let own = case.threads.iter().enumerate().filter(|(_, thread)| thread.member == index);
    ProcessThreads {
        pid: member.process.pid,
        role: member.role().map(str::to_owned),
        threads: own.map(|(number, thread)| thread_report(case, number, thread)).collect(),
    }
}

fn thread_report(case: &Case, number: usize, thread: &ThreadView) -> ThreadReport {
    let activity = thread.activity.as_ref();
    let cpu = activity.map(|activity| activity.cpu);
    let doing = case.doing(number);
    ThreadReport {
        tid: thread.tid,
        name: thread.name.clone(),
        state: doing.to_string(),
        doing: doing.id(),
        cpu_percent: cpu.and_then(|cpu| cpu.percent).map(rounded),
        kernel_percent: cpu.and_then(|cpu| cpu.system_percent).map(rounded),
        call: case.call_words(thread),
        system_call: thread.call.map(|call| CallReport {
            number: call.number,
            name: call.name,
            arguments: call.arguments.map(Addr),
        }),
        switches: activity.and_then(|activity| activity.switches).map(|switches| SwitchReport {
            voluntary: switches.voluntary,
            involuntary: switches.involuntary,
        }),
        waited_seconds: thread.waited().map(|waited| waited.as_secs_f64()),
        wait_channel: activity.and_then(|activity| activity.last()?.wait_channel.clone()),
        frames: thread.frames.iter().flat_map(frames).collect(),
        end: thread.end.to_string(),
    }
}

/// A tenth of a percent is more than the samples tell.
fn rounded(percent: f64) -> f64 {
    (percent * 10.0).round() / 10.0
}

/// The frame, and those of the functions inlined into it before it.
fn frames(named: &NamedFrame) -> Vec<StackFrame> {
    let empty = StackFrame {
        address: named.frame.pc,
        function: None,
        offset: None,
        module: named.module.clone(),
        address_in_file: named.address_in_file.map(Addr),
        file: None,
        line: None,
        trust: named.frame.trust,
        cfa: named.frame.cfa,
        inlined: false,
        signal: named.frame.is_signal_frame,
    };
    if named.places.is_empty() {
        return vec![empty];
    }
    let places = named.places.iter().map(|place| StackFrame {
        function: place.function.clone(),
        offset: place.offset,
        file: place.file.clone(),
        line: place.line,
        inlined: place.is_inlined,
        ..empty.clone()
    });
    places.collect()
}

impl StackFrame {
    /// `qm_malloc`, or `ctl.so+0x2f10`, or the address.
    pub(super) fn words(&self) -> String {
        match (&self.function, &self.module, self.address_in_file) {
            (Some(function), ..) => function.clone(),
            (None, Some(module), Some(at)) => format!("{module}+{at}"),
            _ => self.address.to_string(),
        }
    }
}

/// A thread with its process.
pub(super) type Named<'a> = (&'a ProcessThreads, &'a ThreadReport);

/// Every thread.
pub(super) fn all(processes: &[ProcessThreads]) -> impl Iterator<Item = Named<'_>> {
    processes.iter().flat_map(|process| process.threads.iter().map(move |thread| (process, thread)))
}

/// Threads with the same functions on their stacks that do the same: those that are idle last, of
/// the others the most frequent first.
pub(super) fn grouped(processes: &[ProcessThreads]) -> Vec<Vec<Named<'_>>> {
    let mut groups: BTreeMap<(&str, Vec<String>), Vec<Named<'_>>> = BTreeMap::new();
    for (process, thread) in all(processes) {
        let functions = thread.frames.iter().map(StackFrame::words).collect();
        groups.entry((thread.doing, functions)).or_default().push((process, thread));
    }
    let mut groups: Vec<Vec<Named<'_>>> = groups.into_values().collect();
    groups.sort_by_key(|group| (is_idle(group), std::cmp::Reverse(group.len())));
    groups
}

/// Whether the threads of a group wait for work.
pub(super) fn is_idle(group: &[Named<'_>]) -> bool {
    group.first().is_some_and(|(_, thread)| thread.doing == "idle")
}

/// What the threads of a group do, for a person: all the same, or the same with different locks,
/// descriptors or times.
pub(super) fn state<'a>(group: &[Named<'a>]) -> &'a str {
    let Some((_, first)) = group.first() else { return "" };
    match group.iter().all(|(_, thread)| thread.state == first.state) {
        true => &first.state,
        false => first.doing,
    }
}

fn groups(processes: &[ProcessThreads]) -> Vec<StackGroup> {
    let group = |group: Vec<Named<'_>>| {
        let (_, first) = group.first()?;
        Some(StackGroup {
            doing: first.doing,
            state: state(&group).to_owned(),
            functions: first.frames.iter().map(StackFrame::words).collect(),
            threads: group
                .iter()
                .map(|(process, thread)| ThreadName {
                    pid: process.pid,
                    tid: thread.tid,
                    role: process.role.clone(),
                })
                .collect(),
        })
    };
    grouped(processes).into_iter().filter_map(group).collect()
}
