//! The frozen part: everything stands still, registers, memory, and on it goes.
//!
//! Before: [`crate::estimate`] says how much there is, so that room for it is reserved and touched. Then
//! [`take`]; nothing in it writes to a terminal or a disk (but for the spool file), and nothing
//! hangs for longer than the pause limit. [`Snapshot::write`] puts it into the bundle afterwards.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{Cursor, Read};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bundle::corefile::Machine;
use bundle::{GapRecord, ProcessRecord, SharedRecord, UnstoppedThread, member};

use crate::bundle_writer::{Bundle, BundleError};
use crate::copy::{self, Door, Origin, Run, Saved, Store};
use crate::corefile::{Parts, StoredPool};
use crate::estimate::{Estimate, Known, THREADS, survey_all};
use crate::freeze::{FreezeError, Frozen, FrozenThread, Limits, Pause};
use crate::live::Live;
use crate::mappings::Mapping;
use crate::number::{bytes, human, page_ceil, page_floor};
use crate::part;
use crate::pools::{self, Pool};
use crate::procfs::ThreadFacts;
use crate::redact::{Kind, Redacting, Tally};
use crate::spans::{self, Span};
use crate::stacks_only;
use crate::survey::{Choices, Fate, KERNEL_PAGE, Survey};
use crate::sys;
use crate::target::Target;

/// The group's registers and memory at one moment.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Every thread.
    pub threads: Vec<FrozenThread>,
    /// When the freeze began.
    pub frozen: Option<Instant>,
    /// How long each process stood still.
    pub pauses: Vec<Pause>,
    /// The address spaces, by PID.
    pub surveys: BTreeMap<u32, Survey>,
    /// The pools.
    pub pools: Vec<(Pool, Saved)>,
    /// The copied data of each process.
    pub saved: BTreeMap<u32, Saved>,
    /// What went wrong.
    pub gaps: Vec<GapRecord>,
    /// The pause limit cut it off.
    pub expired: bool,
    /// Bytes that were copied, and how long that took.
    pub copied: (u64, Duration),
}

