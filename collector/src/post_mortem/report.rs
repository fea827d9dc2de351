//! What was found: `post-mortem.json`, and the words for the terminal.

use bundle::{Manifest, member};
use jiff::Timestamp;
use serde::Serialize;

use super::choose::age;
use super::core::{CoreFacts, Writer};
use super::note::Death;
use super::search::{Found, Looked};
use super::settings::Settings;
use crate::number::human;
use crate::run::Ending;
use crate::summary;

/// Of the kernel's words the last so many are shown.
const KERNEL: usize = 5;
/// How the record begins that says that there is no core.
pub(crate) const NO_CORE: &str = "a core of ";

/// `post-mortem.json`: the search and its outcome.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    /// File name of the program.
    pub(crate) program: String,
    /// Its systemd unit.
    pub(crate) unit: Option<String>,
    /// The words of its command line.
    pub(crate) command_line: Vec<String>,
    /// The folder that was the root, where it was not this host's.
    pub(crate) root: Option<String>,
    /// What the system does with cores.
    pub(crate) settings: Settings,
    /// Where cores were sought; empty with `--core`.
    pub(crate) looked: Vec<Looked>,
    /// Those of this crash, the first one first.
    pub(crate) cores: Vec<CoreReport>,
    /// The program's cores of earlier crashes, not in the bundle.
    pub(crate) earlier: Vec<CoreReport>,
    /// Cores of other programs that were met: path and whose.
    pub(crate) others: Vec<(String, String)>,
    /// Files that could not be read as cores: path and why.
    pub(crate) unreadable: Vec<(String, String)>,
    /// Why there is no core, where there is none: every reason that was found.
    pub(crate) no_core: Vec<String>,
    /// What the kernel said of its processes.
    pub(crate) kernel: Vec<String>,
    /// Processes that run under the program's name now; none was touched.
    pub(crate) running: Vec<u32>,
}

/// One core.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct CoreReport {
    pub(crate) path: String,
    /// Why it was looked at.
    pub(crate) because: String,
    /// How it was kept: `as it is`, `zstd`, …
    pub(crate) kept: &'static str,
    pub(crate) written: String,
    /// Its member, if it is in the bundle.
    pub(crate) member: Option<String>,
    /// PID as the host counts it, where its keeper said so.
    pub(crate) host_pid: Option<u32>,
    /// PID as the process itself knew it.
    pub(crate) pid: Option<u32>,
    pub(crate) program: String,
    /// The first 79 bytes of the command line.
    pub(crate) command_line: String,
    /// What it died of, for instance `SIGSEGV`; `None` for a live process (a gcore).
    pub(crate) signal: Option<String>,
    pub(crate) threads: u32,
    pub(crate) writer: &'static str,
    /// In bytes; of a packed core that was not taken, of what was looked at.
    pub(crate) length: u64,
    /// Bytes that its headers promise.
    pub(crate) promised: u64,
}

impl CoreReport {
    pub(crate) fn of(found: &Found, facts: &CoreFacts) -> Self {
        Self {
            path: found.path.clone(),
            because: found.because.to_owned(),
            kept: found.form.name(),
            written: found.written.to_string(),
            member: None,
            host_pid: found.host_pid,
            pid: facts.notes.pid,
            program: facts.program().to_owned(),
            command_line: facts.notes.command_line.clone(),
            signal: facts.notes.death.map(signal),
            threads: facts.notes.threads,
            writer: match facts.writer {
                Writer::Kernel => "kernel",
                Writer::Gcore => "gcore",
            },
            length: facts.length,
            promised: facts.promised,
        }
    }

    /// `process 12 (kamailio), SIGSEGV, 3 minutes ago`
    pub(crate) fn words(&self) -> String {
        let pid = self.pid.map_or_else(|| "unknown".to_owned(), |pid| pid.to_string());
        let death = match &self.signal {
            Some(signal) => format!("died of {signal}"),
            None if self.threads == 0 => "what it died of is lost".to_owned(),
            None => "was alive (made by gcore)".to_owned(),
        };
        let age = self.written.parse().map_or_else(
            |_| self.written.clone(),
            |written: Timestamp| format!("{} ({})", self.written, age(written, Timestamp::now())),
        );
        format!("process {pid} ({}), {death}, {age}", self.program)
    }
}

/// `SIGSEGV`, `SIGABRT (sent by a process)`
fn signal(death: Death) -> String {
    let number = i32::try_from(death.signal).unwrap_or(0);
    let name = nix::sys::signal::Signal::try_from(number)
        .map_or_else(|_| format!("signal {number}"), |signal| signal.as_str().to_owned());
    if death.sent { format!("{name} (sent by a process)") } else { name }
}

/// Everything for the operator.
pub(crate) fn words(
    report: &Report,
    manifest: &Manifest,
    scope: &[String],
    bundle: (&std::path::Path, u64),
) -> String {
    let (path, length) = bundle;
    let mut text = String::new();
    for words in scope {
        text += &format!("scope: {words}\n");
    }
    for core in &report.cores {
        text += &format!("core: {}\n  {} ({})\n", core.words(), core.path, core.because);
    }
    let earlier = report.kernel.len().saturating_sub(KERNEL);
    for words in report.kernel.iter().skip(earlier) {
        text += &format!("kernel: {words}\n");
    }
    if earlier > 0 {
        text += &format!("kernel: {earlier} more before these, in {}\n", member::POST_MORTEM);
    }
    for why in &report.no_core {
        text += &format!("no core: {why}\n");
    }
    for core in &report.earlier {
        text += &format!("earlier: {}\n  {}: not in this bundle\n", core.words(), core.path);
    }
    for (path, whose) in &report.others {
        text += &format!("another program's: {path}: {whose}\n");
    }
    // Why there is no core stands above, reason by reason.
    text += &summary::lacks(manifest, |gap| !gap.what.starts_with(NO_CORE));
    if let Some(words) = running(report) {
        text += &format!("{words}\n");
    }
    text + &format!("bundle: {} ({}, {length} bytes)\n", path.display(), human(length))
}

/// `kamailio runs again as PID 12; it was not touched`
pub(crate) fn running(report: &Report) -> Option<String> {
    let (first, others) = report.running.split_first()?;
    let more = match others.len() {
        0 => String::new(),
        count => format!(" and {count} more processes"),
    };
    Some(format!("{} runs again as PID {first}{more}; it was not touched", report.program))
}

/// The last line.
pub(crate) fn verdict(ending: Ending) -> &'static str {
    match ending {
        Ending::Complete => "everything that is left of it is in the bundle\n",
        Ending::Incomplete => "incomplete: what is missing is said above\n",
        Ending::Interrupted => "interrupted: the bundle is only a part\n",
    }
}
