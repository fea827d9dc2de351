//! Other programs, asked in a way that cannot hold the collection up.
//!
//! No shell: a program and its arguments. A bare name is looked up in four system folders and
//! nowhere else; an absolute path is taken as it is. The program has an empty environment
//! (`LC_ALL=C`, `PATH`), stdin from `/dev/null`, `/` as its folder, and a session of its own; that
//! whole group is killed at the deadline, when the program itself has ended, and when the
//! collector ends. What it writes is read until then, and kept up to a cap.
//!
//! That a program is not installed is an outcome like any other, told in words.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

use crate::number::bytes;
use crate::sys_host;

/// Where programs are looked for, and their `PATH`.
const PATH: [&str; 4] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// Bytes of stderr that are kept.
const STDERR_CAP: usize = 64 * 1024;

/// How long it takes at most until it is noticed that the program has ended.
const TICK: Duration = Duration::from_millis(10);

/// How long a killed program may take to be gone before it is left behind.
const LAST_WAIT: Duration = Duration::from_millis(200);

/// What a program has said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// What it wrote to stdout, as far as it was kept.
    pub stdout: Vec<u8>,
    /// The first 64 KiB of what it wrote to stderr.
    pub stderr: Vec<u8>,
    /// Bytes of stdout that were read and not kept.
    pub cut: u64,
    /// How it ended.
    pub ended: Ended,
}

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// By itself, with this exit status.
    Exit(i32),
    /// By this signal, which was not ours.
    Signal(i32),
    /// Killed at the deadline, which was this long.
    Deadline(Duration),
    /// Killed when it had written more than is kept.
    TooMuch,
    /// It has ended, and the kernel does not tell how.
    Unknown,
}

impl Output {
    /// Whether it ended by itself with status 0.
    pub fn succeeded(&self) -> bool {
        self.ended == Ended::Exit(0)
    }

    /// Its end in words, for a gap: `None` where it succeeded.
    pub fn complaint(&self) -> Option<String> {
        let said = String::from_utf8_lossy(&self.stderr);
        let said = said.lines().find(|line| !line.trim().is_empty());
        let said = said.map(|line| format!(": {}", line.trim())).unwrap_or_default();
        match self.ended {
            Ended::Exit(0) => None,
            Ended::Exit(status) => Some(format!("exit status {status}{said}")),
            Ended::Signal(signal) => Some(format!("ended by signal {signal}{said}")),
            Ended::Deadline(deadline) => {
                Some(format!("no end within {} ms; killed", deadline.as_millis()))
            }
            Ended::TooMuch => Some("it wrote more than is kept; killed".into()),
            Ended::Unknown => Some(format!("its exit status is not known{said}")),
        }
    }
}

/// Why a program did not run.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// It is in none of the folders.
    #[error("{0} is not installed (looked in /usr/sbin, /usr/bin, /sbin and /bin)")]
    NotInstalled(String),
    /// The kernel refused to start it.
    #[error("{0} could not be started: {1}")]
    NotStarted(String, #[source] io::Error),
}

/// Which part of a long output is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keep {
    First,
    Last,
}

/// Runs a program and keeps the first `cap` bytes of its stdout; when there are more, it is ended.
///
/// # Errors
/// It is not installed, or could not be started.
pub fn run(
    program: &str,
    arguments: &[&str],
    deadline: Duration,
    cap: usize,
) -> Result<Output, CommandError> {
    run_keeping(Keep::First, program, arguments, deadline, cap)
}

/// As [`run`], but reads all that it writes until the deadline and keeps the last `cap` bytes.
///
/// # Errors
/// As [`run`].
pub fn run_tail(
    program: &str,
    arguments: &[&str],
    deadline: Duration,
    cap: usize,
) -> Result<Output, CommandError> {
    run_keeping(Keep::Last, program, arguments, deadline, cap)
}

/// Where a program is, if it is installed.
pub fn find(program: &str) -> Option<PathBuf> {
    let runs = |path: &Path| {
        path.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    };
    let given = Path::new(program);
    if given.is_absolute() {
        return Some(given.to_owned()).filter(|path| runs(path));
    }
    if program.is_empty() || program.contains('/') {
        return None;
    }
    PATH.iter().map(|folder| Path::new(folder).join(program)).find(|path| runs(path))
}

fn run_keeping(
    keep: Keep,
    program: &str,
    arguments: &[&str],
    deadline: Duration,
    cap: usize,
) -> Result<Output, CommandError> {
    let begun = Instant::now();
    let path = find(program).ok_or_else(|| CommandError::NotInstalled(program.to_owned()))?;
    let mut command = Command::new(path);
    command.args(arguments).env_clear().env("LC_ALL", "C").env("PATH", PATH.join(":"));
    command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    sys_host::tie_to_this_thread(&mut command);
    let started = command.spawn();
    let child = started.map_err(|error| CommandError::NotStarted(program.to_owned(), error))?;
    Ok(Running::new(child, keep, cap).finish(begun, deadline))
}

