//! What the host's texts mean: parsers apart from reading. Each takes a text of the kernel, of
//! systemd or of a package manager and gives facts; a text that is something else gives none.

pub(crate) mod core_pattern;
pub(crate) mod database;
pub(crate) mod disks;
pub(crate) mod kernel_log;
pub(crate) mod packages;
pub(crate) mod unit;
