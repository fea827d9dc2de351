use super::PAYLOAD;
use crate::addr::{Addr, AddrRange};
use crate::bytes::Blob;
use crate::content::{ContentGroup, DumpError, DumpOptions, Reader, Selected, Shown, Sizes, dump};
use crate::kamailio::{OwnerName, PoolKind};
use crate::memory::{Content as Bytes, Segment, SegmentMap};

/// Fragments of 64 bytes, one behind the other.
fn memory(texts: impl Iterator<Item = Vec<u8>>) -> SegmentMap {
    let mut bytes = Vec::new();
    for mut text in texts {
        text.resize(64, 0);
        bytes.extend(text);
    }
    let range = AddrRange::new(Addr(PAYLOAD), u64::try_from(bytes.len()).unwrap());
    let content = Bytes::Bytes { blob: Blob::from_bytes(bytes), offset: 0 };
    SegmentMap::new(vec![Segment { range, writable: Some(true), content }])
}

fn groups(number: u64, text: impl Fn(u64) -> String, shown: Shown) -> Vec<ContentGroup> {
    let memory = memory((0..number).map(|index| text(index).into_bytes()));
    let mut sizes = Sizes::default();
    for index in 0..number {
        sizes.add(AddrRange::new(Addr(PAYLOAD + index * 64), 64));
    }
    sizes.look(&mut Reader { memory: &memory, resolve: &mut |_| None, shown })
}

#[test]
fn fragments_are_counted_by_what_they_hold() {
    let text = |index| match index % 25 {
        0 => "nothing to see here".to_owned(),
        _ => format!("{index}-4242@192.0.2.1"),
    };
    let group = &groups(1000, text, Shown::Masked)[0];
    assert_eq!(
        group.to_string(),
        "1,000 fragments of 64 bytes: Call-ID (by its form) in 96 %, text in 4 %"
    );
    let [call_id, text] = &group.holds[..] else { panic!("{group:?}") };
    assert_eq!((call_id.kind, call_id.fragments), ("call-id-shape", 960));
    assert_eq!(call_id.example.as_deref(), Some("\"…@…\" (18 bytes)"));
    assert_eq!((text.kind, text.fragments), ("text", 40));
    let shown = &groups(3, |index| format!("{index}-4242@192.0.2.1"), Shown::AsItIs)[0];
    assert_eq!(shown.holds[0].example.as_deref(), Some("\"2-4242@192.0.2.1\""));
    assert_eq!(shown.holds[0].example_at, Addr(PAYLOAD + 128));
}

#[test]
fn of_many_fragments_some_are_looked_at_and_that_is_said() {
    let group = &groups(25_000, |_| "1-4242@192.0.2.1".to_owned(), Shown::Masked)[0];
    assert_eq!((group.fragments, group.looked_at), (25_000, 8334));
    assert_eq!(
        group.to_string(),
        "25,000 fragments of 64 bytes (8,334 looked at): Call-ID (by its form) in all"
    );
    assert_eq!(group.holds[0].example_at, Addr(PAYLOAD + 24_999 * 64), "spread over all");
}

#[test]
fn one_odd_fragment_is_not_rounded_away() {
    let text = |index| if index == 0 { String::new() } else { "1-4242@192.0.2.1".to_owned() };
    let group = &groups(2000, text, Shown::Masked)[0];
    assert_eq!(
        group.to_string(),
        "2,000 fragments of 64 bytes: Call-ID (by its form) in 99 %, zeroes in 1 %"
    );
}

#[test]
fn what_the_input_lacks_is_said() {
    let memory = memory(std::iter::once(b"some text".to_vec()));
    let mut sizes = Sizes::default();
    sizes.add(AddrRange::new(Addr(PAYLOAD + 32), 64));
    let reader = &mut Reader { memory: &memory, resolve: &mut |_| None, shown: Shown::Masked };
    assert_eq!(sizes.look(reader)[0].holds[0].what, "not known: not mapped");
}

#[test]
fn a_dump_writes_what_is_known_and_counts_what_it_leaves_out() {
    let memory = memory((0..4).map(|index| format!("payload number {index}").into_bytes()));
    let owner = OwnerName { module: Some("../../htable".to_owned()), ..OwnerName::default() };
    let selected = |start: u64, length: u64| Selected {
        pool: PoolKind::Shm,
        pid: None,
        owner: &owner,
        payload: AddrRange::new(Addr(start), length),
        memory: &memory,
    };
    let all = || {
        // Too long for the limit, then two that fit, then one that the input does not hold.
        [(PAYLOAD, 256), (PAYLOAD, 64), (PAYLOAD + 64, 64), (PAYLOAD + 224, 64)]
            .into_iter()
            .map(|(start, length)| selected(start, length))
    };
    let scratch = tempfile::tempdir().unwrap();
    let directory = scratch.path().join("payloads");
    let mut options = DumpOptions { directory: directory.clone(), force: false, max_bytes: 200 };
    let report = dump(all(), &options).unwrap();
    assert_eq!((report.files, report.bytes), (2, 128));
    assert_eq!((report.over_limit, report.over_limit_bytes, report.not_known), (1, 256, 1));
    let mut names: Vec<_> =
        std::fs::read_dir(&directory).unwrap().map(|file| file.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["index.json", "shm-0x7f0000001000.bin", "shm-0x7f0000001040.bin"]);
    let second = std::fs::read(directory.join("shm-0x7f0000001040.bin")).unwrap();
    assert_eq!(second.len(), 64);
    assert!(second.starts_with(b"payload number 1\0"));

    let again = dump(all(), &options);
    assert!(matches!(again, Err(DumpError::NotEmpty(_))), "{again:?}");
    options.force = true;
    assert_eq!(dump(all(), &options).unwrap().files, 2);
    options.directory = scratch.path().join("no/such/parent");
    let orphan = dump(all(), &options);
    assert!(matches!(orphan, Err(DumpError::Directory { .. })), "{orphan:?}");
}
