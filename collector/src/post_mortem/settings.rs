//! The system's settings for cores: of the running kernel, or of the files that a mounted system
//! would set them from.

use std::collections::BTreeMap;

use serde::Serialize;

use super::pattern::Pattern;
use crate::files::Root;

const LONGEST: u64 = 1 << 20;
const FOLDERS: [&str; 5] = [
    "/etc/sysctl.d",
    "/run/sysctl.d",
    "/usr/local/lib/sysctl.d",
    "/usr/lib/sysctl.d",
    "/lib/sysctl.d",
];

/// What the system does with cores.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Settings {
    /// `kernel.core_pattern`, without the end of its line.
    pub(crate) core_pattern: String,
    /// `kernel.core_uses_pid`
    pub(crate) core_uses_pid: bool,
    /// `fs.suid_dumpable`; `None` where it is not known.
    pub(crate) suid_dumpable: Option<u32>,
    /// Where these are from, for a person.
    pub(crate) from: String,
    #[serde(skip)]
    pub(crate) pattern: Pattern,
}

impl Settings {
    /// Those of the kernel that runs here, or of the files of a mounted system (`mounted`).
    pub(crate) fn read(root: &Root, mounted: bool) -> Self {
        let text = |path: &str| {
            let part = root.read(path, 4096).ok()?;
            Some(String::from_utf8_lossy(&part.content).trim_end_matches('\n').to_owned())
        };
        let kernel = |name: &str| text(&format!("/proc/sys/{name}"));
        let (pattern, uses_pid, dumpable, from) = match kernel("kernel/core_pattern") {
            Some(pattern) => {
                let from = "/proc/sys".to_owned();
                (Some(pattern), kernel("kernel/core_uses_pid"), kernel("fs/suid_dumpable"), from)
            }
            None => {
                let mut files = configured(root);
                let mut take = |name| files.remove(name);
                let (pattern, file) = match take("kernel.core_pattern") {
                    Some((value, file)) => (Some(value), file),
                    None => (None, "no file sets it; the kernel's own default".to_owned()),
                };
                let uses_pid = take("kernel.core_uses_pid").map(|(value, _)| value);
                let dumpable = take("fs.suid_dumpable").map(|(value, _)| value);
                (pattern, uses_pid, dumpable, file)
            }
        };
        let core_pattern = pattern.unwrap_or_else(|| "core".to_owned());
        let core_uses_pid = uses_pid.is_some_and(|value| value.trim() != "0");
        Self {
            pattern: Pattern::parse(&core_pattern, core_uses_pid),
            core_pattern,
            core_uses_pid,
            suid_dumpable: dumpable.and_then(|value| value.trim().parse().ok()),
            from: if mounted { format!("{from} (of the mounted system)") } else { from },
        }
    }
}

/// Every setting with the file that sets it, as `sysctl --system` reads them: by file name, and
/// `/etc/sysctl.conf` last.
fn configured(root: &Root) -> BTreeMap<String, (String, String)> {
    let mut files: BTreeMap<String, String> = BTreeMap::new();
    for folder in FOLDERS {
        for entry in root.list(folder).unwrap_or_default() {
            let name = entry.name.to_string_lossy().into_owned();
            if name.ends_with(".conf") {
                files.entry(name.clone()).or_insert(format!("{folder}/{name}"));
            }
        }
    }
    let mut settings = BTreeMap::new();
    let last = "/etc/sysctl.conf".to_owned();
    for path in files.into_values().chain([last]) {
        let Ok(part) = root.read(&path, LONGEST) else { continue };
        for line in String::from_utf8_lossy(&part.content).lines() {
            let line = line.trim().trim_start_matches('-');
            if line.starts_with(['#', ';']) {
                continue;
            }
            if let Some((name, value)) = line.split_once('=') {
                let name = name.trim().replace('/', ".");
                settings.insert(name, (value.trim().to_owned(), path.clone()));
            }
        }
    }
    settings
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_mounted_system_is_asked_for_what_it_would_set() {
        let folder = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let root = Root::at(folder.path()).unwrap();
        let settings = Settings::read(&root, true);
        assert_eq!((settings.core_pattern.as_str(), settings.core_uses_pid), ("core", false));
        put("usr/lib/sysctl.d/50-coredump.conf", "kernel.core_pattern=|/usr/lib/x %P\n");
        put(
            "etc/sysctl.d/60-own.conf",
            "# a\n-kernel/core_pattern = /cores/%e\nfs.suid_dumpable=2",
        );
        let settings = Settings::read(&root, true);
        assert_eq!(settings.core_pattern, "/cores/%e");
        assert_eq!(settings.suid_dumpable, Some(2));
        assert_eq!(settings.from, "/etc/sysctl.d/60-own.conf (of the mounted system)");
        put("proc/sys/kernel/core_pattern", "core.%p\n");
        assert_eq!(Settings::read(&root, true).core_pattern, "core.%p");
    }

    #[test]
    fn the_running_kernel_is_asked_directly() {
        let settings = Settings::read(&Root::own(), false);
        let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
        assert_eq!(settings.core_pattern, pattern.trim_end_matches('\n'));
        assert_eq!(settings.from, "/proc/sys");
    }
}
