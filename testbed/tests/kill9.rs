//! The collector is killed with SIGKILL, 200 times, spread over all its phases, under SIP load: the
//! group runs on, and what was written is of use.
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
use testbed::{oracle, proc, tools};

/// A stretch of a collection, between two things that the collector says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Until the freeze: the sources that come first.
    Before,
    /// Stopping, looking, copying, letting go.
    Frozen,
    /// The copy is compressed and written.
    Writing,
    /// Everything that can wait, and sealing.
    After,
}

impl Phase {
    /// The beginning of the line with which it begins; the first one begins with the program.
    fn mark(self) -> Option<&'static str> {
        match self {
            Self::Before => None,
            Self::Frozen => Some("freezing "),
            Self::Writing => Some("thawed: "),
            Self::After => Some("memory: "),
        }
    }
}

/// How many kills each phase gets.
const KILLS: [(Phase, u32); 4] =
    [(Phase::Before, 40), (Phase::Frozen, 70), (Phase::Writing, 50), (Phase::After, 40)];
/// Of those in [`Phase::Frozen`], as many at least must really have met a frozen group.
const MET_FROZEN: usize = 10;

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
        command.args(["--pid", &instance.main_pid().to_string(), "--sample-gap", "300", "-o"]);
        command.arg(output).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
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

    /// Waits until the collector says that the phase begins.
    #[track_caller]
    fn wait_for(&self, phase: Phase) {
        let Some(mark) = phase.mark() else { return };
        let mut seen = Vec::new();
        while let Ok(line) = self.lines.recv_timeout(tools::PATIENCE) {
            if line.starts_with(mark) {
                return;
            }
            seen.push(line);
        }
        panic!("no line `{mark}…` from the collector: {seen:#?}");
    }

    /// Lets it run to its end; how long each phase took.
    #[track_caller]
    fn times(mut self) -> Vec<(Phase, Duration)> {
        let mut begun = Instant::now();
        let mut times = Vec::new();
        for ((phase, _), (next, _)) in KILLS.into_iter().zip(KILLS.into_iter().skip(1)) {
            self.wait_for(next);
            times.push((phase, begun.elapsed()));
            begun = Instant::now();
        }
        let status = tools::wait(&mut self.child, tools::PATIENCE);
        assert!(status.is_some_and(|status| status.success()), "a whole collection: {status:?}");
        times.push((Phase::After, begun.elapsed()));
        times
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
    /// A file without one whole frame, which `forensics` says is cut, or empty.
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
    let length = fs::metadata(&partial).unwrap().len();
    let word = if length == 0 { "an empty file" } else { "cut" };
    assert!(beginning.contains(word), "{when}: the report begins with the cut: {report:?}");
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
    let times = Running::start(&instance, &scratch.join("whole.tar.zst")).times();
    println!("{times:?}");

    let mut numbers = Numbers(2024);
    let mut left = BTreeMap::<Left, u32>::new();
    let mut met_frozen = 0;
    let begun = Instant::now();
    for ((phase, kills), (_, length)) in KILLS.into_iter().zip(times) {
        let stretch = u64::try_from(length.as_micros()).unwrap() / u64::from(kills);
        for kill in 0..kills {
            let output = scratch.join(format!("{phase:?}-{kill}.tar.zst"));
            let running = Running::start(&instance, &output);
            running.wait_for(phase);
            let delay = stretch * u64::from(kill) + numbers.below(stretch);
            std::thread::sleep(Duration::from_micros(delay));
            let traced = running.kill(&instance);
            met_frozen += usize::from(traced > 0);
            let when = format!("killed {delay} µs after the beginning of `{phase:?}`");
            assert_group_runs(&instance, &when);
            *left.entry(examine(&output, &when)).or_default() += 1;
            traffic.assert_running();
        }
    }
    println!("{:?}", begun.elapsed());
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
