//! Cores that lack something: cut short, without shared memory, without module files, with another
//! build of the binary, by the kernel and by gdb. Each gives all that is still true and no more.
//!
//! What a core must still give is computed from the whole core of the same stopped process and the
//! place of each fragment in the file, by a reader of cores that is not the one under test.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test stops at the first surprise; the rows are for a person"
)]

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use object::Object as _;
use testbed::analysis::{Fragment, Heap, Pool, Report};
use testbed::elf::{Core, Segment};
use testbed::kamailio::{Instance, Manager, Options};
use testbed::load::{self, Kind};
use testbed::tools::Finished;
use testbed::{gdb, kernel, oracle, proc, shmlog, tools};

const EXECUTABLE: &str = "/usr/sbin/kamailio";

/// What of this host's files the analysis can see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Host {
    /// The very files that the process had mapped.
    OwnFiles,
    /// None of Kamailio's.
    NoFiles,
    /// None of Kamailio's, and another program where the executable was.
    OtherBuild,
}

/// Where a core ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Whole,
    /// After so many hundredths.
    Percent(u64),
    /// In the middle of a pool's fragments.
    Among(&'static str),
    /// In a pool's block, before its first fragment.
    InBlock(&'static str),
}

/// What must be seen of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    /// What lies before the end of the file: computed.
    BeforeEnd,
    /// Nothing, and a gap says so.
    Nothing,
    /// Nothing, and nothing in the core tells that there was a pool.
    Unknown,
}
use Seen::{BeforeEnd, Nothing, Unknown};

/// Whose names must be known among the fragments that are seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Names {
    /// Everybody's.
    All,
    /// Those of the core's own allocations at least.
    OfCore,
    /// Nobody's.
    No,
}

/// A whole core, what is in it, and in which file.
struct Whole {
    writer: &'static str,
    path: PathBuf,
    core: Core,
    length: u64,
    heap: Heap,
}

/// One input and what must be said of it.
struct Case<'a> {
    name: &'a str,
    core: &'a Path,
    /// The whole core of the same process.
    whole: &'a Whole,
    host: Host,
    /// More words for `forensics heap`.
    words: &'a [&'a str],
    private: Seen,
    shared: Seen,
    names: Names,
    /// Each must stand in a gap.
    told: &'a [&'a str],
}

impl Whole {
    #[track_caller]
    fn of(writer: &'static str, path: &Path) -> Self {
        let heap: Heap = analyse(path, Host::OwnFiles, &[]).expect(&[0]).json();
        let length = fs::metadata(path).unwrap().len();
        let whole = Self { writer, path: path.to_owned(), core: Core::open(path), length, heap };
        for kind in ["pkg", "shm"] {
            let pool = whole.pool(kind);
            let (walked, count) = (pool.walked(), u64::try_from(pool.fragments.len()).unwrap());
            assert!(walked.complete, "{kind} of {}", path.display());
            assert_eq!(walked.expected_fragments, Some(count), "{kind}: what the counters imply");
            assert_eq!(walked.expected_bytes, pool.counters().size, "{kind}");
            assert_eq!(walked.seen_bytes, walked.expected_bytes, "{kind}: seen of a whole pool");
        }
        whole
    }

    #[track_caller]
    fn pool(&self, kind: &str) -> &Pool {
        pool(&self.heap, kind).expect("whole cores have both pools")
    }

    /// Where the byte at an address lies in the file.
    #[track_caller]
    fn offset(&self, address: u64) -> u64 {
        let holds = |s: &&Segment| (s.start..s.start + s.file).contains(&address);
        let segment = self.core.segments().find(holds).expect("the whole core has the pools");
        segment.offset + (address - segment.start)
    }

    /// How many fragments the first `length` bytes of the file hold: at least those that are there
    /// with the end of their own and the beginning of the next one, at most those that begin there.
    fn before(&self, kind: &str, length: u64) -> (usize, usize) {
        let fragments = &self.pool(kind).fragments;
        let is_before = |address: u64| self.offset(address) < length;
        let begins = |fragment: &&Fragment| is_before(shmlog::hex(&fragment.header) + 8);
        let next = |fragment: &Fragment| shmlog::hex(&fragment.address) + fragment.size;
        let last = fragments.last().map(next).unwrap();
        let ends = |fragment: &&Fragment| is_before((next(fragment) + 128).min(last));
        (fragments.iter().take_while(ends).count(), fragments.iter().take_while(begins).count())
    }

