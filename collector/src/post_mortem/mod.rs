//! When the process is gone: its cores, and what its host still knows of it.
//!
//! In the order in which a collection passes through them: `options`; `unit`, `wanted`: which
//! program it was and where it worked; `settings`, `pattern`: where the system puts cores; `wait`:
//! until they are written; `search`: the files there; `stored`, `spool`: cores that others packed;
//! `core`, `note`: what a core says of itself; `choose`: the cores of the last crash; `cores`: into
//! the bundle; `kernel`: what the kernel said of the process; `absence`: why there is no core;
//! `report`: what is said of it all.
//!
//! No running process is touched, not even asked: what runs under the same name by now is another
//! one. A core is not parsed beyond its headers and notes, and is stored as it is. Without any core
//! the bundle is still made.

mod absence;
mod choose;
mod core;
mod cores;
mod kernel;
mod note;
mod options;
mod pattern;
mod report;
mod search;
mod settings;
mod spool;
mod stored;
mod unit;
mod wait;
mod wanted;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use bundle::{Holds, Mode, Outcome, Phase, SourceRecord, member};

pub use options::PostMortem;

use self::choose::Choice;
use self::core::CoreFacts;
use self::report::{CoreReport, Report};
use self::search::{Looked, Search};
use self::settings::Settings;
use self::wanted::Wanted;
use crate::board::Board;
use crate::bundle_writer::{Bundle, Manner, Sealed};
use crate::cli::Options;
use crate::evidence::{self, DeadModules, MappedFile, Needs, Remains, Source};
use crate::files::Root;
use crate::header;
use crate::known;
use crate::number::human;
use crate::place::Place;
use crate::procfs;
use crate::profile;
use crate::progress::{Event, Progress};
use crate::room;
use crate::run::{Ending, Order};
use crate::summary;
use crate::sys;
use crate::target::Target;
use crate::trace::Trace;

/// Collects what is left of a program that has died.
///
/// # Errors
/// It is not known which program is meant, something that was named cannot be read, or there is no
/// place to write to.
pub(crate) fn run(options: &Options, trace: &Trace) -> anyhow::Result<Ending> {
    let given = &options.post_mortem;
    let mounted = given.root.as_deref();
    let root = match mounted {
        Some(folder) => Root::at(folder).with_context(|| folder.display().to_string())?,
        None => Root::own(),
    };
    let begun = Instant::now();
    let progress = Progress::new(options, None);
    let mut wanted = Wanted::find(options, &root)?;
    let settings = Settings::read(&root, mounted.is_some());
    if mounted.is_none() && given.core.is_empty() {
        wait::for_keepers(&progress);
    }
    let folder = folder_of(options.output.as_deref());
    let (choice, looked) = find(options, &root, &wanted, &settings, &folder)?;
    match choice.cores.first() {
        Some(first) => wanted.name_by(&first.facts, &root, mounted),
        None => wanted.name_by_files(&root, mounted),
    }
    let [program] = wanted.names.as_slice() else {
        anyhow::bail!(
            "which program died? No core of a known one was found ({}), and not just one of them \
             is installed; name it with --name or --unit",
            wanted.names.join(", ")
        );
    };
    let target = Target {
        program: program.clone(),
        profile: options
            .profile
            .as_deref()
            .map_or_else(|| known::of(program), |name| profile::named(name).name),
        ..Target::default()
    };
    progress.line(format_args!("{program}: cores of its last crash: {}", choice.cores.len()));
    let output = header::output(options, &target);
    let order = Order { target, output, holds: Holds::Whole, sample: None };
    let until = begun.checked_add(options.limits.deadline()).unwrap_or(begun);
    let job = Job { options, root, wanted, settings, looked, choice, folder, progress, until };
    job.collect(order, trace)
}

/// The folder of the output, where packed cores are unpacked, too.
fn folder_of(output: Option<&Path>) -> PathBuf {
    match output {
        Some(stream) if stream == Path::new("-") => PathBuf::from("/var/tmp"),
        Some(folder) if folder.is_dir() => folder.to_owned(),
        other => match other.and_then(Path::parent) {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        },
    }
}

/// The cores that there are.
fn find(
    options: &Options,
    root: &Root,
    wanted: &Wanted,
    settings: &Settings,
    folder: &Path,
) -> anyhow::Result<(Choice, Vec<Looked>)> {
    let named = &options.post_mortem.core;
    if !named.is_empty() {
        let found = search::named(named)?;
        return Ok((choose::choose(found, wanted, true, folder), Vec::new()));
    }
    let mut search = Search::new(root);
    search.by_pattern(&settings.pattern, &wanted.folders(root));
    search.with_keepers();
    let (found, unreadable, looked) = search.open();
    let mut choice = choose::choose(found, wanted, false, folder);
    choice.unreadable.extend(unreadable);
    Ok((choice, looked))
}

/// Everything that is known before the bundle is begun.
struct Job<'a> {
    options: &'a Options,
    root: Root,
    wanted: Wanted,
    settings: Settings,
    looked: Vec<Looked>,
    choice: Choice,
    folder: PathBuf,
    progress: Progress,
    /// No source is asked any more from then on.
    until: Instant,
}

