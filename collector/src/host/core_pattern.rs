//! Where the kernel would put a core of the next crash, and what would prevent it: core(5) in words.

use crate::number::human;

/// Where a core goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Goes {
    /// Nowhere: the pattern is empty and no PID is added.
    Nowhere,
    /// To a file with this template.
    File(String),
    /// To the stdin of this program.
    Pipe(String),
    /// To a socket (Linux 6.16).
    Socket(String),
}

/// What the kernel shows of one process and of itself; `None`: not known.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    /// `kernel.core_pattern`
    pub(crate) pattern: String,
    /// `kernel.core_uses_pid`
    pub(crate) uses_pid: bool,
    /// `fs.suid_dumpable`
    pub(crate) suid_dumpable: Option<u32>,
    /// Soft limit `Max core file size` in bytes; `u64::MAX` is unlimited.
    pub(crate) limit: Option<u64>,
    /// The kernel takes it for a program that must not be dumped: its files in `/proc` belong to
    /// root and not to its user.
    pub(crate) undumpable: bool,
    /// Its working directory.
    pub(crate) folder: Option<String>,
    /// Whether its user may make files where the core would go.
    pub(crate) writable: Option<bool>,
    /// Bytes that are free there.
    pub(crate) free: Option<u64>,
    /// Bytes that a core may have: its resident and swapped memory.
    pub(crate) size: Option<u64>,
    /// `coredump_filter`
    pub(crate) filter: Option<u64>,
    /// Whether the program of a pipe exists.
    pub(crate) program_exists: Option<bool>,
}

impl Goes {
    /// What a pattern means.
    pub(crate) fn of(pattern: &str, uses_pid: bool) -> Self {
        let pattern = pattern.trim_end_matches('\n');
        if let Some(command) = pattern.strip_prefix('|') {
            return Self::Pipe(command.trim().to_owned());
        }
        if pattern.starts_with('@') {
            return Self::Socket(pattern.to_owned());
        }
        match (pattern.is_empty(), uses_pid && !pattern.contains("%p")) {
            (true, false) => Self::Nowhere,
            (true, true) => Self::File(".%p".to_owned()),
            (false, true) => Self::File(format!("{pattern}.%p")),
            (false, false) => Self::File(pattern.to_owned()),
        }
    }

    /// The program of a pipe.
    pub(crate) fn program(&self) -> Option<&str> {
        match self {
            Self::Pipe(command) => command.split_whitespace().next(),
            _ => None,
        }
    }

    /// The folder that a file goes to, from `/`; templates in the folder's name lead nowhere.
    pub(crate) fn folder(&self, working: Option<&str>) -> Option<String> {
        let Self::File(template) = self else { return None };
        let (folder, _) = template.rsplit_once('/').unwrap_or(("", template));
        if folder.contains('%') {
            return None;
        }
        match (template.starts_with('/'), folder) {
            (true, "") => Some("/".to_owned()),
            (true, folder) => Some(folder.to_owned()),
            (false, "") => working.map(str::to_owned),
            (false, folder) => Some(format!("{}/{folder}", working?.trim_end_matches('/'))),
        }
    }
}

/// What would happen, and each thing that prevents or endangers it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Meaning {
    /// Where it goes.
    pub(crate) goes: String,
    /// Why there would be none; empty: there would be one, as far as can be told.
    pub(crate) prevented: Vec<String>,
    /// What may go wrong.
    pub(crate) doubts: Vec<String>,
}

/// Says it.
pub(crate) fn meaning(facts: &Facts) -> Meaning {
    let goes = Goes::of(&facts.pattern, facts.uses_pid);
    let mut meaning = Meaning { goes: words(&goes, facts), ..Meaning::default() };
    let piped = matches!(goes, Goes::Pipe(_) | Goes::Socket(_));
    if goes == Goes::Nowhere {
        meaning.prevented.push("kernel.core_pattern is empty".into());
    }
    match facts.limit {
        Some(0) if piped => meaning.doubts.push(
            "RLIMIT_CORE is 0: the kernel pipes the core all the same, but its receiver may obey \
             the limit (systemd-coredump keeps no file then)"
                .into(),
        ),
        Some(limit @ 0..=1) if !piped => meaning.prevented.push(format!(
            "RLIMIT_CORE is {limit} (ulimit -c; LimitCORE= of the unit): no file is written"
        )),
        Some(limit) if !piped && facts.size.is_some_and(|size| size > limit) => {
            meaning.doubts.push(format!(
                "RLIMIT_CORE is {limit} bytes ({}), less than its memory: the core would be cut",
                human(limit)
            ));
        }
        _ => {}
    }
    if facts.undumpable {
        undumpable(facts, &goes, &mut meaning);
    }
    if facts.writable == Some(false) {
        meaning.prevented.push("its user may not make files in that folder".into());
    }
    if let (Some(free), Some(size)) = (facts.free, facts.size)
        && !piped
        && free < size
    {
        meaning.doubts.push(format!(
            "{} ({free} bytes) are free there, and it has {} ({size} bytes) of memory",
            human(free),
            human(size)
        ));
    }
    if facts.program_exists == Some(false) {
        let program = goes.program().unwrap_or_default();
        meaning.prevented.push(format!("{program}, which the core is piped to, does not exist"));
    }
    if matches!(&goes, Goes::File(name) if !name.contains("%p") && !name.contains("%P")) {
        meaning.doubts.push(
            "the name has no PID: cores of several processes in one folder overwrite each other"
                .into(),
        );
    }
    if let Some(filter) = facts.filter.filter(|filter| filter & 0b11 != 0b11) {
        meaning.doubts.push(format!(
            "coredump_filter is 0x{filter:x}: anonymous memory (bit 0 private, bit 1 shared) is \
             left out; Kamailio's SHM is anonymous shared memory"
        ));
    }
    meaning
}

