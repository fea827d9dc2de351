//! Which program is looked for, and what its unit and its files say of it.

use std::path::Path;

use anyhow::Context as _;

use super::core::{CoreFacts, Writer};
use super::unit::Unit;
use crate::build_id;
use crate::cli::Options;
use crate::files::Root;
use crate::known;

/// Where programs are installed.
const FOLDERS: [&str; 6] =
    ["/usr/sbin", "/usr/local/sbin", "/usr/bin", "/usr/local/bin", "/sbin", "/bin"];
const LONGEST_PROGRAM: u64 = 1 << 30;
/// The kernel keeps so many bytes of a command line.
const CUT_LINE: usize = 79;
const LONGEST_TEXT: u64 = 4 << 20;

/// The program that has died.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    /// File names that it may have; none: any program.
    pub(crate) names: Vec<String>,
    /// Build ID of the file that the operator named.
    id: Option<String>,
    /// Its systemd unit.
    pub(crate) unit: Option<Unit>,
    /// Files in our own root that may be the program's, the named one first.
    pub(crate) candidates: Vec<String>,
    /// Build IDs of the files where it is installed.
    installed: Vec<String>,
}

/// Whether a core is the wanted program's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Match {
    Yes,
    /// Words for a person: whose it is.
    No(String),
    /// Its notes are lost, and no file has a build ID that is in it.
    Unknown,
}

impl Wanted {
    /// Reads what the options name.
    ///
    /// # Errors
    /// The named executable cannot be read, or no unit has the name; words for a person.
    pub(crate) fn find(options: &Options, root: &Root) -> anyhow::Result<Self> {
        let given = &options.post_mortem;
        let mut wanted = Self::default();
        if let Some(path) = &given.executable {
            let path = std::path::absolute(path)?;
            let shown = path.display().to_string();
            let part = Root::own().read(&shown, LONGEST_PROGRAM).with_context(|| shown.clone())?;
            anyhow::ensure!(part.content.starts_with(b"\x7fELF"), "{shown} is no ELF file");
            wanted.id = build_id::of_file(&part.content);
            wanted.names.extend(file_name(&shown));
            wanted.candidates.push(shown);
        }
        if let Some(name) = &options.name {
            wanted.names = vec![name.clone()];
        }
        if let Some(unit) = &options.unit {
            wanted.unit = Unit::read(root, unit);
            let found = wanted.unit.as_ref().and_then(|unit| file_name(unit.command().first()?));
            if wanted.names.is_empty() {
                let stem = unit.trim_end_matches(".service").split('@').next().unwrap_or(unit);
                wanted.names.push(found.unwrap_or_else(|| stem.to_owned()));
            }
        }
        if wanted.names.is_empty() && given.core.is_empty() {
            wanted.names = known::KNOWN.iter().map(|known| known.executable.to_owned()).collect();
        }
        wanted.look_up(root, given.root.as_deref());
        Ok(wanted)
    }

    /// The unit and the files of the program, by its names.
    fn look_up(&mut self, root: &Root, mounted: Option<&Path>) {
        if self.unit.is_none() {
            self.unit = match self.names.as_slice() {
                [name] => Unit::read(root, name),
                _ => None,
            };
        }
        let own = mounted.map_or_else(String::new, |folder| folder.display().to_string());
        let by_unit = self.unit.as_ref().and_then(|unit| unit.command().first().cloned());
        let by_name = self.names.iter();
        let by_name = by_name.flat_map(|name| FOLDERS.map(|folder| format!("{folder}/{name}")));
        for path in by_unit.into_iter().chain(by_name) {
            let Ok(part) = root.read(&path, LONGEST_PROGRAM) else { continue };
            let Some(id) = build_id::of_file(&part.content) else { continue };
            if !self.installed.contains(&id) {
                self.installed.push(id);
                self.candidates.push(format!("{own}{path}"));
            }
        }
    }