impl Job<'_> {
    fn collect(mut self, order: Order, trace: &Trace) -> anyhow::Result<Ending> {
        let mut header = header::header(self.options, &order);
        header.mode = Mode::PostMortem;
        if self.options.post_mortem.root.is_some() {
            self.name_host(&mut header);
        }
        let mut bundle = self.bundle(&order)?;
        bundle.mask_with(header::masker(&order.target));
        let filled = self.fill(&mut bundle, &order, &header);
        let filled = filled.and_then(|report| {
            bundle.add_last_texts(trace.lines())?;
            Ok(report)
        });
        let report = filled.with_context(|| bundle.remains())?;
        let interrupted = sys::interrupted();
        if interrupted {
            bundle.gap("everything after the interrupt", "the operator interrupted the collection");
        }
        let left = bundle.remains_of_seal();
        let sealed = bundle.seal(!interrupted).context(left)?;
        let Sealed { path, length, manifest, unnamed } = sealed;
        let asked = |source: &SourceRecord| {
            matches!(source.outcome, Outcome::Collected | Outcome::Skipped { .. })
        };
        let whole = manifest.gaps.iter().all(|gap| gap.expected)
            && manifest.sources.iter().all(asked)
            && !report.cores.is_empty()
            && unnamed.is_none();
        let ending = match (interrupted, whole) {
            (true, _) => Ending::Interrupted,
            (false, true) => Ending::Complete,
            (false, false) => Ending::Incomplete,
        };
        let mut words = report::words(&report, &manifest, &header.scope, (&path, length));
        if let Some(why) = unnamed {
            words += &format!("not renamed: {why}\n");
        }
        words += report::verdict(ending);
        self.progress.event(&Event::End {
            ending: ending.name(),
            exit_code: ending.code(),
            path: path.display().to_string(),
            bytes: length,
            pause_micros: None,
            lines: words.lines().collect(),
        });
        summary::tell(self.options, &order.output, &words);
        Ok(ending)
    }

    fn bundle(&self, order: &Order) -> anyhow::Result<Bundle> {
        let recipients = self.options.limits.recipients()?;
        let place = Place::open(&order.output, self.options.force)?;
        let ceiling = room::ceiling(self.options, &place);
        let manner = Manner { level: self.options.level, recipients, ceiling };
        Ok(Bundle::begin_at(place, manner)?)
    }

    /// A mounted system is another host: what our kernel says of itself is not about it.
    fn name_host(&self, header: &mut bundle::Header) {
        let name = self.root.read("/etc/hostname", 256);
        let name = name.map(|part| String::from_utf8_lossy(&part.content).trim().to_owned());
        header.host = name.unwrap_or_default();
        header.boot_id = String::new();
        header.kernel = String::new();
        header.scope.push("files of a mounted system; nothing of the host itself (--root)".into());
    }

    /// Everything between the bundle's creation and its last members.
    fn fill(
        &mut self,
        bundle: &mut Bundle,
        order: &Order,
        header: &bundle::Header,
    ) -> anyhow::Result<Report> {
        bundle.begin("collector");
        bundle.add_json(member::HEADER, header)?;
        bundle.checkpoint()?;
        let (facts, cores) = self.write_cores(bundle)?;
        let remains = self.remains(&facts);
        let board: Arc<Board> = Arc::default();
        let context = Arc::new(evidence::Context {
            target: order.target.clone(),
            modules: self.options.modules,
            wishes: self.wishes(),
            files: self.root.clone(),
            board: Arc::clone(&board),
            remains: Some(remains),
            ..evidence::Context::default()
        });
        self.ask(&DeadModules, &context, bundle)?;
        for source in profile::named(order.target.profile).sources {
            if source.name() != DeadModules.name() && !sys::interrupted() {
                self.ask(*source, &context, bundle)?;
            }
        }
        let mut report = self.report(order, self.wanted.command_line(&facts), cores);
        report.kernel = match self.options.post_mortem.root {
            Some(_) => kernel::in_logs(&self.root, &self.wanted.names),
            None => kernel::noted(&board.facts(), &self.wanted.names),
        };
        if report.cores.is_empty() {
            let absent = absence::Absent {
                wanted: &self.wanted,
                settings: &report.settings,
                looked: &report.looked,
                refused: self.choice.cores.len(),
            };
            report.no_core = absence::reasons(&absent, &self.root);
            let what = format!("{}{}", report::NO_CORE, order.target.program);
            bundle.gap(what, report.no_core.join("; "));
        }
        bundle.begin("collector");
        bundle.add_json(member::POST_MORTEM, &report)?;
        Ok(report)
    }

    /// Logs are wanted of the time before the crash, not before now.
    fn wishes(&self) -> evidence::Wishes {
        let mut wishes = self.options.wishes();
        let first = self.choice.cores.iter().find(|core| core.found.is_first);
        if let Some(core) = first {
            let ago = jiff::Timestamp::now().duration_since(core.found.written);
            let ago = std::time::Duration::try_from(ago).unwrap_or_default();
            wishes.since = wishes.since.saturating_add(ago);
        }
        wishes
    }

    fn write_cores(
        &self,
        bundle: &mut Bundle,
    ) -> anyhow::Result<(Vec<CoreFacts>, Vec<CoreReport>)> {
        bundle.begin("cores");
        let (started, begun) = (jiff::Zoned::now().to_string(), Instant::now());
        let mut writer = cores::Writer {
            bundle,
            folder: &self.folder,
            force: self.options.force,
            taken: BTreeSet::new(),
        };
        let (mut facts, mut reports) = (Vec::new(), Vec::new());
        for candidate in &self.choice.cores {
            if sys::interrupted() {
                break;
            }
            if let Some((found, report)) = writer.write(candidate)? {
                let (length, path) = (human(found.length), &report.path);
                self.progress.line(format_args!("core {path}: {length}"));
                facts.push(found);
                reports.push(report);
            }
        }
        let micros = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        let (name, phase, outcome) = ("cores".to_owned(), Phase::AfterThaw, Outcome::Collected);
        bundle.record(SourceRecord { name, phase, started, micros, outcome });
        if let Some(why) = absence::overwritten(&self.settings)
            && self.choice.cores.iter().any(|core| core.found.by_kernel)
        {
            bundle.expected_gap("cores of other processes of this crash, if they left any", why);
        }
        for core in &self.choice.earlier {
            let what = format!("core {}", core.found.path);
            let why = "of another crash than the last one; give it with --core for a bundle of \
                       its own";
            bundle.expected_gap(what, why);
        }
        bundle.checkpoint()?;
        Ok((facts, reports))
    }

    fn remains(&self, facts: &[CoreFacts]) -> Remains {
        let files: BTreeSet<MappedFile> =
            facts.iter().flat_map(|core| core.files.iter().cloned()).collect();
        let nameless: BTreeSet<String> =
            facts.iter().flat_map(|core| core.nameless.iter().cloned()).collect();
        let unit = self.wanted.unit.as_ref();
        Remains {
            command_line: self.wanted.command_line(facts),
            working_directory: unit.and_then(|unit| unit.working_directory().map(str::to_owned)),
            unit: unit.map(|unit| unit.name.clone()),
            unit_files: unit.map(|unit| unit.files.clone()).unwrap_or_default(),
            mounted: self.options.post_mortem.root.is_some(),
            files: files.into_iter().collect(),
            nameless: nameless.into_iter().collect(),
            candidates: self.wanted.candidates.clone(),
        }
    }

    /// Runs a source, unless it needs what is not there.
    fn ask(
        &self,
        source: &'static dyn Source,
        context: &Arc<evidence::Context>,
        bundle: &mut Bundle,
    ) -> anyhow::Result<()> {
        let mounted = self.options.post_mortem.root.is_some();
        let why = match source.needs() {
            _ if self.options.without.iter().any(|name| name == source.name()) => {
                "not wanted (--without)"
            }
            Needs::Process => "the process is gone",
            Needs::Host if mounted => "another system is looked at (--root)",
            Needs::Host | Needs::Files if Instant::now() >= self.until => {
                let why = "not asked: the time for the whole run had passed (--deadline)";
                bundle.gap(source.name(), why);
                why
            }
            Needs::Host | Needs::Files => {
                let before = bundle.content_length();
                let outcome = evidence::run(source, context, bundle, self.until)?;
                let bytes = bundle.content_length().saturating_sub(before);
                self.progress.source(source.name(), bytes, &outcome);
                return Ok(());
            }
        };
        bundle.record(SourceRecord {
            name: source.name().to_owned(),
            phase: source.phase(),
            started: jiff::Zoned::now().to_string(),
            micros: 0,
            outcome: Outcome::Skipped { why: why.into() },
        });
        Ok(())
    }

    fn report(
        &mut self,
        order: &Order,
        command_line: Vec<String>,
        cores: Vec<CoreReport>,
    ) -> Report {
        let earlier = &self.choice.earlier;
        let earlier = earlier.iter().map(|core| CoreReport::of(&core.found, &core.facts)).collect();
        let root = self.options.post_mortem.root.as_ref();
        Report {
            program: order.target.program.clone(),
            unit: self.wanted.unit.as_ref().map(|unit| unit.name.clone()),
            command_line,
            root: root.map(|folder| folder.display().to_string()),
            settings: self.settings.clone(),
            looked: std::mem::take(&mut self.looked),
            cores,
            earlier,
            others: std::mem::take(&mut self.choice.others),
            unreadable: std::mem::take(&mut self.choice.unreadable),
            no_core: Vec::new(),
            kernel: Vec::new(),
            running: if root.is_none() { running(&order.target.program) } else { Vec::new() },
        }
    }
}

/// Processes that run a program of this name; only their names are looked at.
fn running(program: &str) -> Vec<u32> {
    let runs = |pid: &u32| {
        let file = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
        let name = file.file_name().map(|name| name.to_string_lossy().into_owned());
        name.is_some_and(|name| name == program || name == format!("{program} (deleted)"))
    };
    procfs::numbers_in("/proc").into_iter().filter(runs).collect()
}
