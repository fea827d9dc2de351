//! The collector is killed with SIGKILL, again and again, in all its phases and while the group is
//! frozen, under SIP load: the group runs on, and what was written is of use.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use testbed::kamailio::{Instance, Options};
use testbed::load::{self, Kind, Traffic};
use testbed::unpacked::Unpacked;
use testbed::{oracle, proc, tools};

/// Kills at moments spread over a whole collection.
const SPREAD: u32 = 28;
/// Kills right after the collector said that it freezes the group.
const FROZEN: u32 = 28;
/// Of the latter, as many at least must really have met a frozen group.
const MET_FROZEN: usize = 5;

/// A small generator of numbers, the same in each run (SplitMix64).
struct Numbers(u64);

impl Numbers {
    /// A number below `limit`.
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (word ^ (word >> 31)) % limit.max(1)
    }
}

/// A collection under way.
struct Running {
    child: Child,
    /// Lines of its standard error as they come.
    lines: mpsc::Receiver<String>,
}

impl Running {
    fn start(instance: &Instance, output: &Path) -> Self {
        let mut command = tools::collect_evidence();
        command.args(["--pid", &instance.main_pid().to_string(), "-o"]).arg(output);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the collector starts");
        let errors = BufReader::new(child.stderr.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in errors.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Self { child, lines }
    }

    /// Waits for the line that is printed right before the freeze.
    #[track_caller]
    fn wait_for_freeze(&self) {
        let mut seen = Vec::new();
        while let Ok(line) = self.lines.recv_timeout(tools::PATIENCE) {
            if line.starts_with("freezing ") {
                return;
            }
            seen.push(line);
        }
        panic!("no line `freezing …` from the collector: {seen:#?}");
    }

    /// SIGKILL; how many processes of the group it was tracing just then (a tracer is a thread).
    fn kill(mut self, instance: &Instance) -> usize {
        let traced = instance.pids().iter().filter(|pid| proc::tracer(**pid) != 0).count();
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        traced
    }
}

/// After a kill: nobody is traced, nobody stands still, all answer.
#[track_caller]
fn assert_group_runs(instance: &Instance, when: &str) {
    for &pid in instance.pids() {
        assert_eq!(proc::tracer(pid), 0, "{when}: tracer of {pid}");
        // A thread that was just released may take a moment to be seen running.
        proc::until(&format!("{when}: no thread of {pid} stands still"), || {
            let threads = proc::threads(pid);
            !threads.is_empty() && threads.iter().all(|(_, _, state)| !"tTZX".contains(*state))
        });
    }
    load::answered(instance, 20);
}

/// What a kill left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Left {
    /// No file: the collector had not begun to write.
    Nothing,
    /// A file without one whole frame, which `forensics` says is cut.
    Stub,
    /// A cut bundle that `forensics` opens.
    Cut,
    /// The kill came between the last byte and the rename: a whole bundle under its temporary name.
    Unnamed,
    /// The kill came too late: a sealed bundle.
    Sealed,
}

/// Whether the file ends with the last word of a seek table (the seekable format of zstd), which is
/// the last thing that is written into a bundle.
fn has_its_end(path: &Path) -> bool {
    fs::read(path).unwrap().ends_with(&0x8f92_eab1_u32.to_le_bytes())
}

#[track_caller]
fn verify(path: &Path) {
    let mut verify = tools::forensics();
    tools::run(verify.arg("verify").arg(path), tools::PATIENCE).expect(&[0]);
    fs::remove_file(path).unwrap();
}

