//! Everything that is text under `/proc`, and the files that the group maps. One file a source.
//!
//! Raw text is copied; the analyzer parses it. Each source runs on a thread of its own that can be
//! left behind: if it says nothing for as long as its deadline, it is recorded as timed out, and
//! what came until then is kept. Never `environ`: it holds secrets.
//!
//! To add a source: one file, one `mod` line, one entry in the list of each profile that wants it.

mod cgroup;
mod database;
mod descriptors;
mod disks;
mod kamailio_config;
mod kamailio_memory;
mod kamailio_rpc;
mod kamailio_version;
mod kernel_log;
mod logs;
mod modules;
mod packages;
mod process_files;
mod remains;
mod samples;
mod spool_write;
mod system;
mod system_samples;
mod systemd;
mod tables;
mod voipmonitor_files;
mod voipmonitor_manager;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bundle::{Outcome, Phase, SourceRecord};

use crate::board::Board;
use crate::bundle_writer::{Bundle, BundleError};
use crate::defect;
use crate::files::Root;
use crate::survey::Survey;
use crate::sys;
use crate::target::Target;

pub(crate) use cgroup::ControlGroups;
pub(crate) use database::Database;
pub(crate) use descriptors::Descriptors;
pub(crate) use disks::Disks;
pub(crate) use kamailio_config::KamailioConfig;
pub(crate) use kamailio_memory::KamailioMemory;
pub(crate) use kamailio_rpc::KamailioRpc;
pub(crate) use kamailio_version::KamailioVersion;
pub(crate) use kernel_log::KernelLog;
pub(crate) use logs::Logs;
pub(crate) use modules::Modules;
pub use modules::WhichModules;
pub(crate) use packages::Packages;
pub(crate) use process_files::ProcessFiles;
pub(crate) use remains::DeadModules;
pub use remains::{MappedFile, Remains};
pub use samples::SampleTime;
pub(crate) use samples::{FIRST as FIRST_SAMPLE, SECOND as SECOND_SAMPLE, times};
pub(crate) use spool_write::SpoolWrite;
pub(crate) use system::System;
pub(crate) use system_samples::{
    FIRST as FIRST_HOST_SAMPLE, HostSample, SECOND as SECOND_HOST_SAMPLE,
};
pub(crate) use systemd::{Journal, Systemd};
pub(crate) use voipmonitor_files::VoipmonitorFiles;
pub(crate) use voipmonitor_manager::VoipmonitorManager;

/// One kind of evidence.
pub trait Source: Sync {
    /// Stable name in the manifest, and for `--without`.
    fn name(&self) -> &'static str;
    /// What it takes, in one line, for `--list`.
    fn about(&self) -> &'static str;
    /// When it is asked.
    fn phase(&self) -> Phase;
    /// The longest silence that is waited for.
    fn deadline(&self) -> Duration {
        Duration::from_secs(10)
    }
    /// Whether a sample of this kind needs it.
    fn serves(&self, _: Brief) -> bool {
        false
    }
    /// What must be there for it; decides whether it is asked post mortem.
    fn needs(&self) -> Needs {
        Needs::Process
    }
    /// What it would take, as far as a look can tell, and what not.
    fn preview(&self, _: &Context) -> Vec<Preview> {
        Vec::new()
    }
    /// Puts what there is into the drawer.
    ///
    /// # Errors
    /// Nothing more can be had; what is in the drawer is kept.
    fn collect(&self, context: &Context, out: &Drawer) -> anyhow::Result<()>;
}

/// What a source reads, and so when it can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// The running program. Post mortem it is not asked: whatever runs under the same name by then
    /// is another process, and is left alone.
    Process,
    /// This host as it runs. Post mortem it is asked, unless another system is looked at
    /// (`--root`).
    Host,
    /// Only files below [`Context::files`].
    Files,
}

/// What a sample is for that others of its series complete; it needs few sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Brief {
    /// The growth of the pools.
    Growth,
    /// Where the threads are, one time of many.
    Profile {
        /// It is the first one, and brings the modules for those that follow, should the last one
        /// never come.
        first: bool,
    },
}

