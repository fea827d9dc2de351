//! A look at all processes of the group: before the freeze, to know how much there is, and in it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bundle::GapRecord;

use crate::freeze::FrozenThread;
use crate::live::Live;
use crate::number::bytes;
use crate::parallel;
use crate::part::Part;
use crate::pools::{self, Pool};
use crate::stacks_survey;
use crate::survey::{self, Choices, Survey};
use crate::target::Target;

/// Threads that survey and copy.
pub(crate) const THREADS: usize = 2;

/// What there is, as far as it could be looked at.
#[derive(Debug, Default)]
pub struct Estimate {
    /// By PID; a process that did not answer has none.
    pub surveys: BTreeMap<u32, Survey>,
    /// Bytes to be copied.
    pub bytes: u64,
    /// Processes that did not answer, and why.
    pub gaps: Vec<GapRecord>,
}

/// Most threads use less of their stacks, in bytes; for the rest there is the spool file.
const STACK: u64 = 32 << 10;

/// Looks at the group while it runs.
pub fn estimate(target: &Target, choices: Choices) -> Estimate {
    let begun = Instant::now();
    let give_up = || begun.elapsed() > Duration::from_secs(5);
    let (surveys, gaps) = survey_all(target, choices, Known::default(), give_up);
    let data: u64 = surveys.values().map(Survey::data).sum();
    let shared: u64 = pools::pools(surveys.values()).iter().map(Pool::data).sum();
    let threads = target.processes.iter().map(|process| process.facts.threads.len());
    let stacks = match choices.part {
        Part::Stacks(_) => bytes(threads.sum()).saturating_mul(STACK),
        Part::Whole | Part::Pools(_) => 0,
    };
    Estimate { surveys, bytes: data + shared + stacks, gaps }
}

/// What is known of the group when it is surveyed.
#[derive(Debug, Default)]
pub(crate) struct Known<'a> {
    /// Its threads, once they stand still.
    pub(crate) threads: &'a [FrozenThread],
    /// The surveys before, by PID.
    pub(crate) before: BTreeMap<u32, Arc<Survey>>,
}

/// Surveys every process; what does not answer is a gap.
pub(crate) fn survey_all(
    target: &Target,
    choices: Choices,
    known: Known<'_>,
    give_up: impl Fn() -> bool,
) -> (BTreeMap<u32, Survey>, Vec<GapRecord>) {
    let look = target.processes.iter().map(|process| {
        let own = known.threads.iter().filter(|thread| thread.pid == process.pid);
        let live: Vec<Live> = match choices.part {
            Part::Stacks(_) => own.filter_map(Live::of).collect(),
            Part::Whole | Part::Pools(_) => Vec::new(),
        };
        (process.id, live, known.before.get(&process.pid).cloned())
    });
    let work = move |(id, live, before): (u32, Vec<Live>, Option<Arc<Survey>>)| match choices.part {
        Part::Stacks(only) => stacks_survey::survey(id, choices, only, &live, before.as_deref()),
        Part::Whole | Part::Pools(_) => survey::survey(id, choices),
    };
    let results = parallel::each(look.collect(), THREADS, work, give_up);
    let mut surveys = BTreeMap::new();
    let mut gaps = Vec::new();
    for (process, result) in target.processes.iter().zip(results) {
        let why = match result {
            Some(Ok(survey)) => {
                surveys.insert(process.pid, survey);
                continue;
            }
            Some(Err(error)) => format!("its maps and pagemap cannot be read: {error}"),
            None => "its maps were not read in time: the pause limit came first, or its address \
                     space is locked"
                .to_owned(),
        };
        gaps.push(GapRecord {
            what: format!("memory of process {}", process.pid),
            why,
            expected: false,
        });
    }
    (surveys, gaps)
}