#[track_caller]
fn examine(output: &Path, when: &str) -> Left {
    let partial = PathBuf::from(format!("{}.partial", output.display()));
    if output.exists() {
        assert!(!partial.exists(), "{when}: both a sealed and a partial file");
        verify(output);
        return Left::Sealed;
    }
    if !partial.exists() {
        return Left::Nothing;
    }
    if has_its_end(&partial) {
        verify(&partial);
        return Left::Unnamed;
    }
    let mut report = tools::forensics();
    let report = tools::run(report.arg(&partial), tools::PATIENCE).expect(&[0, 1, 2]);
    let opened = report.status.code() != Some(2);
    let said = if opened { report.text() } else { report.errors() };
    let beginning: String = said.lines().take(12).collect::<Vec<_>>().join("\n");
    assert!(beginning.contains("cut"), "{when}: the report begins with the cut: {report:?}");
    let length = fs::metadata(&partial).unwrap().len();
    assert!(opened || length < 64 * 1024, "{when}: {length} bytes are not opened: {report:?}");
    fs::remove_file(&partial).unwrap();
    if opened { Left::Cut } else { Left::Stub }
}

#[test]
fn killed_at_any_moment_the_group_runs_on() {
    let instance = Instance::start(Options::default());
    oracle::exercise(&instance, 5000);
    let mut traffic = Traffic::start(&instance, Kind::Pass, 300);
    let scratch = tools::scratch("kill9");

    // One whole collection tells how long each phase takes.
    let bundle = scratch.join("whole.tar.zst");
    let whole = tools::collect(instance.main_pid(), &bundle).elapsed;
    let processes = Unpacked::open(&bundle).manifest().processes;
    let pause = processes.iter().filter_map(|process| process.pause_micros).max();
    let pause = pause.expect("the pause is in the manifest");
    println!("a collection takes {whole:?}, the pause {pause} µs");

    let mut numbers = Numbers(2024);
    let mut left = BTreeMap::<Left, u32>::new();
    let mut met_frozen = 0;
    for round in 0..SPREAD + FROZEN {
        let output = scratch.join(format!("{round}.tar.zst"));
        let started = Instant::now();
        let running = Running::start(&instance, &output);
        let (when, delay) = if round < SPREAD {
            let stretch = u64::try_from(whole.as_micros()).unwrap() / u64::from(SPREAD);
            let delay = stretch * u64::from(round) + numbers.below(stretch);
            (format!("killed {delay} µs after the start"), delay)
        } else {
            running.wait_for_freeze();
            let delay = numbers.below(pause.clamp(2000, 40_000));
            (format!("killed {delay} µs after `freezing`"), delay)
        };
        let begin = if round < SPREAD { started } else { Instant::now() };
        while begin.elapsed() < Duration::from_micros(delay) {
            std::thread::sleep(Duration::from_micros(100));
        }
        let traced = running.kill(&instance);
        met_frozen += usize::from(traced > 0);
        assert_group_runs(&instance, &when);
        *left.entry(examine(&output, &when)).or_default() += 1;
        traffic.assert_running();
    }
    println!("files left behind: {left:?}; kills that met a frozen group: {met_frozen}");
    assert!(met_frozen >= MET_FROZEN, "only {met_frozen} kills met a frozen group: {left:?}");
    assert!(left.get(&Left::Cut) >= Some(&10), "cut bundles that were opened: {left:?}");

    // The instance can still be collected.
    let again = scratch.join("again.tar.zst");
    tools::collect(instance.main_pid(), &again);
    assert_last_byte_counts(&again);
}

/// A bundle with all its bytes needs only its name; one without the last of them is cut.
#[track_caller]
fn assert_last_byte_counts(whole: &Path) {
    let partial = PathBuf::from(format!("{}.partial", whole.display()));
    fs::copy(whole, &partial).unwrap();
    let file = fs::File::options().write(true).open(&partial).unwrap();
    file.set_len(file.metadata().unwrap().len() - 1).unwrap();
    fs::rename(whole, whole.with_extension("whole")).unwrap();
    assert_eq!(examine(whole, "without its last byte"), Left::Cut);
    fs::rename(whole.with_extension("whole"), &partial).unwrap();
    assert_eq!(examine(whole, "with all its bytes"), Left::Unnamed);
}