    /// Names it by the core that was chosen, where nothing else did.
    pub(crate) fn name_by(&mut self, facts: &CoreFacts, root: &Root, mounted: Option<&Path>) {
        let program = facts.program();
        if !program.is_empty() && self.names != [program] {
            self.names = vec![program.to_owned()];
            self.look_up(root, mounted);
        }
    }

    /// The one program that is left where several are known: the only one that is installed.
    pub(crate) fn name_by_files(&mut self, root: &Root, mounted: Option<&Path>) {
        if self.names.len() > 1 {
            let installed = |name: &&String| {
                let mut paths = FOLDERS.iter().map(|folder| format!("{folder}/{name}"));
                paths.any(|path| root.metadata(path).is_ok_and(|found| found.is_file()))
                    || Unit::read(root, name).is_some()
            };
            let names: Vec<String> = self.names.iter().filter(installed).cloned().collect();
            if names.len() == 1 {
                self.names = names;
                self.look_up(root, mounted);
            }
        }
    }

    /// Whether a core is its.
    pub(crate) fn matches(&self, facts: &CoreFacts) -> Match {
        if let (Some(wanted), Some(found)) = (self.id.as_deref(), facts.executable_id()) {
            return match wanted == found {
                true => Match::Yes,
                false => Match::No(format!("{} (build ID {found})", described(facts))),
            };
        }
        if facts.program().is_empty() {
            let ids = self.id.iter().chain(&self.installed);
            let known = ids.clone().any(|id| facts.nameless.contains(id));
            return if known { Match::Yes } else { Match::Unknown };
        }
        let fits = |name: &String| {
            // Without the path there are only the first 15 bytes of the name.
            let short = name.get(..15).unwrap_or(name);
            facts.program() == name || (facts.executable.is_none() && facts.notes.name == short)
        };
        if self.names.is_empty() || self.names.iter().any(fits) {
            Match::Yes
        } else {
            Match::No(described(facts))
        }
    }

    /// The words of its command line: of a core that still names the configuration (`-f`), or that
    /// has all of them; else those of its unit. What gcore writes lacks the options.
    pub(crate) fn command_line(&self, cores: &[CoreFacts]) -> Vec<String> {
        let lines: Vec<(Vec<String>, bool)> = cores.iter().map(words_of).collect();
        let naming = lines.iter().find(|(words, _)| option(words, "-f").is_some());
        let whole = lines.iter().find(|(words, whole)| *whole && !words.is_empty());
        if let Some((words, _)) = naming.or(whole) {
            return words.clone();
        }
        let by_unit = self.unit.as_ref().map(Unit::command).unwrap_or_default();
        let first = || lines.first().map(|(words, _)| words.clone()).unwrap_or_default();
        if by_unit.is_empty() { first() } else { by_unit }
    }

    /// The folders in which it may have worked, each with why.
    pub(crate) fn folders(&self, root: &Root) -> Vec<(String, &'static str)> {
        let mut folders = Vec::new();
        let mut add = |folder: &str, why| {
            let known = |(other, _): &(String, &str)| other == folder;
            if folder.starts_with('/') && !folders.iter().any(known) {
                folders.push((folder.to_owned(), why));
            }
        };
        let named = |name: &String| Unit::read(root, name);
        let units: Vec<Unit> = match &self.unit {
            Some(unit) => vec![unit.clone()],
            None => self.names.iter().filter_map(named).collect(),
        };
        for unit in &units {
            add(unit.working_directory().unwrap_or_default(), "the unit's WorkingDirectory");
            let flag = option(&unit.command(), "-w").unwrap_or_default();
            add(&flag, "-w on its command line");
        }
        let command = self.command_line(&[]);
        for name in &self.names {
            for (folder, why) in configured(name, &command, root) {
                add(&folder, why);
            }
        }
        for unit in &units {
            if let Some(folder) = unit.setting("RuntimeDirectory") {
                add(&format!("/run/{folder}"), "the unit's RuntimeDirectory");
            }
            let beside = unit.command().into_iter().next();
            let beside = beside.and_then(|path| Some(path.rsplit_once('/')?.0.to_owned()));
            add(&beside.unwrap_or_default(), "beside its program");
        }
        add("/", "where daemons work");
        for name in &self.names {
            add(&format!("/run/{name}"), "its run directory");
            add(&format!("/var/run/{name}"), "its run directory");
        }
        add("/tmp", "a common place");
        folders
    }
}

