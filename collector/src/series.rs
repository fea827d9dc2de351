//! A series of bundles of one group, for growth: each complete by itself, the freezes at equal
//! distances.
//!
//! The group is chosen once, and then followed by its processes: those that were forked or ended
//! meanwhile come and go, but when all that were known have ended the series ends, too, and another
//! run of the same program is not taken for it. Whatever ends the series early, the samples before
//! it stay.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bundle::Series;

use crate::cli::{Earlier, Options};
use crate::group::Wanted;
use crate::header;
use crate::place::Output;
use crate::procfs::{self, Stat};
use crate::progress::Progress;
use crate::run::{self, Collected, Ending, Order, Sample};
use crate::schedule::{self, Schedule};
use crate::summary;
use crate::target::{Process, Target};
use crate::trace::Trace;

/// Makes the samples.
///
/// # Errors
/// There is no group to collect; or a sample could not be made, which is told with how many were.
pub(crate) fn run(options: &Options, trace: &Trace) -> anyhow::Result<Ending> {
    let target = run::choose(options, &options.wanted())?;
    anyhow::ensure!(
        options.earlier == Earlier::Whole || target.profile == "kamailio",
        "--earlier pools: the memory of {} is its C heap; only Kamailio has pools",
        target.program
    );
    let Output::File(output) = header::output(options, &target) else {
        anyhow::bail!("a series has several files: standard output cannot take them");
    };
    let paths = paths(&output, options.samples)?;
    let time = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ");
    let id = format!("{}-{time}-{}", target.program, std::process::id());
    Progress::new(options, None).line(format_args!(
        "{}: {} processes, main {}; {} samples, {} s apart",
        target.program,
        target.processes.len(),
        target.main,
        options.samples,
        options.interval().as_secs_f64()
    ));
    let mut taken = Taken { of: options.samples, ..Taken::default() };
    let mut series = Samples { options, trace, id, schedule: None, preparation: Duration::ZERO };
    let mut target = Some(target);
    let mut last: Option<Target> = None;
    for (number, path) in (1..).zip(paths) {
        if number > 1 && !series.wait() {
            return Ok(taken.end(Ending::Interrupted, "interrupted"));
        }
        let chosen = match (target.take(), &last) {
            (Some(first), _) => Ok(first),
            (None, Some(last)) => match survivor(last) {
                Some(pid) => run::choose(options, &Wanted::Pid(pid)),
                None => return Ok(taken.end(Ending::Incomplete, "the group has ended")),
            },
            (None, None) => break,
        };
        let collected = chosen.and_then(|target| series.sample(number, path, target));
        let collected = collected.with_context(|| taken.failed(number))?;
        if collected.ending == Ending::Interrupted {
            summary::say(&summary::of(&collected));
            return Ok(taken.end(Ending::Interrupted, "interrupted: the group runs again"));
        }
        taken.add(collected.ending, collected.frozen);
        if number == options.samples {
            let verdict = summary::verdict(&collected, taken.ending());
            summary::say(&(summary::of(&collected) + &taken.words() + &verdict));
        } else {
            series.announce(&collected, number);
        }
        last = Some(collected.target);
    }
    Ok(taken.ending())
}

/// The samples that were taken.
#[derive(Clone, Copy, Debug, Default)]
struct Taken {
    of: u32,
    /// Those that were sealed.
    whole: u32,
    /// One of them lacks something.
    incomplete: bool,
    /// When the last one was frozen.
    last: Option<Instant>,
    /// The shortest and the longest time from one freeze to the next.
    apart: Option<(Duration, Duration)>,
}

impl Taken {
    fn add(&mut self, ending: Ending, frozen: Instant) {
        self.whole += 1;
        self.incomplete |= ending != Ending::Complete;
        if let Some(last) = self.last.replace(frozen) {
            let now = frozen.saturating_duration_since(last);
            let (least, most) = self.apart.unwrap_or((now, now));
            self.apart = Some((least.min(now), most.max(now)));
        }
    }

