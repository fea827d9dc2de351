//! What two looks at each thread show: who burns CPU, and who waits for the same lock all along.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::arch::{self, SystemCall};
use crate::procfs::{self, Stat};

/// One thread at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Look {
    /// Name, at most 15 bytes.
    name: String,
    /// Time on a CPU so far, in nanoseconds.
    ran: u64,
    /// Time so far in which it could have run and had no CPU, in nanoseconds.
    queued: u64,
    /// The word that it waits on in a futex call.
    waits_on: Option<u64>,
    /// `CLOCK_MONOTONIC`, in nanoseconds.
    at: u64,
}

/// Both looks at each thread, by PID and TID.
#[derive(Clone, Debug, Default)]
pub(crate) struct Looks(BTreeMap<(u32, u32), [Option<Look>; 2]>);

/// A thread that used CPU between the looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Busy {
    pub(crate) pid: u32,
    pub(crate) tid: u32,
    pub(crate) name: String,
    /// Of one CPU.
    pub(crate) percent: u64,
    /// The same, had there been a free CPU for it all the time.
    pub(crate) wanted: u64,
}

/// What `/proc` says of a thread.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Files<'a> {
    pub(crate) stat: &'a [u8],
    pub(crate) syscall: &'a [u8],
    pub(crate) schedstat: &'a [u8],
}

/// A thread that waited on one word in both looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stuck {
    pub(crate) pid: u32,
    pub(crate) tid: u32,
    /// The word's address.
    pub(crate) lock: u64,
}

impl Looks {
    /// Notes what the files of a thread say at `at` (`CLOCK_MONOTONIC`, in nanoseconds) in sample
    /// `number` (1 or 2).
    pub(crate) fn note(&mut self, number: u32, id: (u32, u32), files: Files<'_>, at: u64) {
        let text = |file| String::from_utf8_lossy(file);
        let Some(stat) = Stat::parse(&text(files.stat)) else { return };
        let [user, system, ..] = stat.times;
        let schedule = text(files.schedstat);
        let mut schedule = schedule.split_whitespace().map_while(|word| word.parse().ok());
        // A kernel without CONFIG_SCHED_INFO has zeroes there.
        let exact = schedule.next().filter(|ran| *ran > 0);
        let look = Look {
            name: stat.name,
            ran: exact.unwrap_or_else(|| {
                user.saturating_add(system).saturating_mul(procfs::tick_nanoseconds())
            }),
            queued: schedule.next().unwrap_or(0),
            waits_on: SystemCall::parse(&text(files.syscall)).and_then(|call| futex_word(&call)),
            at,
        };
        let looks = self.0.entry(id).or_default();
        let place = if number == 1 { looks.first_mut() } else { looks.last_mut() };
        if let Some(place) = place {
            *place = Some(look);
        }
    }

    /// Threads that were seen twice.
    fn twice(&self) -> impl Iterator<Item = ((u32, u32), &Look, &Look)> {
        self.0
            .iter()
            .filter_map(|(id, [first, second])| Some((*id, first.as_ref()?, second.as_ref()?)))
    }

    /// How many threads were seen twice.
    pub(crate) fn seen(&self) -> usize {
        self.twice().count()
    }

    /// Threads that wanted at least `percent` of a CPU, the busiest first.
    pub(crate) fn busy(&self, percent: u64) -> Vec<Busy> {
        let busy = self.twice().map(|((pid, tid), first, second)| {
            let whole = second.at.saturating_sub(first.at);
            let ran = second.ran.saturating_sub(first.ran);
            let queued = second.queued.saturating_sub(first.queued);
            let share = |part: u64| {
                // Times are read one after the other: more than all of it is all of it.
                part.saturating_mul(100).checked_div(whole).unwrap_or(0).min(100)
            };
            let (percent, wanted) = (share(ran), share(ran.saturating_add(queued)));
            Busy { pid, tid, name: second.name.clone(), percent, wanted }
        });
        let mut busy: Vec<Busy> = busy.filter(|one| one.wanted >= percent).collect();
        busy.sort_by_key(|one| (Reverse(one.wanted), Reverse(one.percent), one.tid));
        busy
    }