/// The whole words of a core's command line, and whether they are all.
fn words_of(facts: &CoreFacts) -> (Vec<String>, bool) {
    let line = facts.notes.command_line.as_str();
    let mut words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    let is_cut = line.len() >= CUT_LINE;
    if is_cut {
        words.pop();
    }
    (words, !is_cut && facts.writer == Writer::Kernel)
}

/// Working directories that the program's own configuration sets.
fn configured(name: &str, command: &[String], root: &Root) -> Vec<(String, &'static str)> {
    let (default, flag, keys, why): (_, _, &[&str], _) = match name {
        "kamailio" => (
            "/etc/kamailio/kamailio.cfg",
            "-f",
            &["workdir", "wdir"],
            "workdir in its configuration",
        ),
        "voipmonitor" => {
            let flag = "--config-file";
            ("/etc/voipmonitor.conf", flag, &["spooldir"], "spooldir in its configuration")
        }
        _ => return Vec::new(),
    };
    let path = option(command, flag).unwrap_or_else(|| default.to_owned());
    let values = settings(&path, keys, root).into_iter();
    values.map(|(_, value)| (value, why)).collect()
}

/// The values of some keys in a configuration of lines `key = value`, in their order.
pub(crate) fn settings(path: &str, keys: &[&str], root: &Root) -> Vec<(String, String)> {
    let Ok(part) = root.read(path, LONGEST_TEXT) else { return Vec::new() };
    let text = String::from_utf8_lossy(&part.content).into_owned();
    let value = |line: &str| {
        let (key, value) = line.trim().split_once('=')?;
        let key = key.trim();
        let value = value.trim().trim_start_matches('"');
        let end = value.find(['"', ';']).unwrap_or(value.len());
        let value = value.get(..end).unwrap_or_default().trim().to_owned();
        keys.contains(&key).then(|| (key.to_owned(), value))
    };
    text.lines().filter_map(value).collect()
}

/// `-w DIR` or `-wDIR`
pub(crate) fn option(command: &[String], flag: &str) -> Option<String> {
    let at = command.iter().position(|word| word.starts_with(flag))?;
    let word = command.get(at)?;
    let joined = word.strip_prefix(flag).map(|rest| rest.trim_start_matches('='));
    match joined.filter(|value| !value.is_empty()) {
        Some(value) => Some(value.to_owned()),
        None => command.get(at.checked_add(1)?).cloned(),
    }
}

fn described(facts: &CoreFacts) -> String {
    facts.executable.clone().unwrap_or_else(|| facts.notes.name.clone())
}

