//! `collect-evidence --stacks-only`: no heap leaves the host, every stack does, and the analyzer
//! takes what is missing for what it is.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test stops at the first surprise"
)]

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use bundle::{Header, Holds, member};
use nix::sys::signal::Signal;
use serde_json::Value;
use testbed::elf::Core;
use testbed::kamailio::{Instance, Options};
use testbed::program::{Program, compile};
use testbed::tools::{self, Finished, run};
use testbed::unpacked::Unpacked;
use testbed::{gdb, oracle, proc};

const KAMAILIO: &str = "/usr/sbin/kamailio";

/// A bundle of the group of `pid`; the collector ends with one of `codes`.
#[track_caller]
fn collect(pid: u32, path: &Path, arguments: &[&str], codes: &[i32]) -> Finished {
    let mut command = tools::collect_evidence();
    command.args(["--pid", &pid.to_string(), "--sample-gap", "10"]).args(arguments);
    run(command.arg("-o").arg(path), tools::PATIENCE).expect(codes)
}

#[track_caller]
fn forensics(arguments: &[&str], bundle: &Path, codes: &[i32]) -> Finished {
    run(tools::forensics().args(arguments).arg(bundle), tools::PATIENCE).expect(codes)
}

fn header(bundle: &Unpacked) -> Header {
    serde_json::from_slice(&fs::read(bundle.path(member::HEADER)).unwrap()).unwrap()
}

/// How many members of a bundle hold these bytes.
fn members_with(bundle: &Unpacked, bytes: &[u8]) -> usize {
    let manifest = bundle.manifest();
    let holds = |path: &str| {
        let content = fs::read(bundle.path(path)).unwrap();
        content.windows(bytes.len()).any(|window| window == bytes)
    };
    manifest.members.iter().filter(|member| holds(&member.path)).count()
}

/// The frames of every thread as gdb sees them.
fn frames(executable: &Path, core: &Path) -> Vec<String> {
    let commands = ["set print frame-arguments none", "thread apply all backtrace -past-main on"];
    let text = gdb::ask(executable, core, &commands);
    text.lines().filter(|line| line.starts_with('#')).map(str::to_owned).collect()
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).unwrap().len()
}

/// Writes into memory that nobody uses.
#[track_caller]
fn plant(pid: u32, at: u64, text: &str) {
    let memory = File::options().write(true).open(format!("/proc/{pid}/mem")).unwrap();
    memory.write_all_at(text.as_bytes(), at).expect("memory that can be written");
}

/// Secrets in the middle of the free parts of the shared pool, a private pool and the C heap.
fn plant_everywhere(instance: &Instance, scratch: &Path) -> Vec<String> {
    let bundle = scratch.join("pools.tar.zst");
    collect(instance.main_pid(), &bundle, &[], &[0]);
    let heap: Value = forensics(&["heap", "--json"], &bundle, &[0]).json();
    let block = |kind: &str, pid: Option<u32>| {
        let mut pools = heap["pools"].as_array().unwrap().iter();
        let pool =
            pools.find(|pool| pool["kind"] == kind && pid.is_none_or(|pid| pool["pid"] == pid));
        let text = pool.unwrap()["block"].as_str().unwrap();
        u64::from_str_radix(text.trim_start_matches("0x"), 16).unwrap()
    };
    let worker = *instance.pids().get(1).unwrap();
    let mappings = proc::mappings(worker);
    let c_heap = mappings.iter().find(|mapping| mapping.name == "[heap]").unwrap();
    let secret = |place: &str| ["a", "secret", "in", place].join("-");
    let (shm, pkg, c) = (secret("shared-memory"), secret("private-memory"), secret("the-c-heap"));
    plant(worker, block("shm", None) + (40 << 20), &shm);
    plant(worker, block("pkg", Some(worker)) + (6 << 20), &pkg);
    plant(worker, c_heap.range.end - 256, &c);
    vec![shm, pkg, c]
}

