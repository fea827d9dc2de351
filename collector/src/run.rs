//! The order of a collection.
//!
//! Choose the group; look at it and reserve room; first sample of `/proc`; freeze, registers,
//! memory, thaw; second sample; everything slow; seal. A part that fails leaves a gap and the rest
//! goes on; an interrupt thaws, seals what there is and says so.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bundle::{FORMAT_VERSION, Header, Manifest, Outcome, Phase, Redaction, SourceRecord, member};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::budget::{self, Need};
use crate::bundle_writer::Bundle;
use crate::capture::{self, Estimate, Snapshot};
use crate::cli::Options;
use crate::copy::Store;
use crate::evidence::{self, WhichModules};
use crate::freeze::Limits;
use crate::group::{self, GroupError};
use crate::number::human;
use crate::privilege::Privileges;
use crate::progress::Progress;
use crate::survey::Choices;
use crate::sys;
use crate::target::Target;
use crate::trace::Trace;

/// How a collection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Everything is in the bundle.
    Complete,
    /// Something that was to be in it is not.
    Incomplete,
    /// The operator ended it.
    Interrupted,
}

/// Collects.
///
/// # Errors
/// There is no group to collect, no room, or no place to write to.
pub fn run(options: &Options) -> anyhow::Result<Ending> {
    let trace = Trace::install();
    let mut progress = Progress::new(options.quiet);
    sys::count_interrupts().context("cannot catch signals")?;
    // Each shared mapping of the group costs a descriptor.
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE)
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, most, most)
    {
        tracing::warn!(%error, "RLIMIT_NOFILE");
    }
    // If memory runs out, the collector goes, never the program that it looks at.
    if let Err(error) = fs::write("/proc/self/oom_score_adj", "1000") {
        tracing::warn!(%error, "oom_score_adj");
    }
    let target = choose(options)?;
    progress.line(format_args!(
        "{}: {} processes, main {}",
        target.program,
        target.processes.len(),
        target.main
    ));

    let rights = Rights::of(&target);
    let choices = Choices { rings: options.rings, map_files: rights.map_files };
    let with_memory = !options.no_memory && rights.refused < target.processes.len();
    let estimate =
        if with_memory { capture::estimate(&target, choices) } else { Estimate::default() };
    let path = options.output.clone().unwrap_or_else(|| default_path(&target));
    let store = reserve(options, &estimate, &path)?;
    if with_memory {
        progress.line(format_args!("about {} to copy", human(estimate.bytes)));
    }

    let mut bundle = Bundle::create(&path, options.level)?;
    let partial = bundle.partial().to_owned();
    let collected = collect(options, target, &rights, estimate, store, &mut bundle, &mut progress);
    let (snapshot, target) =
        collected.with_context(|| format!("what was collected is in {}", partial.display()))?;

    bundle.begin("collector");
    bundle.add_bytes(member::TRACE, None, &trace.lines())?;
    let none: [Redaction; 0] = [];
    bundle.add_json(member::REDACTIONS, &none)?;
    let interrupted = sys::interrupted();
    if interrupted {
        bundle.gap("everything after the interrupt", "the operator interrupted the collection");
    }
    let (path, length, manifest) = bundle.seal(!interrupted)?;
    let ending = match (interrupted, is_complete(&manifest, &rights)) {
        (true, _) => Ending::Interrupted,
        (false, true) => Ending::Complete,
        (false, false) => Ending::Incomplete,
    };
    summary(&path, length, &manifest, &snapshot, &target, ending);
    Ok(ending)
}

fn choose(options: &Options) -> anyhow::Result<Target> {
    let wanted = options.wanted();
    anyhow::ensure!(Path::new("/proc/self/stat").exists(), "/proc is not mounted here");
    // With the /proc of another PID namespace every number in it means another process here.
    let own = fs::read_link("/proc/self").context("/proc/self")?;
    anyhow::ensure!(
        own.as_os_str() == std::process::id().to_string().as_str(),
        "the /proc here belongs to another PID namespace: it calls this process {}, which is {}; \
         run in the namespace that /proc belongs to, or mount this one's",
        own.display(),
        std::process::id()
    );
    let table = group::read_table(&wanted);
    let instance = match group::select(&table, &wanted, &group::own_ancestors()) {
        Ok(instance) => instance,
        Err(GroupError::Ambiguous(instances)) => {
            let list = group::describe(&instances, &table);
            anyhow::bail!("{}:\n{}", GroupError::Ambiguous(instances), list.trim_end());
        }
        Err(error) => return Err(error.into()),
    };
    let target = Target::read(&instance, &table);
    anyhow::ensure!(!target.processes.is_empty(), "the processes ended meanwhile");
    Ok(target)
}