fn file_name(path: &str) -> Option<String> {
    path.rsplit('/').next().filter(|name| !name.is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::core::tests::{core, notes};
    use super::*;

    fn named(names: &[&str]) -> Wanted {
        let mut wanted = Wanted::default();
        wanted.names.extend(names.iter().map(|name| (*name).to_owned()));
        wanted
    }

    #[test]
    fn a_core_is_matched_by_its_programs_name_or_build_id() {
        let (file, build_id) = core(&notes(7, 7));
        let facts = CoreFacts::read(&file).unwrap();
        assert_eq!(named(&["x", "kamailio"]).matches(&facts), Match::Yes);
        assert_eq!(Wanted::default().matches(&facts), Match::Yes);
        let other = Match::No("/usr/sbin/kamailio".to_owned());
        assert_eq!(named(&["voipmonitor"]).matches(&facts), other);
        let by_id = |id: &str| Wanted { id: Some(id.to_owned()), ..named(&["kamailio"]) };
        assert_eq!(by_id(&build_id).matches(&facts), Match::Yes);
        assert!(
            matches!(by_id("00ff").matches(&facts), Match::No(whose) if whose.contains(&build_id))
        );
    }

    #[test]
    fn a_core_without_notes_is_matched_by_an_installed_files_build_id_only() {
        let (file, build_id) = core(&bundle::corefile::Notes::default());
        let facts = CoreFacts::read(&file).unwrap();
        let installed =
            |id: &str| Wanted { installed: vec![id.to_owned()], ..named(&["kamailio"]) };
        assert_eq!(installed(&build_id).matches(&facts), Match::Yes);
        assert_eq!(installed("00ff").matches(&facts), Match::Unknown);
    }

    #[test]
    fn the_command_line_is_the_cores_where_it_is_whole_or_names_the_configuration() {
        let line = |line: &str| {
            let (file, _) = core(&notes(7, 7));
            let mut facts = CoreFacts::read(&file).unwrap();
            facts.notes.command_line = line.to_owned();
            facts
        };
        let folder = tempfile::tempdir().unwrap();
        let units = folder.path().join("etc/systemd/system");
        fs::create_dir_all(&units).unwrap();
        let text = "[Service]\nExecStart=-/usr/sbin/kamailio -f /unit.cfg\nWorkingDirectory=/srv\n";
        fs::write(units.join("kamailio.service"), text).unwrap();
        let root = Root::at(folder.path()).unwrap();
        let unit = Unit::read(&root, "kamailio");
        let wanted = Wanted { unit, ..named(&["kamailio"]) };
        let said = |text: &str| wanted.command_line(&[line(text)]).join(" ");
        assert_eq!(said("kamailio -f /a.cfg"), "kamailio -f /a.cfg");
        let cut = format!("{:79}", "kamailio -f /a.cfg -w /very/long/");
        assert_eq!(said(&cut.replace("  ", "xx")), "kamailio -f /a.cfg -w");
        let cut = format!("kamailio {}", "x".repeat(70));
        assert_eq!(said(&cut), "/usr/sbin/kamailio -f /unit.cfg");
        let mut of_gcore = line("kamailio");
        of_gcore.writer = Writer::Gcore;
        let both = [of_gcore.clone(), line("kamailio -f /b.cfg")];
        assert_eq!(wanted.command_line(&both).join(" "), "kamailio -f /b.cfg");
        assert_eq!(wanted.command_line(&[of_gcore])[2], "/unit.cfg");
        assert_eq!(wanted.command_line(&[]).join(" "), "/usr/sbin/kamailio -f /unit.cfg");
        let folders: Vec<_> = wanted.folders(&root).into_iter().map(|(folder, _)| folder).collect();
        assert_eq!(folders[..3], ["/srv", "/usr/sbin", "/"]);
    }

    #[test]
    fn a_configuration_tells_where_the_program_works() {
        let folder = tempfile::tempdir().unwrap();
        let etc = folder.path().join("etc/kamailio");
        fs::create_dir_all(&etc).unwrap();
        fs::write(etc.join("kamailio.cfg"), "workdir=\"/work\" # or not\nwdir_x=/no\n").unwrap();
        fs::write(folder.path().join("etc/voipmonitor.conf"), "spooldir = /spool\n").unwrap();
        let root = Root::at(folder.path()).unwrap();
        let folders = |name: &str| {
            let folders = named(&[name]).folders(&root);
            folders.into_iter().next().unwrap()
        };
        assert_eq!(folders("kamailio"), ("/work".to_owned(), "workdir in its configuration"));
        assert_eq!(folders("voipmonitor"), ("/spool".to_owned(), "spooldir in its configuration"));
        assert_eq!(folders("other").0, "/");
    }

    #[test]
    fn options_are_read_with_and_without_a_blank() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(option(&words("x -w /a"), "-w"), Some("/a".to_owned()));
        assert_eq!(option(&words("x -w/a"), "-w"), Some("/a".to_owned()));
        assert_eq!(option(&words("x --config-file=/a"), "--config-file"), Some("/a".to_owned()));
        assert_eq!(option(&words("x -w"), "-w"), None);
    }
}
