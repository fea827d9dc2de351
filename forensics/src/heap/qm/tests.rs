//! Pools written byte by byte: whole, damaged, cut. The numbers are those of the facts, not the
//! walker's constants.

use super::*;
use crate::addr::AddrRange;
use crate::bytes::Blob;
use crate::heap::Allocator as _;
use crate::heap::{Break, BreakCause, Damage};
use crate::layout::LayoutSource;
use crate::leak::{SummaryOptions, summarise};
use crate::memory::{Content, Segment, SegmentMap};

const BASE: u64 = 0x7f00_0000_0000;

/// A pool under construction: `(payload bytes, used)` for each fragment.
#[derive(Clone, Debug)]
struct Image {
    bytes: Vec<u8>,
    headers: Vec<usize>,
}

impl Image {
    fn new(header: usize, block: usize, fragments: &[(u64, bool)]) -> Self {
        let checks = header > 16;
        let trailer = if checks { 48 } else { 16 };
        let mut image = Self { bytes: vec![0; block], headers: Vec::new() };
        let mut used_bytes = 0;
        for &(size, used) in fragments {
            image.headers.push(image.bytes.len());
            let at = image.bytes.len();
            image.bytes.resize(at + header + usize::try_from(size).unwrap() + trailer, 0xaa);
            image.word(at, size);
            image.word(at + 8, if used { 0 } else { BASE + 64 });
            let end = at + header + usize::try_from(size).unwrap();
            if checks {
                for (field, value) in [(16, 0x5000), (24, 0x5010), (32, 0x5020), (40, 77)] {
                    image.word(at + field, value);
                }
                image.word(at + if header == 128 { 120 } else { 48 }, 0xf0f0_f0f0);
                image.word(end, 0xc0c0_c0c0);
                image.word(end + 8, 0xabcd_efed);
                image.word(end + 32, size);
            } else {
                image.word(end, size);
            }
            if used {
                used_bytes += size;
            }
        }
        let total = u64::try_from(image.bytes.len()).unwrap();
        let all = u64::try_from(fragments.len()).unwrap();
        let overhead = u64::try_from(header + trailer).unwrap();
        let block = u64::try_from(block).unwrap();
        let free = fragments.iter().filter(|(_, used)| !used).count();
        image.word(8, total);
        image.word(16, used_bytes);
        image.word(24, block + used_bytes + all * overhead);
        image.word(40, u64::try_from(free).unwrap());
        image.word(48, BASE + block);
        image.word(56, BASE + total - u64::try_from(trailer).unwrap());
        image
    }

    fn word(&mut self, at: usize, value: u64) {
        self.bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }

    fn address(&self, at: usize) -> Addr {
        Addr(BASE + u64::try_from(at).unwrap())
    }

    fn true_headers(&self, which: &[usize]) -> Vec<Addr> {
        which.iter().map(|&index| self.address(self.headers[index])).collect()
    }

    /// Joins fragments `first` to `last` as the allocator does: the first header and the last
    /// trailer get the sum, everything between stays as it was.
    fn merge(&mut self, first: usize, last: usize) {
        let start = self.headers[first];
        let end = self.headers.get(last + 1).copied().unwrap_or(self.bytes.len());
        let size = u64::try_from(end - start - 56 - 48).unwrap();
        self.word(start, size);
        self.word(end - 48 + 32, size);
    }

    fn memory(&self, saved: usize) -> SegmentMap {
        let blob = Blob::from_bytes(self.bytes[..saved].to_vec());
        let length = u64::try_from(self.bytes.len()).unwrap();
        SegmentMap::new(vec![Segment {
            range: AddrRange::new(Addr(BASE), length),
            writable: Some(true),
            content: Content::Bytes { blob, offset: 0 },
        }])
    }

    fn whole(&self) -> SegmentMap {
        self.memory(self.bytes.len())
    }
}

const FRAGMENTS: &[(u64, bool)] =
    &[(16, true), (48, true), (160, false), (8, true), (32, false), (1024, true)];

fn image_56() -> Image {
    Image::new(56, 235_152, FRAGMENTS)
}

fn steps(memory: &SegmentMap) -> Vec<Step> {
    QMalloc.arena(Addr(BASE), memory, None).unwrap().walk().collect()
}

