//! Which packages the program and its libraries are from, in which versions, and what was changed
//! lately.
//!
//! Members: `system/packages.json`: packages with the mapped files that they own, and the files
//! that none owns; `logs/…`: the end of the package managers' logs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use bundle::{Phase, member};
use serde_json::json;

use super::{Context, Drawer, Needs, Source};
use crate::command;
use crate::files::Root;
use crate::host::packages::{self, Package};
use crate::mappings::Mapping;

/// Mapped files that are asked for.
const FILES: usize = 2000;
/// dpkg's lists: so many, and so much of each, in bytes.
const LISTS: usize = 20_000;
const LIST: u64 = 8 << 20;
/// A database of packages, in bytes.
const DATABASE: u64 = 128 << 20;
/// The end of a log that is kept, in bytes.
const LOG: u64 = 256 << 10;

/// Logs of package managers.
const LOGS: [&str; 6] = [
    "/var/log/dpkg.log",
    "/var/log/apt/history.log",
    "/var/log/dnf.rpm.log",
    "/var/log/yum.log",
    "/var/log/zypp/history",
    "/var/log/apk.log",
];

#[derive(Debug)]
pub(crate) struct Packages;

impl Source for Packages {
    fn name(&self) -> &'static str {
        "packages"
    }

    fn about(&self) -> &'static str {
        "packages of its files with their versions, and what was upgraded lately"
    }

    fn phase(&self) -> Phase {
        Phase::AfterThaw
    }

    fn deadline(&self) -> Duration {
        Duration::from_secs(20)
    }

    fn needs(&self) -> Needs {
        Needs::Files
    }

    fn collect(&self, context: &Context, out: &Drawer) -> anyhow::Result<()> {
        let files = mapped_files(context);
        let root = &context.files;
        let (manager, found) = if root.metadata("/var/lib/dpkg/status").is_ok() {
            ("dpkg", by_dpkg(root, &files))
        } else if root.metadata("/lib/apk/db/installed").is_ok() {
            ("apk", by_apk(root, &files))
        } else if own_rpm(context) {
            ("rpm", by_rpm(&files, out))
        } else {
            out.not_here("no database of dpkg, apk or rpm that could be asked");
            ("none", Vec::new())
        };
        let owned: BTreeSet<&String> = found.iter().flat_map(|package| &package.files).collect();
        let unowned: Vec<&String> = files.iter().filter(|file| !owned.contains(file)).collect();
        let text = json!({ "manager": manager, "packages": found, "of_no_package": unowned });
        let text = serde_json::to_vec_pretty(&text)?;
        out.put(format!("{}/packages.json", member::SYSTEM), None, text);
        for path in LOGS {
            if let Ok(part) = root.read_tail(path, LOG) {
                let whole = part.total <= LOG;
                let end = part.content.iter().position(|byte| *byte == b'\n');
                let start = if whole { 0 } else { end.map_or(0, |end| end.saturating_add(1)) };
                let kept = part.content.get(start..).unwrap_or_default().to_vec();
                out.put(format!("logs{path}"), Some(path.to_owned()), kept);
            }
        }
        Ok(())
    }
}

/// The ELF files that the group maps, by their paths.
fn mapped_files(context: &Context) -> Vec<String> {
    let (mut files, mut names) = (BTreeSet::new(), BTreeSet::new());
    for process in &context.target.processes {
        let maps = match context.surveys.get(&process.pid) {
            Some(survey) => survey.maps.clone(),
            None => fs::read(format!("/proc/{}/maps", process.id)).unwrap_or_default(),
        };
        let mappings = Mapping::parse_all(&String::from_utf8_lossy(&maps));
        names.extend(mappings.into_iter().map(|mapping| mapping.name));
    }
    let remains = context.remains.iter().flat_map(|remains| &remains.files);
    names.extend(remains.map(|file| file.path.clone()));
    for name in names {
        let path = name.strip_suffix(" (deleted)").unwrap_or(&name);
        let is_file = path.starts_with('/') && !path.starts_with("/dev/");
        if is_file && !path.starts_with("/SYSV") && !path.starts_with("/memfd:") {
            files.insert(path.to_owned());
        }
    }
    files.into_iter().take(FILES).collect()
}

fn wanted(files: &[String]) -> BTreeMap<String, &str> {
    let names = files.iter().flat_map(|file| {
        packages::aliases(file).into_iter().map(move |alias| (alias, file.as_str()))
    });
    names.collect()
}

fn text(root: &Root, path: &str) -> String {
    let part = root.read(path, DATABASE).unwrap_or_default();
    String::from_utf8_lossy(&part.content).into_owned()
}

fn by_dpkg(root: &Root, files: &[String]) -> Vec<Package> {
    let folder = "/var/lib/dpkg/info";
    let wanted = wanted(files);
    let mut owners: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for entry in root.list(folder).unwrap_or_default().into_iter().take(LISTS) {
        let Some(name) = entry.name.to_str() else { continue };
        let Some(package) = packages::of_list_name(name) else { continue };
        let Ok(list) = root.read(format!("{folder}/{name}"), LIST) else { continue };
        let owned = packages::listed(&list.content, &wanted);
        if !owned.is_empty() {
            let files = owners.entry(package.to_owned()).or_default();
            files.extend(owned.into_iter().map(str::to_owned));
        }
    }
    let names = owners.keys().cloned().collect();
    let mut found = packages::dpkg(&text(root, "/var/lib/dpkg/status"), &names);
    for package in &mut found {
        package.files = owners.get(&package.name).cloned().unwrap_or_default();
    }
    found
}

fn by_apk(root: &Root, files: &[String]) -> Vec<Package> {
    packages::apk(&text(root, "/lib/apk/db/installed"), &wanted(files))
}

/// Whether our own rpm knows the target's files: it has a database, and the target has our root.
fn own_rpm(context: &Context) -> bool {
    let databases = ["/var/lib/rpm", "/usr/lib/sysimage/rpm"];
    databases.iter().any(|path| fs::exists(path).unwrap_or(false))
        && context.files.is_same(&Root::own())
}

fn by_rpm(files: &[String], out: &Drawer) -> Vec<Package> {
    let mut arguments = vec!["-qf", "--queryformat", packages::RPM_FORMAT, "--"];
    arguments.extend(files.iter().map(String::as_str));
    match command::run("rpm", &arguments, Duration::from_secs(8), 4 << 20) {
        Ok(output) => {
            if matches!(output.ended, command::Ended::Deadline(_)) {
                out.gap("packages", "rpm gave no answer within 8 s");
            }
            packages::rpm(&String::from_utf8_lossy(&output.stdout), files)
        }
        Err(error) => {
            out.left_out("packages", error.to_string());
            Vec::new()
        }
    }
}
