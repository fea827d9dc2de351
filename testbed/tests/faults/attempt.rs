//! One collection of a program of our own, and what must hold whatever went wrong.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use bundle::{Manifest, member};
use tempfile::TempDir;
use testbed::proc;
use testbed::program::{self, Program};
use testbed::tools::{self, Finished};

/// No collection here may take longer.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// The program that gets into odd situations, compiled once.
pub(crate) fn target_program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let folder = tools::scratch("faults-target");
        program::compile("testbed/tests/faults/target.c", &["-Wl,--build-id"], &folder)
    })
}

/// Starts it.
pub(crate) fn start(arguments: &[&str]) -> Program {
    Program::start(Command::new(target_program()).args(arguments))
}

/// The collector with what all attempts have in common: fast, and only our own modules.
pub(crate) fn collector() -> Command {
    let mut command = tools::collect_evidence();
    command.args(OPTIONS);
    command
}

/// See [`collector`].
pub(crate) const OPTIONS: [&str; 6] = ["--sample-gap", "50", "--modules", "own", "--level", "1"];

/// What an attempt gave.
#[derive(Debug)]
pub(crate) struct Attempt {
    /// How the collector ended.
    pub(crate) finished: Finished,
    /// Of the bundle.
    pub(crate) manifest: Manifest,
}

impl Attempt {
    /// Collects the group of `pid`; the bundle must be sealed and whole, and nobody left stopped.
    #[track_caller]
    pub(crate) fn of(pid: u32, arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("b.tar.zst");
        let mut command = collector();
        command.args(["--pid", &pid.to_string(), "-o"]).arg(&output).args(arguments);
        let finished = tools::run(&mut command, DEADLINE).expect(&[0, 1]);
        Self::examine(finished, &output)
    }

    /// A sealed bundle is whole by our own verifier, and opens with plain tar.
    #[track_caller]
    pub(crate) fn examine(finished: Finished, output: &Path) -> Self {
        assert!(output.is_file(), "no bundle at {}: {finished:?}", output.display());
        verify(output);
        Self { finished, manifest: manifest(output) }
    }

    /// Whether a gap is recorded whose words hold both.
    pub(crate) fn has_gap(&self, what: &str, why: &str) -> bool {
        self.manifest.gaps.iter().any(|gap| gap.what.contains(what) && gap.why.contains(why))
    }

    /// The exit code.
    pub(crate) fn code(&self) -> Option<i32> {
        self.finished.status.code()
    }
}

/// A collection under way.
pub(crate) struct Running {
    child: Child,
    folder: TempDir,
    errors: Option<BufReader<ChildStderr>>,
}

impl Running {
    /// Begins to collect the group of `pid`.
    pub(crate) fn start(pid: u32) -> Self {
        let mut running = Self::start_with(pid, Stdio::piped());
        running.errors = running.child.stderr.take().map(BufReader::new);
        running
    }

    /// The same with its standard error elsewhere.
    pub(crate) fn start_with(pid: u32, errors: Stdio) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = collector();
        command.args(["--pid", &pid.to_string(), "-o"]).arg(folder.path().join("b.tar.zst"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors);
        Self { child: command.spawn().unwrap(), folder, errors: None }
    }

    /// Its PID.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where its bundle will be.
    pub(crate) fn output(&self) -> PathBuf {
        self.folder.path().join("b.tar.zst")
    }

    /// Waits for the line that begins with `mark`, and then for so many microseconds.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, mark: &str, delay: u64) {
        let mut errors = self.errors.take().expect("nobody has waited for a line before");
        let mut line = String::new();
        while !line.starts_with(mark) {
            line.clear();
            assert!(errors.read_line(&mut line).unwrap() > 0, "no line `{mark}…`");
        }
        // It must not wait for a reader of the lines that follow.
        std::thread::spawn(move || std::io::copy(&mut errors, &mut std::io::sink()));
        std::thread::sleep(Duration::from_micros(delay));
    }

    /// Waits until it has ended.
    #[track_caller]
    pub(crate) fn end(&mut self) -> ExitStatus {
        tools::wait(&mut self.child, DEADLINE).expect("it ends in time")
    }
}

/// `forensics verify` finds nothing wrong.
#[track_caller]
pub(crate) fn verify(bundle: &Path) {
    let mut verify = tools::forensics();
    tools::run(verify.arg("verify").arg(bundle), tools::PATIENCE).expect(&[0]);
}

/// The manifest, by plain tar.
#[track_caller]
pub(crate) fn manifest(output: &Path) -> Manifest {
    let folder = tempfile::tempdir().unwrap();
    let mut tar = Command::new("tar");
    tar.args(["--zstd", "-xf"]).arg(output).arg("-C").arg(folder.path()).arg(member::MANIFEST);
    tools::run(&mut tar, tools::PATIENCE).expect(&[0]);
    let text = fs::read(folder.path().join(member::MANIFEST)).expect("a sealed bundle");
    serde_json::from_slice(&text).expect("the manifest of the format")
}

/// Nobody traces a thread of `pid`, and none stands still but in state `state`.
#[track_caller]
pub(crate) fn assert_untouched(pid: u32, state: char) {
    let traced: Vec<_> = proc::threads(pid).into_iter().filter(|thread| thread.1 != 0).collect();
    assert_eq!(traced, [], "threads of {pid} that are traced");
    // A thread that was just let go may be running for a moment.
    proc::until(&format!("every thread of {pid} is in state {state}"), || {
        proc::threads(pid).iter().all(|thread| thread.2 == state)
    });
}

/// The PIDs of a process and all its descendants.
pub(crate) fn family(pid: u32) -> Vec<u32> {
    let mut family = proc::descendants(pid);
    family.push(pid);
    family
}
