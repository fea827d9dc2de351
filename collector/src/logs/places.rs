//! Which files may be logs of the program: by their names in `/var/log`, by the rules of syslog
//! daemons, by what the program has open, and by what the operator names.

use crate::files::Root;
use crate::logs::rules;

/// Logs of the whole system in `/var/log`.
const COMMON: [&str; 6] = ["syslog", "messages", "daemon.log", "kern.log", "user.log", "debug"];

/// Rules of syslog daemons are read so far, in bytes; and so many files of them.
const RULES: u64 = 1 << 20;
const RULE_FILES: usize = 200;

/// Files of one folder that may be logs.
const MOST: usize = 500;

/// The candidates of one root, rotated ones included, each once. They exist by name; what they are
/// is not yet known.
pub(crate) fn candidates(root: &Root, program: &str, named: &[String]) -> Vec<String> {
    let mut paths: Vec<String> = Vec::new();
    let mut add = |found: Vec<String>| {
        for path in found {
            if !paths.contains(&path) {
                paths.push(path);
            }
        }
    };
    for path in named {
        add(with_rotated(root, path));
    }
    if !program.is_empty() {
        for folder in ["/var/log".to_owned(), format!("/var/log/{program}")] {
            let all = folder.len() > "/var/log".len();
            let wanted = |name: &str| all || name.starts_with(program);
            add(in_folder(root, &folder)
                .into_iter()
                .filter(|name| wanted(name))
                .map(|name| format!("{folder}/{name}"))
                .collect());
        }
    }
    for path in by_rules(root, program) {
        add(with_rotated(root, &path));
    }
    for name in COMMON {
        add(with_rotated(root, &format!("/var/log/{name}")));
    }
    paths
}

/// A log and what it was rotated to: `syslog`, `syslog.1`, `syslog.2.gz`, `syslog-20260101.xz`.
pub(crate) fn with_rotated(root: &Root, path: &str) -> Vec<String> {
    let Some((folder, name)) = path.rsplit_once('/') else { return Vec::new() };
    let folder = if folder.is_empty() { "/" } else { folder };
    let names = in_folder(root, folder);
    let of_it = names.into_iter().filter(|found| found == name || is_rotated(found, name));
    of_it.map(|found| format!("{}/{found}", folder.trim_end_matches('/'))).collect()
}

/// Whether a name is another one with a number or a date behind it, packed or not; the number may
/// stand before the ending (`kamailio-20260101.log`).
fn is_rotated(found: &str, name: &str) -> bool {
    let plain = [".gz", ".xz", ".zst"].into_iter().find_map(|end| found.strip_suffix(end));
    let plain = plain.unwrap_or(found);
    let is_number = |rest: &str| {
        rest.strip_prefix(['.', '-', '_']).is_some_and(|rest| {
            rest == "old"
                || rest.starts_with(|one: char| one.is_ascii_digit())
                    && rest.bytes().all(|byte| byte.is_ascii_digit() || b"-_.".contains(&byte))
        })
    };
    let (stem, end) = name.rsplit_once('.').map_or((name, ""), |(stem, end)| (stem, end));
    let inner = plain.strip_suffix(end).and_then(|rest| rest.strip_suffix('.'));
    let inner = inner.and_then(|rest| rest.strip_prefix(stem));
    plain == name && found != name
        || plain.strip_prefix(name).is_some_and(is_number)
        || !end.is_empty() && inner.is_some_and(is_number)
}

/// Names of the files in a folder; links count, folders do not.
fn in_folder(root: &Root, folder: &str) -> Vec<String> {
    let Ok(entries) = root.list(folder) else { return Vec::new() };
    let files = entries.into_iter().filter(|entry| !entry.kind.is_dir());
    files.filter_map(|entry| entry.name.into_string().ok()).take(MOST).collect()
}

fn by_rules(root: &Root, program: &str) -> Vec<String> {
    type Parse = fn(&str, &str) -> Vec<String>;
    let daemons: [(&[&str], &str, Parse); 2] = [
        (&["/etc/rsyslog.conf", "/etc/syslog.conf"], "/etc/rsyslog.d", rules::of_rsyslog),
        (&["/etc/syslog-ng/syslog-ng.conf"], "/etc/syslog-ng/conf.d", rules::of_syslog_ng),
    ];
    let mut found = Vec::new();
    for (files, folder, parse) in daemons {
        let inner = in_folder(root, folder).into_iter().filter(|name| name.ends_with(".conf"));
        let inner = inner.map(|name| format!("{folder}/{name}")).take(RULE_FILES);
        let texts = files.iter().map(|path| (*path).to_owned()).chain(inner);
        let read = |path: String| root.read(path, RULES).ok();
        // Filters and destinations of syslog-ng may stand in different files.
        let text = texts.filter_map(read).fold(String::new(), |text, part| {
            text + &String::from_utf8_lossy(&part.content) + "\n"
        });
        found.extend(parse(&text, program));
    }
    found
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn rotated_logs_are_known_by_their_names() {
        let rotated = [
            "a.log.1",
            "a.log.2.gz",
            "a.log-20260101.xz",
            "a-20260101.log",
            "a.log.gz",
            "a.log.old",
            "a-20260101.log.zst",
            "a.log_2026-01-01",
        ];
        for name in rotated {
            assert!(is_rotated(name, "a.log"), "{name}");
        }
        let others =
            ["a.log", "b.log.1", "a.log.conf", "ab.log", "a.log.1.bak", "a.logs", "a-b.log"];
        for name in others {
            assert!(!is_rotated(name, "a.log"), "{name}");
        }
        assert!(is_rotated("syslog.1", "syslog") && !is_rotated("syslog-ng", "syslog"));
    }

    #[test]
    fn logs_are_found_by_name_by_rule_and_by_wish() {
        let folder = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        for path in [
            "var/log/syslog",
            "var/log/syslog.1",
            "var/log/auth.log",
            "var/log/dpkg.log",
            "var/log/kamailio.log",
            "var/log/kamailio/debug.log",
            "srv/sip.log",
            "srv/sip.log.2.gz",
            "srv/other",
            "opt/mine",
            "opt/mine-20260101",
        ] {
            put(path, "");
        }
        put("etc/rsyslog.d/10.conf", "local0.* -/srv/sip.log\nlocal1.* /srv/missing.log\n");
        let root = Root::at(folder.path()).unwrap();
        let expected = [
            "/opt/mine",
            "/opt/mine-20260101",
            "/var/log/kamailio.log",
            "/var/log/kamailio/debug.log",
            "/srv/sip.log",
            "/srv/sip.log.2.gz",
            "/var/log/syslog",
            "/var/log/syslog.1",
        ];
        assert_eq!(candidates(&root, "kamailio", &["/opt/mine".to_owned()]), expected);
    }
}