/// A program that runs, and what it has written so far.
struct Running {
    child: Child,
    group: Pid,
    stdout: Stream<ChildStdout>,
    stderr: Stream<ChildStderr>,
}

impl Running {
    fn new(mut child: Child, keep: Keep, cap: usize) -> Self {
        let group = Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX));
        let stdout = Stream::new(child.stdout.take(), keep, cap);
        // Stderr is never a reason to end a program: what exceeds its cap is read and dropped.
        let stderr = Stream::new(child.stderr.take(), Keep::First, STDERR_CAP);
        Self { child, group, stdout, stderr }
    }

    /// Reads until the program ends, says too much, or has no time left; then ends its group.
    fn finish(mut self, begun: Instant, deadline: Duration) -> Output {
        let killed = loop {
            let left = deadline.saturating_sub(begun.elapsed());
            if left.is_zero() {
                break Some(Ended::Deadline(deadline));
            }
            if has_ended(self.group) {
                break None;
            }
            self.wait_for_text(left.min(TICK));
            self.stdout.read_some();
            self.stderr.read_some();
            if self.stdout.keep == Keep::First && self.stdout.cut > 0 {
                break Some(Ended::TooMuch);
            }
        };
        // Before it is reaped: until then, the group's number cannot be another's.
        let ended = killpg(self.group, Signal::SIGKILL);
        tracing::trace!(group = %self.group, ?ended, "killed what was left of the group");
        if killed.is_none() {
            self.stdout.read_some();
            self.stderr.read_some();
        }
        let ended = reap(&mut self.child);
        Output {
            ended: killed.unwrap_or(ended),
            cut: self.stdout.cut,
            stdout: self.stdout.into_text(),
            stderr: self.stderr.into_text(),
        }
    }

    fn wait_for_text(&self, at_most: Duration) {
        let open = [self.stdout.descriptor(), self.stderr.descriptor()];
        let mut waited: Vec<PollFd<'_>> = open
            .into_iter()
            .flatten()
            .map(|descriptor| PollFd::new(descriptor, PollFlags::POLLIN))
            .collect();
        let at_most = PollTimeout::try_from(at_most).unwrap_or(PollTimeout::ZERO);
        if let Err(error) = poll(&mut waited, at_most) {
            tracing::trace!(%error, "poll");
        }
    }
}

/// Whether the program itself has ended; it is not reaped by this.
fn has_ended(pid: Pid) -> bool {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT | WaitPidFlag::WNOHANG;
    !matches!(waitid(Id::Pid(pid), flags), Ok(WaitStatus::StillAlive))
}

/// A program that cannot be killed, since it waits for a device, is left behind.
fn reap(child: &mut Child) -> Ended {
    use std::os::unix::process::ExitStatusExt as _;
    let begun = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) => {
                let signal = status.signal().map(Ended::Signal);
                return status.code().map(Ended::Exit).or(signal).unwrap_or(Ended::Unknown);
            }
            Ok(None) if begun.elapsed() < LAST_WAIT => {
                std::thread::sleep(Duration::from_millis(1));
            }
            Ok(None) | Err(_) => return Ended::Unknown,
        }
    }
}

/// One of its two streams.
struct Stream<R> {
    pipe: Option<R>,
    keep: Keep,
    cap: usize,
    text: Vec<u8>,
    cut: u64,
}

impl<R: Read + AsFd> Stream<R> {
    /// A pipe that cannot be read without waiting is not read at all.
    fn new(pipe: Option<R>, keep: Keep, cap: usize) -> Self {
        let pipe =
            pipe.filter(|pipe| fcntl(pipe.as_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).is_ok());
        Self { pipe, keep, cap, text: Vec::new(), cut: 0 }
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.pipe.as_ref().map(AsFd::as_fd)
    }

