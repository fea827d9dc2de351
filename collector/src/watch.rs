//! What two looks at each thread show: who burns CPU, and who waits for the same lock all along.

use std::collections::BTreeMap;

use crate::arch::{self, SystemCall};
use crate::procfs::Stat;

/// One thread at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Look {
    /// Name, at most 15 bytes.
    name: String,
    /// User and system time so far, in clock ticks.
    ticks: u64,
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
    /// Notes what the files `stat` and `syscall` of a thread say at `at` (`CLOCK_MONOTONIC`, in
    /// nanoseconds) in sample `number` (1 or 2).
    pub(crate) fn note(
        &mut self,
        number: u32,
        (pid, tid): (u32, u32),
        files: (&[u8], &[u8]),
        at: u64,
    ) {
        let (stat, call) = (String::from_utf8_lossy(files.0), String::from_utf8_lossy(files.1));
        let Some(stat) = Stat::parse(&stat) else { return };
        let [user, system, ..] = stat.times;
        let look = Look {
            name: stat.name,
            ticks: user.saturating_add(system),
            waits_on: SystemCall::parse(&call).and_then(|call| futex_word(&call)),
            at,
        };
        let looks = self.0.entry((pid, tid)).or_default();
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

    /// Threads that used at least `percent` of a CPU, the busiest first. `ticks_per_second` is the
    /// kernel's `_SC_CLK_TCK`.
    pub(crate) fn busy(&self, percent: u64, ticks_per_second: u64) -> Vec<Busy> {
        let used = |first: &Look, second: &Look| {
            let ticks = second.ticks.saturating_sub(first.ticks);
            let milliseconds = second.at.saturating_sub(first.at) / 1_000_000;
            let whole = milliseconds.saturating_mul(ticks_per_second);
            // Ticks are coarse: more than all of the time is all of it.
            ticks.saturating_mul(100_000).checked_div(whole).unwrap_or(0).min(100)
        };
        let busy = self.twice().map(|((pid, tid), first, second)| Busy {
            pid,
            tid,
            name: second.name.clone(),
            percent: used(first, second),
        });
        let mut busy: Vec<Busy> = busy.filter(|one| one.percent >= percent).collect();
        busy.sort_by_key(|one| (std::cmp::Reverse(one.percent), one.tid));
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

    #[test]
    fn the_busiest_thread_comes_first() {
        let mut looks = Looks::default();
        for (tid, ticks) in [(1, 40), (2, 101), (3, 5)] {
            looks.note(1, (1, tid), (&stat("t", 1000, 7), b"running\n"), SECOND);
            looks.note(2, (1, tid), (&stat("t", 1000 + ticks - 2, 9), b"running\n"), 2 * SECOND);
        }
        let busy: Vec<_> = looks.busy(40, 100).iter().map(|one| (one.tid, one.percent)).collect();
        assert_eq!(busy, [(2, 100), (1, 40)]);
    }

    #[test]
    fn stuck_is_who_waits_for_one_lock_twice() {
        let mut looks = Looks::default();
        for (tid, second) in [(1, WAITS), (2, ELSEWHERE), (3, b"running\n")] {
            looks.note(1, (1, tid), (&stat("t", 0, 0), WAITS), SECOND);
            looks.note(2, (1, tid), (&stat("t", 0, 0), second), 2 * SECOND);
        }
        looks.note(1, (1, 4), (&stat("seen once", 0, 0), WAITS), SECOND);
        assert_eq!(looks.stuck(), [Stuck { pid: 1, tid: 1, lock: 0x7f10 }]);
    }
}