    fn ending(self) -> Ending {
        if self.incomplete || self.whole < self.of { Ending::Incomplete } else { Ending::Complete }
    }

    fn words(self) -> String {
        let apart = self.apart.map_or_else(String::new, |(least, most)| {
            let (least, most) = (summary::milliseconds(least), summary::milliseconds(most));
            format!(", from {least} to {most} apart")
        });
        format!("series: {} of {} samples were taken{apart}\n", self.whole, self.of)
    }

    /// Says why the series ends early.
    fn end(self, ending: Ending, why: &str) -> Ending {
        let Self { of, whole, .. } = self;
        let stay = if whole > 0 { "; they stay" } else { "" };
        summary::say(&format!("{why}: {whole} of {of} samples were taken{stay}\n"));
        ending
    }

    fn failed(self, number: u32) -> String {
        let Self { of, whole, .. } = self;
        match whole {
            0 => format!("sample {number} of {of}"),
            _ => format!("sample {number} of {of} (those before it stay)"),
        }
    }
}

#[derive(Debug)]
struct Samples<'a> {
    options: &'a Options,
    trace: &'a Trace,
    id: String,
    /// Known once the first one was frozen.
    schedule: Option<Schedule>,
    /// How long the last one took until it was ready to freeze the group.
    preparation: Duration,
}

impl Samples<'_> {
    /// Waits until the next one is to be prepared; whether no interrupt came.
    fn wait(&self) -> bool {
        let Some(mut schedule) = self.schedule.clone() else { return true };
        let ahead = self.preparation * 3 / 2 + Duration::from_millis(100);
        let due = schedule.next(Instant::now()).at;
        schedule::wait_until(due.checked_sub(ahead).unwrap_or(due))
    }

    fn sample(&mut self, number: u32, path: PathBuf, target: Target) -> anyhow::Result<Collected> {
        let last = number == self.options.samples;
        let whole = last || self.options.stacks_only;
        let series = Series {
            id: self.id.clone(),
            number,
            of: self.options.samples,
            every_ms: u64::try_from(self.options.interval().as_millis()).unwrap_or(u64::MAX),
            holds: if whole { self.options.holds() } else { self.options.earlier.into() },
        };
        let due = self.schedule.as_mut().map(|schedule| schedule.next(Instant::now()));
        let holds = series.holds;
        let output = Output::File(path);
        let order = Order { target, output, holds, sample: Some(Sample { series, due }) };
        let collected = run::collect(self.options, order, self.trace)?;
        // What is traced from here on belongs to the next one.
        self.trace.clear();
        let interval = self.options.interval();
        self.schedule.get_or_insert_with(|| Schedule::new(interval, collected.frozen));
        self.preparation = collected.preparation;
        Ok(collected)
    }

    /// One calm line, and another one if the next sample will come later than asked.
    fn announce(&self, collected: &Collected, number: u32) {
        let mut text = summary::of_sample(collected, number, self.options.samples);
        let next = self.schedule.clone().map(|mut schedule| schedule.next(Instant::now()));
        let later = match next.map_or(0, |due| due.missed) {
            0 => None,
            1 => Some("1 interval".to_owned()),
            missed => Some(format!("{missed} intervals")),
        };
        if let Some(later) = later {
            text +=
                &format!("  it took longer than the interval: the next one comes {later} later\n");
        }
        summary::say(&text);
    }
}

/// A process of the group that still runs the same program.
fn survivor(last: &Target) -> Option<u32> {
    let main = last.processes.iter().filter(|process| process.pid == last.main);
    let others = last.processes.iter().filter(|process| process.pid != last.main);
    main.chain(others).find(|process| runs(process)).map(|process| process.pid)
}