/// A process that changed its user, or had `PR_SET_DUMPABLE` 0.
fn undumpable(facts: &Facts, goes: &Goes, meaning: &mut Meaning) {
    let absolute = match goes {
        Goes::File(template) => template.starts_with('/'),
        _ => true,
    };
    match facts.suid_dumpable {
        Some(2) if absolute => meaning.doubts.push(
            "the kernel takes it for set-user-ID or not dumpable; with fs.suid_dumpable 2 the core \
             belongs to root"
                .into(),
        ),
        Some(2) => meaning.prevented.push(
            "the kernel takes it for set-user-ID or not dumpable, and with fs.suid_dumpable 2 the \
             pattern must be an absolute path or a pipe"
                .into(),
        ),
        Some(1) => {}
        _ => meaning.prevented.push(
            "the kernel takes it for not dumpable (it changed its user, or asked for it with \
             PR_SET_DUMPABLE), and fs.suid_dumpable is 0; Kamailio: disable_core_dump=no, and \
             fs.suid_dumpable=2 with an absolute pattern"
                .into(),
        ),
    }
}

fn words(goes: &Goes, facts: &Facts) -> String {
    match goes {
        Goes::Nowhere => "nowhere".to_owned(),
        Goes::Pipe(command) => format!("to the stdin of `{command}`"),
        Goes::Socket(address) => format!("to the socket {address}"),
        Goes::File(template) if template.starts_with('/') => {
            format!("to the file {template}, as the process sees it")
        }
        Goes::File(template) => {
            let folder = facts.folder.as_deref().unwrap_or("its working directory");
            format!("to the file {template} in {folder}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(pattern: &str) -> Facts {
        Facts {
            pattern: pattern.to_owned(),
            limit: Some(u64::MAX),
            suid_dumpable: Some(0),
            folder: Some("/run/kamailio".into()),
            filter: Some(0x33),
            ..Facts::default()
        }
    }

    #[test]
    fn the_place_follows_from_the_pattern() {
        assert_eq!(Goes::of("core\n", false), Goes::File("core".into()));
        assert_eq!(Goes::of("core", true), Goes::File("core.%p".into()));
        assert_eq!(Goes::of("core.%p", true), Goes::File("core.%p".into()));
        assert_eq!(Goes::of("", false), Goes::Nowhere);
        let pipe = Goes::of("|/lib/systemd/systemd-coredump %P %u", false);
        assert_eq!(pipe.program(), Some("/lib/systemd/systemd-coredump"));
        let folder = |pattern: &str| Goes::of(pattern, false).folder(Some("/run/kamailio"));
        assert_eq!(folder("core").as_deref(), Some("/run/kamailio"));
        assert_eq!(folder("cores/%e").as_deref(), Some("/run/kamailio/cores"));
        assert_eq!(folder("/var/cores/core.%p").as_deref(), Some("/var/cores"));
        assert_eq!(folder("/core").as_deref(), Some("/"));
        assert_eq!(folder("/var/%e/core"), None);
    }

    #[test]
    fn nothing_is_wrong_with_a_good_setting() {
        let meaning = meaning(&Facts { free: Some(2), size: Some(1), ..facts("/var/cores/c.%p") });
        assert_eq!(meaning.goes, "to the file /var/cores/c.%p, as the process sees it");
        assert_eq!((meaning.prevented.len(), meaning.doubts.len()), (0, 0));
    }

    #[test]
    fn each_hindrance_is_told() {
        let prevented = |facts: &Facts| meaning(facts).prevented.join("\n");
        let doubts = |facts: &Facts| meaning(facts).doubts.join("\n");
        assert!(
            prevented(&Facts { limit: Some(0), ..facts("core.%p") }).contains("RLIMIT_CORE is 0")
        );
        assert!(prevented(&facts("")).contains("empty"));
        let undumpable = Facts { undumpable: true, ..facts("core.%p") };
        assert!(prevented(&undumpable).contains("fs.suid_dumpable is 0"));
        let relative = Facts { suid_dumpable: Some(2), ..undumpable.clone() };
        assert!(prevented(&relative).contains("absolute path"));
        let absolute = Facts { pattern: "/c/c.%p".into(), ..relative };
        assert_eq!(prevented(&absolute), "");
        assert!(doubts(&absolute).contains("belongs to root"));
        let full = Facts { free: Some(1024), size: Some(2048), ..facts("/c/c.%p") };
        assert_eq!(
            doubts(&full),
            "1.0 KiB (1024 bytes) are free there, and it has 2.0 KiB (2048 bytes) of memory"
        );
        assert!(doubts(&facts("core")).contains("overwrite"));
        let pipe = Facts { limit: Some(0), program_exists: Some(false), ..facts("|/x/y %p") };
        assert!(prevented(&pipe).contains("/x/y") && doubts(&pipe).contains("RLIMIT_CORE is 0"));
        assert!(doubts(&Facts { filter: Some(0x31), ..facts("core.%p") }).contains("bit 1 shared"));
        assert!(prevented(&Facts { writable: Some(false), ..facts("c.%p") }).contains("may not"));
    }
}
