//! Two samples of what changes, a second apart: what a process does, and whether it gets anywhere.
//!
//! Members: `processes/PID/NAME.1` and `.2` with NAME one of `stat`, `status`, `statm`, `io`,
//! `schedstat`; `processes/PID/task/TID/NAME.1` and `.2` with NAME one of `comm`, `stat`, `status`,
//! `wchan`, `syscall`, `stack`, `schedstat`, `sched`. `processes/samples.json` says when.

use std::sync::{MutexGuard, PoisonError};

use bundle::{Phase, member};
use serde::Serialize;

use super::{Brief, Context, Drawer, Source};
use crate::watch::Files;
use crate::{procfs, sys};

const OF_PROCESS: [&str; 5] = ["stat", "status", "statm", "io", "schedstat"];
const OF_THREAD: [&str; 8] =
    ["comm", "stat", "status", "wchan", "syscall", "stack", "schedstat", "sched"];

/// When a sample was begun.
#[derive(Clone, Debug, Serialize)]
pub struct SampleTime {
    /// 1 or 2.
    pub sample: u32,
    /// RFC 3339 with offset and zone name.
    pub wall: String,
    /// `CLOCK_MONOTONIC`, in nanoseconds.
    pub monotonic_ns: u64,
}

/// When the samples so far were taken.
pub(crate) fn times(context: &Context) -> MutexGuard<'_, Vec<SampleTime>> {
    context.samples.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug)]
pub(crate) struct Sample {
    number: u32,
    name: &'static str,
    phase: Phase,
}

pub(crate) static FIRST: Sample =
    Sample { number: 1, name: "proc-first-sample", phase: Phase::BeforeFreeze };
pub(crate) static SECOND: Sample =
    Sample { number: 2, name: "proc-second-sample", phase: Phase::AfterThaw };

impl Sample {
    fn thread(&self, (pid, tid): (u32, u32), context: &Context, out: &Drawer) {
        let number = self.number;
        let (mut stat, mut syscall, mut schedstat) = (Vec::new(), Vec::new(), Vec::new());
        let at = sys::monotonic();
        for name in OF_THREAD {
            let origin = format!("/proc/{pid}/task/{tid}/{name}");
            let Some(content) = out.read(&origin) else { continue };
            match name {
                "stat" => stat.clone_from(&content),
                "syscall" => syscall.clone_from(&content),
                "schedstat" => schedstat.clone_from(&content),
                _ => {}
            }
            let path = member::thread_file(pid, tid, &format!("{name}.{number}"));
            out.put(path, Some(origin), content);
        }
        let files = Files { stat: &stat, syscall: &syscall, schedstat: &schedstat };
        context.board.threads().note(number, (pid, tid), files, at);
    }
}

impl Source for Sample {
    fn name(&self) -> &'static str {
        self.name
    }

    fn about(&self) -> &'static str {
        "CPU, state, system call and kernel stack of each thread, one sample of two"
    }

    fn phase(&self) -> Phase {
        self.phase
    }

    /// The first one costs no waiting. How large a process is belongs to growth, and what time a
    /// thread has used to a profile.
    fn serves(&self, _: Brief) -> bool {
        self.number == 1
    }

    fn collect(&self, context: &Context, out: &Drawer) -> anyhow::Result<()> {
        let number = self.number;
        times(context).push(SampleTime {
            sample: number,
            wall: jiff::Zoned::now().to_string(),
            monotonic_ns: sys::monotonic(),
        });
        for process in &context.target.processes {
            let pid = process.pid;
            for name in OF_PROCESS {
                let path = member::process_file(pid, &format!("{name}.{number}"));
                out.copy(path, &format!("/proc/{pid}/{name}"));
            }
            for tid in procfs::numbers_in(format!("/proc/{pid}/task")) {
                self.thread((pid, tid), context, out);
            }
        }
        if number == 2 {
            let text = serde_json::to_vec_pretty(&*times(context))?;
            out.put(member::SAMPLE_TIMES.to_owned(), None, text);
        }
        Ok(())
    }
}
