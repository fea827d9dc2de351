//! The sniffer's configuration: the file that its command line names, or each file of a folder that
//! it names, and then the files of `/etc/voipmonitor/conf.d`.
//!
//! Lines are `key = value`; `#` and `;` begin a comment only at the start of a line; only section
//! `general` counts, in which every file begins. Of one file the first value of a key holds, of
//! several files the last one that has it. Options of the command line come before all files. What
//! the database adds (`mysqlloadconfig`) is not known here.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::files::Root;

/// Where the configuration is if nothing says so.
const DEFAULT: &str = "/etc/voipmonitor.conf";
/// Read after it, whatever it is.
const FOLDER: &str = "/etc/voipmonitor/conf.d";
/// Bytes of a file that are read; real ones have some tens of kilobytes.
const MOST_BYTES: u64 = 4 << 20;
/// Files that are read.
const MOST_FILES: usize = 200;

/// One file of it.
#[derive(Debug)]
pub struct ConfigFile {
    /// Where it is, as the sniffer sees it.
    pub path: PathBuf,
    /// What it holds, or why that cannot be read.
    pub content: Result<Vec<u8>, String>,
    /// It is longer than what was read.
    pub cut: bool,
}

/// What is configured.
#[derive(Debug, Default)]
pub struct Config {
    /// The files, in the order in which the sniffer reads them.
    pub files: Vec<ConfigFile>,
    values: BTreeMap<String, String>,
}

/// A process's words: its command line, and the folder in which relative paths begin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommandLine {
    words: Vec<String>,
    folder: PathBuf,
}

impl CommandLine {
    /// From `/proc/PID/cmdline`.
    pub fn parse(text: &[u8], folder: PathBuf) -> Self {
        let words = text.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word));
        Self { words: words.map(Into::into).collect(), folder }
    }

    /// The file name that the program was started by; many names of its files begin with it.
    pub fn name(&self) -> Option<&str> {
        let name = self.words.first()?.rsplit('/').next()?;
        (!name.is_empty()).then_some(name)
    }

    /// The last value of a long option, or of its short letter; as `getopt_long` takes them.
    fn option(&self, long: &str, short: Option<char>) -> Option<&str> {
        let mut found = None;
        let mut words = self.words.iter().skip(1).map(String::as_str).peekable();
        while let Some(word) = words.next() {
            if word == "--" {
                break;
            }
            let named = word.strip_prefix("--").and_then(|word| word.strip_prefix(long));
            let lettered = short.and_then(|short| word.strip_prefix('-')?.strip_prefix(short));
            found = match named.or(lettered) {
                Some("") => words.peek().copied().or(found),
                Some(value) if named.is_some() => value.strip_prefix('=').or(found),
                Some(value) => Some(value),
                None => found,
            };
        }
        found
    }
}

impl Config {
    /// Reads what a sniffer with this command line reads.
    pub fn read(files: &Root, command: &CommandLine) -> Self {
        let main = command.option("config-file", None).unwrap_or(DEFAULT);
        let main = command.folder.join(main);
        let mut config = Self::default();
        for path in [main.as_path(), Path::new(FOLDER)] {
            config.add(files, path, path == main);
        }
        for (key, long, short) in
            [("managerport", "manager-port", Some('8')), ("spooldir", "spooldir", Some('d'))]
        {
            if let Some(value) = command.option(long, short) {
                config.values.insert(key.into(), value.into());
            }
        }
        config
    }

    /// A file, or every regular file of a folder. Only a `wanted` one is missed.
    fn add(&mut self, files: &Root, path: &Path, wanted: bool) {
        let is_folder = files.metadata(path).is_ok_and(|found| found.is_dir());
        let paths = if is_folder {
            let entries = files.list(path).unwrap_or_default().into_iter();
            entries.filter(|one| one.kind.is_file()).map(|one| path.join(one.name)).collect()
        } else {
            vec![path.to_owned()]
        };
        for path in paths {
            if self.files.len() >= MOST_FILES || self.files.iter().any(|one| one.path == path) {
                continue;
            }
            match files.read(&path, MOST_BYTES) {
                Ok(part) => {
                    self.values.extend(parse(&String::from_utf8_lossy(&part.content)));
                    let cut = part.total > MOST_BYTES;
                    self.files.push(ConfigFile { path, content: Ok(part.content), cut });
                }
                Err(error) if wanted => {
                    let content = Err(error.to_string());
                    self.files.push(ConfigFile { path, content, cut: false });
                }
                Err(error) => tracing::debug!(path = %path.display(), %error),
            }
        }
    }

    /// The value of a key, in lower case.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// A value as a number, with whatever follows its digits passed over, as `atoi` does.
    pub fn number(&self, key: &str) -> Option<u64> {
        let text = self.text(key)?;
        let end = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
        text.get(..end)?.parse().ok()
    }

    /// Whether a switch is on; `None` if it is not there.
    pub fn switch(&self, key: &str) -> Option<bool> {
        let value = self.text(key)?;
        Some(value.starts_with(['y', 'Y', 't', 'T']) || self.number(key).is_some_and(|on| on != 0))
    }

    /// The port of the manager; 0 is none. 5029 if nothing else is said.
    pub fn manager_port(&self) -> u16 {
        let port = self.number("managerport").unwrap_or(5029);
        u16::try_from(port).unwrap_or(0)
    }

    /// The unix socket of the manager.
    pub fn manager_socket(&self) -> Option<&Path> {
        self.text("managersocket").map(Path::new).filter(|path| path.is_absolute())
    }