impl Brief {
    /// Why other sources are not asked.
    pub fn why(self) -> &'static str {
        match self {
            Self::Growth => "not needed for the pools (--earlier pools)",
            Self::Profile { .. } => "in the last sample of the series (--stacks-only)",
        }
    }
}

/// A part of what a source would take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preview {
    /// What it is: a path, or some words.
    pub what: String,
    /// Its length in bytes, if that can be known.
    pub size: Option<u64>,
    /// Why it would not be taken.
    pub missing: Option<String>,
}

/// What the operator wants of the sources.
#[derive(Clone, Debug)]
pub struct Wishes {
    /// Logs reach back so far.
    pub since: Duration,
    /// Bytes that are kept of each log: its tail.
    pub log_cap: u64,
    /// Logs that the operator names, absolute.
    pub logs: Vec<PathBuf>,
    /// Ask for what holds the program's locks while it answers.
    pub allow_blocking_rpc: bool,
    /// Measure how fast the spool can be written to.
    pub spool_write_test: bool,
}

impl Default for Wishes {
    fn default() -> Self {
        Self {
            since: Duration::from_secs(2 * 3600),
            log_cap: 32 << 20,
            logs: Vec::new(),
            allow_blocking_rpc: false,
            spool_write_test: false,
        }
    }
}

/// What a source may look at.
#[derive(Debug, Default)]
pub struct Context {
    /// The group.
    pub target: Target,
    /// Its address spaces as the freeze saw them, by PID; without one, `maps` is read anew.
    pub surveys: BTreeMap<u32, Survey>,
    /// Which modules are wanted.
    pub modules: WhichModules,
    /// When the samples were taken.
    pub samples: Arc<Mutex<Vec<SampleTime>>>,
    /// What the operator wants.
    pub wishes: Wishes,
    /// Files as the target sees them.
    pub files: Root,
    /// What sources note for one another and for the first verdict.
    pub board: Arc<Board>,
    /// What is left of a program that is gone; `None` while it runs.
    pub remains: Option<Remains>,
}

#[derive(Debug)]
enum Message {
    Text { path: String, origin: Option<String>, content: Vec<u8> },
    Raw { path: String, origin: Option<String>, content: Vec<u8> },
    Gap { what: String, why: String, expected: bool },
    NotHere { why: String },
}

/// Where a source puts what it finds.
#[derive(Debug)]
pub struct Drawer {
    sender: SyncSender<Message>,
    given_up: Arc<AtomicBool>,
    failures: RefCell<BTreeMap<(String, String), u64>>,
}

impl Drawer {
    /// Puts a text in; secrets are masked before it is written.
    pub fn put(&self, path: String, origin: Option<String>, content: Vec<u8>) {
        self.send(Message::Text { path, origin, content });
    }

    /// Puts a file in as it is: programs and libraries only.
    pub fn put_raw(&self, path: String, origin: Option<String>, content: Vec<u8>) {
        self.send(Message::Raw { path, origin, content });
    }