/// What this host lets us do with the group.
#[derive(Debug, Default)]
struct Rights {
    map_files: bool,
    /// Processes that may not be traced.
    refused: usize,
    /// What is missing and how to give it.
    words: Option<String>,
    /// The same for `map_files`.
    map_files_words: Option<String>,
}

impl Rights {
    fn of(target: &Target) -> Self {
        let privileges = Privileges::read();
        let missing =
            target.processes.iter().filter_map(|process| privileges.missing_for(process.id));
        let missing: Vec<String> = missing.collect();
        let map_files = privileges.map_files();
        Self {
            map_files,
            refused: missing.len(),
            words: missing.into_iter().next(),
            map_files_words: (!map_files).then(|| privileges.missing_for_map_files()),
        }
    }
}

/// `evidence-HOST-PROGRAM-TIME.tar.zst` in the current folder.
fn default_path(target: &Target) -> PathBuf {
    let time = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ");
    let name = format!("evidence-{}-{}-{time}.tar.zst", kernel_text("hostname"), target.program);
    PathBuf::from(name.replace(['/', ' '], "_"))
}

fn kernel_text(name: &str) -> String {
    let text = fs::read_to_string(format!("/proc/sys/kernel/{name}")).unwrap_or_default();
    text.trim().to_owned()
}

/// Room for the copy, all of it before the freeze.
fn reserve(options: &Options, estimate: &Estimate, path: &Path) -> anyhow::Result<Store> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let disk = budget::disk(folder)
        .with_context(|| format!("cannot write to the folder {}", folder.display()))?;
    let modules = match options.modules {
        WhichModules::None => 0,
        _ => modules_size(estimate),
    };
    let need = Need { memory: estimate.bytes, modules };
    let most = options.memory.unwrap_or_else(budget::memory);
    let room = budget::plan(need, most, disk, options.force)?;
    // What the group allocates until it stands still may not fit into memory: there is always a
    // spool file behind it, empty as long as nobody needs it.
    let spool = match room.spool {
        0 => None,
        limit => Some((tempfile::tempfile_in(folder).context("no spool file")?, limit)),
    };
    Store::new(room.memory, spool).context("the memory for the copy is not to be had")
}

/// Bytes of the programs and libraries that the group maps, roughly: the end of each file's last
/// mapping, of files that are mapped executable somewhere.
fn modules_size(estimate: &Estimate) -> u64 {
    let mut sizes = std::collections::BTreeMap::new();
    let mut programs = std::collections::BTreeSet::new();
    for mapping in estimate.surveys.values().flat_map(|survey| &survey.mappings) {
        if mapping.name.starts_with('/') && !mapping.shared {
            let size: &mut u64 = sizes.entry(mapping.file()).or_default();
            *size = (*size).max(mapping.offset + mapping.span.length());
            if mapping.flags & 1 != 0 {
                programs.insert(mapping.file());
            }
        }
    }
    sizes.iter().filter(|(file, _)| programs.contains(file)).map(|(_, size)| size).sum()
}

fn header(options: &Options, target: &Target) -> Header {
    let mut scope = Vec::new();
    if options.no_memory {
        scope.push("no memory and no registers (--no-memory)".to_owned());
    }
    match options.modules {
        WhichModules::All => {}
        WhichModules::Own => scope.push("no system libraries (--modules own)".to_owned()),
        WhichModules::None => scope.push("no modules (--modules none)".to_owned()),
    }
    if !options.without.is_empty() {
        scope.push(format!("without {} (--without)", options.without.join(", ")));
    }
    let now = jiff::Zoned::now();
    let machine = nix::sys::utsname::uname();
    let machine = machine.map(|names| names.machine().to_string_lossy().into_owned());
    Header {
        format: FORMAT_VERSION,
        tool: format!("collect-evidence {}", env!("CARGO_PKG_VERSION")),
        created: now.to_string(),
        host: kernel_text("hostname"),
        boot_id: kernel_text("random/boot_id"),
        kernel: format!("{} {}", kernel_text("osrelease"), kernel_text("version")),
        machine: machine.unwrap_or_default(),
        case_id: options.case.clone().unwrap_or_else(|| {
            format!("{}-{}", target.program, now.timestamp().strftime("%Y%m%dT%H%M%SZ"))
        }),
        profile: target.profile.to_owned(),
        reason: options.reason.clone(),
        scope,
    }
}

