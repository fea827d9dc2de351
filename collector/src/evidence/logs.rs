//! The part of the logs around the hang: the system's, the program's own, what syslog daemons write
//! for it, what it has open, and what the operator names; rotated and packed ones included.
//!
//! Members: `logs/ABSOLUTE/PATH` (of the host where the program has a root of its own:
//! `logs/host/ABSOLUTE/PATH`), unpacked, without the ending of the packing; `logs/index.json` says
//! of each what was looked at, what is there, and what was cut.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::time::{Duration, Instant};

use bundle::Phase;
use jiff::Timestamp;
use serde::Serialize;

use super::{Context, Drawer, Needs, Preview, Source};
use crate::files::Root;
use crate::logs::packed::{self, Packing};
use crate::logs::places;
use crate::logs::slice::{self, Limits, Slice};
use crate::logs::time::Clock;
use crate::number::{bytes, human};
use crate::procfs;

/// All logs together are kept up to so many times the cap of one.
const ALL: u64 = 4;
/// What comes out of one packed log, in bytes.
const UNPACKED: u64 = 4 << 30;
/// The longest that one log may take, and all of them.
const ONE: Duration = Duration::from_secs(5);
const TOGETHER: Duration = Duration::from_secs(40);
/// Descriptors of the group that are looked at.
const DESCRIPTORS: usize = 100_000;

#[derive(Debug)]
pub(crate) struct Logs;

impl Source for Logs {
    fn name(&self) -> &'static str {
        "logs"
    }

    fn about(&self) -> &'static str {
        "log files since --since: the system's, the program's, what --log names"
    }

    fn phase(&self) -> Phase {
        Phase::AfterThaw
    }

    fn needs(&self) -> Needs {
        Needs::Files
    }

    fn preview(&self, context: &Context) -> Vec<Preview> {
        let since = since(context, &Clock::of_host());
        let young = |log: &Log| log.known.as_ref().map_or(true, |known| written(known) >= since);
        let preview = |log: Log| Preview {
            what: log.path,
            size: log.known.as_ref().ok().map(|known| known.len().min(context.wishes.log_cap)),
            missing: log.known.err().map(|error| error.to_string()),
        };
        find(context).into_iter().filter(young).map(preview).collect()
    }

    fn collect(&self, context: &Context, out: &Drawer) -> anyhow::Result<()> {
        let clock = Clock::of_host();
        let since = since(context, &clock);
        let cap = context.wishes.log_cap;
        let mut room = cap.saturating_mul(ALL);
        let end = Instant::now() + TOGETHER;
        let mut entries = Vec::new();
        let mut members = BTreeSet::new();
        for log in find(context) {
            if out.is_given_up() {
                break;
            }
            let until = end.min(Instant::now() + ONE);
            let limits = Limits { since, cap: cap.min(room), most: UNPACKED, until };
            let mut entry = Entry::new(&log, &clock);
            match log.slice(&clock, &limits) {
                Ok(slice) if slice.text.is_empty() => {
                    "it was not written to since then".clone_into(&mut entry.note);
                }
                Ok(slice) => {
                    room = room.saturating_sub(bytes(slice.text.len()));
                    let member = log.member(&mut members);
                    entry.take(&slice, &member, &clock);
                    out.put(member, Some(log.path.clone()), slice.text);
                }
                Err(Missing::LeftOut(why)) => {
                    if log.wished {
                        out.gap(&log.path, &why);
                    } else {
                        out.left_out(&log.path, &why);
                    }
                    entry.note = why;
                }
                Err(Missing::Failed(why)) => {
                    out.gap(&log.path, &why);
                    entry.note = why;
                }
            }
            entries.push(entry);
        }
        let index =
            Index { since: clock.words(since), now: clock.words(clock.now()), cap, logs: entries };
        out.put("logs/index.json".to_owned(), None, serde_json::to_vec_pretty(&index)?);
        Ok(())
    }
}

fn since(context: &Context, clock: &Clock) -> Timestamp {
    clock.now().checked_sub(context.wishes.since).unwrap_or(Timestamp::MIN)
}

/// A file that may be a log.
#[derive(Debug)]
struct Log {
    /// As the one who sees it names it.
    path: String,
    /// Where it is opened.
    place: Place,
    known: io::Result<Metadata>,
    /// The operator named it.
    wished: bool,
}

