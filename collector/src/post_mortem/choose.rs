//! Which of the cores that were found are those of the last crash.
//!
//! One bundle holds one group of processes. All processes of a Kamailio that dies may leave a core:
//! they have one session, and follow one another within seconds. The newest crash is taken; cores
//! of earlier ones are named, so that each can be given to a collection of its own.

use std::path::Path;

use jiff::{SignedDuration, Timestamp};

use super::core::CoreFacts;
use super::search::Found;
use super::spool::{self, Limits};
use super::stored::Form;
use super::wanted::{Match, Wanted};

/// Of a packed core only its beginning is unpacked for a first look; the notes of its first thread
/// and the list of its files are there.
const FIRST_LOOK: Limits = Limits { length: 8 << 20, room: 8 << 20 };
/// Processes of one crash follow one another at most so far apart; Kamailio's main process ends a
/// shutdown that hangs after 60 s.
const APART: SignedDuration = SignedDuration::from_secs(90);
/// Of one crash so many cores are taken.
const MOST_CORES: usize = 64;

/// A core, looked at.
#[derive(Debug)]
pub(crate) struct Candidate {
    pub(crate) found: Found,
    pub(crate) facts: CoreFacts,
    /// It was named, or it is the program's.
    pub(crate) matches: Match,
}

/// What became of a file that was found.
#[derive(Debug, Default)]
pub(crate) struct Choice {
    /// The cores of the crash, the first one first.
    pub(crate) cores: Vec<Candidate>,
    /// The program's cores of other crashes, newest first.
    pub(crate) earlier: Vec<Candidate>,
    /// Cores of other programs: path and whose.
    pub(crate) others: Vec<(String, String)>,
    /// Files that could not be read as cores: path and why.
    pub(crate) unreadable: Vec<(String, String)>,
}

/// Looks at every file and chooses. With `named` the operator chose himself: everything that is a
/// core is taken.
pub(crate) fn choose(found: Vec<Found>, wanted: &Wanted, named: bool, folder: &Path) -> Choice {
    let mut choice = Choice::default();
    let mut candidates = Vec::new();
    for found in found {
        match look(&found, folder) {
            Err(why) => choice.unreadable.push((found.path, why)),
            Ok(facts) => {
                let matches = wanted.matches(&facts);
                match &matches {
                    Match::No(whose) if !named => choice.others.push((found.path, whose.clone())),
                    Match::Unknown if !named => {
                        let whose = "not known: its notes are lost".to_owned();
                        choice.others.push((found.path, whose));
                    }
                    _ => candidates.push(Candidate { found, facts, matches }),
                }
            }
        }
    }
    candidates.sort_by_key(|candidate| std::cmp::Reverse(candidate.found.written));
    let mut earlier = Vec::new();
    for candidate in candidates {
        let same = choice.cores.last().is_none_or(|last| is_same_crash(last, &candidate));
        if choice.cores.len() < MOST_CORES && (named || same) {
            choice.cores.push(candidate);
        } else {
            earlier.push(candidate);
        }
    }
    choice.earlier = earlier;
    choice.cores.reverse();
    choice
}

/// The facts of a file; of a packed one, those of its beginning.
fn look(found: &Found, folder: &Path) -> Result<CoreFacts, String> {
    if found.form == Form::Elf {
        return CoreFacts::read(&found.file).map_err(|error| error.to_string());
    }
    let unpacked = found
        .form
        .open(&found.file)
        .and_then(|mut reader| spool::unpack(&mut *reader, folder, FIRST_LOOK));
    let unpacked = unpacked.map_err(|error| error.to_string())?;
    CoreFacts::read(&unpacked.file).map_err(|error| match unpacked.ended {
        Some(why) if unpacked.file.metadata().is_ok_and(|found| found.len() == 0) => why,
        _ => error.to_string(),
    })
}

fn is_same_crash(later: &Candidate, earlier: &Candidate) -> bool {
    let apart = later.found.written.duration_since(earlier.found.written);
    let sessions = (later.facts.notes.session, earlier.facts.notes.session);
    apart <= APART && (sessions.0 == sessions.1 || sessions.0 == 0 || sessions.1 == 0)
}

/// `3 days ago`, for a person.
pub(crate) fn age(written: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(written).as_secs();
    let (count, unit) = match seconds {
        ..0 => return "in the future by this host's clock".to_owned(),
        0..120 => (seconds, "seconds"),
        120..7200 => (seconds / 60, "minutes"),
        7200..172_800 => (seconds / 3600, "hours"),
        _ => (seconds / 86_400, "days"),
    };
    format!("{count} {unit} ago")
}

#[cfg(test)]
mod tests {
    use super::super::core::tests::{core, notes};
    use super::*;

    /// A core of process `pid` in `session`, so many seconds old.
    fn found(pid: u32, session: u32, age: i64) -> Found {
        Found {
            path: format!("/cores/core.{pid}"),
            file: core(&notes(pid, session)).0,
            form: Form::Elf,
            written: Timestamp::from_second(1_700_000_000 - age).unwrap(),
            is_first: true,
            by_kernel: true,
            because: "a test",
            host_pid: None,
        }
    }

    fn wanted(name: &str) -> Wanted {
        let mut wanted = Wanted::default();
        wanted.names.push(name.to_owned());
        wanted
    }

    fn paths(cores: &[Candidate]) -> Vec<&str> {
        cores.iter().map(|core| core.found.path.as_str()).collect()
    }

    #[test]
    fn the_last_crash_is_taken_whole_and_its_first_core_comes_first() {
        let found = vec![
            found(3, 1, 10),
            found(2, 1, 95),
            found(9, 8, 12),
            found(1, 1, 150),
            found(4, 1, 500),
        ];
        let choice = choose(found, &wanted("kamailio"), false, Path::new("/tmp"));
        assert_eq!(paths(&choice.cores), ["/cores/core.1", "/cores/core.2", "/cores/core.3"]);
        assert_eq!(paths(&choice.earlier), ["/cores/core.9", "/cores/core.4"]);
    }

    #[test]
    fn what_is_named_is_taken_whatever_it_is() {
        let other = wanted("voipmonitor");
        let choice =
            choose(vec![found(1, 1, 10), found(2, 2, 900)], &other, true, Path::new("/tmp"));
        assert_eq!(choice.cores.len(), 2);
        assert_eq!(choice.cores[0].matches, Match::No("/usr/sbin/kamailio".to_owned()));
        let choice = choose(vec![found(1, 1, 10)], &other, false, Path::new("/tmp"));
        assert_eq!(choice.cores.len(), 0);
        assert_eq!(choice.others[0].1, "/usr/sbin/kamailio");
    }

    #[test]
    fn ages_are_in_the_unit_that_a_person_would_use() {
        let now = Timestamp::from_second(1_700_000_000).unwrap();
        let ago = |seconds: i64| age(Timestamp::from_second(1_700_000_000 - seconds).unwrap(), now);
        assert_eq!(ago(90), "90 seconds ago");
        assert_eq!(ago(600), "10 minutes ago");
        assert_eq!(ago(7200), "2 hours ago");
        assert_eq!(ago(259_200), "3 days ago");
        assert_eq!(ago(-5), "in the future by this host's clock");
    }
}
