//! The stacks of every thread against gdb's: program counters and frames' addresses, for a group of
//! Kamailio processes under load and for 64 threads whose stacks are of every kind
//! (`samples/threads`), in a bundle, in the cores that `forensics extract` writes, and in the core
//! that the kernel writes.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test stops at the first surprise"
)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use testbed::kamailio::{Instance, Options, PROCESSES};
use testbed::load::{self, Kind};
use testbed::stacks::{Compared, Stacks, compare, of_gdb, ours};
use testbed::{kernel, oracle, tools};

const KAMAILIO: &str = "/usr/sbin/kamailio";

#[test]
fn stacks_of_a_group_under_load_are_gdbs() {
    let scratch = tools::scratch("stacks-kamailio");
    let instance = Instance::start(Options::default());
    let bundle = scratch.join("group.tar.zst");
    std::thread::scope(|scope| {
        scope.spawn(|| load::send(&instance, Kind::Pass, 8000, 4000));
        std::thread::sleep(Duration::from_millis(500));
        tools::collect(instance.main_pid(), &bundle);
    });
    let mut compared = Compared::default();
    for &pid in instance.pids() {
        let core = scratch.join(format!("core.{pid}"));
        oracle::extract(&bundle, pid, &core);
        let theirs = of_gdb(Path::new(KAMAILIO), &core);
        for input in [&bundle, &core] {
            let what = format!("process {pid} in {}", input.display());
            compared += compare(&what, &ours(input, pid), &theirs, |_| None);
        }
    }
    eprintln!("equal to gdb's: {compared:?}");
    assert_eq!(compared.threads, 2 * PROCESSES);
    assert!(compared.frames >= 2 * PROCESSES * 5, "{compared:?}");
}

/// `samples/threads`, running; ended by its own PID.
struct Threads {
    child: Child,
    program: PathBuf,
}

impl Threads {
    /// Starts it in `folder`. One of its threads recurses `depth` calls deep.
    fn start(folder: &Path, depth: u32) -> Self {
        let mut make = Command::new("make");
        make.arg("-s").arg("-C").arg(tools::workspace().join("samples/threads"));
        make.arg(format!("OUT={}", folder.display()));
        tools::run(&mut make, Duration::from_secs(120)).expect(&[0]);
        let program = folder.join("threads");
        let mut command = Command::new("prlimit");
        command.arg("--core=unlimited:unlimited").arg(&program).arg(depth.to_string());
        command.current_dir(folder).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Self { child, program }
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What each thread does, by its ID: the name that it gave itself.
    fn kinds(&self) -> BTreeMap<u64, String> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap();
        let kind = |task: PathBuf| {
            let name = fs::read_to_string(task.join("comm")).unwrap();
            (task.file_name().unwrap().to_str().unwrap().parse().unwrap(), name.trim().to_owned())
        };
        tasks.map(|task| kind(task.unwrap().path())).collect()
    }

    /// Collects it; threads in vfork cannot be stopped, so that the bundle is not complete.
    #[track_caller]
    fn collect(&self, bundle: &Path) {
        let mut command = tools::collect_evidence();
        command.args(["--pid", &self.pid().to_string(), "-o"]).arg(bundle);
        tools::run(&mut command, tools::PATIENCE).expect(&[0, 1]);
        assert!(bundle.is_file());
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where gdb is wrong: how many frames, from the innermost on, it has right.
///
/// - `bare`: `park` and what it calls have unwind information; `descend`, compiled without, has none
///   and keeps no frame pointer. gdb looks for a prologue that sets one up, finds none, takes the
///   word at the stack pointer for the return address, and gives up at the next frame.
/// - `coroutine`: `makecontext` puts the address of `__start_context` where a return address would
///   be. It was never called, and nothing is above it; gdb takes its arguments for two more frames.
fn right(kind: &str) -> Option<usize> {
    match kind {
        "bare" => Some(2),
        "coroutine" => Some(10),
        _ => None,
    }
}

/// Functions of a thread, innermost first.
fn functions(stacks: &Stacks, tid: u64) -> Vec<&str> {
    stacks[&tid].iter().map(|frame| frame.function.as_deref().unwrap_or("?")).collect()
}

fn check(what: &str, stacks: &Stacks, theirs: &Stacks, kinds: &BTreeMap<u64, String>) -> Compared {
    let compared = compare(what, stacks, theirs, |tid| right(&kinds[&tid]));
    assert_eq!(compared.threads, 64, "{what}");
    // What gdb does not find, as the source says it.
    let of = |wanted: &'static str| {
        let chosen = kinds.iter().filter(move |(_, kind)| *kind == wanted);
        chosen.map(|(tid, _)| *tid)
    };
    for tid in of("bare") {
        let found = functions(stacks, tid);
        assert_eq!(found[1..15], [&["park"][..], &["descend"; 13]].concat()[..], "{what}");
        assert_eq!(found[15], "bare", "{what}");
        let trusts: Vec<&str> = stacks[&tid].iter().map(|frame| frame.trust.as_str()).collect();
        assert_eq!(trusts[2], "call-frame-info", "{what}");
        assert!(trusts[3..17].iter().all(|trust| *trust == "scan"), "{what}: {trusts:?}");
    }
    for tid in of("keeps") {
        let guessed = stacks[&tid].iter().filter(|frame| frame.trust == "frame-pointer");
        assert_eq!(guessed.count(), 14, "{what}");
    }
    for tid in of("coroutine") {
        assert_eq!(stacks[&tid].len(), 11, "{what}");
    }
    compared
}

#[test]
fn stacks_of_every_kind_are_gdbs() {
    let scratch = tools::scratch("stacks-of-every-kind");
    let threads = Threads::start(&scratch, 2000);
    let (pid, kinds) = (threads.pid(), threads.kinds());
    let [bundle, core, kernel_core] =
        ["bundle.tar.zst", "extracted.core", "kernel.core"].map(|name| scratch.join(name));
    threads.collect(&bundle);
    oracle::extract(&bundle, pid, &core);
    let theirs = of_gdb(&threads.program, &core);
    for input in [&bundle, &core] {
        let compared = check(&input.display().to_string(), &ours(input, pid), &theirs, &kinds);
        eprintln!("{}: equal to gdb's: {compared:?}", input.display());
    }
    kernel::dump(pid, &scratch, &kernel_core);
    let theirs = of_gdb(&threads.program, &kernel_core);
    let compared = check("the kernel's core", &ours(&kernel_core, pid), &theirs, &kinds);
    eprintln!("the kernel's core: equal to gdb's: {compared:?}");
}

#[test]
fn a_deep_recursion_is_followed_to_its_start() {
    let scratch = tools::scratch("stacks-deep");
    let threads = Threads::start(&scratch, 200_000);
    let bundle = scratch.join("bundle.tar.zst");
    threads.collect(&bundle);
    let stacks = ours(&bundle, threads.pid());
    let deep = threads.kinds().into_iter().find(|(_, kind)| kind == "deep").unwrap().0;
    let frames = &stacks[&deep];
    // `left` for each even depth, `right` for each odd one.
    let named = |name: &str| {
        let holds = |function: &String| function.contains(&format!("{name}(long)"));
        frames.iter().filter(|frame| frame.function.as_ref().is_some_and(holds)).count()
    };
    assert_eq!((named("left"), named("right")), (100_001, 100_000));
    assert_eq!(frames.last().unwrap().trust, "call-frame-info");
}
