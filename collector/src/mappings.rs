//! `/proc/PID/maps`, and what kind each mapping is.
//!
//! The kind decides what an absent page means: zero in anonymous memory, the file's byte in a
//! private file mapping, unknown in a device.

use crate::spans::Span;

/// One line of `/proc/PID/maps`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Its addresses.
    pub span: Span,
    /// `PF_R`, `PF_W`, `PF_X` of an ELF segment.
    pub flags: u32,
    /// `MAP_SHARED`.
    pub shared: bool,
    /// Offset in the file, in bytes.
    pub offset: u64,
    /// Device, as the kernel writes it (`fe:00`).
    pub device: String,
    /// Inode; 0 for anonymous memory.
    pub inode: u64,
    /// Path or name; may end in ` (deleted)`.
    pub name: String,
}

/// What a mapping is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Private memory without a file: pages that do not exist are zero.
    PrivateAnonymous,
    /// Private mapping of a file: pages that nobody wrote are the file's.
    PrivateFile,
    /// Shared memory: stored once for the group.
    Pool,
    /// A read-only shared mapping of a file.
    SharedFile,
    /// The kernel's code in every process; saved whole.
    Vdso,
    /// Pages that belong to the kernel and mean nothing elsewhere.
    KernelPage,
    /// A packet ring of a socket.
    Ring,
    /// A device.
    Device,
}

/// A mapping's file, the same in every process that maps it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileKey {
    /// Device, as the kernel writes it in `maps`.
    pub device: String,
    /// Inode.
    pub inode: u64,
}

impl Mapping {
    /// Parses one line; `None` for what is not one.
    pub fn parse(line: &str) -> Option<Self> {
        // The name is the rest of the line and may hold spaces; columns before it do not.
        let (addresses, rest) = line.split_once(' ')?;
        let (permissions, rest) = rest.split_once(' ')?;
        let (offset, rest) = rest.split_once(' ')?;
        let (device, rest) = rest.split_once(' ')?;
        let (inode, name) = rest.split_once(' ').unwrap_or((rest, ""));
        let (start, end) = addresses.split_once('-')?;
        let hex = |text: &str| u64::from_str_radix(text, 16).ok();
        let mut flags = 0;
        for (letter, flag) in [('r', 4), ('w', 2), ('x', 1)] {
            flags |= if permissions.contains(letter) { flag } else { 0 };
        }
        Some(Self {
            span: Span::new(hex(start)?, hex(end)?),
            flags,
            shared: permissions.contains('s'),
            offset: hex(offset)?,
            device: device.to_owned(),
            inode: inode.trim().parse().ok()?,
            name: name.trim_start().to_owned(),
        })
    }

    /// Parses a whole `maps` file.
    pub fn parse_all(text: &str) -> Vec<Self> {
        text.lines().filter_map(Self::parse).collect()
    }

    /// Its file.
    pub fn file(&self) -> FileKey {
        FileKey { device: self.device.clone(), inode: self.inode }
    }

    /// The path without the kernel's ` (deleted)`.
    pub fn path(&self) -> &str {
        self.name.strip_suffix(" (deleted)").unwrap_or(&self.name)
    }

    /// Its name under `/proc/PID/map_files`.
    pub fn map_files_name(&self) -> String {
        format!("{:x}-{:x}", self.span.start, self.span.end)
    }

    /// Memory that has no name in any file system: `mmap(MAP_SHARED | MAP_ANONYMOUS)`, SysV
    /// segments, memfd.
    pub fn is_nameless_memory(&self) -> bool {
        const STARTS: [&str; 4] = ["/dev/zero", "/SYSV", "/memfd:", "/anon_hugepage"];
        // A SysV segment's inode is its ID, and the first one's is 0.
        (self.inode != 0 || self.name.starts_with("/SYSV"))
            && STARTS.iter().any(|start| self.name.starts_with(start))
    }

    /// Whether it may tell two instances of one program apart: writable shared memory that no other
    /// instance can have opened by a name.
    pub fn is_pool(&self) -> bool {
        self.shared && self.flags & 2 != 0 && self.is_nameless_memory()
    }