/// Headers of the fragments that were reported.
fn headers(steps: &[Step]) -> Vec<Addr> {
    let header = |step: &Step| match step {
        Step::Fragment(fragment) => Some(fragment.header),
        Step::Break(_) => None,
    };
    steps.iter().filter_map(header).collect()
}

#[test]
fn every_known_layout_is_inferred_and_summed() {
    for (header, block) in [(56, 235_152), (64, 268_608), (128, 402_880), (16, 100_768)] {
        let memory = Image::new(header, block, FRAGMENTS).whole();
        let arena = QMalloc.arena(Addr(BASE), &memory, None).unwrap();
        let summary = summarise(&*arena, SummaryOptions::default());
        assert!(summary.complete, "{header}");
        assert_eq!((summary.used_fragments, summary.used_bytes), (4, 1096), "{header}");
        assert_eq!((summary.free_fragments, summary.free_bytes), (2, 192), "{header}");
        assert_eq!(summary.largest_free, 160);
        assert_eq!(summary.real_used_bytes, arena.counters().real_used, "{header}");
        assert_eq!(summary.used_bytes, arena.counters().used);
        let LayoutSource::Inferred { layout, agreeing: 6, tried: 4, to_the_end: true } =
            arena.source()
        else {
            panic!("{header}: {:?}", arena.source());
        };
        assert!(layout.starts_with(&format!("{header}-byte")), "{layout}");
    }
}

#[test]
fn an_overwritten_beginning_is_damage_and_the_walk_goes_on() {
    let mut image = image_56();
    let at = image.headers[2];
    image.word(at + 48, 0x4141_4141);
    let steps = steps(&image.whole());
    assert_eq!(steps.len(), 6);
    let Step::Fragment(third) = &steps[2] else { panic!("{:?}", steps[2]) };
    assert_eq!(third.damage, [Damage::StartCheck { found: 0x4141_4141 }]);
}

#[test]
fn an_overwritten_end_is_damage_and_the_walk_goes_on() {
    let mut image = image_56();
    let end = image.headers[1] + 56 + 48;
    image.word(end, 1);
    let steps = steps(&image.whole());
    assert_eq!(steps.len(), 6);
    let Step::Fragment(second) = &steps[1] else { panic!("{:?}", steps[1]) };
    assert_eq!(second.damage, [Damage::EndCheck { found: [1, 0xabcd_efed] }]);
}

#[test]
fn a_wrong_size_breaks_the_chain_and_the_walk_goes_on_behind_it() {
    for (size, cause) in [
        (u64::MAX, BreakCause::BadSize { size: u64::MAX }),
        (0x4000_0000, BreakCause::BadSize { size: 0x4000_0000 }),
        (13, BreakCause::BadSize { size: 13 }),
        (8, BreakCause::NoTrailer { size: 8 }),
        (0, BreakCause::BadSize { size: 0 }),
    ] {
        let mut image = image_56();
        let (at, next) = (image.headers[2], image.headers[3]);
        image.word(at, size);
        let steps = steps(&image.whole());
        assert_eq!(steps.len(), 6, "{size}");
        let Step::Break(found) = &steps[2] else { panic!("{:?}", steps[2]) };
        let expected = Break {
            at: image.address(at),
            why: cause,
            lost: 56 + 160 + 48,
            resumed_at: Some(image.address(next)),
        };
        assert_eq!(*found, expected);
        assert_eq!(headers(&steps), image.true_headers(&[0, 1, 3, 4, 5]));
    }
}

#[test]
fn an_overrun_into_the_next_header_costs_only_that_fragment() {
    let mut image = image_56();
    // 72 bytes of a SIP message written past the end of the second fragment.
    let end = image.headers[1] + 56 + 48;
    let text = b"Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK-524287-1---d8754z;rport\r\nFrom";
    image.bytes[end..end + text.len()].copy_from_slice(text);
    let steps = steps(&image.whole());
    assert_eq!(headers(&steps), image.true_headers(&[0, 1, 3, 4, 5]));
    let Step::Fragment(writer) = &steps[1] else { panic!("{:?}", steps[1]) };
    assert!(matches!(writer.damage[0], Damage::EndCheck { .. }), "{writer:?}");
    let Step::Break(found) = &steps[2] else { panic!("{:?}", steps[2]) };
    assert_eq!(found.at, image.address(image.headers[2]));
    assert_eq!(found.resumed_at, Some(image.address(image.headers[3])));
}