/// Everything between the bundle's creation and its sealing.
fn collect(
    options: &Options,
    mut target: Target,
    rights: &Rights,
    estimate: Estimate,
    store: Store,
    bundle: &mut Bundle,
    progress: &mut Progress,
) -> anyhow::Result<(Snapshot, Target)> {
    bundle.begin("collector");
    bundle.add_json(member::HEADER, &header(options, &target))?;
    bundle.checkpoint()?;

    let samples = Arc::default();
    let context = |target: &Target, surveys| evidence::Context {
        target: target.clone(),
        surveys,
        modules: options.modules,
        samples: Arc::clone(&samples),
    };
    let early = Arc::new(context(&target, std::collections::BTreeMap::new()));
    let sampled = Instant::now();
    run_sources(options, Phase::BeforeFreeze, &early, bundle, progress)?;
    bundle.checkpoint()?;

    let mut snapshot = Snapshot::default();
    if !sys::interrupted() {
        snapshot = memory(options, &mut target, rights, estimate, store, bundle, progress)?;
    }
    if bundle.manifest().processes.is_empty() {
        let records = target.processes.iter().map(|process| process.record(&[]));
        bundle.manifest().processes.extend(records);
    }
    bundle.checkpoint()?;

    let gap = Duration::from_millis(options.sample_gap);
    while sampled.elapsed() < gap && !sys::interrupted() {
        std::thread::sleep((gap - sampled.elapsed().min(gap)).min(Duration::from_millis(50)));
    }
    let late = Arc::new(context(&target, std::mem::take(&mut snapshot.surveys)));
    run_sources(options, Phase::AfterThaw, &late, bundle, progress)?;
    Ok((snapshot, target))
}

fn run_sources(
    options: &Options,
    phase: Phase,
    context: &Arc<evidence::Context>,
    bundle: &mut Bundle,
    progress: &Progress,
) -> anyhow::Result<()> {
    for source in evidence::ALL.iter().filter(|source| source.phase() == phase) {
        if sys::interrupted() {
            break;
        }
        if options.without.iter().any(|name| name == source.name()) {
            bundle.record(SourceRecord {
                name: source.name().to_owned(),
                phase,
                started: jiff::Zoned::now().to_string(),
                micros: 0,
                outcome: Outcome::Skipped { why: "not wanted (--without)".into() },
            });
            continue;
        }
        let before = bundle.content_length();
        evidence::run(*source, context, bundle)?;
        let length = human(bundle.content_length().saturating_sub(before));
        progress.line(format_args!("{}: {length}", source.name()));
    }
    Ok(())
}