/// Freezes the group, copies it and lets it go.
///
/// # Errors
/// [`FreezeError`], before anything was stopped.
pub fn take(
    target: &mut Target,
    before: Estimate,
    store: &mut Store,
    choices: Choices,
    limits: Limits,
) -> Result<Snapshot, FreezeError> {
    let pids: Vec<u32> = target.processes.iter().map(|process| process.pid).collect();
    let begun = Instant::now();
    let frozen = Frozen::new(&pids, limits)?;
    let stopped = begun.elapsed();
    let flag = frozen.expired();
    let stop = move || {
        if sys::interrupted() {
            Some("interrupted by the operator")
        } else if flag.load(Ordering::SeqCst) {
            Some("pause limit reached")
        } else {
            None
        }
    };

    let earlier: BTreeMap<u32, Arc<Survey>> =
        before.surveys.into_iter().map(|(pid, survey)| (pid, Arc::new(survey))).collect();
    let known = Known { threads: frozen.threads(), before: earlier.clone() };
    let (mut surveys, mut gaps) = survey_all(target, choices, known, || stop().is_some());
    for (pid, survey) in earlier {
        // What could be looked at while it ran, and now not any more, is better than nothing.
        surveys.entry(pid).or_insert_with(|| Arc::unwrap_or_clone(survey));
    }
    gaps.extend(before.gaps.into_iter().filter(|gap| !gaps.contains(gap)).collect::<Vec<_>>());
    let pools = pools::pools(surveys.values());
    let (owners, objects) = objects(&surveys, &pools, target.is_sole());
    let surveyed = begun.elapsed();
    let mut saved = copy::copy(&objects, store, THREADS, &stop);
    let copied = begun.elapsed();

    for thread in frozen.threads() {
        // A thread that began after we had looked.
        let process = target.processes.iter_mut().find(|process| process.pid == thread.pid);
        if let Some(process) = process
            && !process.facts.threads.contains_key(&thread.tid)
            && let Some(mut facts) = ThreadFacts::read(thread.pid, thread.tid)
        {
            facts.stat.state = b'?';
            process.facts.threads.insert(thread.tid, facts);
        }
    }
    let expired = frozen.expired();
    let (threads, pauses) = frozen.thaw();
    tracing::info!(
        stop_micros = micros(stopped),
        survey_micros = micros(surveyed - stopped),
        copy_micros = micros(copied - surveyed),
        all_micros = micros(begun.elapsed()),
        "frozen"
    );

    let length = saved.iter().map(Saved::length).sum();
    let mut snapshot = Snapshot {
        threads,
        pauses,
        surveys,
        gaps,
        expired: expired.load(Ordering::SeqCst),
        copied: (length, copied - surveyed),
        ..Snapshot::default()
    };
    let mut pools: Vec<Option<Pool>> = pools.into_iter().map(Some).collect();
    for (owner, saved) in owners.iter().zip(saved.drain(..)) {
        match owner {
            Owner::Process(pid) => {
                snapshot.saved.insert(*pid, saved);
            }
            Owner::Pool(index) => {
                let pool = pools.get_mut(*index).and_then(Option::take);
                snapshot.pools.extend(pool.map(|pool| (pool, saved)));
            }
        }
    }
    Ok(snapshot)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[derive(Clone, Copy, Debug)]
enum Owner {
    Process(u32),
    Pool(usize),
}

/// What is to be copied, the smallest first: if room or time is short, most of them are whole.
fn objects(
    surveys: &BTreeMap<u32, Survey>,
    pools: &[Pool],
    sole: bool,
) -> (Vec<Owner>, Vec<Vec<Run>>) {
    let mut objects: Vec<(u64, Owner, Vec<Run>)> = Vec::new();
    for (pid, survey) in surveys {
        let data = survey.slices.iter().filter(|slice| slice.fate == Fate::Data);
        let door = Door::new(survey.id, sole);
        let runs: Vec<Run> = data
            .map(|slice| Run {
                at: slice.span.start,
                from: slice.span.start,
                length: slice.span.length(),
                origin: Origin::Process(Arc::clone(&door)),
            })
            .collect();
        objects.push((survey.data(), Owner::Process(*pid), runs));
    }
    for (index, pool) in pools.iter().enumerate() {
        objects.push((pool.data(), Owner::Pool(index), pool.runs.clone()));
    }
    objects.sort_by_key(|(length, ..)| *length);
    objects.into_iter().map(|(_, owner, runs)| (owner, runs)).unzip()
}

impl Snapshot {
    /// Bytes that [`Snapshot::write`] will write.
    pub fn length(&self) -> u64 {
        self.copied.0
    }

    /// The longest pause of all.
    pub fn longest_pause(&self) -> Option<&Pause> {
        self.pauses.iter().max_by_key(|pause| pause.length)
    }

    /// Writes the pools and the cores, and their records; `progress` is told of every member. With
    /// `redact`, without the secrets that the bundle's masker knows.
    ///
    /// # Errors
    /// Those of writing.
    pub fn write(
        &self,
        target: &Target,
        bundle: &mut Bundle,
        redact: bool,
        progress: &dyn Fn(u64),
    ) -> Result<(), BundleError> {
        let stored =
            self.pools.iter().map(|(pool, saved)| (pool.key.clone(), stored_pool(pool, saved)));
        let stored: BTreeMap<_, _> = stored.collect();
        // Should there not be room for all, registers and stacks come first.
        let cores_first = bundle.is_limited();
        if !cores_first {
            self.write_pools(bundle, redact, progress)?;
        }
        for process in &target.processes {
            self.write_core(process, &stored, bundle, redact)?;
            progress(bundle.content_length());
        }
        if cores_first {
            self.write_pools(bundle, redact, progress)?;
        }
        for gap in &self.gaps {
            bundle.gap(&gap.what, &gap.why);
        }
        for (what, why) in part::LEFT_OUT {
            let left_out = self.left_out(why);
            if left_out > 0 {
                bundle.expected_gap(format!("{what} ({})", human(left_out)), why);
            }
        }
        Ok(())
    }

    fn write_pools(
        &self,
        bundle: &mut Bundle,
        redact: bool,
        progress: &dyn Fn(u64),
    ) -> Result<(), BundleError> {
        for (pool, saved) in &self.pools {
            let length = saved.length();
            if pool.partial && length == 0 {
                continue;
            }
            let image = Image { member: &pool.member, prefix: &[], saved };
            let added = image.add(length, redact, bundle)?;
            progress(bundle.content_length());
            if !added {
                continue;
            }
            bundle.manifest().shared.push(SharedRecord {
                member: pool.member.clone(),
                name: pool.name.clone(),
                mapped_bytes: spans::total(&pool.mapped),
                saved_bytes: length,
                found_by: pool.found_by.to_owned(),
            });
            if let pools::Rest::NotSaved(why) = &pool.rest
                && !part::is_left_out(why)
            {
                bundle.gap(format!("pages of {} ({})", pool.member, pool.name), &**why);
            }
            report_failures(&pool.member, saved, bundle);
        }
        Ok(())
    }

    /// Bytes of address space that were left out on purpose for this reason, shared memory once.
    fn left_out(&self, why: &str) -> u64 {
        let slices = self.surveys.values().flat_map(|survey| &survey.slices);
        let private = slices
            .filter(|slice| matches!(&slice.fate, Fate::NotSaved { why: own } if &**own == why));
        let pools = self.pools.iter().map(|(pool, _)| pool);
        let shared = pools
            .filter(|pool| matches!(&pool.rest, pools::Rest::NotSaved(own) if &**own == why))
            .map(|pool| spans::total(&pool.mapped).saturating_sub(pool.data()));
        private.map(|slice| slice.span.length()).chain(shared).sum()
    }

    fn write_core(
        &self,
        process: &crate::target::Process,
        pools: &BTreeMap<crate::mappings::FileKey, StoredPool>,
        bundle: &mut Bundle,
        redact: bool,
    ) -> Result<(), BundleError> {
        let pid = process.pid;
        let threads: Vec<FrozenThread> =
            self.threads.iter().filter(|thread| thread.pid == pid).cloned().collect();
        let mut record = process.record(&threads);
        if threads.is_empty() {
            bundle.gap(format!("process {pid}"), "it ended before it stood still");
            bundle.manifest().processes.push(record);
            return Ok(());
        }
        let pause = self.pauses.iter().find(|pause| pause.pid == pid);
        record.frozen_at = pause.map(|pause| pause.frozen_at.clone());
        record.pause_micros = pause.map(|pause| micros(pause.length));
        let (no_survey, nothing) = (Survey::default(), Saved::default());
        let survey = self.surveys.get(&pid).unwrap_or(&no_survey);
        let saved = self.saved.get(&pid).unwrap_or(&nothing);
        record.swapped_bytes = survey.swapped;
        for slice in &survey.slices {
            let device = match &slice.fate {
                Fate::NotSaved { why } if &**why != KERNEL_PAGE && !part::is_left_out(why) => why,
                _ => continue,
            };
            let mapping = survey.mappings.iter().find(|mapping| {
                mapping.span.start <= slice.span.start && slice.span.end <= mapping.span.end
            });
            let name = mapping.map_or("", |mapping| mapping.name.as_str());
            let size = human(slice.span.length());
            bundle.expected_gap(format!("mapping {name} of process {pid} ({size})"), &**device);
        }
        report_failures(&format!("memory of process {pid}"), saved, bundle);
        let mut facts = process.facts.clone();
        if redact {
            // The notes hold its beginning, cut.
            let kind = Kind::Arguments;
            bundle.masker().mask_as(kind, &member::core(pid), &mut facts.command_line);
        }
        let lean = |saved: &Saved| saved.within(&stacks(&threads, &survey.mappings), NO_ROOM);
        let path = member::core(pid);
        for saved in [Cow::Borrowed(saved), Cow::Owned(lean(saved))] {
            let parts = Parts {
                process: &facts,
                threads: &threads,
                mappings: &survey.mappings,
                slices: &survey.slices,
                saved: &saved,
                pools,
            };
            let core = match Machine::current().map(|machine| parts.plan(machine)) {
                Some(Ok(core)) => core,
                Some(Err(error)) => {
                    bundle.gap(format!("core of process {pid}"), error.to_string());
                    break;
                }
                None => {
                    bundle.gap(format!("core of process {pid}"), "no cores for this machine");
                    break;
                }
            };
            let image = Image { member: &path, prefix: &core.plan.prefix, saved: &saved };
            if image.add(core.plan.size, redact, bundle)? {
                record.bytes = core.bytes;
                break;
            }
        }
        bundle.manifest().processes.push(record);
        Ok(())
    }
}

/// A member with memory.
struct Image<'a> {
    member: &'a str,
    /// What comes before the memory.
    prefix: &'a [u8],
    saved: &'a Saved,
}

