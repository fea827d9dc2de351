//! Cores as the kernel writes them.

use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;

use crate::proc;

/// Lets a stopped process die of SIGABRT, and moves the core that the kernel writes to `to`. Of its
/// own program it runs nothing before that.
///
/// The working directory of the process is `directory`, and its limit lets it write a core.
#[track_caller]
pub fn dump(pid: u32, directory: &Path, to: &Path) {
    let written = written(pid, directory);
    proc::signal(pid, Signal::SIGABRT); // waits until the process runs on
    proc::signal(pid, Signal::SIGCONT);
    proc::until("the kernel has written the core", || !proc::is_alive(pid));
    take(&written, to);
}

/// Moves the core of a process that has died by itself to `to`; its working directory was
/// `directory`.
#[track_caller]
pub fn take_core(pid: u32, directory: &Path, to: &Path) {
    take(&written(pid, directory), to);
}

/// Where the kernel writes the core of a process whose working directory is `directory`.
#[track_caller]
pub fn written(pid: u32, directory: &Path) -> PathBuf {
    let setting = |name: &str| fs::read_to_string(format!("/proc/sys/kernel/{name}")).unwrap();
    let pattern = setting("core_pattern").trim().to_owned();
    let with_pid = setting("core_uses_pid").trim() != "0";
    assert!(
        !pattern.is_empty() && !pattern.contains(['|', '/', '%', '@']),
        "this test needs kernel cores in the working directory: \
         `sysctl kernel.core_pattern=core` (it is `{pattern}`)"
    );
    directory.join(if with_pid { format!("{pattern}.{pid}") } else { pattern })
}

#[track_caller]
fn take(written: &Path, to: &Path) {
    fs::copy(written, to).unwrap_or_else(|error| panic!("{}: {error}", written.display()));
    fs::remove_file(written).unwrap();
}
