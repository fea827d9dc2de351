//! CPU time between two samples.
//!
//! `schedstat` counts in nanoseconds, `stat` in clock ticks of 10 ms. Time for which the freeze held
//! the process is no time in which it could have run: it is left out of what is measured against.

use std::time::Duration;

use super::thread_files::{SchedStat, Stat};
use crate::num::ratio;

/// Nanoseconds of a clock tick: `USER_HZ` is 100 on every machine that this program reads.
const TICK: u64 = 10_000_000;
const SECOND: u64 = 1_000_000_000;
/// A thread's files are not read at the very moment that counts for all of them.
const SLACK: Duration = Duration::from_millis(100);

/// CPU time of a thread, or of all threads of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cpu {
    /// Share of one CPU between the samples, in percent; for a process that of all its threads, so
    /// that it may pass 100. `None` without two samples.
    pub percent: Option<f64>,
    /// The part of it in user mode; split by clock ticks of 10 ms, so that it is coarse.
    pub user_percent: Option<f64>,
    /// The part of it in the kernel.
    pub system_percent: Option<f64>,
    /// Share of the time for which it was ready to run and had no CPU, in percent.
    pub waiting_percent: Option<f64>,
    /// Since it started, in seconds.
    pub seconds: Option<f64>,
}

/// What the kernel counts; each as far as it is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counters {
    ticks: Option<Ticks>,
    sched: Option<SchedStat>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ticks {
    user: u64,
    system: u64,
}

impl Counters {
    pub(super) fn of(stat: Option<&Stat>, sched: Option<SchedStat>) -> Self {
        let ticks = |stat: &Stat| Ticks { user: stat.user_ticks, system: stat.system_ticks };
        Self { ticks: stat.map(ticks), sched }
    }

    fn total_ns(self) -> Option<u64> {
        let of_ticks = |ticks: Ticks| ticks.user.saturating_add(ticks.system).saturating_mul(TICK);
        self.sched.map(|sched| sched.run_ns).or(self.ticks.map(of_ticks))
    }
}

impl Cpu {
    /// Share of the time for which it ran or would have run, in percent of one CPU: a thread in an
    /// endless loop has 100 even where others leave it little of a CPU.
    pub fn wanted_percent(&self) -> Option<f64> {
        Some(self.percent? + self.waiting_percent.unwrap_or(0.0))
    }

    /// What lies between two samples that are `between` apart, of so many threads.
    pub(super) fn between(
        first: Option<Counters>,
        second: Option<Counters>,
        between: Option<Duration>,
        threads: usize,
    ) -> Self {
        let seconds = second.or(first).and_then(Counters::total_ns);
        let mut cpu = Self { seconds: seconds.map(|ns| ratio(ns, SECOND)), ..Self::default() };
        let (Some(first), Some(second), Some(between)) = (first, second, between) else {
            return cpu;
        };
        let ticks = first.ticks.zip(second.ticks).and_then(|(first, second)| {
            let user = second.user.checked_sub(first.user)?;
            Some(Ticks { user, system: second.system.checked_sub(first.system)? })
        });
        let percent = |first, second| percent(first, second, between, threads);
        if let Some((first, second)) = first.sched.zip(second.sched) {
            cpu.percent = percent(first.run_ns, second.run_ns);
            cpu.waiting_percent = percent(first.wait_ns, second.wait_ns);
        } else if let Some(Ticks { user, system }) = ticks {
            cpu.percent = percent(0, user.saturating_add(system).saturating_mul(TICK));
        }
        if let (Some(percent), Some(Ticks { user, system })) = (cpu.percent, ticks)
            && user.saturating_add(system) > 0
        {
            let in_user = percent * ratio(user, user.saturating_add(system));
            cpu.user_percent = Some(in_user);
            cpu.system_percent = Some(percent - in_user);
        }
        cpu
    }

    /// That of a process: of its threads where each is known, else of what `stat` counts for all.
    pub(super) fn of_process(threads: &[Self], whole: Self) -> Self {
        let sum = |part: fn(&Self) -> Option<f64>| threads.iter().map(part).sum::<Option<f64>>();
        if threads.is_empty() {
            return whole;
        }
        Self {
            percent: sum(|cpu| cpu.percent).or(whole.percent),
            user_percent: whole.user_percent,
            system_percent: whole.system_percent,
            waiting_percent: sum(|cpu| cpu.waiting_percent),
            // The whole has the threads that have ended, too, but only full clock ticks.
            seconds: match (whole.seconds, sum(|cpu| cpu.seconds)) {
                (Some(whole), Some(sum)) => Some(whole.max(sum)),
                (whole, sum) => whole.or(sum),
            },
        }
    }
}