    /// Whether `port` is that of something else than the manager, as far as the configuration says.
    pub fn names_port_otherwise(&self, port: u16) -> bool {
        let mut others = self.values.keys().filter(|key| key.ends_with("port"));
        others.any(|key| key != "managerport" && self.number(key) == Some(u64::from(port)))
    }

    /// The folder that everything is written to.
    pub fn spool(&self) -> PathBuf {
        self.text("spooldir").unwrap_or("/var/spool/voipmonitor").into()
    }
}

/// The first value of each key.
fn parse(text: &str) -> BTreeMap<String, String> {
    let mut values = BTreeMap::new();
    let mut general = true;
    for line in text.trim_start_matches('\u{feff}').lines().map(str::trim) {
        if line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(section) = line.strip_prefix('[') {
            let name = section.split(']').next().unwrap_or_default().trim();
            general = name.eq_ignore_ascii_case("general");
            continue;
        }
        let Some((key, value)) = line.split_once('=').filter(|_| general) else { continue };
        let key = key.trim().to_ascii_lowercase();
        values.entry(key).or_insert_with(|| value.trim().to_owned());
    }
    values
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn command(words: &[&str]) -> CommandLine {
        CommandLine::parse(words.join("\0").as_bytes(), "/run/here".into())
    }

    /// A root with files of these paths and contents.
    fn root(files: &[(&str, &str)]) -> (tempfile::TempDir, Root) {
        let folder = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = folder.path().join(path.trim_start_matches('/'));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        let root = Root::at(folder.path()).unwrap();
        (folder, root)
    }

    #[test]
    fn the_first_value_of_a_file_holds_and_the_last_file() {
        let (_folder, root) = root(&[
            ("/etc/voipmonitor.conf", "managerport=1\nManagerPort = 2\nspooldir = /a # b\n"),
            ("/etc/voipmonitor/conf.d/1.conf", "[general]\n managerport = 7 # seven\n"),
            ("/etc/voipmonitor/conf.d/2.conf", "#managerport=8\n;managerport=9\n[other]\nrrd=no"),
        ]);
        let config = Config::read(&root, &command(&["voipmonitor"]));
        assert_eq!(config.manager_port(), 7);
        assert_eq!(config.spool(), Path::new("/a # b"));
        assert_eq!(config.switch("rrd"), None);
        let paths: Vec<_> = config.files.iter().map(|file| file.path.to_str().unwrap()).collect();
        assert_eq!(
            paths,
            [
                "/etc/voipmonitor.conf",
                "/etc/voipmonitor/conf.d/1.conf",
                "/etc/voipmonitor/conf.d/2.conf"
            ]
        );
    }

    #[test]
    fn the_command_line_names_the_file_and_wins_over_it() {
        let (_folder, root) = root(&[("/run/here/my.conf", "managerport = 1\nspooldir = /a\n")]);
        let read = |words: &[&str]| Config::read(&root, &command(words));
        let config = read(&["vm", "-k", "--config-file", "my.conf", "-v", "1", "-8", "6000"]);
        assert_eq!((config.manager_port(), config.spool()), (6000, "/a".into()));
        let config = read(&["vm", "--config-file=my.conf", "--manager-port=6001", "-d/b"]);
        assert_eq!((config.manager_port(), config.spool()), (6001, "/b".into()));
        let config = read(&["vm", "--config-file=/run/here/my.conf", "--", "--manager-port=2"]);
        assert_eq!(config.manager_port(), 1);
    }

    #[test]
    fn a_file_that_is_missed_is_said() {
        let (_folder, root) = root(&[("/etc/other", "")]);
        let config = Config::read(&root, &command(&["vm", "--config-file"]));
        assert_eq!(config.files.len(), 1);
        assert!(config.files[0].content.is_err());
        assert_eq!(config.manager_port(), 5029);
        assert_eq!(config.spool(), Path::new("/var/spool/voipmonitor"));
    }

    #[test]
    fn a_folder_is_every_file_in_it() {
        let (_folder, root) = root(&[("/c/a", "x=1"), ("/c/b", "x=2"), ("/c/sub/c", "x=3")]);
        let config = Config::read(&root, &command(&["vm", "--config-file", "/c"]));
        assert_eq!(config.text("x"), Some("2"));
        assert_eq!(config.files.len(), 2);
    }

    #[test]
    fn values_are_read_as_the_sniffer_reads_them() {
        let config = |text: &str| Config { files: Vec::new(), values: parse(text) };
        assert_eq!(config("rrd = Yes").switch("rrd"), Some(true));
        assert_eq!(config("rrd = 1").switch("rrd"), Some(true));
        assert_eq!(config("rrd = no").switch("rrd"), Some(false));
        assert_eq!(config("rrd =").switch("rrd"), None);
        assert_eq!(config("managerport = 0").manager_port(), 0);
        assert_eq!(config("managerport = 99999").manager_port(), 0);
        assert_eq!(config("managersocket = run/m").manager_socket(), None);
        assert!(config("server_bind_port = 60024").names_port_otherwise(60024));
        assert!(!config("managerport = 60024").names_port_otherwise(60024));
    }

    #[test]
    fn the_name_is_that_of_the_program_as_it_was_called() {
        assert_eq!(command(&["./bin/vm_exp", "-k"]).name(), Some("vm_exp"));
        assert_eq!(CommandLine::default().name(), None);
    }
}