    /// Whether nobody waits for this source any more; it should end.
    pub fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::Relaxed)
    }

    /// Says what is missing.
    pub fn gap(&self, what: impl Into<String>, why: impl Into<String>) {
        self.send(Message::Gap { what: what.into(), why: why.into(), expected: false });
    }

    /// Says that this host has nothing of the kind. A source that puts nothing in besides counts as
    /// skipped.
    pub fn not_here(&self, why: impl Into<String>) {
        self.send(Message::NotHere { why: why.into() });
    }

    /// Says what is left out on purpose.
    pub fn left_out(&self, what: impl Into<String>, why: impl Into<String>) {
        self.send(Message::Gap { what: what.into(), why: why.into(), expected: true });
    }

    /// Copies a file of the kernel. What this kernel does not have, and what ended meanwhile, is
    /// passed over; other errors become one gap for each file name.
    pub fn copy(&self, path: String, origin: &str) {
        if let Some(content) = self.read(origin) {
            self.put(path, Some(origin.to_owned()), content);
        }
    }

    /// Reads a file of the kernel; where it cannot be, as [`Drawer::copy`].
    pub(crate) fn read(&self, origin: &str) -> Option<Vec<u8>> {
        fs::read(origin).inspect_err(|error| self.failed(origin, error)).ok()
    }

    /// Counts a file that could not be read.
    pub fn failed(&self, origin: &str, error: &io::Error) {
        let gone = error.raw_os_error() == Some(libc::ESRCH);
        if gone || error.kind() == io::ErrorKind::NotFound {
            tracing::debug!(origin, %error);
            return;
        }
        let name = origin.rsplit('/').next().unwrap_or(origin).to_owned();
        *self.failures.borrow_mut().entry((name, error.to_string())).or_default() += 1;
    }

    fn send(&self, message: Message) {
        if self.sender.send(message).is_err() {
            tracing::debug!("the collector has given this source up");
        }
    }

    fn close(self) {
        for ((name, error), count) in self.failures.take() {
            let times = if count == 1 { String::new() } else { format!(" ({count} times)") };
            self.gap(format!("{name}{times}"), error);
        }
    }
}

/// An operator who interrupts waits no longer than this for a silent source.
const LISTEN: Duration = Duration::from_millis(200);

