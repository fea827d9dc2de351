//! When the samples of a series are due: at equal distances from the first freeze, so that nothing
//! adds up.
//!
//! A sample that takes longer than the interval is not made up for: the times that passed meanwhile
//! are left out and counted, and the next sample comes at the next time of the same grid.

use std::time::{Duration, Instant};

use crate::sys;

/// The times of a series.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    every: Duration,
    first: Instant,
    /// How many intervals after the first freeze the last sample was due.
    slot: u64,
}

/// When a sample is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Due {
    /// For its freeze.
    pub(crate) at: Instant,
    /// Times before it that had passed already.
    pub(crate) missed: u64,
}

impl Schedule {
    /// The first sample was frozen at `first`.
    pub(crate) fn new(every: Duration, first: Instant) -> Self {
        Self { every, first, slot: 0 }
    }

    /// The next time that has not passed at `now`.
    pub(crate) fn next(&mut self, now: Instant) -> Due {
        let passed = now.saturating_duration_since(self.first).as_nanos();
        let first_left = passed.checked_div(self.every.as_nanos()).unwrap_or(0).saturating_add(1);
        let wanted = self.slot.saturating_add(1);
        let slot = wanted.max(u64::try_from(first_left).unwrap_or(u64::MAX));
        self.slot = slot;
        let every = u64::try_from(self.every.as_nanos()).unwrap_or(u64::MAX);
        let distance = Duration::from_nanos(every.saturating_mul(slot));
        Due { at: self.first.checked_add(distance).unwrap_or(now), missed: slot - wanted }
    }
}

/// Sleeps until then; whether no interrupt came.
pub(crate) fn wait_until(then: Instant) -> bool {
    const STEP: Duration = Duration::from_millis(100);
    while !sys::interrupted() {
        match then.saturating_duration_since(Instant::now()) {
            Duration::ZERO => return true,
            left => std::thread::sleep(left.min(STEP)),
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn lateness_does_not_add_up() {
        let first = Instant::now();
        let mut schedule = Schedule::new(2 * SECOND, first);
        for number in 1..=1000_u32 {
            // Each freeze comes a third of a second after it was due.
            let due = schedule.next(first + 2 * SECOND * (number - 1) + SECOND / 3);
            assert_eq!(due, Due { at: first + 2 * SECOND * number, missed: 0 });
        }
    }

    #[test]
    fn times_that_a_long_sample_took_are_left_out_and_counted() {
        let first = Instant::now();
        let mut schedule = Schedule::new(2 * SECOND, first);
        let due = schedule.next(first + 5 * SECOND);
        assert_eq!(due, Due { at: first + 6 * SECOND, missed: 2 });
        let due = schedule.next(first + 7 * SECOND);
        assert_eq!(due, Due { at: first + 8 * SECOND, missed: 0 });
        // Just at the time it is too late to freeze at that time.
        let due = schedule.next(first + 10 * SECOND);
        assert_eq!(due, Due { at: first + 12 * SECOND, missed: 1 });
    }
}