    /// Threads that waited on the same word in both looks.
    pub(crate) fn stuck(&self) -> Vec<Stuck> {
        let same = |((pid, tid), first, second): ((u32, u32), &Look, &Look)| {
            let lock = first.waits_on.filter(|lock| second.waits_on == Some(*lock))?;
            Some(Stuck { pid, tid, lock })
        };
        self.twice().filter_map(same).collect()
    }
}

fn futex_word(call: &SystemCall) -> Option<u64> {
    let [word, ..] = call.arguments;
    let number = u64::try_from(call.number).ok()?;
    (number == arch::FUTEX && word != 0).then_some(word)
}

#[cfg(test)]
#[cfg(target_arch = "x86_64")]
mod tests {
    use super::*;

    fn stat(name: &str, user: u64, system: u64) -> Vec<u8> {
        format!("7 ({name}) S 1 7 7 0 -1 0 0 0 0 0 {user} {system} 0 0 20 0 1 0 5 0").into_bytes()
    }

    const WAITS: &[u8] = b"202 0x7f10 0x0 0x2 0x0 0x0 0x0 0x7ffc00 0x401000\n";
    const ELSEWHERE: &[u8] = b"202 0x7f18 0x0 0x2 0x0 0x0 0x0 0x7ffc00 0x401000\n";
    const SECOND: u64 = 1_000_000_000;

    /// A file of a thread in both samples.
    type Twice = [&'static [u8]; 2];

    /// Threads by their `syscall` and `schedstat`; each used 60 clock ticks in between.
    fn looks(of: &[(u32, Twice, Twice)]) -> Looks {
        let mut looks = Looks::default();
        for (tid, calls, schedules) in of {
            for sample in [1, 2] {
                let nth = usize::try_from(sample - 1).unwrap();
                let (stat, at) =
                    (stat("t", if sample == 1 { 0 } else { 60 }, 9), u64::from(sample) * SECOND);
                let (syscall, schedstat) = (calls[nth], schedules[nth]);
                looks.note(sample, (1, *tid), Files { stat: &stat, syscall, schedstat }, at);
            }
        }
        looks
    }

    #[test]
    fn busy_is_who_wants_a_cpu_all_the_time_whether_it_gets_one_or_not() {
        let running: Twice = [b"running\n", b"running\n"];
        let looks = looks(&[
            (1, running, [b"5000000000 0 1\n", b"5400000000 600000000 9\n"]),
            (2, running, [b"5000000000 0 1\n", b"6010000000 0 9\n"]),
            (3, running, [b"5000000000 0 1\n", b"5400000000 100000000 9\n"]),
        ]);
        let busy: Vec<_> =
            looks.busy(90).iter().map(|one| (one.tid, one.percent, one.wanted)).collect();
        assert_eq!(busy, [(2, 100, 100), (1, 40, 100)]);
    }

    #[test]
    fn without_exact_times_clock_ticks_count() {
        let running: Twice = [b"running\n", b"running\n"];
        let busy = looks(&[(1, running, [b"0 0 0\n", b"0 0 0\n"])]).busy(50);
        assert_eq!(busy.first().map(|one| one.percent), Some(60));
    }

    #[test]
    fn stuck_is_who_waits_for_one_lock_twice() {
        let none: Twice = [b"", b""];
        let mut looks = looks(&[
            (1, [WAITS, WAITS], none),
            (2, [WAITS, ELSEWHERE], none),
            (3, [WAITS, b"running\n"], none),
        ]);
        let files = Files { stat: &stat("seen once", 0, 0), syscall: WAITS, schedstat: b"" };
        looks.note(1, (1, 4), files, SECOND);
        assert_eq!(looks.stuck(), [Stuck { pid: 1, tid: 1, lock: 0x7f10 }]);
    }
}