impl Image<'_> {
    /// Adds the member, of `length` bytes in all; `false` if there was no room for it.
    fn add(self, length: u64, redact: bool, bundle: &mut Bundle) -> Result<bool, BundleError> {
        let Self { member, prefix, saved } = self;
        if !redact {
            return bundle.add(member, length, None, || Cursor::new(prefix).chain(saved.reader()));
        }
        let masker = Arc::clone(bundle.masker());
        let mut prefix = prefix.to_vec();
        let mut redactions = masker.mask_known(member, &mut prefix);
        let tally = Tally::default();
        let memory = || Redacting::new(&masker, saved.reader(), &tally);
        let added = bundle.add(member, length, None, || Cursor::new(&prefix).chain(memory()))?;
        if added {
            redactions.extend(tally.redactions(member, bytes(prefix.len())));
            bundle.redacted(redactions);
        }
        Ok(added)
    }
}

impl crate::target::Process {
    /// Its record in the manifest, without what only a freeze tells.
    pub fn record(&self, threads: &[FrozenThread]) -> ProcessRecord {
        let unstopped = threads.iter().filter_map(|thread| {
            Some(UnstoppedThread { tid: thread.tid, why: thread.unstopped.clone()? })
        });
        ProcessRecord {
            pid: self.pid,
            inner_pid: self.inner_pid,
            parent: self.parent,
            executable: self.executable.clone(),
            belongs_because: self.belongs_because.clone(),
            was_stopped: self.was_stopped,
            threads: u32::try_from(threads.len()).unwrap_or(u32::MAX),
            unstopped: unstopped.collect(),
            ..ProcessRecord::default()
        }
    }
}

