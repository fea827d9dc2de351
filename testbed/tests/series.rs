//! Series of bundles of a real group: under SIP load, and at rest with pools only in the earlier
//! samples, which must say to the byte what the instance says.
#![expect(clippy::expect_used, reason = "a test stops at the first surprise")]

use std::path::{Path, PathBuf};

use bundle::notes::{Content, Range, Ranges};
use bundle::{Holds, SeriesRecord};
use serde::Deserialize;
use testbed::kamailio::{Instance, Manager, Options};
use testbed::load::{Kind, Traffic};
use testbed::tools::{self, Finished, run};
use testbed::unpacked::Unpacked;
use testbed::{oracle, proc};

/// `forensics leaks --json`, of which only the confidence matters here.
#[derive(Debug, Deserialize)]
struct Leaks {
    confidence: Confidence,
}

#[derive(Debug, Deserialize)]
struct Confidence {
    level: String,
    missing: Vec<String>,
}

/// `NAME-1.tar.zst` and so on, for a series of less than ten.
fn samples(folder: &Path, count: u32) -> Vec<PathBuf> {
    (1..=count).map(|number| folder.join(format!("s-{number}.tar.zst"))).collect()
}

#[track_caller]
fn series(instance: &Instance, folder: &Path, arguments: &[&str]) -> Finished {
    let mut command = tools::collect_evidence();
    command.args(["--pid", &instance.main_pid().to_string()]).args(arguments);
    run(command.arg("-o").arg(folder.join("s.tar.zst")), tools::PATIENCE).expect(&[0])
}

#[track_caller]
fn verify(sample: &Path) {
    run(tools::forensics().arg("verify").arg(sample), tools::PATIENCE).expect(&[0]);
}

#[track_caller]
fn confidence(sample: &Path) -> Confidence {
    let mut command = tools::forensics();
    let finished = run(command.args(["leaks", "--json"]).arg(sample), tools::PATIENCE);
    finished.expect(&[0]).json::<Leaks>().confidence
}

#[test]
fn three_samples_under_load_each_readable_by_itself() {
    let instance = Instance::start(Options::default());
    let scratch = tools::scratch("series-load");
    let mut traffic = Traffic::start(&instance, Kind::Keep, 100);
    let finished = series(&instance, &scratch, &["--samples", "3", "--every", "2s"]);
    traffic.assert_running();
    drop(traffic);
    assert_eq!(finished.text().matches("safe to restart now").count(), 1, "{finished:?}");

    let samples = samples(&scratch, 3);
    let single = scratch.join("single.tar.zst");
    tools::collect(instance.main_pid(), &single);
    let opened = |path: &Path| {
        run(tools::forensics().arg(path), tools::PATIENCE).expect(&[0, 1]).status.code()
    };
    let alone = opened(&single);
    let mut records: Vec<SeriesRecord> = Vec::new();
    let mut used = Vec::new();
    for (number, sample) in (1..).zip(&samples) {
        verify(sample);
        assert_eq!(opened(sample), alone, "sample {number} and a bundle by itself");
        let manifest = Unpacked::open(sample).manifest();
        assert_eq!(manifest.processes.len(), instance.pids().len());
        let record = manifest.series.expect("its place in the series");
        assert_eq!((record.sample.number, record.sample.of), (number, 3));
        assert_eq!(record.sample.holds, Holds::Whole);
        records.push(record);
        used.push(oracle::heap(&[sample]).shared().walked().used_bytes);
    }
    assert!(used.is_sorted() && used.first() < used.last(), "the table grew: {used:?}");
    let time = |record: &SeriesRecord| record.frozen_monotonic_ns.expect("it was frozen");
    let first = records.first().map(time).expect("three");
    let mut intervals = 0;
    for record in records.iter().skip(1) {
        intervals += 1 + record.missed_intervals;
        let distance = time(record) - first;
        println!("{intervals} intervals of 2 s: {distance} ns");
        assert!(distance >= intervals * 2_000_000_000, "{distance} ns, {intervals} intervals");
    }
}

