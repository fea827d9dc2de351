//! A keeper of cores may still be writing when the unit has failed: systemd-coredump packs a core
//! after the process is gone.

use std::fs;
use std::time::{Duration, Instant, SystemTime};

use crate::procfs;
use crate::progress::Progress;
use crate::sys;

/// So long a core is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(200);
/// The kernel's short names (15 bytes) of programs that take cores from it.
const KEEPERS: [&str; 3] = ["systemd-coredum", "apport", "abrt-hook-ccpp"];

/// Waits until no program that takes cores from the kernel runs, for a minute at most.
pub(super) fn for_keepers(progress: &Progress) {
    let end = Instant::now() + PATIENCE;
    let mut said = false;
    while let Some(pid) = running(SystemTime::now()) {
        if Instant::now() > end || sys::interrupted() {
            progress.line(format_args!("process {pid} still writes a core; not waited for longer"));
            return;
        }
        if !said {
            progress.line(format_args!("process {pid} is writing a core: waiting for it"));
            said = true;
        }
        std::thread::sleep(PAUSE);
    }
}

/// A keeper that has not run for long: one that hangs is not waited for by every collection.
fn running(now: SystemTime) -> Option<u32> {
    procfs::numbers_in("/proc").into_iter().find(|pid| {
        let folder = format!("/proc/{pid}");
        let name = fs::read_to_string(format!("{folder}/comm")).unwrap_or_default();
        let started = fs::metadata(folder).and_then(|found| found.modified());
        let young = started
            .is_ok_and(|started| now.duration_since(started).unwrap_or_default() < PATIENCE * 5);
        KEEPERS.contains(&name.trim()) && young
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_takes_cores_is_seen_while_it_runs() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("systemd-coredump");
        fs::copy("/usr/bin/sleep", &program).unwrap();
        let mut child = std::process::Command::new(&program).arg("60").spawn().unwrap();
        let end = Instant::now() + Duration::from_secs(10);
        let mut seen = None;
        while seen != Some(child.id()) && Instant::now() < end {
            seen = running(SystemTime::now());
        }
        let old = running(SystemTime::now() + PATIENCE * 6);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(seen, Some(child.id()));
        assert_eq!(old, None, "one that has run for long is not waited for");
        assert_eq!(running(SystemTime::now()), None);
    }
}
