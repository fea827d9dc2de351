//! Series of bundles of small real groups: their numbers and times, and every way in which a series
//! can end early.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use bundle::{Header, Manifest, SeriesRecord, member};
use common::{Victim, assert_untouched, collector, wait_until};
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

/// A series that is being taken.
struct Running {
    child: Child,
    lines: BufReader<ChildStdout>,
    folder: tempfile::TempDir,
}

impl Running {
    fn start(victim: &Victim, arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = collector();
        command.args(["--pid", &victim.pid().to_string()]).args(arguments).arg("-o");
        command.arg(folder.path().join("b.tar.zst"));
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines, folder }
    }

    /// Reads the one line of a sample that others follow.
    fn wait_for(&mut self, sample: &str) {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        assert!(line.starts_with(sample), "{line:?} instead of {sample}");
    }

    fn signal(&self, signal: Signal) {
        signal::kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }

    /// Waits for the end; exit code, the rest of stdout, stderr.
    fn end(mut self) -> (Option<i32>, String, String, tempfile::TempDir) {
        let mut text = String::new();
        std::io::Read::read_to_string(&mut self.lines, &mut text).unwrap();
        let output: Output = self.child.wait_with_output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), text, errors, self.folder)
    }
}

fn files(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// A member of a bundle, by GNU tar.
fn member_of(bundle: &Path, member: &str) -> Vec<u8> {
    let output = Command::new("tar").arg("--zstd").arg("-xOf").arg(bundle).arg(member).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{member} of {}: {output:?}", bundle.display());
    output.stdout
}

fn manifest(folder: &Path, name: &str) -> Manifest {
    serde_json::from_slice(&member_of(&folder.join(name), member::MANIFEST)).unwrap()
}

fn record(folder: &Path, name: &str) -> SeriesRecord {
    manifest(folder, name).series.unwrap()
}

#[test]
fn each_sample_is_a_bundle_and_says_its_place_and_time() {
    let victim = Victim::start(&["group", "2"]);
    let (code, text, errors, folder) =
        Running::start(&victim, &["--samples", "3", "--every", "0.7s"]).end();
    assert_eq!(code, Some(0), "{text}\n{errors}");
    assert_untouched(victim.pid(), 'S');
    assert_eq!(files(folder.path()), ["b-1.tar.zst", "b-2.tar.zst", "b-3.tar.zst"]);
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("sample 1 of 3: "), "{text}");
    assert!(lines[1].starts_with("sample 2 of 3: "), "{text}");
    assert!(lines.iter().any(|line| line.starts_with("bundle: ")), "{text}");
    assert!(text.contains("\nseries: 3 of 3 samples were taken, from "), "{text}");
    assert!(text.ends_with(" ms apart\nsafe to restart now\n"), "{text}");
    assert_eq!(text.matches("safe to restart").count(), 1);

    let records: Vec<SeriesRecord> =
        files(folder.path()).iter().map(|name| record(folder.path(), name)).collect();
    for (number, record) in (1..).zip(&records) {
        assert_eq!((record.sample.number, record.sample.of), (number, 3));
        assert_eq!((record.sample.every_ms, &record.sample.id), (700, &records[0].sample.id));
        let file = folder.path().join(format!("b-{number}.tar.zst"));
        let header: Header = serde_json::from_slice(&member_of(&file, member::HEADER)).unwrap();
        assert_eq!(header.series.as_ref(), Some(&record.sample));
        assert_eq!(manifest(folder.path(), &format!("b-{number}.tar.zst")).processes.len(), 3);
    }
    // Never early; how late, depends on who else computes here.
    let first = records[0].frozen_monotonic_ns.unwrap();
    let mut intervals = 0;
    for record in &records[1..] {
        intervals += 1 + record.missed_intervals;
        let distance = record.frozen_monotonic_ns.unwrap() - first;
        println!("{intervals} intervals of 0.7 s: {distance} ns");
        assert!(distance >= intervals * 700_000_000, "{distance} ns after {intervals} intervals");
    }
}

