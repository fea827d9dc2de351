//! `manifest.json`: the last member of a bundle; what is in it and what is not.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::SeriesRecord;

/// What the bundle holds, how each part was obtained, and what was left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The bundle format, [`crate::FORMAT_VERSION`].
    pub format: u32,
    /// When the bundle was sealed, RFC 3339 with offset and zone name.
    pub finished: String,
    /// Every member before this one, in the order of the file.
    pub members: Vec<MemberRecord>,
    /// Every source that was asked, in the order of time.
    pub sources: Vec<SourceRecord>,
    /// The process group, by PID.
    pub processes: Vec<ProcessRecord>,
    /// Shared mappings, each stored once for the whole group.
    pub shared: Vec<SharedRecord>,
    /// What is not in the bundle and why.
    pub gaps: Vec<GapRecord>,
    /// Its place in a series (`--samples`); absent for a bundle by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub series: Option<SeriesRecord>,
}

/// One member of the archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberRecord {
    /// Path in the archive.
    pub path: String,
    /// Length in bytes, uncompressed.
    pub size: u64,
    /// SHA-256 of the content, lower-case hex.
    pub sha256: String,
    /// The source that wrote it, [`SourceRecord::name`].
    pub source: String,
    /// Path of the file on the host that it was copied from; absent for what has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
}

/// When a source is asked, relative to the freeze.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Before the group is frozen.
    BeforeFreeze,
    /// While it is frozen: registers and memory only.
    Frozen,
    /// After it runs again.
    AfterThaw,
}

/// How a source ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "outcome")]
pub enum Outcome {
    /// All that it has is in the bundle.
    Collected,
    /// It does not apply here, or was not wanted.
    Skipped {
        /// The reason, for a person.
        why: String,
    },
    /// It failed; what it had written until then is kept.
    Failed {
        /// The error and its causes, for a person.
        error: String,
    },
    /// It was given up; what it had written until then is kept.
    TimedOut {
        /// The deadline that passed, in milliseconds.
        after_ms: u64,
    },
}

/// One source of evidence, as it ran.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SourceRecord {
    /// Stable name, for instance `memory` or `proc-first-sample`.
    pub name: String,
    /// When it ran.
    pub phase: Phase,
    /// When it was asked, RFC 3339 with offset and zone name.
    pub started: String,
    /// How long it took, in microseconds.
    pub micros: u64,
    /// How it ended.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// One process of the group.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ProcessRecord {
    /// PID as the collector's namespace counts it.
    pub pid: u32,
    /// PID as the process itself knows it: the innermost of `NSpid` in `/proc/PID/status`.
    pub inner_pid: u32,
    /// Its parent.
    pub parent: u32,
    /// `/proc/PID/exe` as the kernel names it; ends in ` (deleted)` for a replaced binary.
    pub executable: String,
    /// Why it belongs to the group, for a person.
    pub belongs_because: String,
    /// When its threads were stopped, RFC 3339 with offset and zone name; absent if none was.
    pub frozen_at: Option<String>,
    /// When its core was written, RFC 3339; only where it was gone before we came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dumped_at: Option<String>,
    /// How long its threads stood still, first stop to last release, in microseconds.
    pub pause_micros: Option<u64>,
    /// It was in state T (stopped) before we came, and was left so.
    pub was_stopped: bool,
    /// Threads in the core.
    pub threads: u32,
    /// Threads that were read without being stopped.
    pub unstopped: Vec<UnstoppedThread>,
    /// Bytes of its address space by what became of them: `data`, `shared`, `zero`, `file`,
    /// `not saved`.
    pub bytes: BTreeMap<String, u64>,
    /// Bytes that were in swap and had to be read from there (part of `data`).
    pub swapped_bytes: u64,
}

/// A thread whose registers were not read in a stop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnstoppedThread {
    /// Its thread ID.
    pub tid: u32,
    /// Why, for a person: uninterruptible sleep, held by tracer 123.
    pub why: String,
}

/// One shared mapping.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedRecord {
    /// Its member, `shared/DEV-INODE`.
    pub member: String,
    /// The kernel's name for it, for instance `/dev/zero (deleted)`.
    pub name: String,
    /// Bytes that the mapping spans.
    pub mapped_bytes: u64,
    /// Bytes of pages that existed and were saved.
    pub saved_bytes: u64,
    /// How the existing pages were found, for a person: `SEEK_DATA`, or `union of pagemaps`
    /// (which may miss pages).
    pub found_by: String,
}

/// Something that is not in the bundle, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GapRecord {
    /// What is missing, for a person.
    pub what: String,
    /// Why, and what would give it.
    pub why: String,
    /// It was left out on purpose, or is never saved by its nature; the bundle is complete without.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub expected: bool,
}

/// One masked secret: never its text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redaction {
    /// The rule that matched.
    pub rule: String,
    /// The member it was in.
    pub member: String,
    /// Byte offset of the first match in the member as it is in the bundle.
    pub offset: u64,
    /// How often the rule matched in this member.
    pub count: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_is_flat_and_named_in_json() {
        let record = SourceRecord {
            name: "memory".into(),
            phase: Phase::Frozen,
            started: "2026-01-02T03:04:05+00:00[UTC]".into(),
            micros: 7,
            outcome: Outcome::TimedOut { after_ms: 60_000 },
        };
        let text = serde_json::to_string(&record).unwrap();
        assert_eq!(
            text,
            r#"{"name":"memory","phase":"frozen","started":"2026-01-02T03:04:05+00:00[UTC]","micros":7,"outcome":"timed-out","after_ms":60000}"#
        );
        assert_eq!(serde_json::from_str::<SourceRecord>(&text).unwrap(), record);
    }
}
