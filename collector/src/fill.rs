//! Everything between a bundle's first member and its last ones: what is asked before the freeze,
//! the frozen part, and what is asked after it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bundle::{Outcome, Phase, SeriesRecord, SourceRecord, member};

use crate::board::Board;
use crate::bundle_writer::Bundle;
use crate::capture::{self, Snapshot};
use crate::cli::Options;
use crate::copy::Store;
use crate::estimate::Estimate;
use crate::evidence::{self, Brief, Source, WhichModules};
use crate::files::Root;
use crate::freeze::Limits;
use crate::header;
use crate::number::human;
use crate::privilege::Rights;
use crate::profile;
use crate::progress::{Event, Progress, Step};
use crate::run::Order;
use crate::schedule;
use crate::summary::milliseconds;
use crate::survey::Choices;
use crate::sys::{self, Disks};
use crate::target::Target;
use crate::teach;
use crate::verdict::{self, Verdict};

/// While the group stands still, the sooner we are done the better.
const NICE_FROZEN: i32 = -10;
/// Afterwards everybody else comes first. Not 19 and not `SCHED_IDLE`: on a host where every CPU is
/// pegged, we would never end.
const NICE_AFTER: i32 = 10;
/// Memory is copied for so long even if the deadline of the run has passed.
const LEAST_PAUSE: Duration = Duration::from_secs(5);

/// What stays the same while one bundle is filled.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Job<'a> {
    pub(crate) options: &'a Options,
    pub(crate) rights: &'a Rights,
    pub(crate) choices: Choices,
    /// A later sample of the series completes this one.
    pub(crate) brief: Option<Brief>,
    pub(crate) begun: Instant,
}

/// What a bundle was filled with.
#[derive(Debug)]
pub(crate) struct Filled {
    pub(crate) snapshot: Snapshot,
    pub(crate) target: Target,
    /// When the group was frozen, or would have been.
    pub(crate) frozen: Instant,
    /// How long it had taken until it could be.
    pub(crate) preparation: Duration,
    /// What stood out.
    pub(crate) verdict: Verdict,
}

