//! What stays the same for each process.
//!
//! Members: `processes/PID/NAME` with NAME one of `maps` (as the freeze saw it), `cmdline`,
//! `limits`, `cgroup`, `mountinfo`, `smaps_rollup`, `oom_score`, `coredump_filter`, `uid_map`, and
//! `links`: where `exe`, `cwd`, `root` and the namespaces lead, one a line.

use std::fmt::Write as _;
use std::fs;

use bundle::{Phase, member};

use super::{Context, Drawer, Source};

const NAMES: [&str; 8] = [
    "limits",
    "cgroup",
    "mountinfo",
    "oom_score",
    "coredump_filter",
    "uid_map",
    // These take the lock of the address space and come last: they hang where it is held.
    "cmdline",
    "smaps_rollup",
];
const LINKS: [&str; 11] = [
    "exe",
    "cwd",
    "root",
    "ns/cgroup",
    "ns/ipc",
    "ns/mnt",
    "ns/net",
    "ns/pid",
    "ns/time",
    "ns/user",
    "ns/uts",
];

#[derive(Debug)]
pub(crate) struct ProcessFiles;

impl Source for ProcessFiles {
    fn name(&self) -> &'static str {
        "proc-files"
    }

    fn about(&self) -> &'static str {
        "mappings, limits, namespaces and control groups of each process"
    }

    fn phase(&self) -> Phase {
        Phase::AfterThaw
    }

    fn collect(&self, context: &Context, out: &Drawer) -> anyhow::Result<()> {
        for process in &context.target.processes {
            let (pid, id) = (process.pid, process.id);
            let mut links = String::new();
            for name in LINKS {
                match fs::read_link(format!("/proc/{id}/{name}")) {
                    Ok(path) => writeln!(links, "{name} -> {}", path.display())?,
                    Err(error) => out.failed(name, &error),
                }
            }
            out.put(member::process_file(pid, "links"), None, links.into_bytes());
            let maps = format!("/proc/{id}/maps");
            let to = member::process_file(pid, "maps");
            match context.surveys.get(&pid) {
                Some(survey) => out.put(to, Some(maps), survey.maps.clone()),
                None => out.copy(to, &maps),
            }
            for name in NAMES {
                out.copy(member::process_file(pid, name), &format!("/proc/{id}/{name}"));
            }
        }
        Ok(())
    }
}
