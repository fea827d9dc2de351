//! One partial core, what must be said of it, and the comparison.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use testbed::analysis::{Fragment, Heap, Pool, Report};
use testbed::tools::{self, Finished};

use super::whole::{End, Whole, pool};

pub(crate) const EXECUTABLE: &str = "/usr/sbin/kamailio";

/// What of this host's files the analysis can see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    /// The very files that the process had mapped.
    OwnFiles,
    /// None of Kamailio's.
    NoFiles,
    /// None of Kamailio's, and another program where the executable was.
    OtherBuild,
}

/// What must be seen of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// What lies before the end of the file: computed.
    BeforeEnd,
    /// Nothing, and a gap says so.
    Nothing,
    /// Nothing, and nothing in the core tells that there was a pool.
    Unknown,
}
/// Whose names must be known among the fragments that are seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Names {
    /// Everybody's.
    All,
    /// Those of the core's own allocations at least.
    OfCore,
    /// Nobody's.
    No,
}

/// One input and what must be said of it.
pub(crate) struct Case<'a> {
    pub(crate) name: &'a str,
    pub(crate) core: &'a Path,
    /// The whole core of the same process.
    pub(crate) whole: &'a Whole,
    pub(crate) host: Host,
    /// More words for `forensics heap`.
    pub(crate) words: &'a [&'a str],
    pub(crate) private: Seen,
    pub(crate) shared: Seen,
    pub(crate) names: Names,
    /// Each must stand in a gap.
    pub(crate) told: &'a [&'a str],
}

/// `forensics heap --json --list` of a core.
#[track_caller]
pub(crate) fn analyse(core: &Path, host: Host, words: &[&str]) -> Finished {
    let hidden = "mount -t tmpfs none \"$2\"; mount --bind \"$1\" \"$3\"; shift 3; exec \"$@\"";
    let forensics = tools::forensics();
    let mut command = match host {
        Host::OwnFiles => forensics,
        Host::NoFiles | Host::OtherBuild => {
            let mut command = Command::new("unshare");
            command.args(["--mount", "sh", "-euc", hidden, "sh"]);
            command.arg(if host == Host::NoFiles { "/dev/null" } else { "/usr/bin/gdb" });
            command.arg(modules()).arg(EXECUTABLE).arg(forensics.get_program());
            command
        }
    };
    command.args(["heap", "--json", "--list"]).args(words).arg(core);
    let finished = tools::run(&mut command, tools::PATIENCE);
    assert!(!finished.errors().contains("panicked"), "{finished:?}");
    finished
}

/// Where Debian keeps Kamailio's modules.
pub(crate) fn modules() -> PathBuf {
    format!("/usr/lib/{}-linux-gnu/kamailio", std::env::consts::ARCH).into()
}

impl Whole {
    /// Cuts this core, analyses it with the words and compares.
    #[track_caller]
    pub(crate) fn row(
        &self,
        end: End,
        (host, words): (Host, &[&str]),
        (private, shared, names): (Seen, Seen, Names),
        told: &[&str],
    ) -> String {
        let name = format!("{}, {end:?}, {host:?} {}", self.writer, short(words));
        let core = &self.ending(end);
        let case =
            Case { name: &name, core, whole: self, host, words, private, shared, names, told };
        case.check()
    }
}

pub(crate) fn short(words: &[&str]) -> String {
    let name = |word: &&str| Path::new(word).file_name().unwrap().to_string_lossy().into_owned();
    words.iter().map(name).collect::<Vec<_>>().join(" ")
}

