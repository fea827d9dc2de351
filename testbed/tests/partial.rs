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

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use testbed::analysis::{Fragment, Heap, Pool, Report};
use testbed::elf::Core;
use testbed::kamailio::{Instance, Manager, Options};
use testbed::{gdb, kernel, oracle, proc, shmlog, tools};

const EXECUTABLE: &str = "/usr/sbin/kamailio";
const MODULES: &str = "/usr/lib/x86_64-linux-gnu/kamailio";

/// What of this host's files the analysis can see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Host {
    /// The very files that the process had mapped.
    OwnFiles,
    /// None of Kamailio's.
    NoFiles,
    /// Another build where the executable was.
    OtherBuild,
}

/// What must be seen of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    /// All of it.
    Whole,
    /// What lies before the cut: computed.
    BeforeCut,
    /// Nothing, and a gap says so.
    Nothing,
}

/// Whose names must be known, among the fragments that are seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Names {
    /// Everybody's.
    All,
    /// At least those of the core's own allocations.
    OfCore,
    /// Nobody's.
    None,
}

/// One input and what must be said of it.
struct Case<'a> {
    name: String,
    core: PathBuf,
    /// The whole core of the same process.
    whole: &'a Whole,
    host: Host,
    /// More words for `forensics heap`.
    words: Vec<String>,
    private: Seen,
    shared: Seen,
    names: Names,
    /// Each must stand in a gap or a finding.
    told: Vec<&'static str>,
}

/// A whole core, and what is in it.
struct Whole {
    path: PathBuf,
    core: Core,
    length: u64,
    heap: Heap,
}

impl Whole {
    #[track_caller]
    fn of(path: &Path) -> Self {
        let heap: Heap = analyse(path, Host::OwnFiles, &[]).0;
        for kind in ["pkg", "shm"] {
            assert!(pool(&heap, kind).expect("a pool").walked().complete, "{kind} of {path:?}");
        }
        let length = fs::metadata(path).unwrap().len();
        Self { path: path.to_owned(), core: Core::open(path), length, heap }
    }

    #[track_caller]
    fn pool(&self, kind: &str) -> &Pool {
        pool(&self.heap, kind).expect("whole cores have both pools")
    }

    /// How many fragments lie in the first `length` bytes of the file, each with `behind` bytes
    /// after its payload; none if the block itself does not.
    fn before(&self, kind: &str, length: u64, behind: u64) -> usize {
        let pool = self.pool(kind);
        let is_before = |address: u64| {
            let holds = |segment: &&testbed::elf::Segment| {
                (segment.start..segment.start + segment.file).contains(&address)
            };
            let segment = self.core.segments().find(holds).expect("the whole core has the pool");
            segment.offset + (address - segment.start) < length
        };
        if !is_before(shmlog::hex(&pool.block) + 64) {
            return 0;
        }
        let end = |fragment: &&Fragment| shmlog::hex(&fragment.address) + fragment.size + behind;
        pool.fragments.iter().take_while(|fragment| is_before(end(fragment) - 1)).count()
    }
}

fn pool<'a>(heap: &'a Heap, kind: &str) -> Option<&'a Pool> {
    let pools: Vec<&Pool> = heap.pools.iter().filter(|pool| pool.kind == kind).collect();
    assert!(pools.len() < 2, "{} pools of kind {kind}", pools.len());
    pools.first().copied()
}

/// `forensics heap --json --list` of a core.
#[track_caller]
fn analyse(core: &Path, host: Host, words: &[String]) -> (Heap, Report, Option<i32>) {
    let hidden =
        "mount -t tmpfs none $2; exec 3>/dev/null; mount --bind $1 $3; shift 3; exec \"$@\"";
    let forensics = tools::forensics();
    let mut command = match host {
        Host::OwnFiles => forensics,
        Host::NoFiles | Host::OtherBuild => {
            let mut command = Command::new("unshare");
            command.args(["--mount", "sh", "-euc", hidden, "sh"]);
            command.arg(if host == Host::NoFiles { "/dev/null" } else { "/usr/bin/gdb" });
            command.args([MODULES, EXECUTABLE]).arg(forensics.get_program()).env("NO_COLOR", "1");
            command
        }
    };
    command.args(["heap", "--json", "--list"]).args(words).arg(core);
    let finished = tools::run(&mut command, tools::PATIENCE);
    let code = finished.status.code();
    let finished = finished.expect(&[0, 1]);
    assert!(!finished.errors().contains("panicked"), "{finished:?}");
    (finished.json(), finished.json(), code)
}