#[test]
fn one_sample_is_a_bundle_as_without_the_option() {
    let victim = Victim::start(&["threads", "0"]);
    let (code, text, _, folder) = Running::start(&victim, &["--samples", "1"]).end();
    assert_eq!(code, Some(0));
    assert!(text.contains("\nbundle: ") && text.ends_with("\nsafe to restart now\n"), "{text}");
    assert!(!text.contains("sample"), "{text}");
    assert_eq!(files(folder.path()), ["b.tar.zst"]);
    assert_eq!(manifest(folder.path(), "b.tar.zst").series, None);
}

#[test]
fn a_sample_that_takes_longer_than_the_interval_is_noted_and_not_made_up_for() {
    let victim = Victim::start(&["threads", "0"]);
    let arguments = ["--samples", "2", "--every", "0.2s", "--sample-gap", "700"];
    let (code, text, _, folder) = Running::start(&victim, &arguments).end();
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("it took longer than the interval: the next one comes "), "{text}");
    let (one, two) = (record(folder.path(), "b-1.tar.zst"), record(folder.path(), "b-2.tar.zst"));
    assert!(two.missed_intervals >= 2, "{two:?}");
    let distance = two.frozen_monotonic_ns.unwrap() - one.frozen_monotonic_ns.unwrap();
    assert!(distance >= (1 + two.missed_intervals) * 200_000_000, "{distance}: {two:?}");
}

#[test]
fn processes_that_come_and_go_between_samples_are_followed() {
    let victim = Victim::start(&["group", "2"]);
    let mut running = Running::start(&victim, &["--samples", "3", "--every", "2s"]);
    running.wait_for("sample 1 of 3: ");
    let children = || {
        let path = format!("/proc/{0}/task/{0}/children", victim.pid());
        let text = fs::read_to_string(path).unwrap();
        text.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<u32>>()
    };
    let before = children();
    victim.signal(Signal::SIGUSR1);
    wait_until("a third child runs", || children().len() == 3);
    let fresh = children().into_iter().find(|pid| !before.contains(pid)).unwrap();
    running.wait_for("sample 2 of 3: ");
    common::end(before[0]);
    let (code, text, errors, folder) = running.end();
    assert_eq!(code, Some(0), "{text}\n{errors}");
    let pids = |name: &str| -> Vec<u32> {
        let processes = manifest(folder.path(), name).processes;
        processes.iter().map(|process| process.pid).collect()
    };
    assert_eq!(pids("b-1.tar.zst"), [victim.pid(), before[0], before[1]]);
    assert_eq!(pids("b-2.tar.zst"), [victim.pid(), before[0], before[1], fresh]);
    assert_eq!(pids("b-3.tar.zst"), [victim.pid(), before[1], fresh]);
}

#[test]
fn an_interrupt_between_samples_ends_the_series_and_keeps_them() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let victim = Victim::start(&["group", "1"]);
        let mut running = Running::start(&victim, &["--samples", "5", "--every", "1h"]);
        running.wait_for("sample 1 of 5: ");
        running.signal(signal);
        let (code, text, errors, folder) = running.end();
        assert_eq!(code, Some(2), "{text}\n{errors}");
        assert_eq!(text, "interrupted: 1 of 5 samples were taken; they stay\n");
        assert_eq!(files(folder.path()), ["b-1.tar.zst"]);
        assert_eq!(record(folder.path(), "b-1.tar.zst").sample.of, 5);
        assert_untouched(victim.pid(), 'S');
    }
}

#[test]
fn an_interrupt_in_a_sample_keeps_its_part_and_the_ones_before() {
    let victim = Victim::start(&["threads", "0"]);
    let arguments = ["--samples", "3", "--every", "0.1s", "--sample-gap", "1500"];
    let mut running = Running::start(&victim, &arguments);
    running.wait_for("sample 1 of 3: ");
    running.wait_for("  it took longer than the interval");
    let partial = running.folder.path().join("b-2.tar.zst.partial");
    wait_until("the second one is being written", || partial.exists());
    running.signal(Signal::SIGINT);
    let (code, text, errors, folder) = running.end();
    assert_eq!(code, Some(2), "{text}\n{errors}");
    assert!(
        text.contains("interrupted: the group runs again: 1 of 3 samples were taken"),
        "{text}"
    );
    assert_eq!(files(folder.path()), ["b-1.tar.zst", "b-2.tar.zst.partial"]);
    assert_untouched(victim.pid(), 'S');
}

