//! Comparisons put together by hand, as a person sees them.

use crate::addr::Addr;
use crate::case::RunMarks;
use crate::gap::Gap;
use crate::input::{Moment, MomentSource};
use crate::kamailio::{OwnerName, PoolKind};
use crate::leak::{Content, Identity, Who};

use super::SnapshotReport;
use super::compare::{Comparison, Place};

fn who(module: &str, function: &str, line: u64) -> Who {
    let text = |text: &str| Some(text.to_owned());
    let file = text(&format!("{module}.c"));
    let name = OwnerName { module: text(module), file, function: text(function), line: Some(line) };
    Who { name, ..Who::default() }
}

/// Fragments of 64 bytes as (owner, places).
fn content(groups: &[(Who, std::ops::Range<u64>)]) -> Content {
    let mut content = Content::default();
    for (owner, (who, places)) in (0..).zip(groups) {
        content.owners.push(who.clone());
        let fragment = |place| {
            let payload = Addr(place * 0x100);
            Identity { payload, bytes: 64, owner, content: place, ..Identity::default() }
        };
        content.fragments.extend(places.clone().map(fragment));
    }
    content
}

fn moment(text: &str) -> Result<Moment, &'static str> {
    Ok(Moment { at: text.parse().unwrap(), source: MomentSource::Freeze })
}

const SHARED: Place<'_> =
    Place { kind: PoolKind::Shm, pid: None, index: None, role: None, name: "SHM pool" };

const WORKER: Place<'_> = Place {
    kind: PoolKind::Pkg,
    pid: Some(812),
    index: Some(1),
    role: Some("udp receiver"),
    name: "PKG pool of process 812",
};

/// Begins a snapshot of a run whose main process is 811.
fn begin(comparison: &mut Comparison, path: &str, moment: Result<Moment, &'static str>) {
    let snapshot = SnapshotReport {
        inputs: vec![path.to_owned()],
        taken: moment.ok().map(|moment| moment.at.to_string()),
        processes: 2,
        ..SnapshotReport::default()
    };
    let marks = RunMarks { main: Some(811), ..RunMarks::default() };
    comparison.begin(snapshot, moment, &marks);
}

fn leak() -> Who {
    who("htable", "ht_cell_new", 189)
}

fn cache() -> Who {
    who("usrloc", "new_ucontact", 96)
}

fn text(comparison: Comparison) -> String {
    let mut out = Vec::new();
    comparison.finish(false).text(10, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

/// Two snapshots with a leak, a cache, an owner that went, and a worker that took a little more.
fn sample(second: Result<Moment, &'static str>) -> Comparison {
    let mut comparison = Comparison::default();
    begin(&mut comparison, "one.tar.zst", moment("2026-01-02T03:00:00.5Z"));
    comparison.pool(&SHARED, content(&[(leak(), 1..1001), (cache(), 5000..5100)]));
    comparison.pool(&WORKER, content(&[(who("core", "init", 7), 1..2)]));
    begin(&mut comparison, "two.tar.zst", second);
    comparison.pool(&SHARED, content(&[(leak(), 1..1501), (cache(), 5095..6000)]));
    comparison.pool(&WORKER, content(&[(who("core", "append", 9), 1..4)]));
    comparison
}

#[test]
fn growth_is_told_in_a_few_lines() {
    let expected = "\
A          one.tar.zst
           frozen at 2026-01-02T03:00:00.500Z, 2 processes, no version string
B          two.tar.zst
           frozen at 2026-01-02T04:03:20.750Z, 2 processes, no version string
Run        the same (alike: the main process's PID)
Time       1 h 3 min (3,800.250 s) from A to B

Pools, payload in bytes
  pool  PID  used before    after    bytes  fragments  role
  SHM             70,400  153,920  +83,520     +1,305
  PKG   812           64      192     +128         +2  udp receiver

Owners that grew (3)
  By bytes, weighted by what looks lasting: how much of the old is still there unchanged, and how
  much of the new is more than a replacement. A leak keeps all; a cache does not.

  SHM  htable: htable.c: ht_cell_new(189)
       +500 fragments, +31.2 KiB (32,000 bytes): 29.6 KiB (30,314 bytes) per hour
       all 1,000 in A survived, all unchanged; 0 vanished, 500 new

  SHM  usrloc: usrloc.c: new_ucontact(96)
       +805 fragments, +50.3 KiB (51,520 bytes): 47.7 KiB (48,805 bytes) per hour
       5 of the 100 in A survived (5.0 %), all unchanged; 95 vanished, 900 new

  PKG of 1 process  core: core.c: append(9)
       +3 fragments, +192 bytes: 182 bytes per hour
       a new owner: it held nothing in A; 3 new

Owners that shrank (1)
  bytes  fragments  vanished  new  owner
    -64         -1         1    0  PKG of 1 process  core: core.c: init(7) (nothing left)

Unchanged  0 owners

Not known  nothing is missing
";
    let told = text(sample(moment("2026-01-02T04:03:20.75Z")));
    assert_eq!(told, expected, "now it is:\n{told}");
    assert!(told.lines().all(|line| line.chars().count() <= 100));
}

#[test]
fn without_a_time_there_is_no_rate() {
    let told = text(sample(Err("a core does not say when it was written")));
    let why = "Time       no rate: the time of B is not recorded: a core does not say when it was";
    assert!(told.contains(why), "{told}");
    assert!(!told.contains("per hour"), "{told}");
}

#[test]
fn a_pool_of_one_snapshot_is_named_and_left_out() {
    let mut comparison = sample(moment("2026-01-02T04:00:00Z"));
    comparison.pool(
        &Place { index: Some(2), name: "PKG pool of process 813", ..WORKER },
        Content::default(),
    );
    let report = comparison.finish(false);
    assert_eq!(report.pools.len(), 2);
    let why = "not compared: it was not found in every snapshot";
    assert_eq!(report.gaps, [Gap::new("B: PKG pool of process 813", why)]);
}
