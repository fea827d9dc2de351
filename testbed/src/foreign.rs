//! Small root directories of other Debian releases, each with that release's own Kamailio.
//!
//! Nothing is mounted where the host could see it: a root is made, and a program in it started, in
//! a mount namespace of its own, which ends with its processes. A release that cannot be fetched
//! fails the test with what `mmdebstrap` said.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::tools::{self, run};

/// For fetching and unpacking one release; it takes half a minute to a minute.
const PATIENCE: Duration = Duration::from_secs(10 * 60);

/// Enters `$1` and becomes the rest of the arguments, with the same process ID.
const ENTER: &str = "root=$1; shift
mount -t proc proc \"$root/proc\"
mount --rbind /dev \"$root/dev\"
exec chroot \"$root\" \"$@\"";

/// Where the tests of this build keep their roots, for all of them.
pub fn directory() -> PathBuf {
    let directory = tools::build_directory().join("roots");
    fs::create_dir_all(&directory).unwrap();
    directory
}

/// A root directory.
#[derive(Debug)]
pub struct Root {
    directory: PathBuf,
}

impl Root {
    /// A release, for instance `bullseye`, with its Kamailio below [`directory`]: the one that an
    /// earlier test has made there, else a new one.
    #[track_caller]
    pub fn of(release: &str) -> Self {
        let parent = directory();
        // Whoever comes second waits; the lock goes with the file.
        let lock = File::create(parent.join(format!("{release}.lock"))).unwrap();
        lock.lock().unwrap();
        let directory = parent.join(release);
        if !directory.exists() {
            let unfinished = parent.join(format!("{release}.unfinished"));
            if unfinished.exists() {
                fs::remove_dir_all(&unfinished).unwrap();
            }
            Self::make(release, &unfinished);
            fs::rename(&unfinished, &directory).unwrap();
        }
        Self { directory }
    }

    #[track_caller]
    fn make(release: &str, directory: &Path) {
        // A PID namespace too: when the deadline passes or the test ends, everything inside ends.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "unshare", "--mount"]);
        command.args(["--pid", "--fork", "--kill-child", "--mount-proc"]);
        command.args(["mmdebstrap", "--variant=minbase", "--include=kamailio", release]);
        command.arg(directory).arg(mirror());
        run(&mut command, PATIENCE).expect(&[0]);
        assert!(directory.join("usr/sbin/kamailio").is_file(), "{release} has no Kamailio");
    }

    /// Where it is.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// A path below it as programs in it see it.
    #[track_caller]
    pub fn inner(&self, path: &Path) -> PathBuf {
        let below = path.strip_prefix(&self.directory).expect("a path in the root directory");
        Path::new("/").join(below)
    }

    /// The words before a command that make it run inside.
    pub fn entrance(&self) -> Vec<String> {
        let words = ["unshare", "--mount", "sh", "-euc", ENTER, "sh"].map(str::to_owned);
        let root = self.directory.display().to_string();
        words.into_iter().chain([root]).collect()
    }
}

/// The URI from which apt fetches this host's own release.
#[track_caller]
fn mirror() -> String {
    let os = fs::read_to_string("/etc/os-release").expect("the host says what it is");
    let name = os.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    let name = name.expect("the host's release has a name").trim_matches('"');
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    files.extend(
        fs::read_dir("/etc/apt/sources.list.d")
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path()),
    );
    files.sort();
    let found = files.iter().find_map(|path| {
        let text = fs::read_to_string(path).ok()?;
        match path.extension()?.to_str()? {
            "list" => from_list(&text, name),
            "sources" => from_stanzas(&text, name),
            _ => None,
        }
    });
    found.unwrap_or_else(|| panic!("no source of {name} in {files:?}"))
}

/// From lines as `deb [option=value …] URI SUITE COMPONENT…`.
fn from_list(text: &str, suite: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let rest = line.trim().strip_prefix("deb ")?.trim_start();
        let rest = match rest.strip_prefix('[') {
            Some(options) => options.split_once(']')?.1,
            None => rest,
        };
        let words: Vec<&str> = rest.split_whitespace().collect();
        let [uri, of, "main", ..] = words[..] else { return None };
        (of == suite).then(|| uri.to_owned())
    })
}

/// From stanzas with a field `URIs` and a field `Suites`.
fn from_stanzas(text: &str, suite: &str) -> Option<String> {
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    lines.split(|line| line.trim().is_empty()).find_map(|stanza| {
        let words = |name: &str| -> Vec<&str> {
            let field = |line: &&str| line.split_once(':').is_some_and(|(own, _)| own == name);
            let Some(first) = stanza.iter().position(field) else { return Vec::new() };
            let more = stanza[first + 1..].iter().take_while(|line| line.starts_with([' ', '\t']));
            let (_, value) = stanza[first].split_once(':').unwrap();
            value.split_whitespace().chain(more.flat_map(|line| line.split_whitespace())).collect()
        };
        let fits = words("Types").contains(&"deb")
            && words("Suites").contains(&suite)
            && words("Components").contains(&"main")
            && words("Enabled") != ["no"];
        words("URIs").first().filter(|_| fits).map(|uri| (*uri).to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_sources_are_read() {
        let text = "# deb mirror://old bookworm main\n\
                    deb-src mirror://source bookworm main\n\
                    deb mirror://other stable main\n\
                    deb mirror://security bookworm-security main\n\
                    deb [arch=amd64 signed-by=/a] mirror://wanted bookworm main contrib\n";
        assert_eq!(from_list(text, "bookworm").as_deref(), Some("mirror://wanted"));
        assert_eq!(from_list(text, "trixie"), None);
    }

    #[test]
    fn stanzas_are_read() {
        let text = "Types: deb\nURIs: mirror://off\nSuites: bookworm\nComponents: main\n\
                    Enabled: no\n\n\
                    Types: deb\n# a remark\nURIs:\n mirror://wanted\n mirror://second\n\
                    Suites: bookworm bookworm-updates\nComponents: main\n\n\
                    Types: deb\nURIs: mirror://security\nSuites: bookworm-security\n\
                    Components: main\n";
        assert_eq!(from_stanzas(text, "bookworm").as_deref(), Some("mirror://wanted"));
        let security = from_stanzas(text, "bookworm-security");
        assert_eq!(security.as_deref(), Some("mirror://security"));
        assert_eq!(from_stanzas(text, "trixie"), None);
    }
}