#[derive(Debug)]
enum Place {
    /// In the target's root, or in ours where they are the same.
    Target(Root),
    /// In ours.
    Host(Root),
    /// Open in a process, at this path below `/proc`.
    Open(String),
}

/// Why there is no slice.
enum Missing {
    LeftOut(String),
    Failed(String),
}

impl Log {
    fn slice(&self, clock: &Clock, limits: &Limits) -> Result<Slice, Missing> {
        let known = self.known.as_ref().map_err(|error| self.missing(error))?;
        if !known.is_file() {
            return Err(Missing::LeftOut(
                "it is no regular file (a FIFO, a socket, a device)".into(),
            ));
        }
        if written(known) < limits.since {
            return Ok(Slice::default());
        }
        if limits.cap == 0 {
            return Err(Missing::LeftOut("all logs together are too long (--log-cap)".into()));
        }
        if Instant::now() >= limits.until {
            return Err(Missing::LeftOut("the time for logs was used up".into()));
        }
        let mut file = self.open().map_err(|error| self.missing(&error))?;
        let slice = match Packing::of(&self.path) {
            Some((packing, _)) => packed::of_packed(packing, &file, clock, limits),
            None => slice::of_file(&mut file, clock, limits),
        };
        slice.map_err(|error| Missing::Failed(error.to_string()))
    }

    fn missing(&self, error: &io::Error) -> Missing {
        // What is gone since its folder was listed was rotated away; what it was is listed, too.
        if error.kind() == io::ErrorKind::NotFound && !self.wished {
            Missing::LeftOut("it has gone meanwhile".into())
        } else {
            Missing::Failed(error.to_string())
        }
    }

    fn open(&self) -> io::Result<File> {
        match &self.place {
            Place::Target(root) | Place::Host(root) => root.open(&self.path),
            Place::Open(link) => File::options()
                .read(true)
                .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
                .open(link),
        }
    }

    /// A name that no other member has.
    fn member(&self, taken: &mut BTreeSet<String>) -> String {
        let path = Packing::of(&self.path).map_or(self.path.as_str(), |(_, plain)| plain);
        let parts = path.split('/').filter(|part| !matches!(*part, "" | "." | ".."));
        let folder = if matches!(self.place, Place::Host(_)) { "logs/host/" } else { "logs/" };
        let name = folder.to_owned() + &parts.collect::<Vec<_>>().join("/");
        let mut member = name.clone();
        let mut number = 2;
        while !taken.insert(member.clone()) {
            member = format!("{name}~{number}");
            number += 1;
        }
        member
    }
}

/// When a file was last written to.
fn written(known: &Metadata) -> Timestamp {
    Timestamp::from_second(known.mtime()).unwrap_or(Timestamp::MAX)
}

/// All candidates, each file once; what the operator names first, then the youngest first.
fn find(context: &Context) -> Vec<Log> {
    let own = Root::own();
    let program = &context.target.program;
    let same = context.files.is_same(&own);
    let wished: Vec<String> =
        context.wishes.logs.iter().map(|path| path.display().to_string()).collect();
    let mut logs = open_logs(context);
    let mut add = |root: &Root, named: &[String], host: bool| {
        for path in places::candidates(root, program, named) {
            let known = root.metadata(&path);
            let place = if host { Place::Host(root.clone()) } else { Place::Target(root.clone()) };
            logs.push(Log { wished: named.contains(&path), path, place, known });
        }
    };
    if same {
        add(&own, &wished, false);
    } else if context.remains.as_ref().is_some_and(|remains| remains.mounted) {
        // Our own logs say nothing of a system that is mounted here.
        add(&context.files, &wished, false);
    } else {
        add(&context.files, &[], false);
    }
    // A container's program may be logged by its host; a mounted system's never by ours.
    if !same && context.remains.is_none() {
        add(&own, &wished, true);
    }
    for path in wished {
        for path in places::with_rotated(&own, &path).into_iter().chain([path]) {
            if !logs.iter().any(|log| log.path == path && !matches!(log.place, Place::Open(_))) {
                let (known, place) = (own.metadata(&path), Place::Host(own.clone()));
                logs.push(Log { path, place, known, wished: true });
            }
        }
    }
    // Once each: by path where the program has it open, since that shows what it is.
    let mut seen = BTreeMap::new();
    logs.retain(|log| match &log.known {
        Ok(known) => seen.insert((known.dev(), known.ino()), ()).is_none(),
        Err(_) => true,
    });
    let age = |log: &Log| log.known.as_ref().map_or(Timestamp::MIN, written);
    logs.sort_by(|one, other| {
        other
            .wished
            .cmp(&one.wished)
            .then(age(other).cmp(&age(one)))
            .then(one.path.cmp(&other.path))
    });
    logs
}

