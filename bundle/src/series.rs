//! How much of a group's memory a bundle holds, and its place in a series: snapshots of one group
//! at equal distances.

use serde::{Deserialize, Serialize};

/// What of a group's memory a bundle was asked to hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Holds {
    /// All that a bundle by itself holds.
    #[default]
    Whole,
    /// The memory pools and what names their owners; other memory is marked as not saved.
    Pools,
    /// Registers and stacks; no heap and no shared memory but what `docs/bundle-format.md` names.
    Stacks,
}

impl Holds {
    /// Whether it is the whole memory.
    pub fn is_whole(&self) -> bool {
        *self == Self::Whole
    }
}

/// Which sample of which series a bundle is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Series {
    /// The same in every sample of a series, and on this host in no other series.
    pub id: String,
    /// Its number, from 1.
    pub number: u32,
    /// How many samples were asked for; fewer exist if the series ended early.
    pub of: u32,
    /// From one freeze to the next as it was asked for, in milliseconds.
    pub every_ms: u64,
    /// What this sample was asked to hold.
    #[serde(default)]
    pub holds: Holds,
}

/// The same in the manifest, with what only the freeze tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeriesRecord {
    /// Which sample it is.
    #[serde(flatten)]
    pub sample: Series,
    /// `CLOCK_MONOTONIC` right before the first thread was asked to stop, in nanoseconds;
    /// comparable within one boot. Absent if nothing was frozen.
    pub frozen_monotonic_ns: Option<u64>,
    /// Whole intervals since the sample before this one that passed without a sample, because that
    /// one took too long.
    #[serde(default)]
    pub missed_intervals: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_flat_in_json() {
        let record = SeriesRecord {
            sample: Series {
                id: "kamailio-20260102T030405Z-17".into(),
                number: 2,
                of: 3,
                every_ms: 60_000,
                holds: Holds::Pools,
            },
            frozen_monotonic_ns: Some(5),
            missed_intervals: 0,
        };
        let text = serde_json::to_string(&record).unwrap();
        assert_eq!(
            text,
            r#"{"id":"kamailio-20260102T030405Z-17","number":2,"of":3,"every_ms":60000,"holds":"pools","frozen_monotonic_ns":5,"missed_intervals":0}"#
        );
        assert_eq!(serde_json::from_str::<SeriesRecord>(&text).unwrap(), record);
    }
}
