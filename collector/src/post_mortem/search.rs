//! Every place where a core of a program that is gone may lie.
//!
//! Folders are listed, names compared, and the newest files opened far enough to see what they are.
//! A folder that does not exist is no error; what was looked at is recorded, so that "no core" is
//! an answer that can be checked.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use jiff::Timestamp;
use serde::Serialize;

use super::core::read_at;
use super::pattern::{Part, Pattern};
use super::stored::{Form, SystemdName};
use crate::files::Root;

/// Files that are opened, the newest ones.
const MOST_FILES: usize = 64;
/// Folders that a pattern with unknown folders is followed into.
const MOST_FOLDERS: usize = 1000;
const SYSTEMD: &str = "/var/lib/systemd/coredump";
const APPORT: [&str; 2] = ["/var/crash", "/var/lib/apport/coredump"];
/// Why a keeper's folders are looked into.
const KEEPERS: [&str; 3] = ["systemd-coredump", "apport", "abrt"];
const ABRT: [&str; 2] = ["/var/spool/abrt", "/var/tmp/abrt"];

/// A file that may be a core.
#[derive(Debug)]
pub(crate) struct Found {
    /// As one finds it below the root.
    pub(crate) path: String,
    pub(crate) file: File,
    pub(crate) form: Form,
    /// When it was written: by its keeper's name for it, else by the file's time.
    pub(crate) written: Timestamp,
    /// Whether `written` is when the process died: copying a file changes its time.
    pub(crate) is_first: bool,
    /// It lies where the kernel writes cores itself.
    pub(crate) by_kernel: bool,
    /// Why it was looked at.
    pub(crate) because: &'static str,
    /// PID as the host counts it, where the name says so.
    pub(crate) host_pid: Option<u32>,
}

/// A folder that was looked into.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Looked {
    /// Below the root.
    pub(crate) folder: String,
    /// Why there.
    pub(crate) because: &'static str,
    /// Files that may be cores by their names.
    pub(crate) files: usize,
    /// Why it could not be listed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
}

/// A search and what it has met.
#[derive(Debug)]
pub(crate) struct Search<'a> {
    root: &'a Root,
    names: Vec<(Timestamp, String, &'static str)>,
    seen: BTreeSet<(u64, u64)>,
    pub(crate) looked: Vec<Looked>,
}

impl<'a> Search<'a> {
    pub(crate) fn new(root: &'a Root) -> Self {
        Self { root, names: Vec::new(), seen: BTreeSet::new(), looked: Vec::new() }
    }

