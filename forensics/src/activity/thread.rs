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
        let [(first_stat, mut first), (second_stat, mut second)] = parsed;
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
        name_restarted(first.as_ref(), second.as_mut());
        let counters = |sample: &Option<ThreadSample>| sample.as_ref().map(|s| s.counters);
        let cpu = Cpu::between(counters(&first), counters(&second), between, 1);
        let switches = switches_between(first.as_ref(), second.as_ref());
        let name = name.unwrap_or_default();
        Self { tid, name, samples: [first, second], cpu, switches }
    }
}

/// The freeze makes the kernel start some calls again, under a number that says no more than that:
/// it keeps the name of the call of the first sample if all else is the same.
fn name_restarted(first: Option<&ThreadSample>, second: Option<&mut ThreadSample>) {
    let Some(second) = second else { return };
    if let (Some(before), Some(again)) = (first.and_then(ThreadSample::call), second.call())
        && before.is_same_wait(&again)
    {
        second.in_kernel = Some(InKernel::Call(before));
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const SECOND: Option<Duration> = Some(Duration::from_secs(1));

    fn stat(name: &str, state: char, ticks: u64, started: u64) -> String {
        format!("7 ({name}) {state} 1 1 1 0 -1 0 0 0 0 0 {ticks} 0 0 0 20 0 1 0 {started} 0 0\n")
    }

    fn read(files: &[(&str, &str)]) -> ThreadActivity {
        let files: BTreeMap<&str, &str> = files.iter().copied().collect();
        ThreadActivity::read(7, SECOND, |name, sample| {
            files.get(format!("{name}.{sample}").as_str()).map(|text| (*text).to_owned())
        })
    }

    /// Of a thread in `clock_nanosleep`, before and after a freeze (Linux 6.18).
    const SLEEPING: &str = "230 0x0 0x0 0x7ffd0100 0x0 0x0 0x0 0x7ffd0080 0x7fabd3510405\n";
    const RESTARTED: &str = "219 0x0 0x0 0x7ffd0100 0x0 0x0 0x0 0x7ffd0080 0x7fabd3510405\n";

    #[test]
    fn a_call_that_the_freeze_started_again_keeps_its_name() {
        let thread = read(&[("syscall.1", SLEEPING), ("syscall.2", RESTARTED)]);
        assert_eq!(thread.last().unwrap().call().unwrap().name, Some("clock_nanosleep"));
        assert_eq!(thread.waits_in().unwrap().name, Some("clock_nanosleep"));
        let other = RESTARTED.replace("0x7ffd0100", "0x7ffd0200");
        let thread = read(&[("syscall.1", SLEEPING), ("syscall.2", &other)]);
        assert_eq!(thread.last().unwrap().call().unwrap().name, Some("restart_syscall"));
        assert_eq!(thread.waits_in(), None);
    }

    #[test]
    fn a_thread_that_took_over_the_id_of_another_has_no_past() {
        let (old, new) = (stat("old", 'R', 900, 11), stat("new", 'S', 3, 12));
        let thread = read(&[("stat.1", &old), ("stat.2", &new)]);
        assert_eq!((thread.name.as_str(), &thread.samples[0]), ("new", &None));
        assert_eq!((thread.cpu.percent, thread.cpu.seconds), (None, Some(0.03)));
        let same = read(&[("stat.1", &stat("new", 'R', 1, 12)), ("stat.2", &new)]);
        assert_eq!(same.samples[0].as_ref().unwrap().state, Some('R'));
        assert_eq!((same.cpu.percent, same.cpu.user_percent), (Some(2.0), Some(2.0)));
    }

    #[test]
    fn a_thread_that_ended_before_the_second_sample_is_known_from_the_first() {
        let thread = read(&[("stat.1", &stat("short", 'R', 5, 11)), ("comm.1", "short\n")]);
        assert_eq!((thread.name.as_str(), thread.last().unwrap().state), ("short", Some('R')));
        assert_eq!((thread.cpu.percent, thread.switches), (None, None));
    }

    #[test]
    fn switches_are_those_between_the_samples() {
        let status = |voluntary| {
            format!("voluntary_ctxt_switches:\t{voluntary}\nnonvoluntary_ctxt_switches:\t4\n")
        };
        let stat = stat("worker", 'S', 0, 11);
        let files = [
            ("stat.1", stat.as_str()),
            ("stat.2", &stat),
            ("status.1", &status(5)),
            ("status.2", &status(9)),
        ];
        let between = Switches { voluntary: 4, involuntary: 0 };
        assert_eq!(read(&files).switches, Some(between));
        let back = [
            ("stat.1", stat.as_str()),
            ("stat.2", &stat),
            ("status.1", &status(9)),
            ("status.2", &status(5)),
        ];
        assert_eq!(read(&back).switches, None);
    }

    #[test]
    fn a_name_without_stat_comes_from_comm() {
        let thread = read(&[("syscall.2", SLEEPING), ("comm.2", "two\nlines\n")]);
        assert_eq!(thread.name, "two\\nlines");
        assert_eq!(read(&[]), ThreadActivity { tid: 7, ..ThreadActivity::default() });
    }
}