fn stored_pool(pool: &Pool, saved: &Saved) -> StoredPool {
    let mut parts: Vec<(Span, u64)> = Vec::with_capacity(saved.stored.len());
    let mut at = 0;
    for stored in &saved.stored {
        match parts.last_mut() {
            Some((last, _)) if last.end == stored.span.start => last.end = stored.span.end,
            _ => parts.push((stored.span, at)),
        }
        at += stored.span.length();
    }
    StoredPool {
        member: pool.member.clone(),
        saved: parts,
        failed: saved.failed.clone(),
        rest: pool.rest.clone(),
        size: pool.size,
    }
}

/// One gap for each reason.
/// Why a core has stacks only where there was no room for all.
const NO_ROOM: &str = "no room for it in the bundle (--max-size, --keep-free)";

/// Pages that the stack traces of these threads need.
fn stacks(threads: &[FrozenThread], mappings: &[Mapping]) -> Vec<(Span, ())> {
    let live: Vec<Live> = threads.iter().filter_map(Live::of).collect();
    let needed = stacks_only::of_threads(&live, mappings, Span::new(0, 0));
    let pages = needed.iter().map(|span| Span::new(page_floor(span.start), page_ceil(span.end)));
    spans::merge(pages.collect()).into_iter().map(|span| (span, ())).collect()
}

fn report_failures(what: &str, saved: &Saved, bundle: &mut Bundle) {
    let mut by_reason: BTreeMap<&Arc<str>, u64> = BTreeMap::new();
    for (span, why) in &saved.failed {
        *by_reason.entry(why).or_default() += span.length();
    }
    for (why, length) in by_reason {
        bundle.gap(format!("{} of {what}", human(length)), &**why);
    }
}
