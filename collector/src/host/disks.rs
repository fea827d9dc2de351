//! How busy block devices were between two samples of `/proc/diskstats`.

/// One device's share of the time with work in flight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Busy {
    /// Its name, for instance `sda`.
    pub(crate) device: String,
    /// In percent of the time between the samples, at most 100.
    pub(crate) percent: u32,
    /// Reads and writes that ended in between.
    pub(crate) operations: u64,
    /// Bytes that were read and written in between.
    pub(crate) bytes: [u64; 2],
}

/// Counters of one line, as the kernel's `Documentation/admin-guide/iostats.rst` numbers them.
struct Line<'a> {
    device: &'a str,
    reads: u64,
    sectors_read: u64,
    writes: u64,
    sectors_written: u64,
    /// Milliseconds with work in flight.
    busy_ms: u64,
}

fn lines(text: &str) -> impl Iterator<Item = Line<'_>> {
    text.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        // Two words for the device's number and one for its name come before field 1.
        let field = |number: usize| words.get(number.checked_add(2)?)?.parse::<u64>().ok();
        Some(Line {
            device: words.get(2)?,
            reads: field(1)?,
            sectors_read: field(3)?,
            writes: field(5)?,
            sectors_written: field(7)?,
            busy_ms: field(10)?,
        })
    })
}

/// The devices that are in both samples and did anything, the busiest first. `elapsed_ms` is the
/// time between the samples; counters that wrapped or began anew count as nothing.
pub(crate) fn busy(first: &str, second: &str, elapsed_ms: u64) -> Vec<Busy> {
    let before: Vec<Line<'_>> = lines(first).collect();
    let mut found: Vec<Busy> = lines(second)
        .filter_map(|now| {
            let then = before.iter().find(|line| line.device == now.device)?;
            let busy_ms = now.busy_ms.checked_sub(then.busy_ms)?;
            let percent = busy_ms.saturating_mul(100).checked_div(elapsed_ms)?.min(100);
            let operations = now
                .reads
                .saturating_sub(then.reads)
                .saturating_add(now.writes.saturating_sub(then.writes));
            let bytes = |now: u64, then: u64| now.saturating_sub(then).saturating_mul(512);
            Some(Busy {
                device: now.device.to_owned(),
                percent: u32::try_from(percent).ok()?,
                operations,
                bytes: [
                    bytes(now.sectors_read, then.sectors_read),
                    bytes(now.sectors_written, then.sectors_written),
                ],
            })
        })
        .filter(|busy| busy.percent > 0 || busy.operations > 0)
        .collect();
    found.sort_by(|one, other| other.percent.cmp(&one.percent).then(one.device.cmp(&other.device)));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &str = "   8       0 sda 100 0 800 50 200 0 1600 90 0 5000 140 0 0 0 0\n   \
        8      16 sdb 1 0 8 1 0 0 0 0 0 10 1\n  7 0 loop0 0 0 0 0 0 0 0 0 0 0 0\n";
    const SECOND: &str = "   8       0 sda 110 0 880 55 260 0 3648 99 3 5990 180 0 0 0 0\n   \
        8      16 sdb 1 0 8 1 0 0 0 0 0 10 1\n  7 0 loop0 0 0 0 0 0 0 0 0 0 0 0\n\
        8 32 sdc 1 1 1 1 1 1 1 1 1 1 1\n";

    #[test]
    fn the_share_of_the_time_with_work_is_computed() {
        let sda =
            Busy { device: "sda".into(), percent: 99, operations: 70, bytes: [40_960, 1_048_576] };
        assert_eq!(busy(FIRST, SECOND, 1000), [sda]);
    }

    #[test]
    fn wrapped_counters_no_time_and_other_texts_give_nothing() {
        assert_eq!(busy(SECOND, FIRST, 1000), []);
        assert_eq!(busy(FIRST, SECOND, 0), []);
        assert_eq!(busy("sda", "8 0 sda x y z", 1000), []);
    }
}