    /// A copy that ends early; itself if it shall not.
    fn ending(&self, end: End) -> PathBuf {
        let first = |kind| &self.pool(kind).fragments[0];
        let length = match end {
            End::Whole => return self.path.clone(),
            End::Percent(percent) => self.length * percent / 100,
            End::Among(kind) => {
                let fragments = &self.pool(kind).fragments;
                self.offset(shmlog::hex(&fragments[fragments.len() / 2].address)) + 4
            }
            End::InBlock(kind) => self.offset(shmlog::hex(&first(kind).header)) - 4096,
        };
        let path = self.path.with_extension("cut");
        let mut command = Command::new("cp");
        command.arg("--reflink=auto").arg(&self.path).arg(&path);
        tools::run(&mut command, tools::PATIENCE).expect(&[0]);
        File::options().write(true).open(&path).unwrap().set_len(length).unwrap();
        path
    }

    /// Cuts this core, analyses it with the words and compares.
    #[track_caller]
    fn row(
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

fn short(words: &[&str]) -> String {
    let name = |word: &&str| Path::new(word).file_name().unwrap().to_string_lossy().into_owned();
    words.iter().map(name).collect::<Vec<_>>().join(" ")
}

#[track_caller]
fn pool<'a>(heap: &'a Heap, kind: &str) -> Option<&'a Pool> {
    let pools: Vec<&Pool> = heap.pools.iter().filter(|pool| pool.kind == kind).collect();
    assert!(pools.len() < 2, "{} pools of kind {kind}", pools.len());
    pools.first().copied()
}

