//! The configuration's files, as the target finds them.
//!
//! The main file is what `-f` of its command line says, relative to its working directory; included
//! ones are looked for beside the file that names them, beside the main file, and in the working
//! directory, in this order. Every file is read once, whoever includes it; depth, number and size
//! are limited, and what is missing is said.

use std::collections::BTreeSet;
use std::io;
use std::path::{Component, Path, PathBuf};

use super::configuration::{Definitions, Parameter, Statements};
use crate::files::Root;

/// Where Kamailio looks if its command line names no file.
const DEFAULT: &str = "/etc/kamailio/kamailio.cfg";
/// Bytes of one file; a configuration of 60,000 lines has about 2 MB.
pub(crate) const LONGEST: u64 = 4 << 20;
/// Bytes of all files.
const LONGEST_OF_ALL: usize = 64 << 20;
/// Files in all.
const MOST_FILES: usize = 500;
/// Files that include one another.
const DEEPEST: usize = 20;
/// Where these parameters lead to, maintainers ask for, too.
const WANTED: [(&str, &str); 3] =
    [("tls", "config"), ("dispatcher", "list_file"), ("permissions", "address_file")];

/// A file of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConfigurationFile {
    /// Where it is, as the target sees it.
    pub(crate) path: PathBuf,
    /// Its first 4 MiB.
    pub(crate) content: Vec<u8>,
    /// Its length in bytes.
    pub(crate) total: u64,
}

/// The whole configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Configuration {
    /// Its files, the main one first.
    pub(crate) files: Vec<ConfigurationFile>,
    /// What could not be read, and why.
    pub(crate) missing: Vec<(PathBuf, String)>,
    /// Parameters of modules, in the order of the files.
    pub(crate) parameters: Vec<Parameter>,
    /// The run directory, if one is set.
    pub(crate) run_directory: Option<String>,
}

/// What a process was started with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Started {
    /// The configuration's main file (`-f`).
    pub(crate) configuration: PathBuf,
    /// Its run directory (`-Y`), if given.
    pub(crate) run_directory: Option<String>,
    /// Its working directory.
    pub(crate) working_directory: PathBuf,
    /// Parameters of modules on the command line (`--modparam=MODULE:NAME:TYPE:VALUE`).
    pub(crate) parameters: Vec<Parameter>,
}

impl Started {
    /// Of a process that runs; of one that does not, what Kamailio does without options.
    pub(crate) fn of(id: u32) -> Self {
        let command_line = std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        let folder = std::fs::read_link(format!("/proc/{id}/cwd")).unwrap_or_default();
        Self::read(&command_line, folder)
    }

    /// Reads a command line as `/proc/PID/cmdline` has it.
    pub(crate) fn read(command_line: &[u8], working_directory: PathBuf) -> Self {
        let words: Vec<String> = command_line
            .split(|byte| *byte == 0)
            .map(|word| String::from_utf8_lossy(word).into_owned())
            .collect();
        let option = |letter: &str| {
            let mut found = None;
            for (at, word) in words.iter().enumerate().skip(1) {
                if word == letter {
                    found = words.get(at.saturating_add(1)).cloned();
                } else if let Some(value) = word.strip_prefix(letter) {
                    found = Some(value.to_owned());
                }
            }
            found.filter(|value| !value.is_empty())
        };
        let file = option("-f").unwrap_or_else(|| DEFAULT.to_owned());
        Self {
            configuration: absolute(&working_directory.join(file)),
            run_directory: option("-Y"),
            parameters: words.iter().filter_map(|word| parameter(word)).collect(),
            working_directory,
        }
    }
}

impl Configuration {
    /// Reads the main file and all that it includes.
    pub(crate) fn read(started: &Started, root: &Root) -> Self {
        let mut reader = Reader {
            root,
            started,
            configuration: Self::default(),
            seen: BTreeSet::new(),
            bytes: 0,
            defines: Definitions::default(),
        };
        reader.add(&started.configuration, false, 0);
        reader.configuration.parameters.extend(started.parameters.iter().cloned());
        reader.add_wanted();
        reader.configuration
    }
}

struct Reader<'a> {
    root: &'a Root,
    started: &'a Started,
    configuration: Configuration,
    seen: BTreeSet<PathBuf>,
    bytes: usize,
    defines: Definitions,
}

