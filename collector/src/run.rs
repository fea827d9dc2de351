//! The order of a collection.
//!
//! Choose the group; look at it and reserve room; first sample of `/proc`; freeze, registers,
//! memory, thaw; second sample; everything slow; seal. A part that fails leaves a gap and the rest
//! goes on; an interrupt thaws, seals what there is and says so.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bundle::{Holds, Manifest, Outcome, Series};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::bundle_writer::{Bundle, Manner, Sealed};
use crate::capture::Snapshot;
use crate::cli::Options;
use crate::estimate::{self, Estimate};
use crate::evidence::Brief;
use crate::fill::{Filled, Job};
use crate::group::{self, GroupError, Wanted};
use crate::header;
use crate::list;
use crate::number::human;
use crate::part::Part;
use crate::place::{Output, Place};
use crate::post_mortem;
use crate::privilege::Rights;
use crate::profile;
use crate::progress::Progress;
use crate::pseudonyms::Pseudonyms;
use crate::room;
use crate::schedule::Due;
use crate::series;
use crate::summary;
use crate::survey::Choices;
use crate::sys;
use crate::target::Target;
use crate::trace::Trace;
use crate::verdict::Verdict;

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

impl Ending {
    /// The exit code.
    pub fn code(self) -> u8 {
        match self {
            Self::Complete => 0,
            Self::Incomplete => 1,
            Self::Interrupted => 2,
        }
    }

    /// Its name in the JSON lines.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Incomplete => "incomplete",
            Self::Interrupted => "interrupted",
        }
    }
}

/// Collects: one bundle, or a series of them.
///
/// # Errors
/// There is no group to collect, no room, or no place to write to.
pub fn run(options: &Options) -> anyhow::Result<Ending> {
    let trace = Trace::install();
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
    if options.post_mortem.post_mortem {
        return post_mortem::run(options, &trace);
    }
    if options.samples > 1 {
        return series::run(options, &trace);
    }
    let target = choose(options, &options.wanted())?;
    if options.list {
        summary::say(&list::list(options, &target));
        return Ok(Ending::Complete);
    }
    let output = header::output(options, &target);
    let order = Order { target, output, holds: options.holds(), sample: None };
    let output = order.output.clone();
    let collected = collect(options, order, &trace)?;
    let text = summary::of(&collected) + &summary::verdict(&collected, collected.ending);
    Progress::new(options, None).event(&summary::end(&collected, &text));
    summary::tell(options, &output, &text);
    Ok(collected.ending)
}

/// A bundle that is to be made.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) target: Target,
    pub(crate) output: Output,
    /// How much of the memory.
    pub(crate) holds: Holds,
    pub(crate) sample: Option<Sample>,
}

/// Its place in a series.
#[derive(Debug)]
pub(crate) struct Sample {
    pub(crate) series: Series,
    /// When it is to be frozen; the first one as soon as may be.
    pub(crate) due: Option<Due>,
}

impl Order {
    pub(crate) fn series(&self) -> Option<&Series> {
        self.sample.as_ref().map(|sample| &sample.series)
    }

    /// What it is for, if a later sample of its series completes it.
    pub(crate) fn brief(&self) -> Option<Brief> {
        let series = self.series().filter(|series| series.number < series.of)?;
        match self.holds {
            Holds::Whole => None,
            Holds::Pools => Some(Brief::Growth),
            Holds::Stacks => Some(Brief::Profile { first: series.number == 1 }),
        }
    }
}

/// A bundle that was made.
#[derive(Debug)]
pub(crate) struct Collected {
    pub(crate) path: PathBuf,
    /// Why that is not the name that was wanted.
    pub(crate) unnamed: Option<String>,
    /// In bytes.
    pub(crate) length: u64,
    pub(crate) manifest: Manifest,
    pub(crate) snapshot: Snapshot,
    pub(crate) target: Target,
    /// What it leaves out on purpose.
    pub(crate) scope: Vec<String>,
    pub(crate) ending: Ending,
    /// When the group was frozen, or would have been.
    pub(crate) frozen: Instant,
    /// How long it had taken until it could be.
    pub(crate) preparation: Duration,
    /// What stood out.
    pub(crate) verdict: Verdict,
    /// From the choice of the group to the sealed bundle.
    pub(crate) took: Duration,
    /// Where the map of pseudonyms is.
    pub(crate) map: Option<PathBuf>,
    /// Nothing was frozen, and nothing written.
    pub(crate) dry: Option<Dry>,
}

/// What a bundle would have had, in bytes before it is packed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dry {
    /// Texts and files.
    pub(crate) content: u64,
    /// Memory, as far as it can be known beforehand.
    pub(crate) memory: u64,
}

