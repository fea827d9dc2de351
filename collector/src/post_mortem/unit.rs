//! What systemd was told about a service: read from its unit files, since systemd may be gone or
//! not be that of the system which is looked at.

use std::collections::BTreeMap;

use crate::files::Root;

/// Where unit files lie; the first one that has a unit hides those of the later ones.
const FOLDERS: [&str; 5] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];
const LONGEST: u64 = 1 << 20;
const MOST_DROP_INS: usize = 100;
/// Longer words, once variables are replaced, are not meant.
const LONGEST_WORD: usize = 64 << 10;

/// A service's settings, those of its drop-ins included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Unit {
    /// With its ending, `kamailio.service`.
    pub(crate) name: String,
    /// The files that were read.
    pub(crate) files: Vec<String>,
    /// The last value of each setting of `[Service]`.
    settings: BTreeMap<String, String>,
    variables: BTreeMap<String, String>,
}

impl Unit {
    /// The unit of this name (`.service` may be left out), if there is one below the root.
    pub(crate) fn read(root: &Root, name: &str) -> Option<Self> {
        let name = if name.contains('.') { name.to_owned() } else { format!("{name}.service") };
        // No path: names lead to folders of systemd only.
        if name.contains('/') {
            return None;
        }
        let mut unit = Self { name: name.clone(), ..Self::default() };
        // `kamailio@one.service` is made from `kamailio@.service`.
        let template = name
            .split_once('@')
            .and_then(|(stem, instance)| Some(format!("{stem}@.{}", instance.rsplit_once('.')?.1)));
        let names: Vec<String> = std::iter::once(name).chain(template).collect();
        let places = || names.iter().flat_map(|name| FOLDERS.map(|folder| (folder, name)));
        for (folder, name) in places() {
            if unit.files.is_empty() {
                unit.add(root, &format!("{folder}/{name}"));
            }
        }
        let mut drop_ins: BTreeMap<String, String> = BTreeMap::new();
        for (folder, name) in places() {
            let folder = format!("{folder}/{name}.d");
            for entry in root.list(&folder).unwrap_or_default() {
                let file = entry.name.to_string_lossy().into_owned();
                if file.ends_with(".conf") {
                    drop_ins.entry(file.clone()).or_insert(format!("{folder}/{file}"));
                }
            }
        }
        for path in drop_ins.values().take(MOST_DROP_INS) {
            unit.add(root, path);
        }
        (!unit.files.is_empty()).then_some(unit)
    }

    fn add(&mut self, root: &Root, path: &str) {
        let Ok(part) = root.read(path, LONGEST) else { return };
        self.files.push(path.to_owned());
        let text = String::from_utf8_lossy(&part.content).replace("\\\n", " ");
        let mut section = "";
        for line in text.lines().map(str::trim) {
            if line.starts_with('[') {
                section = line;
                continue;
            }
            let comment = line.starts_with('#') || line.starts_with(';');
            let Some((key, value)) = line.split_once('=').filter(|_| !comment) else { continue };
            if section != "[Service]" {
                continue;
            }
            let (key, value) = (key.trim(), value.trim());
            match key {
                "Environment" => self.variables.extend(words(value).iter().filter_map(|word| {
                    word.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()))
                })),
                "EnvironmentFile" => self.add_variables(root, value),
                _ => {
                    self.settings.insert(key.to_owned(), value.to_owned());
                }
            }
        }
    }

    /// `-/etc/default/kamailio`: one file; names with `*` are left out.
    fn add_variables(&mut self, root: &Root, path: &str) {
        let Ok(part) = root.read(path.trim_start_matches('-'), LONGEST) else { return };
        let text = String::from_utf8_lossy(&part.content).into_owned();
        for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
            if let Some((name, value)) = line.split_once('=') {
                let value = words(value).into_iter().next().unwrap_or_default();
                self.variables.insert(name.trim().to_owned(), value);
            }
        }
    }

    /// A setting of `[Service]`.
    pub(crate) fn setting(&self, key: &str) -> Option<&str> {
        self.settings.get(key).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Where its processes begin to work.
    pub(crate) fn working_directory(&self) -> Option<&str> {
        self.setting("WorkingDirectory").map(|folder| folder.trim_start_matches('-'))
    }

    /// The command line of `ExecStart`, its variables replaced as far as they are known.
    pub(crate) fn command(&self) -> Vec<String> {
        let Some(command) = self.setting("ExecStart") else { return Vec::new() };
        let command = command.trim_start_matches(['-', '@', ':', '+', '!']);
        words(command).iter().map(|word| self.with_variables(word)).collect()
    }

    fn with_variables(&self, word: &str) -> String {
        let mut text = word.to_owned();
        // The longest names first: `$A` must not eat the beginning of `$AB`.
        let mut names: Vec<&String> = self.variables.keys().collect();
        names.sort_by_key(|name| std::cmp::Reverse(name.len()));
        for name in names.into_iter().filter(|name| !name.is_empty()) {
            let value = self.variables.get(name).map_or("", String::as_str);
            text = text.replace(&format!("${{{name}}}"), value);
            text = text.replace(&format!("${name}"), value);
            if text.len() > LONGEST_WORD {
                return word.to_owned();
            }
        }
        text
    }
}

