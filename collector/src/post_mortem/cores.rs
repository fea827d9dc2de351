//! Chosen cores, written into the bundle as they are.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use bundle::{ProcessRecord, member};

use super::choose::Candidate;
use super::core::CoreFacts;
use super::report::CoreReport;
use super::spool::{self, Limits, Sparse};
use super::stored::Form;
use super::wanted::Match;
use crate::budget;
use crate::bundle_writer::{Bundle, BundleError};
use crate::number::human;

/// A longer core is a sparse file that somebody made, or of no program of ours.
const LONGEST: u64 = 1 << 40;
/// Room that a bundle needs besides cores.
const MARGIN: u64 = 16 << 20;

/// What cores are written into.
#[derive(Debug)]
pub(crate) struct Writer<'a> {
    pub(crate) bundle: &'a mut Bundle,
    /// Where packed cores are unpacked, and where the bundle grows.
    pub(crate) folder: &'a Path,
    /// Go on where the disk looks too full.
    pub(crate) force: bool,
    /// PIDs that have a core already.
    pub(crate) taken: BTreeSet<u32>,
}

impl Writer<'_> {
    /// Writes one core with its record. Gives the facts of the whole core, and its report; `None`
    /// where it could not be taken, which is a gap.
    ///
    /// # Errors
    /// Only those of writing the bundle.
    pub(crate) fn write(
        &mut self,
        candidate: &Candidate,
    ) -> Result<Option<(CoreFacts, CoreReport)>, BundleError> {
        let path = &candidate.found.path;
        let what = format!("core {path}");
        let (file, facts, ended, pid) = match self.open(candidate) {
            Ok(opened) => opened,
            Err(why) => {
                self.bundle.gap(what, why);
                return Ok(None);
            }
        };
        let name = member::core(pid);
        let failed = RefCell::new(None);
        let content = || Watched { sparse: Sparse::new(&file, facts.length), failed: &failed };
        let added = self.bundle.add(&name, facts.length, Some(path.clone()), content)?;
        if let Some((at, why)) = failed.take() {
            self.bundle.gap(format!("{what} from byte {at} on (zeroes stand for it)"), why);
        }
        if facts.lost() > 0 {
            let lost = format!("the last {} bytes of {what}", facts.lost());
            self.bundle.gap(lost, cut(&facts, ended));
        } else if let Some(why) = ended {
            self.bundle.gap(format!("the end of {what}"), format!("cut or damaged: {why}"));
        }
        if let Match::No(whose) = &candidate.matches {
            let why = format!("it is one of {whose}; it was taken since it was named");
            self.bundle.gap(format!("proof that {what} is the wanted program's"), why);
        }
        self.bundle.manifest().processes.push(record(candidate, &facts, pid));
        let report = CoreReport {
            member: added.then_some(name),
            ..CoreReport::of(&candidate.found, &facts)
        };
        Ok(Some((facts, report)))
    }

    /// The whole core, its facts, why it ended early if it did, and the PID that it goes under.
    fn open(
        &mut self,
        candidate: &Candidate,
    ) -> Result<(File, CoreFacts, Option<String>, u32), String> {
        let found = &candidate.found;
        let words = |error: std::io::Error| error.to_string();
        let space = File::open(self.folder).and_then(budget::space);
        let room = space.map_or(u64::MAX, |space| space.free);
        let (file, ended) = match found.form {
            Form::Elf => (found.file.try_clone().map_err(words)?, None),
            form => {
                let mut reader = form.open(&found.file).map_err(words)?;
                // The bundle needs its share, too.
                let limits = Limits { length: LONGEST, room: room / 2 };
                let spooled = spool::unpack(&mut *reader, self.folder, limits).map_err(words)?;
                (spooled.file, spooled.ended)
            }
        };
        let facts = CoreFacts::read(&file).map_err(|error| error.to_string())?;
        if facts.length > LONGEST {
            return Err(format!("it claims to be longer than {}", human(LONGEST)));
        }
        let data = spool::data_length(&file, facts.length);
        let need = (data / 3).saturating_add(MARGIN);
        if need > room && !self.force {
            return Err(format!(
                "it has {} and needs about {} in the bundle, the disk has {}; give another place \
                 with -o, or go on with --force",
                human(data),
                human(need),
                human(room)
            ));
        }
        // What has lost its PID goes under 0.
        let pid = found.host_pid.or(facts.notes.pid).unwrap_or(0);
        if !self.taken.insert(pid) {
            return Err(format!("another core of process {pid} is in the bundle already"));
        }
        Ok((file, facts, ended, pid))
    }
}

/// A reader that tells what could not be read.
struct Watched<'a> {
    sparse: Sparse<'a>,
    failed: &'a RefCell<Option<(u64, String)>>,
}

impl Read for Watched<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let length = self.sparse.read(into)?;
        if let Some(failed) = &self.sparse.failed {
            self.failed.replace(Some(failed.clone()));
        }
        Ok(length)
    }
}

/// Why a core lacks its end.
fn cut(facts: &CoreFacts, ended: Option<String>) -> String {
    let why = ended.unwrap_or_else(|| {
        "by its process's limit (RLIMIT_CORE, LimitCORE= of the unit), by its keeper's \
         (ProcessSizeMax=, ExternalSizeMax= of systemd-coredump), or by a full disk"
            .to_owned()
    });
    format!("cut short: {} of {} bytes are there; {why}", facts.length, facts.promised)
}

fn record(candidate: &Candidate, facts: &CoreFacts, pid: u32) -> ProcessRecord {
    let because = match &candidate.matches {
        Match::Yes => "its core".to_owned(),
        Match::No(whose) => format!("its core, which is one of {whose}"),
        Match::Unknown => "its core, whose notes are lost".to_owned(),
    };
    let held = facts.length.min(facts.promised);
    ProcessRecord {
        pid,
        inner_pid: facts.notes.pid.unwrap_or(pid),
        parent: facts.notes.parent,
        executable: facts.executable.clone().unwrap_or_default(),
        belongs_because: format!("{because} ({})", candidate.found.because),
        dumped_at: candidate.found.is_first.then(|| candidate.found.written.to_string()),
        threads: facts.notes.threads,
        bytes: [("data".to_owned(), held)].into(),
        ..ProcessRecord::default()
    }
}
