//! A process's address space put together from pieces, each with the place its bytes come from.

use std::collections::BTreeMap;

use super::{Absent, Known, Memory, Why};
use crate::addr::{Addr, AddrRange};
use crate::bytes::{Blob, BlobError, Chunk};
use crate::num::{narrow, wide};

static ZEROES: [u8; 64 * 1024] = [0; 64 * 1024];

/// Where the bytes of a segment come from.
#[derive(Clone, Debug)]
pub enum Content {
    /// From `offset` of a file: a core, a shared member, a module. A file that ends early makes
    /// the rest [`Why::Truncated`].
    Bytes {
        /// The file.
        blob: Blob,
        /// Offset of the segment's first byte in it.
        offset: u64,
    },
    /// Pages that never existed in anonymous memory.
    Zero,
    /// Not known.
    Absent(Why),
}

/// One piece of the address space.
#[derive(Clone, Debug)]
pub struct Segment {
    /// Its addresses.
    pub range: AddrRange,
    /// Whether the process could write there; `None` where the snapshot does not say.
    pub writable: Option<bool>,
    /// Its bytes.
    pub content: Content,
}

/// All pieces of a process, by rising address, none overlapping.
#[derive(Clone, Debug, Default)]
pub struct SegmentMap {
    segments: Vec<Segment>,
    outside: Option<Why>,
}

/// How many bytes of a process are known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Bytes that can be read.
    pub known: u64,
    /// Bytes of pages that never existed (part of `known`).
    pub zero: u64,
    /// Bytes that cannot, by reason.
    pub absent: BTreeMap<String, u64>,
}

impl SegmentMap {
    /// Sorts the pieces; where two overlap (a damaged or hostile core) the one that starts first
    /// keeps its bytes.
    pub fn new(mut segments: Vec<Segment>) -> Self {
        segments.sort_by_key(|segment| segment.range.start);
        let mut end = Addr::NULL;
        segments.retain_mut(|segment| {
            if segment.range.start < end {
                let skipped = end.0.saturating_sub(segment.range.start.0);
                if let Content::Bytes { offset, .. } = &mut segment.content {
                    *offset = offset.saturating_add(skipped);
                }
                segment.range.start = end;
            }
            let keep = segment.range.start < segment.range.end;
            if keep {
                end = segment.range.end;
            }
            keep
        });
        Self { segments, outside: None }
    }

    /// The same, where it is not known that nothing was mapped outside the pieces.
    pub fn with_outside(self, why: Option<Why>) -> Self {
        Self { outside: why, ..self }
    }

    /// The pieces, by rising address.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The piece that holds `at`.
    pub fn find(&self, at: Addr) -> Option<&Segment> {
        let index = self.segments.partition_point(|segment| segment.range.end <= at);
        self.segments.get(index).filter(|segment| segment.range.contains(at))
    }

    /// The end of what is mapped without a gap from `at` on; `at` itself if nothing is.
    pub fn mapped_from(&self, at: Addr) -> Addr {
        let index = self.segments.partition_point(|segment| segment.range.end <= at);
        let mut end = at;
        for segment in self.segments.iter().skip(index) {
            if segment.range.start > end {
                break;
            }
            end = segment.range.end;
        }
        end
    }

    /// Counts known and unknown bytes. A piece of a file that ends early counts as cut.
    pub fn coverage(&self) -> Coverage {
        let mut coverage = Coverage::default();
        for segment in &self.segments {
            let length = segment.range.length();
            let (known, absent) = match &segment.content {
                Content::Bytes { blob, offset } => {
                    let held = blob.length().saturating_sub(*offset).min(length);
                    (held, Some(&Why::Truncated))
                }
                Content::Zero => {
                    coverage.zero = coverage.zero.saturating_add(length);
                    (length, None)
                }
                Content::Absent(why) => (0, Some(why)),
            };
            coverage.known = coverage.known.saturating_add(known);
            if let Some(why) = absent
                && known < length
            {
                let sum = coverage.absent.entry(why.to_string()).or_default();
                *sum = sum.saturating_add(length.saturating_sub(known));
            }
        }
        coverage
    }
}

impl Memory for SegmentMap {
    fn next_saved(&self, at: Addr) -> Option<Addr> {
        let index = self.segments.partition_point(|segment| segment.range.end <= at);
        self.segments.iter().skip(index).find_map(|segment| {
            let Content::Bytes { blob, offset } = &segment.content else { return None };
            let held = AddrRange::new(segment.range.start, blob.length().saturating_sub(*offset));
            let start = segment.range.start.max(at);
            held.contains(start).then_some(start)
        })
    }