/// Splits at blanks; quotes keep blanks.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let (mut word, mut inside, mut begun) = (String::new(), None, false);
    for letter in text.chars() {
        match (letter, inside) {
            ('"' | '\'', None) => (inside, begun) = (Some(letter), true),
            (letter, Some(quote)) if letter == quote => inside = None,
            (letter, None) if letter.is_whitespace() => {
                if begun {
                    words.push(std::mem::take(&mut word));
                }
                begun = false;
            }
            (letter, _) => {
                word.push(letter);
                begun = true;
            }
        }
    }
    if begun {
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_unit_is_read_with_its_drop_ins_and_variables() {
        let folder = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        put(
            "lib/systemd/system/kamailio.service",
            "[Unit]\nDescription=x\n[Service]\nEnvironment='CFGFILE=/etc/kamailio/kamailio.cfg'\n\
             Environment='CFG=wrong' 'MEM=64'\nEnvironmentFile=-/etc/default/kamailio\n\
             ExecStart=/usr/sbin/kamailio -f $CFGFILE \\\n -m ${MEM}\n[Install]\nLimitCORE=5\n",
        );
        put("etc/default/kamailio", "# comment\nMEM=\"128\"\n");
        put("etc/systemd/system/kamailio.service.d/core.conf", "[Service]\nLimitCORE=0\n");
        put("etc/systemd/system/kamailio.service.d/note.txt", "[Service]\nLimitCORE=7\n");
        let root = Root::at(folder.path()).unwrap();
        let unit = Unit::read(&root, "kamailio").unwrap();
        let command = ["/usr/sbin/kamailio", "-f", "/etc/kamailio/kamailio.cfg", "-m", "128"];
        assert_eq!(unit.command(), command);
        assert_eq!(unit.setting("LimitCORE"), Some("0"));
        assert_eq!(unit.files.len(), 2);
        assert_eq!(Unit::read(&root, "other"), None);
        assert_eq!(Unit::read(&root, "../../../etc/default/kamailio"), None);
    }

    #[test]
    fn a_template_serves_its_instances() {
        let folder = tempfile::tempdir().unwrap();
        let system = folder.path().join("usr/lib/systemd/system");
        fs::create_dir_all(&system).unwrap();
        fs::write(system.join("kamailio@.service"), "[Service]\nWorkingDirectory=/srv\n").unwrap();
        let root = Root::at(folder.path()).unwrap();
        let unit = Unit::read(&root, "kamailio@one.service").unwrap();
        assert_eq!(unit.setting("WorkingDirectory"), Some("/srv"));
    }
}