/// Runs one source to its end or to its deadline, or until that of the whole run.
///
/// # Errors
/// Only those of writing the bundle.
pub fn run(
    source: &'static dyn Source,
    context: &Arc<Context>,
    bundle: &mut Bundle,
    until: Instant,
) -> Result<Outcome, BundleError> {
    let started = jiff::Zoned::now().to_string();
    let begun = Instant::now();
    let (sender, receiver) = mpsc::sync_channel(4);
    let given_up = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&given_up);
    let context = Arc::clone(context);
    let worker = std::thread::Builder::new().name(source.name().into()).spawn(move || {
        let drawer = Drawer { sender, given_up: flag, failures: RefCell::default() };
        let result = source.collect(&context, &drawer);
        drawer.close();
        result
    });
    bundle.begin(source.name());
    let mut heard = Instant::now();
    let (mut put, mut not_here) = (false, Vec::new());
    let ended = loop {
        let give_up = until.min(heard + source.deadline());
        let left = give_up.saturating_duration_since(Instant::now());
        let message = receiver.recv_timeout(left.min(LISTEN));
        if message.is_ok() {
            heard = Instant::now();
        }
        match message {
            Ok(Message::Text { path, origin, content }) => {
                put = true;
                bundle.add_text(&path, origin, content)?;
            }
            Ok(Message::Raw { path, origin, content }) => {
                put = true;
                bundle.add_bytes(&path, origin, &content)?;
            }
            Ok(Message::NotHere { why }) => not_here.push(why),
            Ok(Message::Gap { what, why, expected: false }) => bundle.gap(what, why),
            Ok(Message::Gap { what, why, expected: true }) => bundle.expected_gap(what, why),
            Err(RecvTimeoutError::Disconnected) => break true,
            Err(RecvTimeoutError::Timeout) if left > LISTEN && !sys::interrupted() => {}
            Err(RecvTimeoutError::Timeout) => break false,
        }
    };
    given_up.store(!ended, Ordering::Relaxed);
    let outcome = match worker {
        Err(error) => Outcome::Failed { error: format!("no thread for it: {error}") },
        Ok(_) if !ended && sys::interrupted() => {
            Outcome::Failed { error: "the operator interrupted it".into() }
        }
        Ok(_) if !ended => {
            // Its silence, or all the time that was left for it.
            let waited = begun.elapsed().min(source.deadline());
            Outcome::TimedOut { after_ms: u64::try_from(waited.as_millis()).unwrap_or(u64::MAX) }
        }
        Ok(worker) => match worker.join() {
            Ok(Ok(())) if !put && !not_here.is_empty() => {
                Outcome::Skipped { why: not_here.join("; ") }
            }
            Ok(Ok(())) => Outcome::Collected,
            Ok(Err(error)) => Outcome::Failed { error: format!("{error:#}") },
            Err(panic) => Outcome::Failed { error: defect::words(&*panic) },
        },
    };
    let micros = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
    let name = source.name().to_owned();
    let phase = source.phase();
    bundle.record(SourceRecord { name, phase, started, micros, outcome: outcome.clone() });
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Hangs;

    impl Source for Hangs {
        fn name(&self) -> &'static str {
            "hangs"
        }
        fn about(&self) -> &'static str {
            "one text, and then nothing"
        }
        fn phase(&self) -> Phase {
            Phase::AfterThaw
        }
        fn deadline(&self) -> Duration {
            Duration::from_secs(2)
        }
        fn collect(&self, _: &Context, out: &Drawer) -> anyhow::Result<()> {
            out.put("system/before".into(), None, b"kept".to_vec());
            std::thread::sleep(Duration::from_secs(60));
            Ok(())
        }
    }

    struct Panics;

    impl Source for Panics {
        fn name(&self) -> &'static str {
            "panics"
        }
        fn about(&self) -> &'static str {
            "one text, and then no more"
        }
        fn phase(&self) -> Phase {
            Phase::BeforeFreeze
        }
        fn collect(&self, _: &Context, out: &Drawer) -> anyhow::Result<()> {
            out.put("system/before".into(), None, b"kept".to_vec());
            out.failed("/proc/1/mem", &io::ErrorKind::PermissionDenied.into());
            panic!("no page {}", 7);
        }
    }

    struct Elsewhere;

    impl Source for Elsewhere {
        fn name(&self) -> &'static str {
            "elsewhere"
        }
        fn about(&self) -> &'static str {
            "what this host does not have"
        }
        fn phase(&self) -> Phase {
            Phase::AfterThaw
        }
        fn collect(&self, _: &Context, out: &Drawer) -> anyhow::Result<()> {
            out.not_here("no server runs here");
            Ok(())
        }
    }

    #[test]
    fn what_a_host_does_not_have_is_skipped_and_no_gap() {
        static ELSEWHERE: Elsewhere = Elsewhere;
        let folder = tempfile::tempdir().unwrap();
        let mut bundle = Bundle::create(&folder.path().join("b.tar.zst"), 1).unwrap();
        let later = Instant::now() + Duration::from_secs(60);
        run(&ELSEWHERE, &Arc::default(), &mut bundle, later).unwrap();
        let manifest = bundle.seal(true).unwrap().manifest;
        let why = "no server runs here".to_owned();
        assert_eq!(manifest.sources[0].outcome, Outcome::Skipped { why });
        assert_eq!(manifest.gaps, []);
    }

    #[test]
    fn a_source_that_panics_costs_only_itself() {
        static PANICS: Panics = Panics;
        let folder = tempfile::tempdir().unwrap();
        let mut bundle = Bundle::create(&folder.path().join("b.tar.zst"), 1).unwrap();
        let later = Instant::now() + Duration::from_secs(60);
        run(&PANICS, &Arc::default(), &mut bundle, later).unwrap();
        let manifest = bundle.seal(true).unwrap().manifest;
        assert_eq!(manifest.members[0].path, "system/before");
        let error = "it panicked: no page 7".to_owned();
        assert_eq!(manifest.sources[0].outcome, Outcome::Failed { error });
    }

    #[test]
    fn a_source_that_hangs_costs_only_itself() {
        static HANGS: Hangs = Hangs;
        let folder = tempfile::tempdir().unwrap();
        let mut bundle = Bundle::create(&folder.path().join("b.tar.zst"), 1).unwrap();
        let later = Instant::now() + Duration::from_secs(60);
        run(&HANGS, &Arc::default(), &mut bundle, later).unwrap();
        let manifest = bundle.seal(true).unwrap().manifest;
        assert_eq!(manifest.members[0].path, "system/before");
        assert_eq!(manifest.sources[0].outcome, Outcome::TimedOut { after_ms: 2000 });
    }
}