/// Regular files that the group writes its output to, or has open under a log's name, deleted ones
/// included.
fn open_logs(context: &Context) -> Vec<Log> {
    let mut logs = Vec::new();
    let mut seen = BTreeSet::new();
    let mut left = DESCRIPTORS;
    for process in &context.target.processes {
        let folder = format!("/proc/{}/fd", process.id);
        for number in procfs::numbers_in(&folder).into_iter().take(left) {
            left = left.saturating_sub(1);
            let link = format!("{folder}/{number}");
            let Ok(path) = fs::read_link(&link) else { continue };
            let path = path.display().to_string();
            let path = path.strip_suffix(" (deleted)").unwrap_or(&path).to_owned();
            let is_output = number == 1 || number == 2;
            if !path.starts_with('/')
                || !(is_output || path.ends_with(".log") || path.contains("/log/"))
            {
                continue;
            }
            let Ok(known) = fs::metadata(&link) else { continue };
            if known.is_file() && seen.insert((known.dev(), known.ino())) {
                logs.push(Log { path, place: Place::Open(link), known: Ok(known), wished: false });
            }
        }
    }
    logs
}

/// `logs/index.json`
#[derive(Debug, Serialize)]
struct Index {
    /// Lines from here on were wanted.
    since: String,
    now: String,
    /// Bytes that were kept of one log at most.
    cap: u64,
    logs: Vec<Entry>,
}

#[derive(Debug, Default, Serialize)]
struct Entry {
    path: String,
    /// `target`, `host`, or where it is open.
    seen_through: String,
    /// Length of the file in bytes.
    size: Option<u64>,
    modified: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    member: Option<String>,
    /// Lines in the member.
    lines: u64,
    first: Option<String>,
    last: Option<String>,
    /// What was cut, or why there is nothing.
    note: String,
}

impl Entry {
    fn new(log: &Log, clock: &Clock) -> Self {
        let known = log.known.as_ref().ok();
        let seen_through = match &log.place {
            Place::Target(_) => "target".to_owned(),
            Place::Host(_) => "host".to_owned(),
            Place::Open(link) => link.clone(),
        };
        Self {
            path: log.path.clone(),
            seen_through,
            size: known.map(Metadata::len),
            modified: known.map(|known| clock.words(written(known))),
            ..Self::default()
        }
    }

    fn take(&mut self, slice: &Slice, member: &str, clock: &Clock) {
        self.member = Some(member.to_owned());
        let lines = slice.text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        self.lines = bytes(lines.count());
        self.first = slice.times.map(|(first, _)| clock.words(first));
        self.last = slice.times.map(|(_, last)| clock.words(last));
        self.note = slice.cut.clone().unwrap_or_default();
        tracing::debug!(member, kept = %human(bytes(slice.text.len())), "log");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(path: &str) -> Log {
        let known = fs::metadata("/proc/self/exe");
        Log { path: path.to_owned(), place: Place::Target(Root::own()), known, wished: false }
    }

    #[test]
    fn members_have_names_of_their_own_below_logs() {
        let mut taken = BTreeSet::new();
        let mut member = |path: &str| log(path).member(&mut taken);
        assert_eq!(member("/var/log/syslog"), "logs/var/log/syslog");
        assert_eq!(member("/var/log/syslog.2.gz"), "logs/var/log/syslog.2");
        assert_eq!(member("/var/log/syslog.2.xz"), "logs/var/log/syslog.2~2");
        assert_eq!(member("/../var/./log/x"), "logs/var/log/x");
    }
}