#[test]
fn the_end_of_the_group_ends_the_series() {
    let victim = Victim::start(&["group", "2"]);
    let mut running = Running::start(&victim, &["--samples", "3", "--every", "1s"]);
    running.wait_for("sample 1 of 3: ");
    drop(victim);
    // Another group of the same program is not the same group.
    let _other = Victim::start(&["group", "2"]);
    let (code, text, errors, folder) = running.end();
    assert_eq!(code, Some(1), "{text}\n{errors}");
    assert_eq!(text, "the group has ended: 1 of 3 samples were taken; they stay\n");
    assert_eq!(files(folder.path()), ["b-1.tar.zst"]);
}

#[test]
fn a_sample_that_cannot_be_written_costs_none_before_it() {
    let victim = Victim::start(&["threads", "0"]);
    let mut running = Running::start(&victim, &["--samples", "3", "--every", "1s"]);
    running.wait_for("sample 1 of 3: ");
    fs::write(running.folder.path().join("b-2.tar.zst"), b"mine").unwrap();
    let (code, text, errors, folder) = running.end();
    assert_eq!((code, text.as_str()), (Some(2), ""), "{errors}");
    assert!(errors.contains("sample 2 of 3 (those before it stay)"), "{errors}");
    assert!(errors.contains("b-2.tar.zst exists already"), "{errors}");
    assert_eq!(record(folder.path(), "b-1.tar.zst").sample.number, 1);
    assert_eq!(fs::read(folder.path().join("b-2.tar.zst")).unwrap(), b"mine");
}

#[test]
fn a_full_disk_costs_none_of_the_samples_before() {
    let victim = Victim::start(&["threads", "0"]);
    let (_, _, _, single) = Running::start(&victim, &[]).end();
    let length = fs::metadata(single.path().join("b.tar.zst")).unwrap().len();
    // A file system with room for one and a half, which only the collector sees.
    let folder = tempfile::tempdir().unwrap();
    let script = "mount -t tmpfs -o size=$2 none $1/disk && shift 2 && cd $0 && \"$@\"; code=$?; \
                  cp disk/* kept; exit $code";
    for name in ["disk", "kept"] {
        fs::create_dir(folder.path().join(name)).unwrap();
    }
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script]).arg(folder.path()).arg(folder.path());
    command.arg((length * 3 / 2).to_string()).arg(collector().get_program());
    command.args(collector().get_args()).args(["--pid", &victim.pid().to_string(), "--force"]);
    command.args(["--samples", "3", "--every", "0.5s", "-o", "disk/b.tar.zst"]);
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(errors.contains("sample 2 of 3 (those before it stay)"), "{errors}");
    assert!(errors.contains("No space left on device"), "{errors}");
    let kept: PathBuf = folder.path().join("kept");
    assert_eq!(files(&kept), ["b-1.tar.zst", "b-2.tar.zst.partial"]);
    assert_eq!(record(&kept, "b-1.tar.zst").sample.number, 1);
    assert_untouched(victim.pid(), 'S');
}

#[test]
fn what_makes_no_series_is_refused_before_anything_is_frozen() {
    let victim = Victim::start(&["threads", "0"]);
    let folder = tempfile::tempdir().unwrap();
    let refused = |arguments: &[&str], words: &str| {
        let mut command = collector();
        command.current_dir(folder.path()).args(["--pid", &victim.pid().to_string()]);
        let output = command.args(arguments).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
        assert!(errors.contains(words), "{arguments:?}: {errors}");
        assert_eq!(files(folder.path()), [""; 0]);
    };
    refused(&["--samples", "2"], "--every");
    refused(&["--every", "2s"], "--samples");
    refused(&["--earlier", "pools"], "--samples");
    refused(&["--samples", "2", "--every", "2d"], "2d is no interval");
    let series = ["--samples", "2", "--every", "2s"];
    refused(&[&series[..], &["-o", "-"]].concat(), "standard output cannot take them");
    let pools = [&series[..], &["--earlier", "pools"]].concat();
    refused(&[&pools[..], &["--no-memory"]].concat(), "pools are memory");
    refused(&pools, "only Kamailio has pools");
}
