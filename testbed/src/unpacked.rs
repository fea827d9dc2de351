//! A bundle opened with `tar` and read as plain files: no code of ours but the format's own types.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use bundle::notes::{OWNER, RANGES, Ranges};
use bundle::{Manifest, member};
use tempfile::TempDir;

use crate::elf::Core;
use crate::tools::run;

/// An unpacked bundle; its files go with its value.
#[derive(Debug)]
pub struct Unpacked {
    directory: TempDir,
}

impl Unpacked {
    /// Unpacks `bundle` with plain `tar`.
    #[track_caller]
    pub fn open(bundle: &Path) -> Self {
        let directory = TempDir::new().unwrap();
        let mut command = Command::new("tar");
        command.args(["--zstd", "-xf"]).arg(bundle).arg("-C").arg(directory.path());
        run(&mut command, Duration::from_secs(60)).expect(&[0]);
        Self { directory }
    }

    /// Where a member was unpacked to.
    pub fn path(&self, member: &str) -> PathBuf {
        self.directory.path().join(member)
    }

    /// `manifest.json`
    #[track_caller]
    pub fn manifest(&self) -> Manifest {
        let text = std::fs::read(self.path(member::MANIFEST)).expect("a sealed bundle");
        serde_json::from_slice(&text).expect("the manifest of the format")
    }

    /// The PIDs in the manifest, by rising number.
    #[track_caller]
    pub fn pids(&self) -> Vec<u32> {
        let mut pids: Vec<u32> =
            self.manifest().processes.iter().map(|process| process.pid).collect();
        pids.sort_unstable();
        pids
    }

    /// What became of each range of a process's memory.
    #[track_caller]
    pub fn ranges(&self, pid: u32) -> Ranges {
        let core = Core::open(&self.path(&member::core(pid)));
        let note = core.notes().iter().find(|note| note.owner == OWNER && note.kind == RANGES);
        Ranges::decode(&note.expect("the note about ranges").content).expect("a readable note")
    }
}
