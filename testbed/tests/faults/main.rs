//! Targets, hosts and rights as they should not be: the collector ends in time, leaves no thread
//! stopped or traced, and either seals a bundle that is whole or refuses in words.
//!
//! [`attempt`] runs it and looks at what it leaves; then by what is wrong: [`restless`] targets that
//! change under it, [`held`] ones that do not stop, [`large`] ones, [`files`] that are no files,
//! [`rights`] that are missing, and a collection that is [`cut_short`].
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

mod attempt;
mod cut_short;
mod files;
mod held;
mod large;
mod restless;
mod rights;
