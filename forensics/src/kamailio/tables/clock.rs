//! What time it was for a process when it was frozen.

use crate::addr::Addr;
use crate::memory::Memory as _;
use crate::process::Process;

/// Kamailio counts sixteen ticks a second (`TIMER_TICKS_HZ`).
pub(super) const TICKS_PER_SECOND: u32 = 16;

/// The two clocks by which Kamailio ends things.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clock {
    /// Seconds since 1970, as the snapshot recorded the freeze; `None` for a core alone.
    pub now: Option<i64>,
    /// Kamailio's own counter, which stands still with it; `None` where it cannot be found.
    pub ticks: Option<u32>,
}

impl Clock {
    /// Reads the counter of a process that was frozen at `now`.
    pub(super) fn of(process: &Process, now: Option<i64>) -> Self {
        Self { now, ticks: ticks(process) }
    }

    /// Seconds from a moment until now; `None` before it.
    pub(super) fn since(&self, moment: i64) -> Option<u64> {
        u64::try_from(self.now?.checked_sub(moment)?).ok()
    }

    /// Ticks from a moment until now; `None` before it. The counter starts anywhere and wraps.
    pub(super) fn ticks_since(&self, moment: u32) -> Option<u32> {
        elapsed(self.ticks?, moment, u32::MAX)
    }

    /// Seconds since a moment that is itself a counter divided down to seconds.
    pub(super) fn tick_seconds_since(&self, moment: u32) -> Option<u32> {
        elapsed(self.ticks? / TICKS_PER_SECOND, moment, u32::MAX / TICKS_PER_SECOND)
    }
}

/// From `moment` to `now` on a counter that wraps behind `highest`: what is more than half of its
/// range away lies ahead.
fn elapsed(now: u32, moment: u32, highest: u32) -> Option<u32> {
    let gone = now.wrapping_sub(moment) & highest;
    (gone <= highest / 2).then_some(gone)
}

/// The counter is static; the exported `get_ticks_raw` only reads it through a pointer. On x86-64
/// that is `mov rax, [rip + OFFSET]; mov eax, [rax]; ret`, and anything else is not understood.
fn ticks(process: &Process) -> Option<u32> {
    const LOAD: [u8; 3] = [0x48, 0x8b, 0x05];
    const REST: [u8; 3] = [0x8b, 0x00, 0xc3];
    const ENDBR: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];
    let (_, function) = process.modules.symbol("get_ticks_raw")?;
    let memory = &process.memory;
    let marked = memory.bytes(function, ENDBR.len()).is_ok_and(|bytes| *bytes == ENDBR);
    let start = if marked { function.checked_add(4)? } else { function };
    let code = memory.bytes(start, 10).ok()?;
    let (load, code) = code.split_first_chunk::<3>()?;
    let (offset, rest) = code.split_first_chunk::<4>()?;
    if *load != LOAD || rest != REST {
        return None;
    }
    let behind = start.checked_add(7)?;
    let place = behind.0.checked_add_signed(i64::from(i32::from_le_bytes(*offset)))?;
    let counter = memory.pointer(Addr(place)).ok()?;
    memory.int(counter).ok().map(i32::cast_unsigned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_that_wrapped_tells_before_from_after() {
        let clock = Clock { now: None, ticks: Some(32) };
        assert_eq!(clock.ticks_since(16), Some(16));
        assert_eq!(clock.ticks_since(u32::MAX), Some(33));
        assert_eq!(clock.ticks_since(33), None);
        assert_eq!(clock.tick_seconds_since(2), Some(0));
        assert_eq!(clock.tick_seconds_since((1 << 28) - 1), Some(3));
        assert_eq!(clock.tick_seconds_since(3), None);
    }

    #[test]
    fn without_a_clock_nothing_is_past() {
        assert_eq!(Clock::default().since(0), None);
        assert_eq!(Clock::default().ticks_since(0), None);
    }
}
