//! Takes the evidence of a hung process group before it is restarted: the command
//! `collect-evidence`.
//!
//! In the order in which a collection passes through them:
//! - [`cli`]: the command line. [`run`]: the order of a collection, of which `fill` is the middle; `series` makes several, when
//!   `schedule` says; `header` and `summary` are its first and its last words; `list` only says what it would do.
//! - [`group`]: which processes belong together. [`privilege`]: what this host lets us do.
//! - [`mappings`], `devices`, [`pages`], [`survey`], [`estimate`], [`pools`]: what is mapped, which pages of it exist, and
//!   what becomes of each range.
//! - [`part`]: how much of the memory is wanted; [`pools_only`]: what an earlier sample of a series
//!   leaves out; [`stacks_only`], `stacks_survey`: what stack traces need, and no more. `program`,
//!   `link_map`: what they read of a process for that.
//! - [`freeze`], [`registers`], [`live`]: all threads stand still, and are let go on every path.
//! - [`copy`]: existing pages to memory or to a `spool` file. [`capture`] leads the frozen part.
//! - [`corefile`], [`bundle_writer`]: an ELF core for each process, the archive. [`place`], `outlet`:
//!   where it goes. `limits`, `allowance`: how long it may take, and how large it may become.
//! - [`files`]: files as the target sees them. [`command`]: other programs, with a deadline and no
//!   shell. `kamailio`, [`voipmonitor`], `host`, `logs`: what is known of programs, of the system and
//!   of log files, apart from collecting it.
//! - [`evidence`]: one source for each kind of evidence; [`profile`]: which program is asked for
//!   which. [`board`]: what they note in passing, `watch` of threads; `verdict`: the first words on it.
//! - [`redact`]: secrets in texts and images; `teach`: what it learns beforehand. `pseudonyms`: names.
//! - [`post_mortem`]: the other way through all this, when the process is gone.
//!
//! A part that fails costs only itself and leaves a gap record in the manifest.

mod allowance;
pub mod arch;
pub mod board;
pub mod budget;
mod build_id;
pub mod bundle_writer;
pub mod capture;
pub mod cli;
pub mod command;
pub mod copy;
pub mod corefile;
mod defect;
mod devices;
pub mod estimate;
pub mod evidence;
pub mod files;
mod fill;
pub mod freeze;
pub mod group;
mod header;
mod host;
mod kamailio;
pub mod known;
mod limits;
mod link_map;
mod list;
pub mod live;
mod logs;
pub mod mappings;
mod number;
mod outlet;
pub mod pages;
mod parallel;
pub mod part;
pub mod place;
pub mod pools;
pub mod pools_only;
pub mod post_mortem;
pub mod privilege;
pub mod procfs;
pub mod profile;
mod program;
mod progress;
mod pseudonyms;
pub mod redact;
pub mod registers;
mod room;
pub mod run;
mod schedule;
mod series;
pub mod spans;
mod spool;
pub mod stacks_only;
mod stacks_survey;
mod summary;
pub mod survey;
mod sys;
mod sys_host;
pub mod target;
mod teach;
mod trace;
mod verdict;
pub mod voipmonitor;
mod watch;
