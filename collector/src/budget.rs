//! How much memory and disk the collector may take on a host that is in trouble already.

use std::fs;
use std::io;
use std::path::Path;

use crate::procfs::Fields;

const MIB: u64 = 1024 * 1024;

/// How the snapshot will be held until it is compressed, all in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// In memory.
    pub memory: u64,
    /// At most in a spool file, should memory not be enough in the end.
    pub spool: u64,
}

/// What the collection needs, in bytes, as far as it can be known beforehand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    /// Pages to copy.
    pub memory: u64,
    /// Files to copy.
    pub modules: u64,
}

impl Need {
    /// The bundle's size: memory compresses 4:1 and better, programs 3:1, and text is small.
    pub fn bundle(self) -> u64 {
        self.memory / 3 + self.modules / 2 + 16 * MIB
    }
}

/// The disk is too full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not enough room: the bundle needs about {}{}, the disk has {}; give another place with -o, or \
     go on with --force",
    crate::number::human(*.bundle),
    if *.spool > 0 {
        format!(" and a spool file {} (memory allows {})",
            crate::number::human(*.spool), crate::number::human(*.memory))
    } else {
        String::new()
    },
    crate::number::human(*.disk)
)]
pub struct NoRoom {
    /// Bytes for the bundle.
    pub bundle: u64,
    /// Bytes for the spool file.
    pub spool: u64,
    /// Bytes that memory may hold.
    pub memory: u64,
    /// Bytes that the disk has.
    pub disk: u64,
}

/// Divides the need between memory and disk.
///
/// # Errors
/// [`NoRoom`], unless `force`: then as much as there is room for.
pub fn plan(need: Need, memory: u64, disk: u64, force: bool) -> Result<Room, NoRoom> {
    // The group goes on allocating until it stands still.
    let wanted = if need.memory == 0 { 0 } else { need.memory + need.memory / 10 + 4 * MIB };
    let in_memory = wanted.min(memory);
    let spool = wanted - in_memory;
    let bundle = need.bundle();
    let room = Room { memory: in_memory, spool: disk.saturating_sub(bundle) };
    if !force && bundle.saturating_add(spool) > disk {
        return Err(NoRoom { bundle, spool, memory, disk });
    }
    Ok(room)
}

/// Bytes of memory that the collector may take: half of what is available to the host, and no more
/// than its control group has left.
pub fn memory() -> u64 {
    let meminfo = Fields::read(Path::new("/proc/meminfo")).unwrap_or_default();
    let available = meminfo.number("MemAvailable").or_else(|| meminfo.number("MemFree"));
    let half = available.unwrap_or(0).saturating_mul(1024) / 2;
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    match headroom(&groups, &|path| fs::read_to_string(path)) {
        // Leave an eighth: our own code and the page cache count too.
        Some(left) => half.min(left - left / 8),
        None => half,
    }
}

/// What the control groups of `/proc/self/cgroup` still allow, up to their root.
fn headroom(groups: &str, read: &dyn Fn(&str) -> io::Result<String>) -> Option<u64> {
    let mut least = None;
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let (folder, limit, usage) = if controllers.is_empty() {
            ("/sys/fs/cgroup", "memory.max", "memory.current")
        } else if controllers.split(',').any(|controller| controller == "memory") {
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes")
        } else {
            continue;
        };
        let number = |path: &str, file: &str| -> Option<u64> {
            read(&format!("{folder}{path}/{file}")).ok()?.trim().parse().ok()
        };
        let mut path = path.trim_end_matches('/');
        loop {
            // "max" does not parse: no limit here.
            if let (Some(limit), Some(usage)) = (number(path, limit), number(path, usage)) {
                let left = limit.saturating_sub(usage);
                least = Some(least.map_or(left, |least: u64| least.min(left)));
            }
            let Some((parent, _)) = path.rsplit_once('/') else { break };
            path = parent;
        }
    }
    least
}

/// Bytes that are free for us where a file is to be written.
///
/// # Errors
/// The folder does not exist.
pub fn disk(folder: &Path) -> io::Result<u64> {
    let found = nix::sys::statvfs::statvfs(folder)?;
    Ok(found.blocks_available().saturating_mul(found.fragment_size()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_used_before_the_disk() {
        let need = Need { memory: 100 * MIB, modules: 10 * MIB };
        assert_eq!(need.bundle(), 100 * MIB / 3 + 5 * MIB + 16 * MIB);
        let room = plan(need, 1 << 40, 1 << 40, false).unwrap();
        let disk = (1 << 40) - need.bundle();
        assert_eq!(room, Room { memory: 114 * MIB, spool: disk });
        let room = plan(need, 50 * MIB, 1 << 40, false).unwrap();
        assert_eq!(room, Room { memory: 50 * MIB, spool: disk });
    }

    #[test]
    fn a_full_disk_is_refused_in_words_or_forced() {
        let need = Need { memory: 300 * MIB, modules: 0 };
        let error = plan(need, 100 * MIB, 120 * MIB, false).unwrap_err();
        assert_eq!(
            error.to_string(),
            "not enough room: the bundle needs about 116.0 MiB and a spool file 234.0 MiB (memory \
             allows 100.0 MiB), the disk has 120.0 MiB; give another place with -o, or go on with \
             --force"
        );
        let room = plan(need, 100 * MIB, 120 * MIB, true).unwrap();
        assert_eq!(room, Room { memory: 100 * MIB, spool: 4 * MIB });
    }

    #[test]
    fn the_tightest_control_group_counts() {
        let read = |path: &str| match path {
            "/sys/fs/cgroup/memory.max" => Ok("max\n".to_owned()),
            "/sys/fs/cgroup/a/memory.max" => Ok("1000\n".to_owned()),
            "/sys/fs/cgroup/a/memory.current" => Ok("400\n".to_owned()),
            "/sys/fs/cgroup/a/b/memory.max" => Ok("800\n".to_owned()),
            "/sys/fs/cgroup/a/b/memory.current" => Ok("100\n".to_owned()),
            _ => Err(io::ErrorKind::NotFound.into()),
        };
        assert_eq!(headroom("0::/a/b\n", &read), Some(600));
        assert_eq!(headroom("3:cpu:/\n0::/\n", &read), None);
        let old = |path: &str| match path {
            "/sys/fs/cgroup/memory/x/memory.limit_in_bytes" => Ok("500".to_owned()),
            "/sys/fs/cgroup/memory/x/memory.usage_in_bytes" => Ok("100".to_owned()),
            _ => Err(io::ErrorKind::NotFound.into()),
        };
        assert_eq!(headroom("4:memory:/x\n", &old), Some(400));
    }
}