#[test]
fn of_kamailio_stacks_leave_the_host_and_no_heap() {
    let instance = Instance::start(Options::default());
    oracle::exercise(&instance, 5000);
    let scratch = tools::scratch("stacks-only");
    let secrets = plant_everywhere(&instance, &scratch);
    let (small, whole) = (scratch.join("stacks.tar.zst"), scratch.join("whole.tar.zst"));
    proc::stop_all(instance.pids());
    let said = collect(instance.main_pid(), &small, &["--stacks-only"], &[0]).text();
    collect(instance.main_pid(), &whole, &[], &[0]);
    proc::continue_all(instance.pids());
    assert!(said.contains("no heap leaves the host; stacks may hold secrets"), "{said}");

    let (stacks, full) = (Unpacked::open(&small), Unpacked::open(&whole));
    for secret in &secrets {
        assert!(members_with(&full, secret.as_bytes()) > 0, "{secret} is in the whole bundle");
        assert_eq!(members_with(&stacks, secret.as_bytes()), 0, "{secret}");
    }
    let header = header(&stacks);
    assert_eq!(header.holds, Holds::Stacks);
    assert!(header.scope.iter().any(|words| words.contains("no heap leaves the host")));
    let cores = |bundle: &Unpacked| -> u64 {
        let members = bundle.manifest().members.into_iter();
        let memory =
            members.filter(|one| one.path.ends_with("/core") || one.path.starts_with("shared/"));
        memory.map(|one| one.size).sum()
    };
    let (few, many) = (cores(&stacks), cores(&full));
    println!("memory: {few} of {many} bytes, {} times as many", many / few);
    println!("bundles: {} and {} bytes", length(&small), length(&whole));
    assert!(few * 10 < many, "{few} and {many} bytes of memory");

    let mut seen = 0;
    for &pid in instance.pids() {
        let (own, reference) = (scratch.join("own.core"), scratch.join("whole.core"));
        oracle::extract(&small, pid, &own);
        oracle::extract(&whole, pid, &reference);
        let found = frames(Path::new(KAMAILIO), &own);
        assert_eq!(found, frames(Path::new(KAMAILIO), &reference), "stacks of {pid}");
        assert!(found.len() > 5, "{found:#?}");
        assert_eq!(Core::open(&own).threads(), Core::open(&reference).threads());
        seen += found.len();
    }
    println!("{seen} frames are the same");
    // That one shows stopped processes, which is a finding.
    let calm = scratch.join("calm.tar.zst");
    collect(instance.main_pid(), &calm, &["--stacks-only"], &[0]);
    takes_missing_heaps_calmly(&instance, &calm);
}

/// Nothing from warning upwards, and plain words.
#[track_caller]
fn takes_missing_heaps_calmly(instance: &Instance, bundle: &Path) {
    forensics(&["verify"], bundle, &[0]);
    let report: Value = forensics(&["--json"], bundle, &[0]).json();
    let told = |key: &str| report[key].as_array().unwrap().clone();
    let loud = told("findings").into_iter().filter(|finding| finding["severity"] != "note");
    assert_eq!(loud.collect::<Vec<_>>(), Vec::<Value>::new());
    assert_eq!(report["bundle"]["holds"], "stacks");
    let gaps: Vec<String> =
        told("gaps").iter().map(|gap| format!("{} {}", gap["what"], gap["why"])).collect();
    for pool in ["SHM pool", "PKG pools"] {
        let said =
            gaps.iter().any(|gap| gap.contains(pool) && gap.contains("not saved (--stacks-only)"));
        assert!(said, "{pool}: {gaps:#?}");
    }
    let roles = told("processes").into_iter().filter(|process| process["role"].is_string());
    assert_eq!(roles.count(), instance.pids().len(), "each process has its role");

    const WORDS: &str = "No heap is in this bundle";
    for question in ["heap", "leaks"] {
        let text = forensics(&[question], bundle, &[0]).text();
        assert!(text.starts_with(WORDS), "{question}: {text}");
    }
    for question in [&["why", "0x10"][..], &["refs", "0x10"], &["heap", "--frag", "0x10"]] {
        let words = forensics(question, bundle, &[2]).errors();
        assert!(words.contains(WORDS), "{question:?}: {words}");
    }
}

/// `testbed/config/stands.c`, running.
struct Stands {
    running: Program,
    program: PathBuf,
    /// The child of its vfork, if it has one.
    forked: u32,
}

impl Stands {
    fn start(scratch: &Path, arguments: &[&str]) -> Self {
        let program = compile("testbed/config/stands.c", &["-O1", "-g"], scratch);
        let running = Program::start(Command::new(&program).args(arguments));
        let forked = running.said.trim().strip_prefix("ready ").expect("it is ready");
        Self { forked: forked.parse().unwrap(), running, program }
    }

    fn pid(&self) -> u32 {
        self.running.pid()
    }
}

impl Drop for Stands {
    fn drop(&mut self) {
        if self.forked != 0 {
            proc::signal(self.forked, Signal::SIGKILL);
        }
    }
}

/// The secret that `stands.c` keeps in the C heap, in one page with a lock that threads wait on.
fn heap_secret() -> String {
    ["heap", "secret", "of-stands"].join("-")
}

