//! A control group that lets an instance have no more memory, so that the kernel's OOM killer ends
//! one of its processes.

use std::fs;
use std::path::{Path, PathBuf};

use crate::proc;

/// What the group may charge, in bytes; less than the next few requests need.
const LIMIT: u64 = 128 << 10;

/// The file that lists a control group's processes, and takes new ones.
const MEMBERS: &str = "cgroup.procs";

/// A control group; with this value it ends, and its processes are without a limit again.
#[derive(Debug)]
pub struct MemoryLimit {
    parent: &'static Path,
    folder: PathBuf,
}

impl MemoryLimit {
    /// Moves these processes into a new control group with a limit that they soon reach. What they
    /// have stays charged where it was.
    #[track_caller]
    pub fn of(pids: &[u32]) -> Self {
        // The first version has a hierarchy for memory, the second one for everything.
        let old = Path::new("/sys/fs/cgroup/memory");
        let (parent, limit) = match old.is_dir() {
            true => (old, "memory.limit_in_bytes"),
            false => (Path::new("/sys/fs/cgroup"), "memory.max"),
        };
        let folder = parent.join(format!("testbed-{}", std::process::id()));
        fs::create_dir(&folder).expect("this test needs a control group of its own (root)");
        let group = Self { parent, folder };
        for pid in pids {
            fs::write(group.folder.join(MEMBERS), pid.to_string()).unwrap();
        }
        fs::write(group.folder.join(limit), LIMIT.to_string())
            .unwrap_or_else(|error| panic!("{limit}: {error}: is the memory controller on?"));
        group
    }
}

impl Drop for MemoryLimit {
    fn drop(&mut self) {
        let members = fs::read_to_string(self.folder.join(MEMBERS)).unwrap_or_default();
        for pid in members.lines() {
            let _ = fs::write(self.parent.join(MEMBERS), pid);
        }
        proc::until("the control group is empty", || fs::remove_dir(&self.folder).is_ok());
    }
}