/// `None` where the counter went back, or by more than can be.
fn percent(first: u64, second: u64, between: Duration, threads: usize) -> Option<f64> {
    let grown = Duration::from_nanos(second.checked_sub(first)?);
    let threads = u32::try_from(threads).unwrap_or(u32::MAX);
    if between.is_zero() || grown > between.saturating_add(SLACK).saturating_mul(threads) {
        return None;
    }
    Some(grown.as_secs_f64() / between.as_secs_f64() * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Option<Duration> = Some(Duration::from_secs(1));

    fn counted(user: u64, system: u64) -> Option<Counters> {
        Some(Counters { ticks: Some(Ticks { user, system }), sched: None })
    }

    fn timed(run_ns: u64, wait_ns: u64) -> Option<Counters> {
        Some(Counters { ticks: None, sched: Some(SchedStat { run_ns, wait_ns }) })
    }

    #[test]
    fn nanoseconds_are_preferred_to_clock_ticks() {
        let of = |run_ns, user| {
            let sched = Some(SchedStat { run_ns, wait_ns: 0 });
            Some(Counters { ticks: Some(Ticks { user, system: 0 }), sched })
        };
        let cpu = Cpu::between(of(5_000_000_000, 500), of(5_250_000_000, 525), SECOND, 1);
        assert_eq!(cpu.percent, Some(25.0));
        assert_eq!(cpu.seconds, Some(5.25));
    }

    #[test]
    fn clock_ticks_serve_where_nanoseconds_are_not_counted() {
        let cpu = Cpu::between(counted(100, 50), counted(130, 60), SECOND, 1);
        assert_eq!(cpu.percent, Some(40.0));
        assert_eq!((cpu.user_percent, cpu.system_percent), (Some(30.0), Some(10.0)));
        assert_eq!((cpu.seconds, cpu.waiting_percent), (Some(1.9), None));
    }

    #[test]
    fn time_without_a_cpu_is_told() {
        let cpu = Cpu::between(timed(0, 1_000), timed(500_000_000, 250_001_000), SECOND, 1);
        assert_eq!((cpu.percent, cpu.waiting_percent), (Some(50.0), Some(25.0)));
        assert_eq!(cpu.wanted_percent(), Some(75.0));
        assert_eq!(cpu.user_percent, None);
    }

    #[test]
    fn what_cannot_be_is_not_believed() {
        let percent = |first, second, between| Cpu::between(first, second, between, 1).percent;
        assert_eq!(percent(timed(0, 0), timed(1_050_000_000, 0), SECOND), Some(105.0));
        assert_eq!(percent(timed(0, 0), timed(1_200_000_000, 0), SECOND), None);
        assert_eq!(percent(timed(9, 0), timed(8, 0), SECOND), None);
        assert_eq!(percent(counted(u64::MAX, 0), counted(u64::MAX, u64::MAX), SECOND), None);
        assert_eq!(percent(timed(0, 0), timed(1, 0), Some(Duration::ZERO)), None);
        assert_eq!(percent(timed(0, 0), timed(1, 0), None), None);
        assert_eq!(percent(timed(0, 0), None, SECOND), None);
    }

    #[test]
    fn a_process_is_the_sum_of_its_threads() {
        let thread = |percent| Cpu { percent, seconds: Some(1.5), ..Cpu::default() };
        let whole = Cpu { percent: Some(120.0), seconds: Some(2.0), ..Cpu::default() };
        let cpu = Cpu::of_process(&[thread(Some(99.5)), thread(Some(30.25))], whole);
        assert_eq!((cpu.percent, cpu.seconds), (Some(129.75), Some(3.0)));
        let cpu = Cpu::of_process(&[thread(Some(99.5)), thread(None)], whole);
        assert_eq!(cpu.percent, Some(120.0));
        assert_eq!(Cpu::between(counted(0, 0), counted(190, 0), SECOND, 2).percent, Some(190.0));
    }
}
