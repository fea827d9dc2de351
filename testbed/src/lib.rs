//! A bed for end-to-end tests: Debian's own Kamailio under real SIP load, and everything that
//! says independently what our programs must find in it.
//!
//! In the order of a test: [`kamailio`] starts an instance, perhaps of another release ([`foreign`]),
//! [`load`] sends it requests, [`rpc`] and [`memlog`] ask it for its own figures, [`tools`] runs
//! `collect-evidence` and `forensics`, [`unpacked`] and [`elf`] open what they wrote without their
//! help, [`gdb`], [`kernel`] and [`proc`] give a second opinion, [`memory_limit`] calls the OOM killer, [`analysis`] is what
//! `forensics --json` promises, [`oracle`] compares it with what the instance said and [`scripts`]
//! with a walk that gdb makes; [`stacks`] compares stacks with gdb's. [`sniffer`] stands in for a
//! VoIPmonitor sniffer. [`sample`] stands in for the
//! layouts that no package here has, [`program`] runs other small programs; [`patch`] damages a core where [`seed`] says.
//!
//! Nothing here returns an error: the harness panics, with the command and its output, at the
//! first surprise. A test never passes because something is missing.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test harness stops at the first surprise"
)]

pub mod analysis;
pub mod calls;
pub mod elf;
pub mod foreign;
pub mod gdb;
pub mod hang;
pub mod kamailio;
pub mod kernel;
pub mod load;
pub mod memlog;
pub mod memory_limit;
pub mod oracle;
pub mod patch;
pub mod plant;
pub mod proc;
pub mod program;
pub mod rpc;
pub mod sample;
pub mod scripts;
pub mod seed;
pub mod sniffer;
pub mod stacks;
pub mod tools;
pub mod unpacked;
