//! Which run of the program a snapshot is of: what two snapshots of one run have in common, and two
//! runs do not.

use super::{Case, Member};
use crate::kamailio::PoolKind;
use crate::memory::Memory as _;

/// What marks a run, as far as the input tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunMarks {
    /// The host's boot, from a bundle's header.
    pub boot: Option<String>,
    /// PID of the main process in its own namespace, from Kamailio's process table.
    pub main: Option<i32>,
    /// When the main process was started, in clock ticks after the boot, from `/proc/PID/stat`.
    pub started: Option<u64>,
    /// When Kamailio says that it was started, in seconds since 1970 (`up_since`).
    pub up_since: Option<u64>,
    /// Where the shared pool is: chosen anew at every start, unless the host does not randomise.
    pub shared: Option<u64>,
}

/// Whether two snapshots are of the same run, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SameRun {
    /// Whether they are.
    pub same: bool,
    /// For a person.
    pub because: String,
}

impl RunMarks {
    /// Of a case, whose pools need not have been walked.
    pub fn of(case: &Case) -> Self {
        let is_main = |member: &&Member| member.entry.as_ref().is_some_and(|e| e.index == 0);
        let main = case.members.iter().find(is_main);
        let shared = case.members.iter().flat_map(|member| &member.roots.pools);
        let shared = shared.filter(|root| root.kind == PoolKind::Shm).map(|root| root.block.0);
        Self {
            boot: case.evidence.header.as_ref().map(|header| header.boot_id.clone()),
            main: case.table.iter().find(|entry| entry.index == 0).map(|entry| entry.pid),
            started: main.and_then(|main| started(case, main)),
            up_since: case.members.iter().find_map(up_since),
            shared: shared.min(),
        }
    }

    /// Compares two; one mark that differs is enough to tell two runs apart, while the same place
    /// of the pool alone proves nothing.
    pub fn compare(&self, other: &Self) -> SameRun {
        let marks = [
            ("the host's boot", alike(self.boot.as_ref(), other.boot.as_ref())),
            ("the main process's PID", alike(self.main, other.main)),
            ("that process's start time", alike(self.started, other.started)),
            ("Kamailio's own start time", alike(self.up_since, other.up_since)),
            ("the place of the shared pool", alike(self.shared, other.shared)),
        ];
        let names = |wanted| {
            let found = marks.iter().filter(|(_, alike)| *alike == Some(wanted));
            listed(&found.map(|(name, _)| *name).collect::<Vec<_>>())
        };
        let of_process = marks.get(1..4).unwrap_or_default();
        let certain = of_process.iter().any(|(_, alike)| *alike == Some(true));
        match (names(false), names(true)) {
            (Some(different), _) => {
                SameRun { same: false, because: format!("not alike: {different}") }
            }
            (None, Some(alike)) if certain => {
                SameRun { same: true, because: format!("alike: {alike}") }
            }
            (None, _) => {
                let because = "nothing in the input tells whether they are of one run".to_owned();
                SameRun { same: false, because }
            }
        }
    }
}

/// `one`, `one and two`, `one, two and three`; `None` for an empty list.
fn listed(names: &[&str]) -> Option<String> {
    let (last, others) = names.split_last()?;
    match others {
        [] => Some((*last).to_owned()),
        _ => Some(format!("{} and {last}", others.join(", "))),
    }
}

fn alike<T: PartialEq>(one: Option<T>, other: Option<T>) -> Option<bool> {
    Some(one? == other?)
}

/// Field 22 of `/proc/PID/stat`, counted behind the name, which may hold blanks and brackets.
fn started(case: &Case, main: &Member) -> Option<u64> {
    let pid = main.process.pid?;
    let text = case.evidence.text(&bundle::member::process_file(pid, "stat.1"))?;
    let (_, fields) = text.rsplit_once(')')?;
    fields.split_whitespace().nth(19)?.parse().ok()
}

/// The `time_t` that Kamailio's main process sets when it starts and every other one inherits.
fn up_since(member: &Member) -> Option<u64> {
    let (_, at) = member.process.modules.symbol("up_since")?;
    member.process.memory.word(at).ok().filter(|seconds| *seconds > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks() -> RunMarks {
        RunMarks {
            boot: Some("b".to_owned()),
            main: Some(812),
            started: Some(5_000),
            up_since: Some(1_760_000_000),
            shared: Some(0x7f00_0000_0000),
        }
    }

    #[test]
    fn marks_that_are_all_alike_are_of_one_run() {
        let found = marks().compare(&marks());
        assert!(found.same);
        assert_eq!(
            found.because,
            "alike: the host's boot, the main process's PID, that process's start time, \
             Kamailio's own start \
             time and the place of the shared pool"
        );
    }

    #[test]
    fn one_mark_that_differs_means_two_runs() {
        let later = RunMarks { started: Some(6_000), ..marks() };
        let found = marks().compare(&later);
        assert_eq!((found.same, &*found.because), (false, "not alike: that process's start time"));
    }

    #[test]
    fn the_place_of_the_pool_alone_proves_nothing() {
        let place = RunMarks { shared: Some(1), ..RunMarks::default() };
        assert!(!place.compare(&place).same);
        let pid = RunMarks { main: Some(1), ..place.clone() };
        assert!(!pid.compare(&place).same);
        assert!(pid.compare(&pid).same);
    }
}
