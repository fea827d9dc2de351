//! A small process group of our own to collect from, and the collector run on it.
#![allow(dead_code, reason = "each test file uses its own part")]
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// The test program, compiled once.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/common/victim.c");
        // A name of its own for each test process: they run side by side.
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let program = folder.join(format!("victim-{}", std::process::id()));
        let compiled = Command::new("cc")
            .args(["-O1", "-g", "-pthread", "-Wl,--build-id", "-o"])
            .arg(&program)
            .arg(source)
            .status()
            .unwrap();
        assert!(compiled.success());
        program
    })
}

/// A process that ends with its test.
pub(crate) struct Victim {
    child: Child,
    ready: String,
}

impl Victim {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self::start_from(program(), arguments)
    }

    pub(crate) fn start_from(program: &Path, arguments: &[&str]) -> Self {
        let mut command = Command::new(program);
        let mut child = command.args(arguments).stdout(Stdio::piped()).spawn().unwrap();
        let mut ready = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        assert!(ready.starts_with("private="), "{ready:?}");
        Self { child, ready }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Bytes that its pool of shared memory really has, whoever touched them.
    pub(crate) fn pool_bytes(&self) -> u64 {
        use std::os::unix::fs::MetadataExt;
        let start = self.said("shared");
        let name = format!("{start:x}-{:x}", start + (64 << 20));
        let file = std::fs::metadata(format!("/proc/{}/map_files/{name}", self.pid())).unwrap();
        file.blocks() * 512
    }

    /// Bytes of its private memory that it still shares with the processes it forked.
    pub(crate) fn shared_private_bytes(&self) -> u64 {
        let smaps = std::fs::read_to_string(format!("/proc/{}/smaps", self.pid())).unwrap();
        let start = self.said("private");
        let within = |line: &&str| {
            let range = line.split(' ').next().and_then(|range| range.split_once('-'));
            let hex = |text: &str| u64::from_str_radix(text, 16);
            matches!(range.map(|(from, to)| (hex(from), hex(to))),
                Some((Ok(from), Ok(to))) if from <= start && start < to)
        };
        let lines = smaps.lines().skip_while(|line| !within(line));
        let line = lines.skip(1).find(|line| line.starts_with("Shared_Dirty:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }

    /// Waits until it has ended by a signal.
    pub(crate) fn assert_ended(&mut self) {
        use std::os::unix::process::ExitStatusExt;
        assert!(self.child.wait().unwrap().signal().is_some());
    }

    /// A value of the line that it printed: `private`, `shared`, `child`.
    pub(crate) fn said(&self, key: &str) -> u64 {
        let mut pairs = self.ready.split_whitespace().filter_map(|pair| pair.split_once('='));
        let (_, value) = pairs.find(|(name, _)| *name == key).unwrap();
        match value.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16).unwrap(),
            None => value.parse().unwrap(),
        }
    }

    pub(crate) fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(self.pid().try_into().unwrap());
        nix::sys::signal::kill(pid, signal).unwrap();
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        self.child.kill().unwrap_or_default();
        self.child.wait().unwrap();
    }
}

/// Ends a process that a victim of ours started.
pub(crate) fn end(pid: u32) {
    let pid = nix::unistd::Pid::from_raw(pid.try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
}

/// A copy of the test program: another executable, so another group.
pub(crate) fn another_program(folder: &Path) -> PathBuf {
    let copy = folder.join("victim-copy");
    std::fs::copy(program(), &copy).unwrap();
    copy
}

/// One line of `/proc/PID/task/TID/status` of every thread.
pub(crate) fn statuses(pid: u32, key: &str) -> Vec<String> {
    let mut found = Vec::new();
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten() {
        let text = std::fs::read_to_string(task.path().join("status")).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(":\t"));
        found.extend(line.map(str::to_owned));
    }
    found
}

/// No tracer, and every thread in the state with this letter.
pub(crate) fn assert_untouched(pid: u32, state: char) {
    assert!(statuses(pid, "TracerPid").iter().all(|tracer| tracer == "0"));
    // A thread that was just let go may be running for a moment.
    wait_until(&format!("process {pid} is in state {state}"), || {
        statuses(pid, "State").iter().all(|found| found.starts_with(state))
    });
}

pub(crate) fn wait_until(what: &str, test: impl Fn() -> bool) {
    let begun = Instant::now();
    while !test() {
        assert!(begun.elapsed() < Duration::from_secs(10), "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub(crate) fn collector() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_collect-evidence"));
    command.args(["--sample-gap", "10", "--modules", "own", "--level", "1"]);
    command
}

/// A bundle, and its members unpacked by GNU tar.
pub(crate) struct Collected {
    pub(crate) output: Output,
    pub(crate) folder: tempfile::TempDir,
}

impl Collected {
    pub(crate) fn from(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("b.tar.zst");
        let output = collector().args(arguments).arg("-o").arg(&file).output().unwrap();
        let mut unpacked = Command::new("tar");
        unpacked.arg("--zstd").arg("-xf").arg(&file).current_dir(folder.path());
        assert!(unpacked.status().unwrap().success(), "{output:?}");
        Self { output, folder }
    }

    pub(crate) fn of(victim: &Victim, arguments: &[&str]) -> Self {
        let pid = victim.pid().to_string();
        Self::from(&[&["--pid", &pid], arguments].concat())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.output.stdout).into_owned()
    }

    pub(crate) fn path(&self, member: &str) -> PathBuf {
        self.folder.path().join(member)
    }

    pub(crate) fn manifest(&self) -> bundle::Manifest {
        let text = std::fs::read(self.path(bundle::member::MANIFEST)).unwrap();
        serde_json::from_slice(&text).unwrap()
    }

    /// What gdb says of a process's core.
    pub(crate) fn gdb(&self, pid: u32, commands: &[&str]) -> String {
        let mut gdb = Command::new("gdb");
        gdb.args(["-nx", "-batch"]);
        for command in commands {
            gdb.args(["-ex", command]);
        }
        let output = gdb.arg(program()).arg(self.path(&bundle::member::core(pid))).output();
        String::from_utf8_lossy(&output.unwrap().stdout).into_owned()
    }
}