impl Reader<'_> {
    fn add(&mut self, path: &Path, optional: bool, depth: usize) {
        let Some(text) = self.take(path, optional) else { return };
        let statements = Statements::read(&text, &mut self.defines);
        self.configuration.parameters.extend(statements.parameters);
        if statements.run_directory.is_some() {
            self.configuration.run_directory = statements.run_directory;
        }
        for include in statements.includes {
            let found = self.find(&include.path, path);
            if depth >= DEEPEST {
                self.missed(found, "files include one another more than 20 deep");
            } else {
                self.add(&found, include.optional, depth.saturating_add(1));
            }
        }
    }

    /// Files that a module reads.
    fn add_wanted(&mut self) {
        let parameters = self.configuration.parameters.iter();
        let wanted = parameters.filter(|one| {
            WANTED.iter().any(|(module, name)| one.module == *module && one.name == *name)
        });
        let paths: Vec<String> = wanted.map(|one| one.value.clone()).collect();
        for path in paths {
            let path = self.find(&path, &self.started.configuration);
            // A parameter that an `#!ifdef` leaves out may name a file that was never there.
            self.take(&path, true);
        }
    }

    /// Where a name leads that stands in the file `from`.
    fn find(&self, name: &str, from: &Path) -> PathBuf {
        let folders = [from.parent(), self.started.configuration.parent()];
        let folders =
            folders.into_iter().flatten().chain([self.started.working_directory.as_path()]);
        let candidates: Vec<PathBuf> = folders.map(|folder| absolute(&folder.join(name))).collect();
        let found = candidates.iter().find(|path| self.root.metadata(path).is_ok());
        found.or(candidates.first()).cloned().unwrap_or_default()
    }

    /// Reads a file, unless it was read before.
    fn take(&mut self, path: &Path, optional: bool) -> Option<String> {
        if !self.seen.insert(path.to_owned()) {
            return None;
        }
        if ["/proc", "/sys", "/dev"].iter().any(|folder| path.starts_with(folder)) {
            self.missed(path.to_owned(), "the kernel's files are no configuration");
            return None;
        }
        if self.configuration.files.len() >= MOST_FILES {
            self.missed(path.to_owned(), "more than 500 files");
            return None;
        }
        if self.bytes > LONGEST_OF_ALL {
            self.missed(path.to_owned(), "the files before it have more than 64 MiB");
            return None;
        }
        match self.root.read(path, LONGEST) {
            Ok(part) => {
                let text = String::from_utf8_lossy(&part.content).into_owned();
                self.bytes = self.bytes.saturating_add(part.content.len());
                self.configuration.files.push(ConfigurationFile {
                    path: path.to_owned(),
                    content: part.content,
                    total: part.total,
                });
                Some(text)
            }
            Err(error) if optional && error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                self.missed(path.to_owned(), &error.to_string());
                None
            }
        }
    }

    fn missed(&mut self, path: PathBuf, why: &str) {
        self.configuration.missing.push((path, why.to_owned()));
    }
}

fn parameter(word: &str) -> Option<Parameter> {
    let mut parts = word.strip_prefix("--modparam=")?.splitn(4, ':').map(str::to_owned);
    let [module, name, _, value] = std::array::from_fn(|_| parts.next());
    Some(Parameter { module: module?, name: name?, value: value? })
}

/// Without `.` and `..`, as a name; links are resolved where the file is opened.
pub(super) fn absolute(path: &Path) -> PathBuf {
    let mut absolute = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => absolute.push(name),
            Component::ParentDir => {
                absolute.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    absolute
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn tree(files: &[(&str, &str)]) -> (tempfile::TempDir, Root) {
        let folder = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        let root = Root::at(folder.path()).unwrap();
        (folder, root)
    }

    fn started(command_line: &str) -> Started {
        Started::read(command_line.replace(' ', "\0").as_bytes(), "/srv".into())
    }

    fn paths(configuration: &Configuration) -> Vec<&str> {
        configuration.files.iter().filter_map(|file| file.path.to_str()).collect()
    }

    #[test]
    fn the_command_line_names_the_file_and_the_run_directory() {
        let with = started("kamailio -DD -f conf/../k.cfg -Y /run/k -m 64");
        assert_eq!(with.configuration, Path::new("/srv/k.cfg"));
        assert_eq!(with.run_directory.as_deref(), Some("/run/k"));
        assert_eq!(started("kamailio -f/a/b.cfg").configuration, Path::new("/a/b.cfg"));
        assert_eq!(started("kamailio -DD").configuration, Path::new(DEFAULT));
        assert_eq!(started("kamailio -f").configuration, Path::new(DEFAULT));
        let given = started("kamailio --modparam=ctl:binrpc:s:unix:/run/x --modparam=short");
        let binrpc = ("ctl".into(), "binrpc".into(), "unix:/run/x".into());
        let found = given.parameters.into_iter().map(|one| (one.module, one.name, one.value));
        assert_eq!(found.collect::<Vec<(String, String, String)>>(), [binrpc]);
    }

    #[test]
    fn includes_are_found_where_kamailio_finds_them() {
        let (_folder, root) = tree(&[
            (
                "etc/k/main.cfg",
                "include_file \"sub/one.cfg\"\n#!import_file \"missing.cfg\"\n\
                modparam(\"dispatcher\", \"list_file\", \"dispatcher.list\")",
            ),
            (
                "etc/k/sub/one.cfg",
                "include_file \"two.cfg\"\ninclude_file \"three.cfg\"\n\
                modparam(\"ctl\", \"binrpc\", \"unix:/run/x\")",
            ),
            ("etc/k/sub/two.cfg", "include_file \"one.cfg\"\ninclude_file \"../main.cfg\""),
            ("etc/k/three.cfg", "include_file \"gone.cfg\""),
            ("etc/k/dispatcher.list", "1 sip:a"),
        ]);
        let configuration = Configuration::read(&started("kamailio -f /etc/k/main.cfg"), &root);
        assert_eq!(
            paths(&configuration),
            [
                "/etc/k/main.cfg",
                "/etc/k/sub/one.cfg",
                "/etc/k/sub/two.cfg",
                "/etc/k/three.cfg",
                "/etc/k/dispatcher.list"
            ]
        );
        let [(missing, _)] = &configuration.missing[..] else { panic!("{configuration:?}") };
        assert_eq!(missing, Path::new("/etc/k/gone.cfg"));
        assert_eq!(configuration.parameters.len(), 2);
    }

    #[test]
    fn endless_and_strange_includes_end() {
        let files: Vec<(String, String)> = (0..40)
            .map(|number| (format!("f{number}"), format!("include_file \"f{}\"", number + 1)))
            .collect();
        let files: Vec<(&str, &str)> =
            files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
        let (folder, root) = tree(&files);
        let configuration = Configuration::read(&started("kamailio -f /f0"), &root);
        assert_eq!(configuration.files.len(), 21);
        assert_eq!(configuration.missing.len(), 1);

        let fifo = folder.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let configuration = Configuration::read(&started("kamailio -f /fifo"), &root);
        let why = "it is a FIFO, not a file".to_owned();
        assert_eq!(configuration.missing, [(PathBuf::from("/fifo"), why)]);
    }
}
