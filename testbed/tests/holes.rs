//! A large pool that is mostly untouched: a collection must not create its pages, and stores the
//! existing ones once.

use std::ops::Range;

use bundle::notes::Content;
use testbed::kamailio::{Instance, Options};
use testbed::load::{self, Kind};
use testbed::unpacked::Unpacked;
use testbed::{proc, tools};

const MIB: u64 = 1 << 20;

/// Ranges that touch become one.
fn merge(ranges: impl IntoIterator<Item = Range<u64>>) -> Vec<Range<u64>> {
    let mut merged: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => merged.push(range),
        }
    }
    merged
}

#[test]
fn a_gibibyte_with_twenty_mebibytes_in_use() {
    let instance = Instance::start(Options { shared_mib: 1024, ..Options::default() });
    load::send(&instance, Kind::Big, 18_000, 2500);
    let used = instance.rpc().shared_memory().real_used;
    assert!((20 * MIB..60 * MIB).contains(&used), "the load took {} MiB", used / MIB);
    let pool = proc::shared_pool(instance.main_pid());
    assert!(pool.range.end - pool.range.start >= 1024 * MIB);

    let before = merge(proc::seek_data(instance.main_pid(), &pool));
    let existing: u64 = before.iter().map(|range| range.end - range.start).sum();
    assert!((used..used + 60 * MIB).contains(&existing), "{} MiB exist", existing / MIB);
    let bundle = instance.directory().join("group.tar.zst");
    tools::collect(instance.main_pid(), &bundle);
    let after = merge(proc::seek_data(instance.main_pid(), &pool));
    assert_eq!(before, after, "the collection created or removed pages of the pool");

    // One member holds these pages and no other.
    let unpacked = Unpacked::open(&bundle);
    let manifest = unpacked.manifest();
    let member = bundle::member::shared(&pool.device, pool.inode);
    let records: Vec<_> = manifest.shared.iter().filter(|record| record.member == member).collect();
    let [record] = records[..] else { panic!("{member} stands {} times", records.len()) };
    assert_eq!(record.mapped_bytes, pool.range.end - pool.range.start);
    assert_eq!(record.saved_bytes, existing, "bytes saved and bytes that exist");
    let stored = std::fs::metadata(unpacked.path(&member)).unwrap().len();
    assert_eq!(stored, existing, "length of the member");
    let listed = manifest.members.iter().filter(|entry| entry.path == member).count();
    assert_eq!(listed, 1, "the pool is stored once");

    // Every process refers to it, for exactly these pages; what never existed is zero.
    for &pid in instance.pids() {
        let ranges = unpacked.ranges(pid).0;
        let inside = ranges.iter().filter(|range| pool.range.contains(&range.start));
        let (mut shared, mut all) = (Vec::new(), Vec::new());
        for range in inside {
            let addresses = range.start..range.start + range.length;
            all.push(addresses.clone());
            match &range.content {
                Content::Zero => {}
                Content::Shared { member: named, .. } => {
                    assert_eq!(**named, *member);
                    shared.push(addresses);
                }
                other => panic!("process {pid}, {addresses:x?}: {other:?}"),
            }
        }
        assert_eq!(merge(shared), before, "process {pid}: pages of the pool");
        assert_eq!(
            merge(all),
            std::slice::from_ref(&pool.range),
            "process {pid}: the whole pool is accounted"
        );
    }
    let written = std::fs::metadata(&bundle).unwrap().len();
    assert!(written < 40 * MIB, "the bundle has {} MiB", written / MIB);
}
