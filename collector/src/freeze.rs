//! All threads of a process group stand still, and are let go on every path.
//!
//! ptrace belongs to a *thread*: one dedicated thread seizes, waits, reads the registers, and then
//! does nothing but wait for the word to let go, or for the pause limit. Others copy the memory, so
//! a read that hangs cannot hold the freeze. When the thread ends, for whatever reason, the kernel
//! detaches what is still attached; when the whole program is killed, too.
//!
//! Never `SIGSTOP`: what was stopped before stays stopped, and nothing else does. A thread that
//! will not stop (uninterruptible sleep, a vfork parent) or that another tracer holds is reported
//! with the reason, and its process is read as it runs.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::procfs::{self, Fields, Stat};
use crate::registers::Registers;
use crate::sys::{self, Waited};

/// How long to wait for what.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// For all threads together to stop.
    pub stop: Duration,
    /// For the whole freeze; then everything is let go, finished or not.
    pub pause: Duration,
}

/// The group cannot be frozen at all.
#[derive(Debug, Error)]
pub enum FreezeError {
    /// No thread could be started for it.
    #[error("the tracing thread could not be started: {0}")]
    Thread(#[from] io::Error),
    /// It hangs in the kernel, and was ended.
    #[error("ptrace itself hangs: a process of the group is stuck inside execve")]
    Stuck,
    /// It ended before it reported.
    #[error("the tracing thread ended before every thread stood still")]
    Ended,
}

/// One thread of the group as the freeze found it.
#[derive(Clone, Debug)]
pub struct FrozenThread {
    /// Its process.
    pub pid: u32,
    /// Its ID.
    pub tid: u32,
    /// Its registers, from the stop if it stands still.
    pub registers: Registers,
    /// Why it was not stopped.
    pub unstopped: Option<String>,
    /// The signal that was about to be delivered to it; it is delivered at the thaw.
    pub signal: i32,
}

/// How long one process stood still.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pause {
    /// The process.
    pub pid: u32,
    /// When its first thread was asked to stop, RFC 3339.
    pub frozen_at: String,
    /// From then to the release of its last thread.
    pub length: Duration,
}

/// What the tracing thread tells when every thread stands still.
#[derive(Debug)]
struct Report {
    threads: Vec<FrozenThread>,
    tracer: u32,
}

/// The group stands still for as long as this lives, or until the pause limit.
#[derive(Debug)]
pub struct Frozen {
    threads: Vec<FrozenThread>,
    expired: Arc<AtomicBool>,
    release: Option<Sender<()>>,
    tracer: Option<JoinHandle<Vec<Pause>>>,
    tracer_id: u32,
}

impl Frozen {
    /// Stops every thread of the processes `pids`.
    ///
    /// # Errors
    /// Only if there is no thread to do it; a process that refuses is in [`Frozen::threads`].
    pub fn new(pids: &[u32], limits: Limits) -> Result<Self, FreezeError> {
        let expired = Arc::new(AtomicBool::new(false));
        let (report, reported) = mpsc::channel();
        let (release, released) = mpsc::channel();
        let (pids, flag) = (pids.to_vec(), Arc::clone(&expired));
        let tracer = std::thread::Builder::new()
            .name("tracer".into())
            .spawn(move || trace(&pids, limits, &report, &released, &flag))?;
        let mut frozen = Self {
            threads: Vec::new(),
            expired,
            release: Some(release),
            tracer: Some(tracer),
            tracer_id: 0,
        };
        // PTRACE_SEIZE waits for a process that is inside execve, for ever if its file server is
        // dead, and meanwhile the others stand still.
        let patience = limits.pause.max(limits.stop * 2 + Duration::from_millis(200));
        let patience = patience.min(limits.stop * 4 + Duration::from_secs(1));
        let report: Report = match reported.recv_timeout(patience) {
            Ok(report) => report,
            Err(mpsc::RecvTimeoutError::Disconnected) => return Err(FreezeError::Ended),
            Err(mpsc::RecvTimeoutError::Timeout) => {
                frozen.abandon();
                return Err(FreezeError::Stuck);
            }
        };
        (frozen.threads, frozen.tracer_id) = (report.threads, report.tracer);
        for thread in &mut frozen.threads {
            if thread.unstopped.is_some() {
                thread.registers = Registers::of_running(thread.pid, thread.tid);
            }
        }
        Ok(frozen)
    }