    /// Takes what is there, at most 1 MiB: whoever writes without end must not hold us.
    fn read_some(&mut self) {
        let mut piece = [0; 64 * 1024];
        for _ in 0..16 {
            let Some(pipe) = &mut self.pipe else { return };
            match pipe.read(&mut piece) {
                Ok(0) => self.pipe = None,
                Ok(read) => self.take(piece.get(..read).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.pipe = None,
            }
        }
    }

    fn take(&mut self, piece: &[u8]) {
        match self.keep {
            Keep::First => {
                let room = self.cap.saturating_sub(self.text.len()).min(piece.len());
                let (kept, rest) = piece.split_at(room);
                self.text.extend_from_slice(kept);
                self.cut = self.cut.saturating_add(bytes(rest.len()));
            }
            Keep::Last => {
                self.text.extend_from_slice(piece);
                if self.text.len() > self.cap.saturating_mul(2) {
                    self.cut_front();
                }
            }
        }
    }

    fn cut_front(&mut self) {
        let surplus = self.text.len().saturating_sub(self.cap);
        self.text.drain(..surplus);
        self.cut = self.cut.saturating_add(bytes(surplus));
    }

    fn into_text(mut self) -> Vec<u8> {
        self.cut_front();
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// As a person would type it; only in tests is a shell a way to write a program down.
    fn script(text: &str, deadline: Duration, cap: usize) -> Output {
        run("sh", &["-c", text], deadline, cap).unwrap()
    }

    #[test]
    fn what_it_writes_and_how_it_ends_is_told() {
        let output = script("echo out; echo err >&2; exit 3", 10 * SECOND, 1000);
        assert_eq!((&*output.stdout, &*output.stderr), (&b"out\n"[..], &b"err\n"[..]));
        assert_eq!(output.ended, Ended::Exit(3));
        assert_eq!(output.complaint().unwrap(), "exit status 3: err");
        let output = script("kill -SEGV $$", 10 * SECOND, 1000);
        assert_eq!(output.ended, Ended::Signal(libc::SIGSEGV));
    }

    #[test]
    fn it_finds_an_empty_environment_and_no_input() {
        let output = script("cat; pwd; env | sort", 10 * SECOND, 1000);
        let text = String::from_utf8(output.stdout).unwrap();
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("/"));
        let names: Vec<&str> = lines.filter_map(|line| line.split('=').next()).collect();
        assert!(names.contains(&"LC_ALL") && names.contains(&"PATH"), "{names:?}");
        // The shell itself sets these.
        let own = ["LC_ALL", "PATH", "PWD", "OLDPWD", "SHLVL", "_"];
        assert!(names.iter().all(|name| own.contains(name)), "{names:?}");
    }

    #[test]
    fn a_command_that_sleeps_is_killed_at_the_deadline() {
        let begun = Instant::now();
        let output = script("echo first; sleep 60", SECOND / 2, 1000);
        assert!(begun.elapsed() < 5 * SECOND);
        assert_eq!(output.ended, Ended::Deadline(SECOND / 2));
        assert_eq!(output.stdout, b"first\n");
    }

    #[test]
    fn a_child_that_keeps_the_pipe_open_is_not_waited_for_and_killed() {
        let begun = Instant::now();
        let output = script("sleep 60 & echo $!", 30 * SECOND, 1000);
        assert!(begun.elapsed() < 5 * SECOND);
        assert_eq!(output.ended, Ended::Exit(0));
        assert_gone(&output.stdout);
    }

    #[test]
    fn a_child_of_a_command_that_hangs_is_killed_with_it() {
        let output = script("sleep 60 & echo $!; wait", SECOND / 2, 1000);
        assert_eq!(output.ended, Ended::Deadline(SECOND / 2));
        assert_gone(&output.stdout);
    }

    /// The process whose number is in `text` has ended: it is no more, or only waits to be reaped.
    fn assert_gone(text: &[u8]) {
        let pid = std::str::from_utf8(text).unwrap().trim();
        let stat = PathBuf::from(format!("/proc/{pid}"));
        let begun = Instant::now();
        let ended =
            || crate::procfs::Stat::read(&stat).map_or(true, |stat| b"ZX".contains(&stat.state));
        while !ended() {
            assert!(begun.elapsed() < 5 * SECOND, "process {pid} still runs");
            std::thread::sleep(SECOND / 100);
        }
    }

    #[test]
    fn one_that_writes_for_ever_is_ended_when_its_first_part_is_had() {
        let begun = Instant::now();
        let output = run("yes", &["line"], 30 * SECOND, 100_000).unwrap();
        assert!(begun.elapsed() < 10 * SECOND);
        assert_eq!(output.ended, Ended::TooMuch);
        assert_eq!(output.stdout.len(), 100_000);
        assert!(output.cut > 0);
    }

    #[test]
    fn of_one_that_writes_much_the_end_can_be_kept() {
        let output = run_tail("seq", &["1", "100000"], 30 * SECOND, 13).unwrap();
        assert_eq!(output.stdout, b"\n99999\n100000\n"[1..].to_vec());
        assert_eq!(output.cut, 588_895 - 13);
        let output = run_tail("yes", &["line"], SECOND / 2, 1000).unwrap();
        assert_eq!(output.ended, Ended::Deadline(SECOND / 2));
        assert_eq!(output.stdout.len(), 1000);
    }

    #[test]
    fn what_is_written_to_stderr_without_end_is_read_away() {
        let output = script("yes line | head -c 1000000 >&2; echo end", 30 * SECOND, 1000);
        assert_eq!((output.ended, &*output.stdout), (Ended::Exit(0), &b"end\n"[..]));
        assert_eq!(output.stderr.len(), STDERR_CAP);
    }

    #[test]
    fn a_command_that_is_missing_is_told_in_words() {
        let error = run("no-such-program", &[], SECOND, 1000).unwrap_err();
        assert_eq!(
            error.to_string(),
            "no-such-program is not installed (looked in /usr/sbin, /usr/bin, /sbin and /bin)"
        );
        for not_a_name in ["", "../bin/sh", "usr/bin/env", "/etc/passwd", "/usr/bin"] {
            assert!(run(not_a_name, &[], SECOND, 1000).is_err(), "{not_a_name}");
        }
    }
}