/// `forensics heap --json --list` of a core.
#[track_caller]
fn analyse(core: &Path, host: Host, words: &[&str]) -> Finished {
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
fn modules() -> PathBuf {
    format!("/usr/lib/{}-linux-gnu/kamailio", std::env::consts::ARCH).into()
}

impl Case<'_> {
    /// Analyses the core and compares; a line for a person.
    #[track_caller]
    fn check(&self) -> String {
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
        let expected = i32::from(!(whole(&private) && whole(&shared)));
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

    /// Compares a pool; the fragments that were seen and those there are.
    #[track_caller]
    fn check_pool(&self, heap: &Heap, kind: &str, seen: Seen, told: &[String]) -> (usize, usize) {
        let (name, whole) = (format!("{}: {kind}", self.name), self.whole.pool(kind));
        let all = whole.fragments.len();
        let found = pool(heap, kind).filter(|pool| pool.is_walked());
        if seen != BeforeEnd {
            assert!(found.is_none(), "{name} was read: {found:?}");
            let gap = format!("{} pool", kind.to_uppercase());
            let said = told.iter().any(|told| told.starts_with(&gap));
            assert_eq!(said, seen == Nothing, "{name}: a gap says so: {told:#?}");
            return (0, all);
        }
        let pool = found.unwrap_or_else(|| panic!("{name} was not read: {told:#?}"));
        let length = fs::metadata(self.core).unwrap().len();
        // Another core of the same process is whole itself, or does not have the pool at all.
        let is_cut = self.core.extension().is_some_and(|extension| extension == "cut");
        let (least, most) = if is_cut { self.whole.before(kind, length) } else { (all, all) };
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

/// A worker of a stopped instance, dumped by gdb and then by the kernel.
fn dump(instance: &Instance, pid: u32, directory: &Path) -> [Whole; 2] {
    let [gdbs, kernels] = ["gdb", "kernel"].map(|writer| directory.join(writer));
    gdb::gcore(pid, &gdbs);
    kernel::dump(pid, instance.directory(), &kernels);
    [Whole::of("gdb", &gdbs), Whole::of("kernel", &kernels)]
}

/// The executable and the modules below a root of their own; the executable as if built otherwise;
/// and what a distribution would split off it.
fn copies(directory: &Path) -> [PathBuf; 3] {
    let (root, other) = (directory.join("root"), directory.join("other"));
    let mut command = Command::new("cp");
    command.args(["-r", "--parents", EXECUTABLE]).arg(modules()).arg(&root);
    fs::create_dir(&root).unwrap();
    tools::run(&mut command, Duration::from_secs(60)).expect(&[0]);
    let mut bytes = fs::read(EXECUTABLE).unwrap();
    let build_id = object::File::parse(&*bytes).unwrap().build_id().unwrap().unwrap().to_vec();
    let at = bytes.windows(build_id.len()).position(|run| run == build_id).unwrap();
    bytes[at..at + build_id.len()].reverse();
    fs::create_dir(&other).unwrap();
    let other = other.join("kamailio");
    fs::write(&other, bytes).unwrap();
    let debug = directory.join("kamailio.debug");
    let mut command = Command::new("objcopy");
    command.args(["--only-keep-debug", EXECUTABLE]).arg(&debug);
    tools::run(&mut command, Duration::from_secs(60)).expect(&[0]);
    [root, other, debug]
}

const SEEN: (Seen, Seen, Names) = (BeforeEnd, BeforeEnd, Names::All);
const OWN: (Host, &[&str]) = (Host::OwnFiles, &[]);
const NONE: (Host, &[&str]) = (Host::NoFiles, &[]);
const NOT_DUMPED: &str = "SHM pool: ";

/// Cores that end early, with all files, with none, and with those that the user names.
fn cut(gdbs: &Whole, kernels: &Whole, [root, other, debug]: [&str; 3]) -> Vec<String> {
    let mut rows = Vec::new();
    for whole in [kernels, gdbs] {
        let lost = if whole.writer == "gdb" { "notes of the core" } else { "bytes of the core" };
        let of_core = Names::OfCore;
        let mut row = |end, from, seen, told: &[&str]| rows.push(whole.row(end, from, seen, told));
        row(End::Whole, OWN, SEEN, &[]);
        row(End::Percent(95), OWN, SEEN, &[lost]);
        row(End::Percent(60), OWN, (Nothing, BeforeEnd, of_core), &[lost, "file cut short"]);
        row(End::Percent(30), OWN, (Nothing, BeforeEnd, of_core), &[lost, "file cut short"]);
        row(End::Percent(5), OWN, (Nothing, Nothing, of_core), &[lost, "file cut short"]);
        row(End::Among("pkg"), OWN, (BeforeEnd, BeforeEnd, Names::All), &[lost]);
        row(End::Among("shm"), OWN, (Nothing, BeforeEnd, of_core), &[lost]);
        row(End::InBlock("shm"), OWN, (Nothing, Nothing, of_core), &["file cut short"]);

        let nobody = (BeforeEnd, BeforeEnd, Names::No);
        row(End::Whole, NONE, nobody, &["no file with build ID"]);
        row(End::Percent(95), NONE, nobody, &[lost, "no file with build ID"]);
        row(End::Among("pkg"), NONE, nobody, &[lost]);
        row(End::Among("shm"), NONE, (Nothing, BeforeEnd, Names::No), &[lost]);
        let at_all = if whole.writer == "gdb" { Unknown } else { Nothing };
        row(End::Percent(5), NONE, (at_all, at_all, Names::No), &[lost]);

        let given = (Host::NoFiles, &["--module", root][..]);
        row(End::Percent(95), given, SEEN, &[lost]);
        row(End::Among("pkg"), given, SEEN, &[lost]);
        // Without the build ID behind the cut: by the path in the kernel's notes, or by the loader's
        // own list on the heap.
        let by_name = (Nothing, BeforeEnd, Names::All);
        row(End::Among("shm"), given, by_name, &["taken by its name"]);
        let sysroot = (Host::NoFiles, &["--sysroot", root][..]);
        row(End::Percent(95), sysroot, SEEN, &[lost]);
        row(End::Among("shm"), sysroot, by_name, &["taken by its name"]);
        let split = (Host::NoFiles, &["--module", debug][..]);
        row(End::Whole, split, nobody, &["only its debug information is at hand"]);
        let both = (Host::NoFiles, &["--module", debug, "--module", root][..]);
        row(End::Whole, both, SEEN, &[]);

        let wrong = (Host::NoFiles, &["--module", other][..]);
        row(End::Whole, wrong, nobody, &["has another build ID: the core says"]);
        let unused = if whole.writer == "gdb" { "not used: no module" } else { "another build ID" };
        row(End::Among("shm"), wrong, (Nothing, BeforeEnd, Names::No), &[unused]);
        row(End::Whole, (Host::OtherBuild, &[]), nobody, &["has another build ID: the core says"]);
    }
    rows
}

/// Cores that were written without some memory, each of a process of its own.
fn filtered(instance: &Instance, pids: &[u32], directory: &Path, root: &str) -> Vec<String> {
    let given: &[&str] = &["--module", root];
    let nobody = (BeforeEnd, BeforeEnd, Names::No);
    type Expected<'a> = (u32, &'a [&'a str], (Seen, Seen, Names), &'a [&'a str]);
    let expected: [Expected<'_>; 8] = [
        (0x31, &[], (BeforeEnd, Nothing, Names::All), &[NOT_DUMPED, "process table"]),
        (0x23, &[], nobody, &["its build ID is not in the core"]),
        (0x23, given, SEEN, &["taken by its name"]),
        (0x32, &[], (Nothing, BeforeEnd, Names::All), &["PKG pool of process"]),
        (0x7f, &[], SEEN, &[]),
        (0x01, &[], (BeforeEnd, Nothing, Names::No), &[NOT_DUMPED]),
        (0x01, given, (BeforeEnd, Nothing, Names::All), &[NOT_DUMPED, "taken by its name"]),
        (0x00, &[], (Nothing, Nothing, Names::No), &[NOT_DUMPED, "PKG pool of process"]),
    ];
    let mut rows = Vec::new();
    for ((filter, words, (private, shared, names), told), &pid) in expected.iter().zip(pids) {
        let path = |name: &str| directory.join(format!("{name}-{pid}"));
        gdb::gcore(pid, &path("whole"));
        fs::write(format!("/proc/{pid}/coredump_filter"), format!("{filter:#x}")).unwrap();
        gdb::gcore(pid, &path("gdb"));
        kernel::dump(pid, instance.directory(), &path("kernel"));
        let whole = &Whole::of("gdb", &path("whole"));
        for writer in ["gdb", "kernel"] {
            let name = &format!("{writer}, filter {filter:#04x} {}", short(words));
            let (host, core) = (Host::OwnFiles, &path(writer));
            let (private, shared, names) = (*private, *shared, *names);
            let case = Case { name, core, whole, host, words, private, shared, names, told };
            rows.push(case.check());
        }
        if *shared == Nothing {
            let text = tools::run(tools::forensics().arg(path("kernel")), tools::PATIENCE).text();
            assert!(text.contains("shared memory was not dumped (coredump_filter)"), "{text}");
            assert!(!text.contains(" 0 used, 0 free"), "nothing is not zero: {text}");
        }
    }
    rows
}

/// Two managers whose fragments have no trailers, each with its own pool.
fn other_managers(directory: &Path) -> Vec<String> {
    let instance = Instance::start(Options {
        manager: Manager::Tlsf,
        private_manager: Some(Manager::Fm),
        shared_mib: 8,
        private_mib: 4,
        ..Options::default()
    });
    load::send(&instance, Kind::Keep, 4000, 2500);
    proc::stop_all(instance.pids());
    let wholes = dump(&instance, instance.pids()[1], directory);
    let mut rows = Vec::new();
    for whole in &wholes {
        assert_eq!(whole.pool("shm").manager, "tlsf_malloc");
        assert_eq!(whole.pool("pkg").manager, "f_malloc");
        let mut row = |end, from, seen| rows.push(whole.row(end, from, seen, &[]));
        row(End::Percent(95), OWN, SEEN);
        row(End::Among("pkg"), OWN, SEEN);
        row(End::Among("pkg"), NONE, (BeforeEnd, BeforeEnd, Names::No));
        row(End::Among("shm"), OWN, (Nothing, BeforeEnd, Names::OfCore));
        row(End::Among("shm"), NONE, (Nothing, BeforeEnd, Names::No));
        row(End::InBlock("pkg"), OWN, (Nothing, BeforeEnd, Names::OfCore));
    }
    rows
}

#[test]
fn every_partial_core_gives_all_that_is_still_true() {
    let scratch = tools::scratch("partial");
    let instance =
        Instance::start(Options { shared_mib: 16, private_mib: 4, ..Options::default() });
    oracle::exercise(&instance, 3000);
    load::send(&instance, Kind::Big, 6000, 2500);
    proc::stop_all(instance.pids());
    let copies = copies(&scratch);
    let [root, other, debug] = copies.each_ref().map(|path| path.to_str().unwrap());

    let [gdbs, kernels] = dump(&instance, instance.pids()[1], &scratch);
    let mut rows = cut(&gdbs, &kernels, [root, other, debug]);
    rows.extend(filtered(&instance, &instance.pids()[2..], &scratch, root));
    let folder = scratch.join("other-managers");
    fs::create_dir(&folder).unwrap();
    rows.extend(other_managers(&folder));

    // Of so little nothing can be read at all.
    let path = scratch.join("header.cut");
    fs::write(&path, &fs::read(&kernels.path).unwrap()[..100]).unwrap();
    let finished = analyse(&path, Host::OwnFiles, &[]).expect(&[2]);
    assert!(finished.stdout.is_empty() && finished.errors().contains("header.cut"));
    rows.push("kernel, 100 bytes: exit 2".to_owned());

    println!("{}", rows.join("\n"));
    assert_eq!(rows.len(), 2 * 23 + 2 * 8 + 2 * 6 + 1, "cases");
    fs::remove_dir_all(&scratch).unwrap();
}