    /// Its kind, by its name; `on_tmpfs` where the file system was asked.
    pub fn kind(&self, on_tmpfs: bool) -> Kind {
        match self.name.as_str() {
            "[vdso]" => return Kind::Vdso,
            "[uprobes]" | "[vectors]" => return Kind::KernelPage,
            name if name.starts_with("[vvar") || name.starts_with("[vsyscall") => {
                return Kind::KernelPage;
            }
            name if name.starts_with("socket:[") => return Kind::Ring,
            name if name.starts_with("anon_inode:") => return Kind::Device,
            _ => {}
        }
        if self.inode == 0 && !self.shared {
            return Kind::PrivateAnonymous;
        }
        if self.is_nameless_memory() {
            let anonymous = ["/dev/zero", "/anon_hugepage"];
            if self.shared {
                return Kind::Pool;
            } else if anonymous.iter().any(|start| self.name.starts_with(start)) {
                return Kind::PrivateAnonymous;
            }
            return Kind::PrivateFile;
        }
        let memory_folders = ["/dev/shm/", "/dev/hugepages/", "/dev/mqueue/"];
        let in_memory = on_tmpfs || memory_folders.iter().any(|start| self.name.starts_with(start));
        if !in_memory && self.name.starts_with("/dev/") {
            return Kind::Device;
        }
        match (self.shared, self.flags & 2 != 0 || in_memory) {
            (true, true) => Kind::Pool,
            (true, false) => Kind::SharedFile,
            (false, _) => Kind::PrivateFile,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(line: &str) -> Kind {
        Mapping::parse(line).unwrap().kind(false)
    }

    #[test]
    fn a_line_is_parsed_with_spaces_in_its_name() {
        let line = "7f0e4ddd5000-7f0e51dd5000 rw-s 00002000 00:01 1029                       /dev/zero (deleted)";
        assert_eq!(
            Mapping::parse(line).unwrap(),
            Mapping {
                span: Span::new(0x7f0e_4ddd_5000, 0x7f0e_51dd_5000),
                flags: 6,
                shared: true,
                offset: 0x2000,
                device: "00:01".into(),
                inode: 1029,
                name: "/dev/zero (deleted)".into(),
            }
        );
        assert_eq!(Mapping::parse("VmFlags: rd wr"), None);
        let bare = Mapping::parse("1000-2000 ---p 00000000 00:00 0").unwrap();
        assert_eq!((bare.name.as_str(), bare.flags), ("", 0));
        let high = "ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0  [vsyscall]";
        assert_eq!(Mapping::parse(high).unwrap().span.end, 0xffff_ffff_ff60_1000);
    }

    #[test]
    fn kinds_by_name() {
        assert_eq!(kind("1000-2000 rw-p 00000000 00:00 0 [heap]"), Kind::PrivateAnonymous);
        assert_eq!(kind("1000-2000 rw-p 00000000 00:00 0"), Kind::PrivateAnonymous);
        assert_eq!(kind("1000-2000 rw-p 00000000 fe:00 7 /usr/sbin/kamailio"), Kind::PrivateFile);
        assert_eq!(kind("1000-2000 rw-s 00000000 00:01 7 /dev/zero (deleted)"), Kind::Pool);
        assert_eq!(kind("1000-2000 rw-p 00000000 00:06 5 /dev/zero"), Kind::PrivateAnonymous);
        assert_eq!(kind("1000-2000 r--s 00000000 fe:00 7 /usr/lib/gconv.cache"), Kind::SharedFile);
        assert_eq!(kind("1000-2000 rw-s 00000000 fe:00 7 /var/lib/x.db"), Kind::Pool);
        assert_eq!(kind("1000-2000 rw-s 00000000 00:09 7 socket:[7]"), Kind::Ring);
        assert_eq!(kind("1000-2000 rw-s 00000000 00:06 7 /dev/dri/card0"), Kind::Device);
        assert_eq!(kind("1000-2000 r--p 00000000 00:00 0 [vvar_vclock]"), Kind::KernelPage);
        assert_eq!(kind("1000-2000 r-xp 00000000 00:00 0 [vdso]"), Kind::Vdso);
        assert_eq!(kind("1000-2000 r--s 00000000 00:1a 7 /dev/shm/table"), Kind::Pool);
    }
}