fn runs(process: &Process) -> bool {
    let pid = process.pid;
    let stat = Stat::read(Path::new(&format!("/proc/{pid}")));
    let before = process.facts.threads.get(&pid).map(|leader| leader.stat.started);
    let same = stat.is_ok_and(|stat| before.is_none_or(|before| before == stat.started));
    let name = |path: &str| path.strip_suffix(" (deleted)").unwrap_or(path).to_owned();
    let program = procfs::memory_thread(pid).and_then(|id| {
        Some(fs::read_link(format!("/proc/{id}/exe")).ok()?.to_string_lossy().into_owned())
    });
    same && program.is_some_and(|program| name(&program) == name(&process.executable))
}

/// The samples' files: `NAME-1.tar.zst` to `NAME-12.tar.zst`, with zeroes before the number so
/// that they sort.
fn paths(output: &Path, samples: u32) -> anyhow::Result<Vec<PathBuf>> {
    let folder = output.is_dir() || output.as_os_str().as_encoded_bytes().ends_with(b"/");
    let file = output.file_name().filter(|file| *file != "-" && !folder);
    let file = file.with_context(|| {
        format!("{} is no name for the files of a series; give one with -o", output.display())
    })?;
    let file = file.to_string_lossy();
    let known = [".tar.zst.age", ".tar.zst", ".tzst", ".zst"];
    let ending = known.into_iter().find(|ending| file.ends_with(ending)).unwrap_or("");
    let name = file.strip_suffix(ending).unwrap_or(&file);
    let digits = samples.to_string().len();
    let path = |number: u32| output.with_file_name(format!("{name}-{number:0digits$}{ending}"));
    let paths: Vec<PathBuf> = (1..=samples).map(path).collect();
    for path in &paths {
        let mut partial = OsString::from(path);
        partial.push(".partial");
        for taken in [path, Path::new(&partial)] {
            anyhow::ensure!(
                taken.symlink_metadata().is_err(),
                "{} exists already",
                taken.display()
            );
        }
    }
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(output: &str, samples: u32) -> Vec<String> {
        let paths = paths(Path::new(output), samples).unwrap();
        paths.iter().map(|path| path.display().to_string()).collect()
    }

    #[test]
    fn the_number_stands_before_the_ending_and_sorts() {
        assert_eq!(
            names("/nowhere/b.tar.zst", 2),
            ["/nowhere/b-1.tar.zst", "/nowhere/b-2.tar.zst"]
        );
        assert_eq!(names("b", 2), ["b-1", "b-2"]);
        assert_eq!(names("a.b.zst", 1), ["a.b-1.zst"]);
        let ten = names("b.tar.zst", 10);
        assert_eq!((ten[0].as_str(), ten[9].as_str()), ("b-01.tar.zst", "b-10.tar.zst"));
        assert!(ten.is_sorted());
    }

    #[test]
    fn a_series_needs_a_name_and_overwrites_nothing() {
        for bad in ["-", "/", "..", "/tmp"] {
            assert!(paths(Path::new(bad), 2).is_err(), "{bad}");
        }
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("b-2.tar.zst.partial"), b"mine").unwrap();
        let error = paths(&folder.path().join("b.tar.zst"), 3).unwrap_err();
        assert!(error.to_string().ends_with("b-2.tar.zst.partial exists already"), "{error}");
    }

    #[test]
    fn fewer_samples_than_asked_for_are_incomplete() {
        let mut taken = Taken { of: 2, ..Taken::default() };
        let first = Instant::now();
        taken.add(Ending::Complete, first);
        assert_eq!(taken.ending(), Ending::Incomplete);
        assert_eq!(taken.failed(2), "sample 2 of 2 (those before it stay)");
        assert_eq!(taken.words(), "series: 1 of 2 samples were taken\n");
        taken.add(Ending::Complete, first + Duration::from_millis(250));
        assert_eq!(taken.ending(), Ending::Complete);
        let words = "series: 2 of 2 samples were taken, from 250.0 ms to 250.0 ms apart\n";
        assert_eq!(taken.words(), words);
    }
}
