//! Why there is no core: every reason that the system's settings, the unit and the program's
//! configuration give.

use super::pattern::Pattern;
use super::search::Looked;
use super::settings::Settings;
use super::wanted::{self, Wanted};
use crate::files::Root;

/// What is known where no core is.
#[derive(Debug)]
pub(super) struct Absent<'a> {
    pub(super) wanted: &'a Wanted,
    pub(super) settings: &'a Settings,
    pub(super) looked: &'a [Looked],
    /// Cores that were chosen and could not be taken.
    pub(super) refused: usize,
}

const CONFIGURATION: &str = "/etc/kamailio/kamailio.cfg";

/// Every reason, in words; at least one.
pub(super) fn reasons(absent: &Absent<'_>, root: &Root) -> Vec<String> {
    let mut reasons = Vec::new();
    if absent.refused > 0 {
        reasons.push(format!("{} were found and could not be taken", absent.refused));
    }
    reasons.push(by_settings(absent.settings));
    reasons.extend(by_keeper(absent.settings, root));
    reasons.extend(by_unit(absent));
    reasons.extend(by_configuration(absent, root));
    if absent.wanted.names.iter().any(|name| name == "voipmonitor") {
        reasons.push(
            "VoIPmonitor ends itself with SIGKILL when its main loop makes no progress for 300 s, \
             and with exit() when it takes too much memory (`RSS … - ABORT!` in its log): neither \
             leaves a core"
                .to_owned(),
        );
    }
    if absent.settings.suid_dumpable == Some(0) {
        reasons.push(
            "fs.suid_dumpable is 0: a process that changed its user writes no core, unless it asks \
             for it (Kamailio does)"
                .to_owned(),
        );
    }
    let looked: Vec<&str> = absent.looked.iter().map(|one| one.folder.as_str()).collect();
    if !looked.is_empty() {
        reasons.push(format!("looked in {}", looked.join(", ")));
    }
    reasons
}

/// Where each core of a crash overwrites the one before, why there is only one.
pub(super) fn overwritten(settings: &Settings) -> Option<String> {
    let Pattern::File { parts, .. } = &settings.pattern else { return None };
    // A name that is known before the process is, is the same for all processes.
    parts.last()?.plain()?;
    Some(format!(
        "kernel.core_pattern is `{}`: every process writes the same file, the last one stays; \
         `core.%p` keeps them apart",
        settings.core_pattern
    ))
}

fn by_settings(settings: &Settings) -> String {
    let text = format!("kernel.core_pattern is `{}` ({})", settings.core_pattern, settings.from);
    let words = match &settings.pattern {
        Pattern::Nothing => "which is empty: the kernel writes no cores".to_owned(),
        Pattern::Socket => "a socket: the program that listens there keeps cores".to_owned(),
        Pattern::Pipe { program } => match program.as_str() {
            "systemd-coredump" => "systemd-coredump keeps cores below /var/lib/systemd/coredump \
                                   (`coredumpctl list` shows them)"
                .to_owned(),
            "apport" => "apport keeps cores in /var/crash, mostly only of packaged programs and \
                         only the first one until its report is removed"
                .to_owned(),
            name if name.starts_with("abrt") => "abrt keeps cores below /var/spool/abrt".to_owned(),
            "false" | "true" => "which throws cores away".to_owned(),
            name => format!("only the program {name} knows where it keeps cores; use --core"),
        },
        Pattern::File { relative: true, .. } => {
            "the kernel writes into the working directory of the process; if that was another one, \
             use --core"
                .to_owned()
        }
        Pattern::File { relative: false, .. } => {
            "the kernel writes there if the folder exists and the process's user may write to it"
                .to_owned()
        }
    };
    format!("{text}: {words}")
}

/// `Storage=none` and the like of systemd-coredump.
fn by_keeper(settings: &Settings, root: &Root) -> Option<String> {
    if !matches!(&settings.pattern, Pattern::Pipe { program } if program == "systemd-coredump") {
        return None;
    }
    let path = "/etc/systemd/coredump.conf";
    let keys = ["Storage", "ProcessSizeMax", "ExternalSizeMax"];
    let said = wanted::settings(path, &keys, root);
    let said: Vec<String> = said.iter().map(|(key, value)| format!("{key}={value}")).collect();
    (!said.is_empty()).then(|| {
        format!("{path} says {}: larger cores, or all (none), are not kept", said.join(", "))
    })
}