impl Case<'_> {
    /// Analyses the core and compares; a line for a person.
    #[track_caller]
    pub(crate) fn check(&self) -> String {
        let finished = analyse(self.core, self.host, self.words).expect(&[0, 1]);
        let (heap, report): (Heap, Report) = (finished.json(), finished.json());
        let told: Vec<String> =
            heap.gaps.iter().map(|gap| format!("{}: {}", gap.what, gap.why)).collect();
        let private = self.check_pool(&heap, "pkg", self.private, &told);
        let shared = self.check_pool(&heap, "shm", self.shared, &told);
        for text in self.told {
            let said = told.iter().any(|gap| gap.contains(text));
            assert!(said, "{}: no gap says {text:?}: {told:#?}", self.name);
        }
        let rules: Vec<&str> = report.findings.iter().map(|found| found.rule.as_str()).collect();
        let damage = ["heap-check-overwritten", "heap-counters-disagree"];
        for found in &report.findings {
            let calm = found.severity != "critical" && !found.summary.contains("overwritten");
            assert!(calm && !damage.contains(&found.rule.as_str()), "{}: {found:?}", self.name);
        }
        let whole = |seen: &(usize, usize)| seen.0 == seen.1;
        // A cut is worth a warning even if it took no fragment.
        let expected = i32::from(self.is_cut() || !(whole(&private) && whole(&shared)));
        assert_eq!(finished.status.code(), Some(expected), "{}: {rules:?} {told:#?}", self.name);
        format!(
            "{:<50} pkg {:>4} of {:>4}  shm {:>5} of {:>5}  names {:<6}  exit {expected}  {}",
            self.name,
            private.0,
            private.1,
            shared.0,
            shared.1,
            format!("{:?}", self.names),
            rules.join(" ")
        )
    }

    /// Whether the core is a part of the whole one; else it is another core of the same process.
    fn is_cut(&self) -> bool {
        self.core.extension().is_some_and(|extension| extension == "cut")
    }

    /// Compares a pool; the fragments that were seen and those there are.
    #[track_caller]
    fn check_pool(&self, heap: &Heap, kind: &str, seen: Seen, told: &[String]) -> (usize, usize) {
        let (name, whole) = (format!("{}: {kind}", self.name), self.whole.pool(kind));
        let all = whole.fragments.len();
        let found = pool(heap, kind).filter(|pool| pool.is_walked());
        if seen != Seen::BeforeEnd {
            assert!(found.is_none(), "{name} was read: {found:?}");
            let gap = format!("{} pool", kind.to_uppercase());
            let said = told.iter().any(|told| told.starts_with(&gap));
            assert_eq!(said, seen == Seen::Nothing, "{name}: a gap says so: {told:#?}");
            return (0, all);
        }
        let pool = found.unwrap_or_else(|| panic!("{name} was not read: {told:#?}"));
        let length = fs::metadata(self.core).unwrap().len();
        let (least, most) =
            if self.is_cut() { self.whole.before(kind, length) } else { (all, all) };
        let count = pool.fragments.len();
        assert!((least..=most).contains(&count), "{name}: {count}, not {least} to {most}");
        self.check_fragments(&name, pool, whole);

        let (walked, complete) = (pool.walked(), whole.walked());
        assert_eq!(walked.complete, count == all, "{name}");
        assert_eq!(walked.expected_fragments, complete.expected_fragments, "{name}");
        assert_eq!(walked.expected_bytes, complete.expected_bytes, "{name}");
        if count == all {
            assert_eq!(walked, complete, "{name}");
        } else {
            assert!(walked.seen_bytes < walked.expected_bytes, "{name}: {walked:?}");
            let gap = format!("of the {} pool", kind.to_uppercase());
            assert!(told.iter().any(|told| told.contains(&gap)), "{name}: {gap}: {told:#?}");
        }
        (count, all)
    }

    /// Every fragment is one of the whole core's, with its name where that must be known.
    #[track_caller]
    fn check_fragments(&self, name: &str, pool: &Pool, whole: &Pool) {
        let key = |fragment: &Fragment| (fragment.header.clone(), fragment.size);
        let known: HashMap<_, &Fragment> = whole.fragments.iter().map(|f| (key(f), f)).collect();
        let mut named = 0;
        for fragment in &pool.fragments {
            let truth = known.get(&key(fragment));
            let truth = truth.unwrap_or_else(|| panic!("{name}: invented: {fragment:?}"));
            assert_eq!(fragment.state, truth.state, "{name}: {fragment:?}");
            let own = (&fragment.module, &fragment.file, &fragment.function);
            let true_one = (&truth.module, &truth.file, &truth.function);
            let must = match self.names {
                Names::All => true,
                Names::OfCore => truth.module.as_deref() == Some("core"),
                Names::No => {
                    assert_eq!(own, (&None, &None, &None), "{name}: a name without a file");
                    false
                }
            };
            let is_known = own == true_one;
            let is_silent = own.0.is_none() || own.1.is_none() || own.2.is_none();
            assert!(is_known || (!must && is_silent), "{name}: {fragment:?}, not {truth:?}");
            named += usize::from(is_known);
        }
        assert!(self.names == Names::No || named > 0, "{name}: nobody is named");
    }
}