    /// Every thread, by process and ID; threads that ended meanwhile are not in it.
    pub fn threads(&self) -> &[FrozenThread] {
        &self.threads
    }

    /// Becomes true when the pause limit has passed: the group runs again.
    pub fn expired(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.expired)
    }

    /// Lets everything go; the threads as they were, and how long each process stood still.
    pub fn thaw(mut self) -> (Vec<FrozenThread>, Vec<Pause>) {
        let pauses = self.let_go();
        (std::mem::take(&mut self.threads), pauses)
    }

    /// Ends a tracing thread that hangs; the kernel lets its tracees go.
    fn abandon(&mut self) {
        drop(self.release.take());
        if let Some(tracer) = self.tracer.take()
            && let Err(error) = sys::end_thread(&tracer)
        {
            tracing::error!(%error, "the tracing thread could not be ended");
        }
    }

    fn let_go(&mut self) -> Vec<Pause> {
        drop(self.release.take());
        let Some(tracer) = self.tracer.take() else { return Vec::new() };
        let pauses = tracer.join().unwrap_or_default();
        // Threads that never stopped are detached by the kernel when the tracing thread is gone,
        // which may be a moment after it was joined.
        let trace = format!("/proc/self/task/{}", self.tracer_id);
        let begun = Instant::now();
        while self.tracer_id != 0
            && Path::new(&trace).exists()
            && begun.elapsed() < Duration::from_secs(1)
        {
            std::thread::sleep(Duration::from_micros(100));
        }
        pauses
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        self.let_go();
    }
}

/// What is known of a thread that is to stop.
#[derive(Debug)]
enum Progress {
    /// Asked to stop at this time.
    Asked,
    /// Stands still.
    Still { registers: Registers, signal: i32 },
    /// Ended, or was a zombie all along.
    Ended,
    /// Cannot be traced.
    Refused(String),
}

#[derive(Debug)]
struct Tracee {
    pid: u32,
    tid: u32,
    progress: Progress,
}

/// The tracing thread's state: everything by thread ID.
#[derive(Debug, Default)]
struct Tracer {
    tracees: BTreeMap<u32, Tracee>,
    frozen_at: BTreeMap<u32, (Instant, String)>,
}

fn trace(
    pids: &[u32],
    limits: Limits,
    report: &Sender<Report>,
    released: &Receiver<()>,
    expired: &AtomicBool,
) -> Vec<Pause> {
    let begun = Instant::now();
    let mut tracer = Tracer::default();
    tracer.stop_all(pids, limits.stop);
    let threads = tracer.threads(limits.stop);
    if report.send(Report { threads, tracer: sys::thread_id() }).is_ok() {
        let left = limits.pause.saturating_sub(begun.elapsed());
        if released.recv_timeout(left) == Err(mpsc::RecvTimeoutError::Timeout) {
            expired.store(true, Ordering::SeqCst);
        }
    }
    tracer.let_go()
}

impl Tracer {
    /// Seizes and interrupts until a look at the task lists shows no new thread.
    fn stop_all(&mut self, pids: &[u32], timeout: Duration) {
        let begun = Instant::now();
        self.seize_new(pids);
        let mut asleep_since: Option<Instant> = None;
        loop {
            self.take_reports();
            if !self.waiting() && !self.seize_new(pids) {
                break;
            }
            if begun.elapsed() >= timeout {
                break;
            }
            // Do not hold the others for the whole time-out where nothing can come: everyone
            // who is still missing sleeps uninterruptibly.
            if begun.elapsed() >= timeout / 10 {
                let asleep = self.waiting() && self.all_uninterruptible();
                asleep_since = asleep.then(|| asleep_since.unwrap_or_else(Instant::now));
                if asleep_since.is_some_and(|since| since.elapsed() >= timeout / 5) {
                    break;
                }
                std::thread::sleep(Duration::from_millis(1));
            } else {
                std::thread::sleep(Duration::from_micros(50));
            }
        }
    }

    fn waiting(&self) -> bool {
        self.tracees.values().any(|tracee| matches!(tracee.progress, Progress::Asked))
    }

    fn all_uninterruptible(&self) -> bool {
        let missing =
            self.tracees.iter().filter(|(_, tracee)| matches!(tracee.progress, Progress::Asked));
        let mut states = missing.map(|(tid, tracee)| state(tracee.pid, *tid));
        states.all(|state| state == Some(b'D'))
    }