/// The frozen part, and its members.
fn memory(
    options: &Options,
    target: &mut Target,
    rights: &Rights,
    estimate: Estimate,
    mut store: Store,
    bundle: &mut Bundle,
    progress: &mut Progress,
) -> anyhow::Result<Snapshot> {
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
    if options.no_memory {
        record(bundle, Outcome::Skipped { why: "not wanted (--no-memory)".into() });
        return Ok(Snapshot::default());
    }
    if let Some(words) = &rights.map_files_words {
        bundle.gap("which pages of shared memory exist, and replaced files", words);
        progress.line(format_args!("shared memory may miss pages: {words}"));
    }
    for process in &mut target.processes {
        if estimate.surveys.contains_key(&process.pid) {
            process.read_memory_facts();
        }
    }
    let limits =
        Limits { stop: Duration::from_millis(options.stop_timeout), pause: options.pause_limit() };
    let choices = Choices { rings: options.rings, map_files: rights.map_files };
    progress.line(format_args!("freezing {} processes", target.processes.len()));
    let mut snapshot = match capture::take(target, estimate, &mut store, choices, limits) {
        Ok(snapshot) => snapshot,
        Err(error) => {
            progress.line(format_args!("cannot freeze: {error}"));
            record(bundle, Outcome::Failed { error: error.to_string() });
            return Ok(Snapshot::default());
        }
    };
    let longest = snapshot.longest_pause().map(|pause| pause.length).unwrap_or_default();
    progress.line(format_args!(
        "thawed: {} processes, {} threads stood still for at most {}",
        snapshot.pauses.len(),
        snapshot.threads.iter().filter(|thread| thread.unstopped.is_none()).count(),
        milliseconds(longest)
    ));
    let (copied, time) = snapshot.copied;
    let rate = f64_of(copied) / time.as_secs_f64().max(0.000_001);
    progress.line(format_args!(
        "copied {} ({copied} bytes) in {}, {}/s",
        human(copied),
        milliseconds(time),
        human(u64_of(rate))
    ));

    let at = bundle.content_length();
    progress.start(snapshot.length());
    let writing = Instant::now();
    let result = snapshot.write(target, bundle, &|bytes| progress.at(bytes.saturating_sub(at)));
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

/// For rates only: precision does not matter.
fn f64_of(bytes: u64) -> f64 {
    let thousands = u32::try_from(bytes / 1024).unwrap_or(u32::MAX);
    f64::from(thousands) * 1024.0
}

fn u64_of(rate: f64) -> u64 {
    Duration::try_from_secs_f64(rate).map_or(0, |seconds| seconds.as_secs())
}

fn milliseconds(duration: Duration) -> String {
    format!("{}.{} ms", duration.as_millis(), duration.subsec_micros() % 1000 / 100)
}

/// Whether nothing is missing that was wanted and could be had on a host that allows it.
fn is_complete(manifest: &Manifest, rights: &Rights) -> bool {
    let sources = manifest
        .sources
        .iter()
        .all(|source| matches!(source.outcome, Outcome::Collected | Outcome::Skipped { .. }));
    let pools =
        rights.map_files || manifest.shared.iter().all(|shared| shared.found_by == "SEEK_DATA");
    let gaps = manifest.gaps.iter().all(|gap| gap.expected);
    let stopped = manifest.processes.iter().all(|process| process.unstopped.is_empty());
    sources && pools && gaps && stopped && rights.refused == 0
}

/// Tells the operator on stdout. A broken pipe is no error.
fn summary(
    path: &Path,
    length: u64,
    manifest: &Manifest,
    snapshot: &Snapshot,
    target: &Target,
    ending: Ending,
) {
    let mut text = format!("bundle: {} ({}, {length} bytes)\n", path.display(), human(length));
    if let Some(longest) = snapshot.longest_pause() {
        let time = milliseconds(longest.length);
        text += &format!("pause: at most {time} (process {})\n", longest.pid);
    }
    for pause in &snapshot.pauses {
        let process = target.processes.iter().find(|process| process.pid == pause.pid);
        let stopped = process.is_some_and(|process| process.was_stopped);
        let note = if stopped { ", was stopped before and still is" } else { "" };
        text += &format!("  process {}: {}{note}\n", pause.pid, milliseconds(pause.length));
    }
    for process in &manifest.processes {
        for thread in &process.unstopped {
            text += &format!(
                "not stopped: thread {} of process {}: {}\n",
                thread.tid, process.pid, thread.why
            );
        }
    }
    for source in &manifest.sources {
        match &source.outcome {
            Outcome::Failed { error } => text += &format!("failed: {}: {error}\n", source.name),
            Outcome::TimedOut { after_ms } => {
                text += &format!("timed out: {} after {after_ms} ms\n", source.name);
            }
            Outcome::Collected | Outcome::Skipped { .. } => {}
        }
    }
    const SHOWN: usize = 20;
    for gap in manifest.gaps.iter().take(SHOWN) {
        text += &format!("missing: {}: {}\n", gap.what, gap.why);
    }
    if manifest.gaps.len() > SHOWN {
        text += &format!("missing: {} more, in the manifest\n", manifest.gaps.len() - SHOWN);
    }
    text += match ending {
        Ending::Complete => "safe to restart now\n",
        Ending::Incomplete => {
            "incomplete: what is missing above is lost with a restart; apart from that, safe to \
             restart now\n"
        }
        Ending::Interrupted => "interrupted: the group runs again; the bundle is only a part\n",
    };
    io::stdout().lock().write_all(text.as_bytes()).unwrap_or_default();
}
