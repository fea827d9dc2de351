//! How much memory and disk the collector may take on a host that is in trouble already.

use std::fs;
use std::io;
use std::os::fd::AsFd;
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

/// Room on a file system, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// For us.
    pub free: u64,
    /// Its size.
    pub total: u64,
}

impl Space {
    /// What is left free unless the operator says otherwise: a twentieth, at most 512 MiB. More would
    /// refuse a small bundle where there is room for it.
    pub fn margin(self) -> u64 {
        (self.total / 20).min(512 * MIB)
    }
}

/// Room on the file system of an open file or folder.
///
/// # Errors
/// The system's words.
pub fn space(file: impl AsFd) -> io::Result<Space> {
    let found = nix::sys::statvfs::fstatvfs(file)?;
    let unit = found.fragment_size();
    Ok(Space {
        free: found.blocks_available().saturating_mul(unit),
        total: found.blocks().saturating_mul(unit),
    })
}

/// What the disk has for us, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disk {
    /// For the bundle and the spool file together.
    pub usable: u64,
    /// To be left free; not part of `usable`.
    pub kept: u64,
    /// There can be a spool file.
    pub spool: bool,
}

/// There is not enough room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoRoom {
    /// The disk is too full.
    #[error(
        "not enough room: the bundle needs about {}{}, the disk has {}{}; give another place with \
         -o, or go on with --force",
        crate::number::human(*.bundle),
        if *.spool > 0 {
            format!(" and a spool file {} (memory allows {})",
                crate::number::human(*.spool), crate::number::human(*.memory))
        } else {
            String::new()
        },
        crate::number::human(*.disk),
        if *.kept > 0 {
            format!(" besides the {} that stay free (--keep-free)", crate::number::human(*.kept))
        } else {
            String::new()
        }
    )]
    Disk {
        /// Bytes for the bundle.
        bundle: u64,
        /// Bytes for the spool file.
        spool: u64,
        /// Bytes that memory may hold.
        memory: u64,
        /// Bytes that the disk has for us.
        disk: u64,
        /// Bytes that stay free.
        kept: u64,
    },
    /// Memory is too small, and there is no spool file.
    #[error(
        "not enough memory: {} are to be copied, memory allows {}, and there is no spool file for \
         standard output; give a file with -o, more with --memory, or go on with --force and what \
         fits",
        crate::number::human(*.wanted),
        crate::number::human(*.memory)
    )]
    Memory {
        /// Bytes to copy.
        wanted: u64,
        /// Bytes that memory may hold.
        memory: u64,
    },
}

/// Divides the need between memory and disk.
///
/// # Errors
/// [`NoRoom`], unless `force`: then as much as there is room for.
pub fn plan(need: Need, memory: u64, disk: Disk, force: bool) -> Result<Room, NoRoom> {
    // The group goes on allocating until it stands still.
    let wanted = if need.memory == 0 { 0 } else { need.memory + need.memory / 10 + 4 * MIB };
    let in_memory = wanted.min(memory);
    let spool = wanted - in_memory;
    if !disk.spool {
        if spool > 0 && !force {
            return Err(NoRoom::Memory { wanted, memory });
        }
        return Ok(Room { memory: in_memory, spool: 0 });
    }
    let bundle = need.bundle();
    let room = Room { memory: in_memory, spool: disk.usable.saturating_sub(bundle) };
    if !force && bundle.saturating_add(spool) > disk.usable {
        let Disk { usable, kept, .. } = disk;
        return Err(NoRoom::Disk { bundle, spool, memory, disk: usable, kept });
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

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(usable: u64) -> Disk {
        Disk { usable, kept: 0, spool: true }
    }

    #[test]
    fn memory_is_used_before_the_disk() {
        let need = Need { memory: 100 * MIB, modules: 10 * MIB };
        assert_eq!(need.bundle(), 100 * MIB / 3 + 5 * MIB + 16 * MIB);
        let room = plan(need, 1 << 40, disk(1 << 40), false).unwrap();
        let spool = (1 << 40) - need.bundle();
        assert_eq!(room, Room { memory: 114 * MIB, spool });
        let room = plan(need, 50 * MIB, disk(1 << 40), false).unwrap();
        assert_eq!(room, Room { memory: 50 * MIB, spool });
    }

    #[test]
    fn a_full_disk_is_refused_in_words_or_forced() {
        let need = Need { memory: 300 * MIB, modules: 0 };
        let kept = Disk { kept: 512 * MIB, ..disk(120 * MIB) };
        let error = plan(need, 100 * MIB, kept, false).unwrap_err();
        assert_eq!(
            error.to_string(),
            "not enough room: the bundle needs about 116.0 MiB and a spool file 234.0 MiB (memory \
             allows 100.0 MiB), the disk has 120.0 MiB besides the 512.0 MiB that stay free \
             (--keep-free); give another place with -o, or go on with --force"
        );
        let room = plan(need, 100 * MIB, disk(120 * MIB), true).unwrap();
        assert_eq!(room, Room { memory: 100 * MIB, spool: 4 * MIB });
    }

    #[test]
    fn without_a_spool_file_memory_must_do() {
        let none = Disk { usable: 0, kept: 0, spool: false };
        let need = Need { memory: 300 * MIB, modules: 0 };
        assert_eq!(plan(need, 400 * MIB, none, false), Ok(Room { memory: 334 * MIB, spool: 0 }));
        let error = plan(need, 100 * MIB, none, false).unwrap_err();
        assert_eq!(
            error.to_string(),
            "not enough memory: 334.0 MiB are to be copied, memory allows 100.0 MiB, and there is \
             no spool file for standard output; give a file with -o, more with --memory, or go on \
             with --force and what fits"
        );
        assert_eq!(plan(need, 100 * MIB, none, true), Ok(Room { memory: 100 * MIB, spool: 0 }));
    }

    #[test]
    fn the_margin_suits_small_and_large_disks() {
        let margin = |total| Space { free: 0, total }.margin();
        assert_eq!(margin(1000 * MIB), 50 * MIB);
        assert_eq!(margin(10_240 * MIB), 512 * MIB);
        assert_eq!(margin(4_000_000 * MIB), 512 * MIB);
        assert_eq!(margin(0), 0);
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
