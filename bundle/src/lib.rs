//! The support bundle's format, version 1: what `collect-evidence` writes and `forensics` reads.
//!
//! Something belongs here only if both sides need it. Nothing here makes a system call: bytes come
//! from slices and go to `io::Write`. The format is drawn in `docs/bundle-format.md`.
//!
//! - [`member`]: the names of a bundle's members.
//! - [`Header`], [`Manifest`] and the records in them: the first and the last member, as JSON.
//! - [`Series`]: the place of a bundle in a series of samples.
//! - [`frames`]: the outer file, a zstd stream of independent frames with a seek table.
//! - [`encrypted`]: the age format around that file.
//! - [`corefile`]: an ELF core, planned first and written after.
//! - [`notes`]: the notes that say what a core cannot: [`notes::Ranges`] and [`notes::ThreadRecord`].

pub mod corefile;
pub mod encrypted;
pub mod frames;
mod header;
mod manifest;
pub mod member;
pub mod notes;
mod series;

pub use header::{Header, Mode};
pub use manifest::{
    GapRecord, Manifest, MemberRecord, Outcome, Phase, ProcessRecord, Redaction, SharedRecord,
    SourceRecord, UnstoppedThread,
};
pub use series::{Holds, Series, SeriesRecord};

/// The bundle format that this crate writes. A reader accepts it and every earlier one.
pub const FORMAT_VERSION: u32 = 1;

/// The page size of every architecture that the collector runs on, in bytes.
pub const PAGE_SIZE: u64 = 4096;
