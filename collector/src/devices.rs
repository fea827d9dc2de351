//! File systems in memory, by the device number that `maps` shows. From `mountinfo`, because asking
//! the file system itself hangs where a file server is dead.

use std::collections::BTreeSet;
use std::fs;

use crate::mappings::Mapping;

/// The file systems that lie in memory, as one process sees them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Devices {
    pub(crate) memory: BTreeSet<String>,
    pub(crate) huge: BTreeSet<String>,
}

impl Devices {
    /// Of a process, where a mapping of it asks for them.
    pub(crate) fn of(id: u32, mappings: &[Mapping]) -> Self {
        let named = |one: &Mapping| one.shared && one.inode != 0 && !one.is_nameless_memory();
        if mappings.iter().any(named) { Self::read(id) } else { Self::default() }
    }

    /// Whether a mapping's file lies in memory.
    pub(crate) fn are_memory(&self, mapping: &Mapping) -> bool {
        self.memory.contains(&mapping.device)
    }

    fn read(id: u32) -> Self {
        let text = fs::read(format!("/proc/{id}/mountinfo")).unwrap_or_default();
        Self::parse(&String::from_utf8_lossy(&text))
    }

    fn parse(mountinfo: &str) -> Self {
        let mut devices = Self::default();
        for line in mountinfo.lines() {
            let number = line.split(' ').nth(2).and_then(|number| number.split_once(':'));
            let kind = line.split_once(" - ").and_then(|(_, rest)| rest.split(' ').next());
            let Some((major, minor)) = number else { continue };
            let (Ok(major), Ok(minor)) = (major.parse::<u32>(), minor.parse::<u32>()) else {
                continue;
            };
            let device = format!("{major:02x}:{minor:02x}");
            match kind {
                Some("tmpfs" | "devtmpfs") => devices.memory.insert(device),
                Some("hugetlbfs") => {
                    devices.memory.insert(device.clone());
                    devices.huge.insert(device)
                }
                _ => false,
            };
        }
        devices
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_systems_in_memory_are_known_by_number() {
        let text = "25 1 254:0 / / rw - ext4 /dev/vda rw\n\
                    26 25 0:26 / /dev/shm rw,nosuid shared:3 - tmpfs tmpfs rw\n\
                    27 25 0:300 / /huge rw - hugetlbfs none rw\n";
        let devices = Devices::parse(text);
        assert!(devices.memory.contains("00:1a"));
        assert!(devices.huge.contains("00:12c"));
        assert!(!devices.memory.contains("fe:00"));
    }
}