impl Job<'_> {
    /// Everything between the bundle's creation and its sealing.
    ///
    /// # Errors
    /// Those of writing.
    pub(crate) fn fill(
        self,
        order: Order,
        estimate: Estimate,
        store: Store,
        bundle: &mut Bundle,
        mut progress: Progress,
    ) -> anyhow::Result<Filled> {
        let header = header::header(self.options, &order);
        let Order { mut target, sample, .. } = order;
        bundle.begin("collector");
        bundle.add_json(member::HEADER, &header)?;
        bundle.checkpoint()?;

        let samples = Arc::default();
        let board: Arc<Board> = Arc::default();
        let files = target.root().unwrap_or_else(|error| {
            bundle.gap("files as the program sees them", format!("its root: {error}"));
            Root::own()
        });
        let modules = match self.options.modules {
            WhichModules::All | WhichModules::Own if self.brief == Some(Brief::Growth) => {
                WhichModules::Tables
            }
            wanted => wanted,
        };
        let context = |target: &Target, surveys| evidence::Context {
            target: target.clone(),
            surveys,
            modules,
            samples: Arc::clone(&samples),
            wishes: self.options.wishes(),
            files: files.clone(),
            board: Arc::clone(&board),
            remains: None,
        };
        let early = Arc::new(context(&target, std::collections::BTreeMap::new()));
        let sampled = Instant::now();
        progress.phase(Step::BeforeFreeze);
        self.run_sources(Phase::BeforeFreeze, &early, bundle, &progress)?;
        bundle.checkpoint()?;

        let took = self.begun.elapsed();
        let due = sample.as_ref().and_then(|sample| sample.due);
        if let Some(due) = due {
            schedule::wait_until(due.at);
        }
        let ready = Instant::now();
        bundle.manifest().series = sample.map(|sample| SeriesRecord {
            sample: sample.series,
            frozen_monotonic_ns: None,
            missed_intervals: due.map_or(0, |due| due.missed),
        });
        let mut snapshot = Snapshot::default();
        if !sys::interrupted() {
            snapshot = self.memory(&mut target, &files, estimate, store, bundle, &mut progress)?;
        }
        if bundle.manifest().processes.is_empty() {
            let records = target.processes.iter().map(|process| process.record(&[]));
            bundle.manifest().processes.extend(records);
        }
        bundle.checkpoint()?;

        if self.brief.is_none() {
            let second = sampled + Duration::from_millis(self.options.sample_gap);
            schedule::wait_until(second.min(self.until()));
        }
        progress.phase(Step::AfterThaw);
        if !self.options.redact_memory || snapshot.frozen.is_none() {
            teach::teach(bundle, &target, &files);
        }
        self.say_what_is_plain(bundle, &progress);
        let late = Arc::new(context(&target, std::mem::take(&mut snapshot.surveys)));
        self.run_sources(Phase::AfterThaw, &late, bundle, &progress)?;
        if self.brief.is_some() {
            // There is no second sample, which would say when they were taken.
            bundle.begin("collector");
            bundle.add_json(member::SAMPLE_TIMES, &*evidence::times(&late))?;
        }
        progress.phase(Step::Seal);
        let verdict = verdict::first_look(&target, &board);
        let frozen = snapshot.frozen.unwrap_or(ready);
        Ok(Filled { frozen, preparation: took, verdict, snapshot, target })
    }

    /// Says how many secrets of the configuration could not be looked for elsewhere.
    fn say_what_is_plain(self, bundle: &mut Bundle, progress: &Progress) {
        let count = bundle.masker().too_plain();
        if count > 0 && self.options.redact_memory {
            let words = "they are words or too short, and would mask much else; they are masked \
                         only where a name stands before them";
            bundle.expected_gap(format!("masks of {count} plain secrets in memory"), words);
            progress.line(format_args!("{count} secrets are too plain to be found in memory"));
        }
    }

    fn run_sources(
        self,
        phase: Phase,
        context: &Arc<evidence::Context>,
        bundle: &mut Bundle,
        progress: &Progress,
    ) -> anyhow::Result<()> {
        let sources = profile::named(context.target.profile).sources;
        for source in sources.iter().filter(|source| source.phase() == phase) {
            if sys::interrupted() {
                break;
            }
            if let Some(why) = self.unwanted(*source) {
                record_skipped(*source, why.to_owned(), bundle);
                continue;
            }
            if Instant::now() >= self.until() {
                let why = self.not_asked();
                bundle.gap(source.name(), &why);
                record_skipped(*source, why, bundle);
                continue;
            }
            let before = bundle.content_length();
            let outcome = evidence::run(*source, context, bundle, self.until())?;
            let bytes = bundle.content_length().saturating_sub(before);
            progress.source(source.name(), bytes, &outcome);
        }
        Ok(())
    }

    /// When no source is asked any more.
    fn until(self) -> Instant {
        let deadline = self.options.limits.deadline();
        self.begun.checked_add(deadline).unwrap_or(self.begun)
    }

    fn left(self) -> Duration {
        self.until().saturating_duration_since(Instant::now())
    }

    fn not_asked(self) -> String {
        format!("not asked: {} s had passed (--deadline)", self.options.limits.deadline)
    }

    /// Why a source is not asked.
    fn unwanted(self, source: &dyn Source) -> Option<&'static str> {
        if self.options.without.iter().any(|name| name == source.name()) {
            return Some("not wanted (--without)");
        }
        self.brief.filter(|brief| !source.serves(*brief)).map(Brief::why)
    }

    /// The frozen part, and its members.
    fn memory(
        self,
        target: &mut Target,
        files: &Root,
        estimate: Estimate,
        mut store: Store,
        bundle: &mut Bundle,
        progress: &mut Progress,
    ) -> anyhow::Result<Snapshot> {
        let Self { options, rights, choices, .. } = self;
        let started = jiff::Zoned::now().to_string();
        let begun = Instant::now();
        bundle.begin("memory");
        let record = |bundle: &mut Bundle, outcome: Outcome| {
            let micros = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
            let (name, started) = ("memory".to_owned(), started.clone());
            bundle.record(SourceRecord { name, phase: Phase::Frozen, started, micros, outcome });
        };
        if let Some(words) = &rights.words
            && !options.no_memory
        {
            progress.line(format_args!("cannot trace {} processes: {words}", rights.refused));
            bundle.gap(format!("memory and registers of {} processes", rights.refused), words);
            if rights.refused == target.processes.len() {
                record(bundle, Outcome::Failed { error: words.clone() });
                return Ok(Snapshot::default());
            }
        }
        if options.dry_run {
            record(bundle, Outcome::Skipped { why: "nothing is frozen (--dry-run)".into() });
            return Ok(Snapshot::default());
        }
        if options.no_memory {
            record(bundle, Outcome::Skipped { why: "not wanted (--no-memory)".into() });
            return Ok(Snapshot::default());
        }
        if let Some(words) = &rights.map_files_words
            && !choices.part.is_stacks()
        {
            bundle.gap("which pages of shared memory exist, and replaced files", words);
            progress.line(format_args!("shared memory may miss pages: {words}"));
        }
        for process in &mut target.processes {
            if estimate.surveys.contains_key(&process.pid) {
                process.read_memory_facts();
            }
        }
        let limits = Limits {
            stop: Duration::from_millis(options.stop_timeout),
            pause: options.pause_limit().min(self.left().max(LEAST_PAUSE)),
        };
        progress.phase(Step::Frozen);
        progress.line(format_args!("freezing {} processes", target.processes.len()));
        sys::set_nice(NICE_FROZEN);
        sys::set_disks(Disks::Equal);
        let frozen = Instant::now();
        if let Some(series) = &mut bundle.manifest().series {
            series.frozen_monotonic_ns = Some(sys::monotonic());
        }
        let taken = capture::take(target, estimate, &mut store, choices, limits);
        sys::set_nice(NICE_AFTER);
        sys::set_disks(Disks::Last);
        let mut snapshot = match taken {
            Ok(snapshot) => snapshot,
            Err(error) => {
                progress.line(format_args!("cannot freeze: {error}"));
                record(bundle, Outcome::Failed { error: error.to_string() });
                return Ok(Snapshot::default());
            }
        };
        snapshot.frozen = Some(frozen);
        let longest = snapshot.longest_pause().map(|pause| pause.length).unwrap_or_default();
        let (processes, (copied, time)) = (snapshot.pauses.len(), snapshot.copied);
        let threads = snapshot.threads.iter().filter(|thread| thread.unstopped.is_none()).count();
        let pause_micros = u64::try_from(longest.as_micros()).unwrap_or(u64::MAX);
        progress.tell(
            &Event::Thawed { processes, threads, pause_micros, copied_bytes: copied },
            format_args!(
                "thawed: {processes} processes, {threads} threads stood still for at most {}",
                milliseconds(longest)
            ),
        );
        let rate = f64_of(copied) / time.as_secs_f64().max(0.000_001);
        progress.line(format_args!(
            "copied {} ({copied} bytes) in {}, {}/s",
            human(copied),
            milliseconds(time),
            human(u64_of(rate))
        ));

        if options.redact_memory {
            teach::teach(bundle, target, files);
        }
        let at = bundle.content_length();
        progress.phase(Step::Memory);
        progress.start(snapshot.length());
        let writing = Instant::now();
        let result = snapshot.write(target, bundle, options.redact_memory, &|bytes| {
            progress.at(bytes.saturating_sub(at))
        });
        progress.end();
        result?;
        // The copy may be most of what our control group allows; the modules need room too.
        snapshot.saved.clear();
        snapshot.pools.clear();
        drop(store);
        let written = bundle.content_length().saturating_sub(at);
        let rate = f64_of(written) / writing.elapsed().as_secs_f64().max(0.000_001);
        progress.line(format_args!("memory: {}, {}/s", human(written), human(u64_of(rate))));
        record(
            bundle,
            if snapshot.expired {
                Outcome::TimedOut { after_ms: u64::try_from(limits.pause.as_millis()).unwrap_or(0) }
            } else {
                Outcome::Collected
            },
        );
        Ok(snapshot)
    }
}

fn record_skipped(source: &dyn Source, why: String, bundle: &mut Bundle) {
    bundle.record(SourceRecord {
        name: source.name().to_owned(),
        phase: source.phase(),
        started: jiff::Zoned::now().to_string(),
        micros: 0,
        outcome: Outcome::Skipped { why },
    });
}

/// For rates only: precision does not matter.
fn f64_of(bytes: u64) -> f64 {
    let thousands = u32::try_from(bytes / 1024).unwrap_or(u32::MAX);
    f64::from(thousands) * 1024.0
}

fn u64_of(rate: f64) -> u64 {
    Duration::try_from_secs_f64(rate).map_or(0, |seconds| seconds.as_secs())
}