    /// Where the kernel writes cores itself: `folders` are where the program may have worked, each
    /// with why.
    pub(crate) fn by_pattern(&mut self, pattern: &Pattern, folders: &[(String, &'static str)]) {
        match pattern {
            Pattern::File { parts, relative: false } => {
                self.follow("/", parts, "kernel.core_pattern", &mut 0);
            }
            Pattern::File { parts, relative: true } => {
                for (folder, because) in folders {
                    match parts.as_slice() {
                        // A core that somebody made by hand (`gcore PID`) bears its usual name.
                        [name] => self.folder(folder, because, &|one| {
                            name.matches(one) || is_plain_name(one)
                        }),
                        parts => self.follow(folder, parts, because, &mut 0),
                    }
                }
            }
            Pattern::Pipe { .. } | Pattern::Socket | Pattern::Nothing => {}
        }
    }

    /// Where the usual keepers of cores put them.
    pub(crate) fn with_keepers(&mut self) {
        self.folder(SYSTEMD, "systemd-coredump", &|name| SystemdName::parse(name).is_some());
        for folder in APPORT {
            let report = |name: &str| name.ends_with(".crash") || name.starts_with("core.");
            self.folder(folder, "apport", &report);
        }
        let any = Part::anything();
        let core = Part::text("coredump");
        for folder in ABRT {
            self.follow(folder, &[any.clone(), core.clone()], "abrt", &mut 0);
        }
    }

    fn follow(&mut self, folder: &str, parts: &[Part], because: &'static str, count: &mut usize) {
        let Some((part, rest)) = parts.split_first() else { return };
        if rest.is_empty() {
            self.folder(folder, because, &|name| part.matches(name));
            return;
        }
        let inside: Vec<String> = match part.plain() {
            Some(name) => vec![name.to_owned()],
            None => {
                let entries = self.root.list(folder).unwrap_or_default();
                let folders = entries.iter().filter(|entry| entry.kind.is_dir());
                let names = folders.map(|entry| entry.name.to_string_lossy().into_owned());
                names.filter(|name| part.matches(name)).collect()
            }
        };
        for name in inside {
            *count = count.saturating_add(1);
            if *count > MOST_FOLDERS {
                return;
            }
            self.follow(&join(folder, &name), rest, because, count);
        }
    }

    /// The regular files of a folder whose names fit. Links are not followed.
    fn folder(&mut self, folder: &str, because: &'static str, fits: &dyn Fn(&str) -> bool) {
        let mut looked = Looked { folder: folder.to_owned(), because, files: 0, error: None };
        match self.root.list(folder) {
            Err(error) => looked.error = Some(error.to_string()),
            Ok(entries) => {
                let files = entries.iter().filter(|entry| entry.kind.is_file());
                let names = files.map(|entry| entry.name.to_string_lossy().into_owned());
                for name in names.filter(|name| fits(name)) {
                    looked.files = looked.files.saturating_add(1);
                    self.note(join(folder, &name), because);
                }
            }
        }
        if !self.looked.contains(&looked) {
            self.looked.push(looked);
        }
    }

    fn note(&mut self, path: String, because: &'static str) {
        let Ok(metadata) = self.root.metadata(&path) else { return };
        if metadata.len() > 0 && self.seen.insert((metadata.dev(), metadata.ino())) {
            let time =
                systemd_time(&path).or_else(|| Timestamp::from_second(metadata.mtime()).ok());
            self.names.push((time.unwrap_or_default(), path, because));
        }
    }

    /// The newest files that are cores by their first bytes, newest first; and those that cannot be
    /// read, with why.
    pub(crate) fn open(mut self) -> (Vec<Found>, Vec<(String, String)>, Vec<Looked>) {
        self.names.sort_by(|one, other| (other.0, &one.1).cmp(&(one.0, &other.1)));
        let (mut found, mut failed) = (Vec::new(), Vec::new());
        for (written, path, because) in self.names.into_iter().take(MOST_FILES) {
            match open(self.root, &path) {
                Ok((_, Form::Other)) => {}
                Ok((file, form)) => {
                    let host_pid = systemd_name(&path).map(|name| name.pid);
                    let by_kernel = !KEEPERS.contains(&because);
                    found.push(Found {
                        path,
                        file,
                        form,
                        written,
                        is_first: true,
                        by_kernel,
                        because,
                        host_pid,
                    });
                }
                Err(error) => failed.push((path, error.to_string())),
            }
        }
        (found, failed, self.looked)
    }
}

/// The files that the operator named, and those in the folders that he named.
///
/// # Errors
/// One of them cannot be read, or is nothing that a core is kept in; words for a person.
pub(crate) fn named(paths: &[std::path::PathBuf]) -> anyhow::Result<Vec<Found>> {
    use anyhow::Context as _;
    let mut found = Vec::new();
    for path in paths {
        let shown = path.display().to_string();
        let is_folder = path.metadata().with_context(|| shown.clone())?.is_dir();
        let files = if is_folder { files_of(path)? } else { vec![path.clone()] };
        let before = found.len();
        for file in files {
            let shown = file.display().to_string();
            // Our own root, but nothing that is no regular file is waited for.
            let absolute = std::path::absolute(&file).with_context(|| shown.clone())?;
            let (opened, form) =
                open(&Root::own(), &absolute.to_string_lossy()).with_context(|| shown.clone())?;
            if form == Form::Other {
                anyhow::ensure!(
                    is_folder,
                    "{shown} is no core: neither an ELF file nor one packed \
                    with zstd, gzip, xz or lz4, nor a report of apport"
                );
                continue;
            }
            let written = opened.metadata().map(|metadata| metadata.mtime()).unwrap_or(0);
            let by_name = systemd_name(&shown);
            found.push(Found {
                written: systemd_time(&shown)
                    .or_else(|| Timestamp::from_second(written).ok())
                    .unwrap_or_default(),
                is_first: by_name.is_some(),
                by_kernel: false,
                host_pid: by_name.map(|name| name.pid),
                path: shown,
                file: opened,
                form,
                because: "named with --core",
            });
        }
        anyhow::ensure!(found.len() > before, "{shown}: no core in this folder");
    }
    Ok(found)
}

fn files_of(folder: &Path) -> anyhow::Result<Vec<std::path::PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)?.take(MOST_FOLDERS) {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

fn open(root: &Root, path: &str) -> io::Result<(File, Form)> {
    let file = root.open(path)?;
    let form = Form::of(&read_at(&file, 0, 16)?);
    Ok((file, form))
}

fn systemd_name(path: &str) -> Option<SystemdName> {
    SystemdName::parse(path.rsplit('/').next()?)
}

fn systemd_time(path: &str) -> Option<Timestamp> {
    let time = systemd_name(path)?.time;
    Timestamp::from_microsecond(i64::try_from(time).ok()?).ok()
}

/// `core`, `core.12`
fn is_plain_name(name: &str) -> bool {
    let rest = name.strip_prefix("core");
    rest.is_some_and(|rest| {
        rest.is_empty()
            || rest
                .strip_prefix('.')
                .is_some_and(|pid| !pid.is_empty() && pid.bytes().all(|byte| byte.is_ascii_digit()))
    })
}

fn join(folder: &str, name: &str) -> String {
    format!("{}/{name}", folder.trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::{Duration, SystemTime};

    use super::*;

    struct Tree(tempfile::TempDir);

    impl Tree {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        /// A file that begins like an ELF file, so many seconds old.
        fn core(&self, path: &str, age: u64) {
            self.put(path, b"\x7fELF and more than sixteen bytes", age);
        }

        fn put(&self, path: &str, content: &[u8], age: u64) {
            let path = self.0.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, content).unwrap();
            let file = File::options().write(true).open(&path).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(age)).unwrap();
        }

        fn root(&self) -> Root {
            Root::at(self.0.path()).unwrap()
        }
    }

    fn paths(search: Search<'_>) -> Vec<String> {
        search.open().0.into_iter().map(|found| found.path).collect()
    }

    #[test]
    fn cores_are_found_where_the_pattern_puts_them_newest_first() {
        let tree = Tree::new();
        tree.core("cores/kamailio/core.12", 50);
        tree.core("cores/other/core.13", 20);
        tree.core("cores/kamailio/note", 10);
        tree.core("cores/core.14", 10);
        tree.put("cores/other/core.15", b"no ELF file at all", 1);
        tree.put("cores/other/core.16", b"", 1);
        let root = tree.root();
        let mut search = Search::new(&root);
        search.by_pattern(&Pattern::parse("/cores/%e/core.%p", true), &[]);
        assert_eq!(paths(search), ["/cores/other/core.13", "/cores/kamailio/core.12"]);
    }

    #[test]
    fn a_relative_pattern_is_sought_in_every_working_directory() {
        let tree = Tree::new();
        tree.core("run/kamailio/core", 5);
        tree.core("run/kamailio/core.77", 6);
        tree.core("core", 7);
        tree.core("run/kamailio/cores", 1);
        std::os::unix::fs::symlink("core", tree.0.path().join("run/core")).unwrap();
        let root = tree.root();
        let mut search = Search::new(&root);
        let folders = [("/run/kamailio", "a"), ("/", "b"), ("/run", "c"), ("/nowhere", "d")];
        let folders = folders.map(|(folder, why)| (folder.to_owned(), why));
        search.by_pattern(&Pattern::parse("core", false), &folders);
        let (found, failed, looked) = search.open();
        let found: Vec<_> = found.iter().map(|one| (one.path.as_str(), one.because)).collect();
        assert_eq!(
            found,
            [("/run/kamailio/core", "a"), ("/run/kamailio/core.77", "a"), ("/core", "b")]
        );
        assert_eq!(failed, []);
        let missing = looked.iter().find(|one| one.folder == "/nowhere").unwrap();
        assert!(missing.error.as_ref().unwrap().contains("No such file"));
    }

    #[test]
    fn keepers_of_cores_are_known_by_their_folders() {
        let tree = Tree::new();
        let boot = "0123456789abcdef0123456789abcdef";
        tree.core(
            &format!("var/lib/systemd/coredump/core.kamailio.0.{boot}.4711.1600000000000000.zst"),
            1,
        );
        tree.core("var/lib/systemd/coredump/.#core.kamailio.tmp", 1);
        tree.core("var/spool/abrt/ccpp-2026-01-01-1/coredump", 5);
        tree.put("var/crash/_usr_sbin_kamailio.0.crash", b"ProblemType: Crash\n", 9);
        let root = tree.root();
        let mut search = Search::new(&root);
        search.with_keepers();
        let found = search.open().0;
        let because: Vec<_> = found.iter().map(|one| one.because).collect();
        assert_eq!(because, ["abrt", "apport", "systemd-coredump"]);
        let systemd = found.last().unwrap();
        assert_eq!(systemd.host_pid, Some(4711));
        assert_eq!(systemd.written.to_string(), "2020-09-13T12:26:40Z");
    }
}