#[track_caller]
fn check_threads(name: &str, arguments: &[&str], codes: &[i32]) -> bundle::Manifest {
    let scratch = tools::scratch(name);
    let stands = Stands::start(&scratch, arguments);
    let (small, whole) = (scratch.join("stacks.tar.zst"), scratch.join("whole.tar.zst"));
    collect(stands.pid(), &small, &["--stacks-only"], codes);
    collect(stands.pid(), &whole, &[], codes);
    let (stacks, full) = (Unpacked::open(&small), Unpacked::open(&whole));
    assert!(members_with(&full, heap_secret().as_bytes()) > 0);
    assert_eq!(members_with(&stacks, heap_secret().as_bytes()), 0, "no heap but around locks");
    // The environment lies on the first stack.
    let path = std::env::var("PATH").expect("a PATH");
    let variable = format!("PATH={path}\0");
    assert!(members_with(&full, variable.as_bytes()) > 0);
    assert_eq!(members_with(&stacks, variable.as_bytes()), 0, "the environment stays");

    let (own, reference) = (scratch.join("own.core"), scratch.join("whole.core"));
    oracle::extract(&small, stands.pid(), &own);
    oracle::extract(&whole, stands.pid(), &reference);
    let found = frames(&stands.program, &own);
    assert_eq!(found, frames(&stands.program, &reference));
    assert_eq!(Core::open(&own).threads(), Core::open(&reference).threads());
    assert!(found.len() > 20_000, "ten threads stand 2000 calls deep: {}", found.len());
    forensics(&[], &small, &[0]);
    stacks.manifest()
}

#[test]
fn of_64_threads_every_stack_is_whole_wherever_it_lies() {
    let manifest = check_threads("stacks-only-threads", &["novfork"], &[0]);
    let process = manifest.processes.first().expect("one process");
    assert_eq!((manifest.processes.len(), process.threads), (1, 64));
    println!("pause of 64 threads: {} µs", process.pause_micros.expect("it stood still"));
}

#[test]
fn three_thousand_threads_stand_still_shortly() {
    let scratch = tools::scratch("stacks-only-many");
    let stands = Stands::start(&scratch, &["idle", "2936"]);
    let path = scratch.join("stacks.tar.zst");
    collect(stands.pid(), &path, &["--stacks-only"], &[0]);
    let bundle = Unpacked::open(&path);
    let manifest = bundle.manifest();
    let process = manifest.processes.first().expect("one process");
    let pause = process.pause_micros.expect("it stood still");
    println!("3000 threads: {} bytes, pause {pause} µs", length(&path));
    assert_eq!(process.threads, 3000);
    let core = Core::open(&bundle.path(&member::core(stands.pid())));
    assert_eq!(core.threads().len(), 3000, "registers of each");
    // Most of it is the kernel's: each thread has to run once to stop.
    assert!(pause < 3_000_000, "{pause} µs");
}

#[test]
fn a_thread_in_vfork_does_not_stop_and_its_stack_is_there() {
    let manifest = check_threads("stacks-only-vfork", &[], &[1]);
    let unstopped: Vec<_> = manifest.processes.iter().flat_map(|one| &one.unstopped).collect();
    let [thread] = unstopped.as_slice() else { panic!("one does not stop: {unstopped:?}") };
    assert!(thread.why.contains("state D"), "{thread:?}");
}

#[test]
fn samples_of_stacks_come_quickly_and_the_outer_ones_bring_modules() {
    const SAMPLES: usize = 10;
    let instance = Instance::start(Options::default());
    let scratch = tools::scratch("stacks-only-series");
    let arguments = ["--stacks-only", "--samples", "10", "--every", "200ms"];
    let said = collect(instance.main_pid(), &scratch.join("s.tar.zst"), &arguments, &[0]).text();
    println!("{said}");
    let mut moments = Vec::new();
    for number in 1..=SAMPLES {
        let path = scratch.join(format!("s-{number:02}.tar.zst"));
        forensics(&["verify"], &path, &[0]);
        forensics(&[], &path, &[0]);
        let bundle = Unpacked::open(&path);
        assert_eq!(header(&bundle).holds, Holds::Stacks);
        let outer = number == 1 || number == SAMPLES;
        assert_eq!(bundle.path("modules").exists(), outer, "sample {number}");
        assert!(bundle.path(member::SAMPLE_TIMES).exists(), "when /proc was read");
        let series = bundle.manifest().series.expect("its place in the series");
        moments.push(Duration::from_nanos(series.frozen_monotonic_ns.expect("it was frozen")));
    }
    let apart: Vec<Duration> =
        moments.iter().zip(moments.iter().skip(1)).map(|(a, b)| *b - *a).collect();
    println!("apart: {apart:?}");
    assert!(said.contains("samples were taken, from"), "how far they are apart is said: {said}");

    // The samples between the first and the last are named by those two's modules.
    let mut profile = tools::forensics();
    profile.args(["profile", "--format", "folded"]);
    profile.args((1..=SAMPLES).map(|number| scratch.join(format!("s-{number:02}.tar.zst"))));
    let folded = tools::run(&mut profile, tools::PATIENCE).expect(&[0]).text();
    for pid in instance.pids() {
        let own = folded.lines().filter(|line| line.starts_with(&format!("{pid} ")));
        let named = own.filter(|line| line.contains(";_start;") && line.contains(";main_loop;"));
        let weights = named.filter_map(|line| line.rsplit_once(' ')?.1.parse::<usize>().ok());
        assert_eq!(weights.sum::<usize>(), SAMPLES, "process {pid}: {folded}");
    }
}
