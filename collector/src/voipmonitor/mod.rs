//! A running VoIPmonitor sniffer: how it is configured, and how it is asked.
//!
//! Its manager answers one command a connection, with no length and no end mark, and guesses at
//! words that it does not know. So only what [`allowed`] lists can be sent. [`config`] reads its
//! configuration, [`listeners`] tells who really listens on its port, [`transport`] chooses the way,
//! [`manager`] sends one command and reads the answer, over [`aes`] where it wants that.
//! [`threads`] reads who does what; [`spool`] looks at the folder that it writes to, [`write_test`] measures it.
//!
//! Facts are those of release 2026.04, measured, and of its public source.

pub mod aes;
pub mod allowed;
pub mod config;
pub mod listeners;
pub mod manager;
pub mod spool;
pub mod threads;
pub mod transport;
pub mod write_test;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use crate::files::Root;
use config::CommandLine;

/// How process `pid` was called; nothing is known of one that has ended.
pub fn command_line(pid: u32) -> CommandLine {
    let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let folder = fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
    CommandLine::parse(&words, folder)
}

/// Whether a program is in one of the folders where programs are.
pub fn installed(files: &Root, program: &str) -> bool {
    let folders = ["/usr/bin", "/usr/local/bin", "/bin", "/usr/sbin", "/usr/local/sbin", "/sbin"];
    folders.iter().any(|folder| files.metadata(format!("{folder}/{program}")).is_ok())
}

/// Where process `pid` puts temporary files: what its `TMPDIR` says, else `/tmp`. Nothing else of its
/// environment is looked at.
pub fn temporary_folder(pid: u32) -> PathBuf {
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let mut variables = environment.split(|byte| *byte == 0);
    let folder = variables.find_map(|one| one.strip_prefix(b"TMPDIR="));
    let folder = folder.map(|folder| PathBuf::from(OsStr::from_bytes(folder)));
    folder.filter(|folder| folder.is_absolute()).unwrap_or_else(|| "/tmp".into())
}