impl Case<'_> {
    /// Analyses the core and compares; a line for a person.
    #[track_caller]
    fn check(&self) -> String {
        let (heap, report, code) = analyse(&self.core, self.host, &self.words);
        let rules: BTreeSet<&str> =
            report.findings.iter().map(|found| found.rule.as_str()).collect();
        let told: Vec<String> = heap
            .gaps
            .iter()
            .map(|gap| format!("{}: {}", gap.what, gap.why))
            .chain(report.findings.iter().map(|found| found.summary.clone()))
            .collect();
        let seen = |kind: &str| {
            let whole = self.whole.pool(kind).fragments.len();
            let seen = pool(&heap, kind).map_or(0, |pool| pool.fragments.len());
            let by = pool(&heap, kind).map_or("-", |pool| pool.found.by.as_str());
            format!("{kind} {seen} of {whole} ({by})")
        };
        let row = format!(
            "{:<44} {:<32} {:<32} {rules:?} exit {code:?}; {} gaps",
            self.name,
            seen("pkg"),
            seen("shm"),
            heap.gaps.len()
        );
        println!("{row}");
        for line in &told {
            println!("      {line}");
        }
        row
    }
}

/// A copy of a core that ends after `percent` of it.
fn cut(whole: &Path, percent: u64) -> PathBuf {
    let path = whole.with_extension(format!("{percent}"));
    let mut command = Command::new("cp");
    command.arg("--reflink=auto").arg(whole).arg(&path);
    tools::run(&mut command, tools::PATIENCE).expect(&[0]);
    let file = File::options().write(true).open(&path).unwrap();
    let length = file.metadata().unwrap().len();
    file.set_len(length * percent / 100).unwrap();
    path
}

/// Sets which memory a dump of the process holds.
fn set_filter(pid: u32, filter: u32) {
    fs::write(format!("/proc/{pid}/coredump_filter"), format!("{filter:#x}")).unwrap();
}

const CUTS: [u64; 4] = [95, 60, 30, 5];
const FILTERS: [u32; 6] = [0x31, 0x23, 0x32, 0x7f, 0x01, 0x00];

#[test]
fn every_partial_core_gives_all_that_is_still_true() {
    let scratch = tools::scratch("partial");
    let instance = Instance::start(Options { shared_mib: 16, ..Options::default() });
    oracle::exercise(&instance, 10_000);
    proc::stop_all(instance.pids());
    let pids = instance.pids();
    let worker = pids[1];
    let file = |name: &str| scratch.join(name);

    let by_gdb = file("gdb.whole");
    gdb::gcore(worker, &by_gdb);
    let mut rows = Vec::new();
    let mut filtered = Vec::new();
    for (filter, &pid) in FILTERS.iter().zip(&pids[2..]) {
        let whole = file(&format!("reference.{filter:#x}"));
        gdb::gcore(pid, &whole);
        set_filter(pid, *filter);
        let gdbs = file(&format!("gdb.{filter:#x}"));
        gdb::gcore(pid, &gdbs);
        let kernels = file(&format!("kernel.{filter:#x}"));
        kernel::dump(pid, instance.directory(), &kernels);
        filtered.push((*filter, Whole::of(&whole), gdbs, kernels));
    }
    let by_kernel = file("kernel.whole");
    kernel::dump(worker, instance.directory(), &by_kernel);
    let whole = Whole::of(&by_gdb);
    let kernels = Whole::of(&by_kernel);

    for (writer, whole) in [("kernel", &kernels), ("gdb", &whole)] {
        for percent in [100, 95, 60, 30, 5] {
            for host in [Host::OwnFiles, Host::NoFiles] {
                let core =
                    if percent == 100 { whole.path.clone() } else { cut(&whole.path, percent) };
                let case = Case {
                    name: format!("{writer}, {percent} %, {host:?}"),
                    core,
                    whole,
                    host,
                    words: vec![],
                    private: Seen::Whole,
                    shared: Seen::Whole,
                    names: Names::All,
                    told: vec![],
                };
                rows.push(case.check());
            }
        }
    }
    for (filter, whole, gdbs, kernels) in &filtered {
        for (writer, core) in [("kernel", kernels), ("gdb", gdbs)] {
            let case = Case {
                name: format!("{writer}, filter {filter:#x}"),
                core: core.clone(),
                whole,
                host: Host::OwnFiles,
                words: vec![],
                private: Seen::Whole,
                shared: Seen::Whole,
                names: Names::All,
                told: vec![],
            };
            rows.push(case.check());
        }
    }
}