/// Makes one bundle.
///
/// # Errors
/// There is no room, or no place to write to.
pub(crate) fn collect(options: &Options, order: Order, trace: &Trace) -> anyhow::Result<Collected> {
    let begun = Instant::now();
    // Whoever can not be written for is told so before anything is touched.
    let recipients = options.limits.recipients()?;
    let place = Place::open(&order.output, options.force)?;
    let progress = Progress::new(options, order.series());
    let target = &order.target;
    progress.begin(target, &order.output, !recipients.is_empty());
    let rights = Rights::of(target);
    let scope = header::scope(options, order.holds, order.brief());
    let part = Part::find(order.holds, target.main);
    let choices = Choices { rings: options.rings, map_files: rights.map_files, part };
    let with_memory = !options.no_memory && rights.refused < target.processes.len();
    let estimate =
        if with_memory { estimate::estimate(target, choices) } else { Estimate::default() };
    let store = room::reserve(options, &estimate, &place)?;
    let memory = estimate.bytes;
    if with_memory {
        progress.line(format_args!("about {} to copy", human(estimate.bytes)));
    }

    let ceiling = room::ceiling(options, &place);
    let manner = Manner { level: options.level, recipients, ceiling };
    let place = if options.dry_run { Place::Nowhere } else { place };
    let map = if options.pseudonymize { Some(map_beside(options, &place)?) } else { None };
    let mut bundle = Bundle::begin_at(place, manner)?;
    bundle.mask_with(header::masker(target));
    if options.pseudonymize {
        bundle.replace_with(header::pseudonyms(target).context("--pseudonymize")?);
    }
    let job = Job { options, rights: &rights, choices, brief: order.brief(), begun };
    let filled = job.fill(order, estimate, store, &mut bundle, progress);
    let filled = filled.and_then(|filled| {
        bundle.add_last_texts(trace.lines())?;
        Ok(filled)
    });
    let filled = filled.with_context(|| bundle.remains());
    let Filled { snapshot, target, frozen, preparation, verdict } = filled?;

    let map = map.flatten().map(|(file, path)| {
        write_map(&bundle, &file).with_context(|| path.display().to_string())?;
        anyhow::Ok(path)
    });
    let map = map.transpose()?;
    let content = bundle.content_length();
    let interrupted = sys::interrupted();
    if interrupted {
        bundle.gap("everything after the interrupt", "the operator interrupted the collection");
    }
    let what_is_left = bundle.remains_of_seal();
    let sealed = bundle.seal(!interrupted);
    let Sealed { path, length, manifest, unnamed } = sealed.context(what_is_left)?;
    let ending = match (interrupted, is_complete(&manifest, &rights, part)) {
        (true, _) => Ending::Interrupted,
        (false, true) if unnamed.is_none() => Ending::Complete,
        (false, _) => Ending::Incomplete,
    };
    Ok(Collected {
        unnamed,
        path,
        length,
        manifest,
        snapshot,
        target,
        scope,
        ending,
        frozen,
        preparation,
        verdict,
        took: begun.elapsed(),
        map,
        dry: options.dry_run.then_some(Dry { content, memory }),
    })
}

/// The file for the map of pseudonyms, before anything is done; none in a dry run.
fn map_beside(options: &Options, place: &Place) -> anyhow::Result<Option<(File, PathBuf)>> {
    let file = place.beside(".map.json").context("--pseudonymize: the file for the map")?;
    anyhow::ensure!(
        file.is_some() || options.dry_run,
        "--pseudonymize needs -o FILE: the map is written beside the bundle, and never into it"
    );
    Ok(file)
}

fn write_map(bundle: &Bundle, mut file: &File) -> anyhow::Result<()> {
    let map = bundle.pseudonyms().map(Pseudonyms::map).unwrap_or_default();
    file.write_all(&serde_json::to_vec_pretty(&map)?)?;
    file.sync_all()?;
    Ok(())
}

/// The group that is wanted, as it is now.
///
/// # Errors
/// There is none, or more than one.
pub(crate) fn choose(options: &Options, wanted: &Wanted) -> anyhow::Result<Target> {
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
    let table = group::read_table(wanted);
    let instance = match group::select(&table, wanted, &group::own_ancestors()) {
        Ok(instance) => instance,
        Err(GroupError::Ambiguous(instances)) => {
            let list = group::describe(&instances, &table);
            anyhow::bail!("{}:\n{}", GroupError::Ambiguous(instances), list.trim_end());
        }
        Err(error) => return Err(error.into()),
    };
    let mut target = Target::read(&instance, &table);
    if let Some(name) = &options.profile {
        target.profile = profile::named(name).name;
    }
    anyhow::ensure!(!target.processes.is_empty(), "the processes ended meanwhile");
    Ok(target)
}

/// Whether nothing is missing that was wanted and could be had on a host that allows it.
fn is_complete(manifest: &Manifest, rights: &Rights, part: Part) -> bool {
    let sources = manifest
        .sources
        .iter()
        .all(|source| matches!(source.outcome, Outcome::Collected | Outcome::Skipped { .. }));
    let pools = rights.map_files
        || part.is_stacks()
        || manifest.shared.iter().all(|shared| shared.found_by == "SEEK_DATA");
    let gaps = manifest.gaps.iter().all(|gap| gap.expected);
    let stopped = manifest.processes.iter().all(|process| process.unstopped.is_empty());
    sources && pools && gaps && stopped && rights.refused == 0
}