fn by_unit(absent: &Absent<'_>) -> Option<String> {
    let unit = absent.wanted.unit.as_ref()?;
    let limit = unit.setting("LimitCORE")?;
    let soft = limit.split(':').next().unwrap_or(limit);
    let words = match soft {
        "0" => "it may write none",
        "infinity" => return None,
        _ => "a longer one is cut or not written",
    };
    Some(format!("LimitCORE={limit} in {}: {words}", unit.name))
}

/// Kamailio sets its own limit.
fn by_configuration(absent: &Absent<'_>, root: &Root) -> Option<String> {
    if !absent.wanted.names.iter().any(|name| name == "kamailio") {
        return None;
    }
    let command = absent.wanted.command_line(&[]);
    let path = wanted::option(&command, "-f").unwrap_or_else(|| CONFIGURATION.to_owned());
    let set = wanted::settings(&path, &["disable_core_dump", "disable_core"], root);
    let (key, value) = set.last()?;
    let off = ["yes", "1", "on", "true"].contains(&value.as_str());
    off.then(|| format!("{key}={value} in {path}: Kamailio sets its own limit to 0"))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    fn put(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Every reason for a program, one a line.
    fn said(root: &Path, name: &str) -> String {
        let root = Root::at(root).unwrap();
        let mut wanted = Wanted::default();
        wanted.names.push(name.to_owned());
        wanted.unit = super::super::unit::Unit::read(&root, name);
        let settings = Settings::read(&root, true);
        let absent = Absent { wanted: &wanted, settings: &settings, looked: &[], refused: 0 };
        reasons(&absent, &root).join("\n")
    }

    #[test]
    fn each_setting_that_forbids_cores_is_a_reason() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        assert_eq!(said(root, "kamailio").lines().count(), 1, "the pattern alone");
        put(root, "proc/sys/kernel/core_pattern", "|/lib/systemd/systemd-coredump %P\n");
        put(root, "proc/sys/fs/suid_dumpable", "0\n");
        put(root, "etc/systemd/coredump.conf", "[Coredump]\n#Storage=journal\nStorage=none\n");
        put(root, "etc/systemd/system/kamailio.service", "[Service]\nLimitCORE=0:infinity\n");
        put(root, "etc/kamailio/kamailio.cfg", "# x\ndisable_core_dump = yes\n");
        let text = said(root, "kamailio");
        for words in [
            "Storage=none: larger",
            "LimitCORE=0:infinity in kamailio.service: it may write none",
            "disable_core_dump=yes in /etc/kamailio/kamailio.cfg",
            "fs.suid_dumpable is 0",
        ] {
            assert!(text.contains(words), "{words}: {text}");
        }
        put(root, "etc/systemd/system/kamailio.service", "[Service]\nLimitCORE=infinity\n");
        put(root, "etc/kamailio/kamailio.cfg", "disable_core_dump=no\n");
        let text = said(root, "kamailio");
        assert!(!text.contains("LimitCORE") && !text.contains("disable_core"), "{text}");
        assert!(said(root, "voipmonitor").contains("300 s"));
    }

    #[test]
    fn cores_of_one_name_overwrite_one_another() {
        let folder = tempfile::tempdir().unwrap();
        let overwrites = |pattern: &str, uses_pid: &str| {
            put(folder.path(), "proc/sys/kernel/core_pattern", pattern);
            put(folder.path(), "proc/sys/kernel/core_uses_pid", uses_pid);
            overwritten(&Settings::read(&Root::at(folder.path()).unwrap(), true)).is_some()
        };
        assert!(overwrites("core", "0") && overwrites("/cores/%e/core", "0"));
        assert!(!overwrites("core", "1") && !overwrites("core.%p", "0"));
        assert!(!overwrites("|/bin/x", "0"));
    }
}
