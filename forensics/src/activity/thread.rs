//! What two samples say of one thread.

use std::time::Duration;

use super::cpu::{Counters, Cpu};
use super::system_call::{InKernel, SystemCall};
use super::thread_files::{self as files, Stat, Switches};

/// A thread as the two samples of `/proc` show it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ThreadActivity {
    /// Its ID.
    pub tid: u32,
    /// Its name (`comm`), at most 15 bytes, with line ends escaped.
    pub name: String,
    /// The first sample, shortly before the freeze, and the second, after it; `None` where the
    /// thread was not there, or another one had its ID.
    pub samples: [Option<ThreadSample>; 2],
    /// Its CPU time.
    pub cpu: Cpu,
    /// How often it left its CPU between the samples; the freeze itself is two of the voluntary
    /// ones.
    pub switches: Option<Switches>,
}

/// A thread at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ThreadSample {
    /// State letter of `stat`: `R` running or ready, `S` sleeping, `D` sleeping where no signal
    /// wakes it, `T` stopped, `t` held by a tracer, `Z` ended, `I` idle.
    pub state: Option<char>,
    /// The CPU that it last ran on.
    pub last_cpu: Option<u32>,
    /// How often it has left its CPU since it started.
    pub switches: Option<Switches>,
    /// The kernel's function in which it sleeps (`wchan`).
    pub wait_channel: Option<String>,
    /// The kernel's frames, innermost first, as `FUNCTION+0xOFFSET/0xSIZE`; empty where the
    /// collector might not read them.
    pub kernel_stack: Vec<String>,
    /// Whether it runs, or in which system call it is.
    pub in_kernel: Option<InKernel>,
    pub(super) counters: Counters,
}

impl ThreadActivity {
    /// The later sample of those that there are.
    pub fn last(&self) -> Option<&ThreadSample> {
        let [first, second] = &self.samples;
        second.as_ref().or(first.as_ref())
    }

    /// The call in which both samples find it, with the same arguments: it may have gone on
    /// meanwhile, but came back to wait for the same.
    pub fn waits_in(&self) -> Option<SystemCall> {
        let [first, second] = &self.samples;
        let call = first.as_ref()?.call()?;
        call.is_same_wait(&second.as_ref()?.call()?).then_some(call)
    }

    /// Puts the samples together; `read` gives the text of the file of that name and sample.
    pub(super) fn read(
        tid: u32,
        between: Option<Duration>,
        read: impl Fn(&str, u32) -> Option<String>,
    ) -> Self {
        let parsed = [1, 2].map(|number| {
            let stat = read("stat", number).and_then(|text| files::stat(&text));
            let sample = ThreadSample::read(stat.as_ref(), |name| read(name, number));
            (stat, sample)
        });
        let [(first_stat, mut first), (second_stat, second)] = parsed;
        // The same ID may have gone to another thread.
        let started = |stat: &Option<Stat>| stat.as_ref().map(|stat| stat.started);
        if let (Some(one), Some(other)) = (started(&first_stat), started(&second_stat))
            && one != other
        {
            first = None;
        }
        let name = [second_stat, first_stat].into_iter().flatten().map(|stat| stat.name).next();
        let name = name.or_else(|| {
            let text = read("comm", 2).or_else(|| read("comm", 1))?;
            Some(text.strip_suffix('\n').unwrap_or(&text).replace('\n', "\\n"))
        });
        let counters = |sample: &Option<ThreadSample>| sample.as_ref().map(|s| s.counters);
        let cpu = Cpu::between(counters(&first), counters(&second), between, 1);
        let switches = switches_between(first.as_ref(), second.as_ref());
        let name = name.unwrap_or_default();
        Self { tid, name, samples: [first, second], cpu, switches }
    }
}

fn switches_between(
    first: Option<&ThreadSample>,
    second: Option<&ThreadSample>,
) -> Option<Switches> {
    let (first, second) = (first?.switches?, second?.switches?);
    Some(Switches {
        voluntary: second.voluntary.checked_sub(first.voluntary)?,
        involuntary: second.involuntary.checked_sub(first.involuntary)?,
    })
}

impl ThreadSample {
    fn read(stat: Option<&Stat>, read: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let in_kernel = read("syscall").and_then(|text| InKernel::parse(&text));
        if stat.is_none() && in_kernel.is_none() {
            return None;
        }
        let sched = read("schedstat").and_then(|text| files::sched_stat(&text));
        Some(Self {
            state: stat.map(|stat| stat.state),
            last_cpu: stat.and_then(|stat| stat.cpu),
            switches: read("status").and_then(|text| files::switches(&text)),
            wait_channel: read("wchan").and_then(|text| files::wait_channel(&text)),
            kernel_stack: read("stack").map(|text| files::kernel_stack(&text)).unwrap_or_default(),
            in_kernel,
            counters: Counters::of(stat, sched),
        })
    }

    /// The system call that it is in.
    pub fn call(&self) -> Option<SystemCall> {
        match self.in_kernel {
            Some(InKernel::Call(call)) => Some(call),
            _ => None,
        }
    }
}