    fn peek(&self, at: Addr, want: usize) -> Known<Chunk<'_>> {
        let absent = |why| Absent { at, why };
        let outside = || absent(self.outside.clone().unwrap_or(Why::Unmapped));
        let segment = self.find(at).ok_or_else(outside)?;
        let inside = at.0.saturating_sub(segment.range.start.0);
        let left = segment.range.end.0.saturating_sub(at.0);
        let want = want.min(narrow(left));
        match &segment.content {
            Content::Bytes { blob, offset } => {
                blob.peek(offset.saturating_add(inside), want).map_err(|error| match error {
                    BlobError::End => absent(Why::Truncated),
                    BlobError::Damaged(why) => absent(Why::Damaged(why)),
                })
            }
            Content::Zero => {
                let length = wide(want).min(wide(ZEROES.len()));
                Ok(Chunk::Borrowed(ZEROES.get(..narrow(length)).unwrap_or_default()))
            }
            Content::Absent(why) => Err(absent(why.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(start: u64, length: u64, content: Content) -> Segment {
        Segment { range: AddrRange::new(Addr(start), length), writable: None, content }
    }

    fn map() -> SegmentMap {
        let blob = Blob::from_bytes((0..=255_u8).collect());
        SegmentMap::new(vec![
            piece(0x2000, 0x100, Content::Bytes { blob: blob.clone(), offset: 0 }),
            piece(0x2100, 0x10, Content::Zero),
            piece(0x2110, 0x10, Content::Absent(Why::NotSaved("a device".into()))),
            piece(0x3000, 0x20, Content::Bytes { blob, offset: 0xf0 }),
        ])
    }

    #[test]
    fn a_read_joins_pieces_and_stops_at_the_first_unknown_byte() {
        let map = map();
        assert_eq!(map.bytes(Addr(0x20ff), 3).unwrap().to_vec(), [255, 0, 0]);
        let error = map.bytes(Addr(0x2108), 16).unwrap_err();
        assert_eq!(error, Absent { at: Addr(0x2110), why: Why::NotSaved("a device".into()) });
        assert_eq!(error.to_string(), "0x2110 is not in the core: a device");
        assert_eq!(map.peek(Addr(0x1fff), 1).unwrap_err().why, Why::Unmapped);
    }

    #[test]
    fn a_file_that_ends_early_is_cut_not_zero() {
        let map = map();
        assert_eq!(map.bytes(Addr(0x3000), 16).unwrap()[15], 255);
        let error = map.bytes(Addr(0x3000), 17).unwrap_err();
        assert_eq!(error, Absent { at: Addr(0x3010), why: Why::Truncated });
    }

    #[test]
    fn what_is_outside_need_not_be_unmapped() {
        let why = Why::NotSaved("no segment".into());
        let map = map().with_outside(Some(why.clone()));
        assert_eq!(map.peek(Addr(0x1fff), 1).unwrap_err().why, why);
    }

    #[test]
    fn a_search_jumps_to_the_next_saved_byte() {
        let map = map();
        let next = |at| map.next_saved(Addr(at)).map(|at| at.0);
        assert_eq!(next(0), Some(0x2000));
        assert_eq!(next(0x20ff), Some(0x20ff));
        assert_eq!(next(0x2100), Some(0x3000));
        assert_eq!(next(0x300f), Some(0x300f));
        assert_eq!(next(0x3010), None, "the file ends early");
    }

    #[test]
    fn mapped_pieces_reach_to_the_next_gap() {
        let end = |at| map().mapped_from(Addr(at)).0;
        assert_eq!([end(0x1fff), end(0x2000), end(0x2115)], [0x1fff, 0x2120, 0x2120]);
        assert_eq!([end(0x2120), end(0x3010)], [0x2120, 0x3020]);
    }

    #[test]
    fn coverage_counts_every_byte_once() {
        let coverage = map().coverage();
        assert_eq!(coverage.known, 0x100 + 0x10 + 0x10);
        assert_eq!(coverage.zero, 0x10);
        let absent: Vec<_> = coverage.absent.into_iter().collect();
        assert_eq!(
            absent,
            [
                ("not in the core: a device".to_owned(), 0x10),
                ("not in the core: file cut short".to_owned(), 0x10)
            ]
        );
    }

    #[test]
    fn overlapping_pieces_are_cut_apart() {
        let blob = Blob::from_bytes(vec![1; 0x100]);
        let map = SegmentMap::new(vec![
            piece(0x1000, 0x80, Content::Zero),
            piece(0x1040, 0x80, Content::Bytes { blob, offset: 0 }),
        ]);
        assert_eq!(map.bytes(Addr(0x107f), 2).unwrap().to_vec(), [0, 1]);
        assert_eq!(map.segments()[1].range.start, Addr(0x1080));
    }

    #[test]
    fn text_ends_at_its_zero_byte() {
        let blob = Blob::from_bytes(b"core\0tm".to_vec());
        let map = SegmentMap::new(vec![piece(0x10, 7, Content::Bytes { blob, offset: 0 })]);
        assert_eq!(map.text(Addr(0x10), 100).unwrap(), "core");
        assert_eq!(map.text(Addr(0x15), 100).unwrap_err().at, Addr(0x17));
    }

    #[test]
    fn a_cursor_reads_across_pieces() {
        let map = map();
        let mut cursor = super::super::Cursor::new(&map);
        assert_eq!(cursor.bytes(Addr(0x2000), 2).unwrap(), [0, 1]);
        assert_eq!(cursor.bytes(Addr(0x20fe), 4).unwrap(), [254, 255, 0, 0]);
        assert_eq!(cursor.bytes(Addr(0x2010), 1).unwrap(), [16]);
        assert!(cursor.bytes(Addr(0x210f), 2).is_err());
    }
}
