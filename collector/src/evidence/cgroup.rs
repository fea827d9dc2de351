//! The limits of the target's control groups, what is used of them, and how often they were met.
//!
//! Members: `system/cgroup/HIERARCHY/PATH/FILE` of the main process, HIERARCHY `unified` (v2) or the
//! controllers of one (v1); of the groups above it the files that hold limits.

use std::fs;

use bundle::{Phase, member};

use super::{Context, Drawer, Source};

const V2: [&str; 25] = [
    "memory.current",
    "memory.max",
    "memory.high",
    "memory.low",
    "memory.min",
    "memory.peak",
    "memory.swap.current",
    "memory.swap.max",
    "memory.events",
    "memory.events.local",
    "memory.stat",
    "memory.pressure",
    "memory.oom.group",
    "cpu.stat",
    "cpu.max",
    "cpu.weight",
    "cpu.pressure",
    "io.stat",
    "io.max",
    "io.pressure",
    "pids.current",
    "pids.max",
    "pids.events",
    "cpuset.cpus.effective",
    "cgroup.events",
];
const V1: [&str; 20] = [
    "memory.limit_in_bytes",
    "memory.usage_in_bytes",
    "memory.max_usage_in_bytes",
    "memory.soft_limit_in_bytes",
    "memory.failcnt",
    "memory.stat",
    "memory.oom_control",
    "memory.memsw.limit_in_bytes",
    "memory.memsw.usage_in_bytes",
    "memory.kmem.usage_in_bytes",
    "cpu.stat",
    "cpu.cfs_quota_us",
    "cpu.cfs_period_us",
    "cpu.shares",
    "cpuacct.usage",
    "blkio.throttle.io_service_bytes",
    "pids.current",
    "pids.max",
    "pids.events",
    "cpuset.effective_cpus",
];
/// Of groups above.
const LIMITS: [&str; 11] = [
    "memory.max",
    "memory.high",
    "memory.events",
    "memory.limit_in_bytes",
    "memory.failcnt",
    "cpu.max",
    "cpu.stat",
    "cpu.cfs_quota_us",
    "pids.max",
    "pids.current",
    "io.max",
];
/// Groups above that are looked at.
const DEPTH: usize = 32;

#[derive(Debug)]
pub(crate) struct ControlGroups;

impl Source for ControlGroups {
    fn name(&self) -> &'static str {
        "cgroup"
    }

    fn about(&self) -> &'static str {
        "limits of its control groups, and how often they were met"
    }

    fn phase(&self) -> Phase {
        Phase::AfterThaw
    }

    fn collect(&self, context: &Context, out: &Drawer) -> anyhow::Result<()> {
        let Some(text) = out.read(&format!("/proc/{}/cgroup", context.target.main)) else {
            return Ok(());
        };
        for group in groups(&String::from_utf8_lossy(&text)) {
            let folders = group.folders.iter().map(|folder| format!("/sys/fs/cgroup{folder}"));
            let Some(folder) =
                folders.into_iter().find(|folder| fs::exists(folder).unwrap_or(false))
            else {
                continue;
            };
            let all: &[&str] = if group.hierarchy == "unified" { &V2 } else { &V1 };
            let mut path = group.path.as_str();
            for depth in 0..DEPTH {
                for name in if depth == 0 { all } else { &LIMITS[..] } {
                    let inner = format!("{}/{name}", path.trim_end_matches('/'));
                    let to = format!("{}/cgroup/{}{inner}", member::SYSTEM, group.hierarchy);
                    out.copy(to, &format!("{folder}{inner}"));
                }
                match path.rsplit_once('/') {
                    Some((above, last)) if !last.is_empty() => path = above,
                    _ => break,
                }
            }
        }
        Ok(())
    }
}

/// One line of `/proc/PID/cgroup`.
#[derive(Debug, PartialEq, Eq)]
struct Group {
    /// As its members are named.
    hierarchy: String,
    /// Where it may be mounted, below `/sys/fs/cgroup`.
    folders: Vec<String>,
    /// From the mount's root, with `/` in front.
    path: String,
}

/// A group outside of our own control-group namespace has `..` in its path, and cannot be reached.
fn groups(text: &str) -> Vec<Group> {
    let mut found = Vec::new();
    for line in text.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        if !path.starts_with('/') || path.split('/').any(|part| part == "..") {
            continue;
        }
        let path = path.to_owned();
        let plain = |text: &str| {
            text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b",_-".contains(&byte))
        };
        if controllers.is_empty() {
            let folders = vec!["/unified".to_owned(), String::new()];
            found.push(Group { hierarchy: "unified".into(), folders, path });
        } else if plain(controllers) {
            let folders = vec![format!("/{controllers}")];
            found.push(Group { hierarchy: controllers.to_owned(), folders, path });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_are_found_and_paths_that_lead_out_are_not_followed() {
        let text =
            "4:memory:/a/b\n2:cpu,cpuacct:/\n1:name=systemd:/x\n3:pids:/../c\n0::/s/k.service\n";
        let found = groups(text);
        let names: Vec<(&str, &str)> =
            found.iter().map(|group| (&*group.hierarchy, &*group.path)).collect();
        assert_eq!(names, [("memory", "/a/b"), ("cpu,cpuacct", "/"), ("unified", "/s/k.service")]);
        assert_eq!(groups("x\n:\n::\n0::..\n"), []);
    }
}