#[test]
fn damage_in_the_first_fragment_does_not_hide_the_pool() {
    let mut image = image_56();
    let at = image.headers[0];
    image.bytes[at..at + 56].fill(0x41);
    let steps = steps(&image.whole());
    assert_eq!(headers(&steps), image.true_headers(&[1, 2, 3, 4, 5]));
}

#[test]
fn old_headers_in_merged_memory_are_never_reported() {
    // Three free fragments merged into one: the inner headers and trailers stay behind.
    let mut image = Image::new(
        56,
        235_152,
        &[(64, true), (96, false), (48, false), (80, false), (32, true), (16, true)],
    );
    image.merge(1, 3);
    let whole = steps(&image.whole());
    assert_eq!(headers(&whole), image.true_headers(&[0, 1, 4, 5]));
    let at = image.headers[1];
    image.bytes[at..at + 56].fill(0x55);
    let damaged = steps(&image.whole());
    assert_eq!(headers(&damaged), image.true_headers(&[0, 4, 5]));
}

#[test]
fn a_pool_that_is_cut_gives_what_is_there() {
    let image = image_56();
    let cut = image.headers[4] + 20;
    let steps = steps(&image.memory(cut));
    assert_eq!(steps.len(), 5);
    let Step::Break(found) = &steps[4] else { panic!("{:?}", steps[4]) };
    let BreakCause::Absent(absent) = &found.why else { panic!("{found:?}") };
    assert_eq!(absent.at, Addr(BASE + u64::try_from(cut).unwrap()));
    assert_eq!(absent.why, crate::memory::Why::Truncated);
}

/// Seen on a real core: the large free fragment at a pool's end begins where small ones were, and
/// their trailers are still in it.
#[test]
fn where_the_end_of_a_fragment_is_cut_off_no_old_one_inside_it_is_believed() {
    let mut image = Image::new(56, 235_152, FRAGMENTS);
    let last = image.headers.len() - 1;
    image.merge(2, last);
    let steps = steps(&image.memory(image.headers[last] + 20));
    assert_eq!(headers(&steps), image.true_headers(&[0, 1]));
    let Some(Step::Break(found)) = steps.last() else { panic!("{steps:?}") };
    assert_eq!((found.at, found.resumed_at), (image.address(image.headers[2]), None));
}

#[test]
fn a_block_is_found_without_any_symbol() {
    let image = image_56();
    let memory = image.whole();
    let place = AddrRange::new(Addr(BASE), u64::try_from(image.bytes.len()).unwrap());
    assert_eq!(QMalloc.scan(&memory, &[place]), [Addr(BASE)]);
}

#[test]
fn other_memory_is_no_arena() {
    let blob = Blob::from_bytes(vec![0x41; 4096]);
    let memory = SegmentMap::new(vec![Segment {
        range: AddrRange::new(Addr(BASE), 4096),
        writable: Some(true),
        content: Content::Bytes { blob, offset: 0 },
    }]);
    assert!(QMalloc.arena(Addr(BASE), &memory, None).is_err());
    assert!(QMalloc.arena(Addr(0), &memory, None).is_err());
}

#[test]
fn a_lost_trailer_and_a_hit_header_behind_merged_memory() {
    let sizes = [40, 360, 368, 256, 256, 8, 8, 8, 64];
    let fragments: Vec<(u64, bool)> =
        sizes.iter().enumerate().map(|(i, size)| (*size, !(2..=4).contains(&i))).collect();
    let mut image = Image::new(56, 235_152, &fragments);
    image.merge(2, 4);
    let end = image.headers[5];
    // All of one header and the check words on both sides of it.
    image.bytes[end - 234..end + 65].fill(0);
    let steps = steps(&image.whole());
    assert_eq!(headers(&steps), image.true_headers(&[0, 1, 2, 6, 7, 8]));
}