    /// Asks every thread that was not seen before; whether there was one.
    fn seize_new(&mut self, pids: &[u32]) -> bool {
        let mut found = false;
        for &pid in pids {
            for tid in procfs::numbers_in(format!("/proc/{pid}/task")) {
                if self.tracees.contains_key(&tid) {
                    continue;
                }
                found = true;
                let asked = sys::seize(tid).and_then(|()| sys::interrupt(tid));
                let progress = match asked {
                    Ok(()) => {
                        self.frozen_at.entry(pid).or_insert_with(|| (Instant::now(), now()));
                        Progress::Asked
                    }
                    Err(error) => refusal(pid, tid, &error),
                };
                self.tracees.insert(tid, Tracee { pid, tid, progress });
            }
        }
        found
    }

    /// Takes the reports of those that have not answered yet.
    fn take_reports(&mut self) {
        let asked = self.tracees.iter_mut();
        for (_, tracee) in asked.filter(|(_, t)| matches!(t.progress, Progress::Asked)) {
            tracee.progress = match sys::wait_for(tracee.tid) {
                Waited::Nothing => continue,
                Waited::Ended { .. } => Progress::Ended,
                Waited::Stopped { tid, signal, event } => {
                    // Event 0: a signal was about to be delivered, and must be at the thaw.
                    let signal = if event == 0 { signal } else { 0 };
                    let registers = Registers::of_stopped(tid).unwrap_or_else(|error| {
                        tracing::warn!(tid, %error, "registers could not be read");
                        Registers::none()
                    });
                    Progress::Still { registers, signal }
                }
            };
        }
    }

    /// What is known of each; the registers are handed out, not copied.
    fn threads(&mut self, timeout: Duration) -> Vec<FrozenThread> {
        let mut threads = Vec::with_capacity(self.tracees.len());
        for (&tid, tracee) in &mut self.tracees {
            let pid = tracee.pid;
            let (registers, unstopped, signal) = match &mut tracee.progress {
                Progress::Ended => continue,
                Progress::Still { registers, signal } => {
                    (std::mem::replace(registers, Registers::none()), None, *signal)
                }
                Progress::Refused(why) => (Registers::none(), Some(why.clone()), 0),
                Progress::Asked => {
                    let why = match state(pid, tid) {
                        Some(b'D') => "uninterruptible sleep (state D)".to_owned(),
                        Some(b'Z' | b'X') | None => continue,
                        Some(letter) => format!(
                            "did not stop within {} ms (state {})",
                            timeout.as_millis(),
                            char::from(letter)
                        ),
                    };
                    (Registers::none(), Some(why), 0)
                }
            };
            threads.push(FrozenThread { pid, tid, registers, unstopped, signal });
        }
        threads.sort_by_key(|thread| (thread.pid, thread.tid));
        threads
    }

    fn let_go(mut self) -> Vec<Pause> {
        // Some may have stopped after we had given up on them.
        self.take_reports();
        let mut last: BTreeMap<u32, Instant> = BTreeMap::new();
        for (&tid, tracee) in &self.tracees {
            if let Progress::Still { signal, .. } = tracee.progress {
                if let Err(error) = sys::detach(tid, signal) {
                    tracing::debug!(tid, %error, "detach: it was killed meanwhile");
                }
                last.insert(tracee.pid, Instant::now());
            }
        }
        let pause = |(pid, end): (u32, Instant)| {
            let (begun, frozen_at) = self.frozen_at.get(&pid)?.clone();
            Some(Pause { pid, frozen_at, length: end.duration_since(begun) })
        };
        last.into_iter().filter_map(pause).collect()
    }
}

fn now() -> String {
    jiff::Zoned::now().to_string()
}

fn state(pid: u32, tid: u32) -> Option<u8> {
    let folder = format!("/proc/{pid}/task/{tid}");
    Stat::read(Path::new(&folder)).ok().map(|stat| stat.state)
}

/// Why a thread cannot be seized.
fn refusal(pid: u32, tid: u32, error: &io::Error) -> Progress {
    let status = Fields::read(Path::new(&format!("/proc/{pid}/task/{tid}/status")));
    let Ok(status) = status else { return Progress::Ended };
    if error.raw_os_error() == Some(libc::ESRCH)
        || status.text("State").is_some_and(|state| state.starts_with(['Z', 'X']))
    {
        return Progress::Ended;
    }
    match status.number("TracerPid") {
        Some(tracer) if tracer != 0 => Progress::Refused(format!("held by tracer {tracer}")),
        _ => Progress::Refused(format!("cannot be traced: {error}")),
    }
}