/// A series of two of an instance at rest, the first one with pools only.
#[track_caller]
fn check_pools(manager: Manager, name: &str) {
    let instance = Instance::start(Options { manager, ..Options::default() });
    oracle::exercise(&instance, 5000);
    let scratch = tools::scratch(&format!("series-{name}"));
    let samples = samples(&scratch, 2);
    let oracle = oracle::between_readings(&instance, &samples, || {
        let arguments = ["--samples", "2", "--every", "1s", "--earlier", "pools"];
        series(&instance, &scratch, &arguments);
    });
    for sample in &samples {
        verify(sample);
        let heap = oracle::heap(&[sample]);
        match manager {
            Manager::Qm => oracle.assert_group(&heap),
            Manager::Fm | Manager::Tlsf => {
                oracle.assert_shared(heap.shared());
                oracle.assert_private_walks(&heap);
            }
        }
        for (place, pool) in heap.pools.iter().enumerate() {
            oracle::by_owner(pool);
            assert!(!pool.owners.is_empty(), "owners of pool {place}");
        }
    }

    let [earlier, last] = samples.as_slice() else { panic!("two samples") };
    assert!(confidence(last).missing.is_empty());
    let low = confidence(earlier);
    assert_eq!(low.level, "low");
    for pid in instance.pids() {
        let said = low.missing.iter().any(|missing| missing.contains(&pid.to_string()));
        assert!(said, "what process {pid} lacks is said: {:?}", low.missing);
    }
    let length = |path: &Path| path.metadata().expect("it is there").len();
    let (small, whole) = (length(earlier), length(last));
    assert!(small * 2 < whole, "{name}: {small} and {whole} bytes");

    let unpacked = Unpacked::open(earlier);
    assert_eq!(unpacked.manifest().series.map(|series| series.sample.holds), Some(Holds::Pools));
    for pid in instance.pids() {
        let ranges = unpacked.ranges(*pid);
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).expect("its maps");
        for name in ["[heap]", "[stack]"] {
            let line = maps.lines().find(|line| line.ends_with(name)).expect("it has one");
            let (range, _) = line.split_once(' ').expect("a line of maps");
            let (start, end) = range.split_once('-').expect("a range");
            let hex = |text: &str| u64::from_str_radix(text, 16).expect("an address");
            assert_left_out(&ranges, hex(start), hex(end), name);
        }
    }
}

/// Between `start` and `end` nothing is said to be data, and something is said to be left out.
#[track_caller]
fn assert_left_out(ranges: &Ranges, start: u64, end: u64, name: &str) {
    let inside = |range: &&Range| range.start < end && range.start + range.length > start;
    let ranges: Vec<&Range> = ranges.0.iter().filter(inside).collect();
    let data = ranges.iter().any(|range| range.content == Content::Data);
    let left_out = ranges.iter().any(|range| {
        matches!(&range.content, Content::NotSaved { why, writable: true } if why.contains("no pool"))
    });
    assert!(left_out && !data, "{name} at {start:#x}: {ranges:?}");
}

#[test]
fn pools_only_says_what_kamailio_says_with_q_malloc() {
    check_pools(Manager::Qm, "qm");
}

#[test]
fn pools_only_says_what_kamailio_says_with_f_malloc() {
    check_pools(Manager::Fm, "fm");
}

#[test]
fn pools_only_says_what_kamailio_says_with_tlsf() {
    check_pools(Manager::Tlsf, "tlsf");
}

#[test]
fn an_instance_that_ends_in_between_ends_the_series() {
    use std::io::{BufRead, BufReader};
    use std::process::Stdio;

    let instance = Instance::start(Options::default());
    let scratch = tools::scratch("series-end");
    let mut command = tools::collect_evidence();
    command.args(["--pid", &instance.main_pid().to_string(), "--samples", "3", "--every", "3s"]);
    command.arg("-q").arg("-o").arg(scratch.join("s.tar.zst")).stdout(Stdio::piped());
    let mut child = command.spawn().expect("the collector starts");
    let mut lines = BufReader::new(child.stdout.take().expect("its stdout")).lines();
    let mut next = || lines.next().and_then(Result::ok).unwrap_or_default();
    assert!(next().starts_with("sample 1 of 3: "));
    let pids = instance.pids().to_vec();
    drop(instance);
    assert!(!pids.iter().any(|pid| proc::is_alive(*pid)));
    assert_eq!(next(), "the group has ended: 1 of 3 samples were taken; they stay");
    let status = tools::wait(&mut child, tools::PATIENCE).expect("it ends");
    assert_eq!(status.code(), Some(1));
    verify(&scratch.join("s-1.tar.zst"));
    assert!(!scratch.join("s-2.tar.zst").exists());
}
