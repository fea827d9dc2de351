//! Pools written byte by byte, for tests of all walkers: every manager and layout, with free lists,
//! and with the old headers that merges leave behind. The numbers are those of the facts, not the
//! walkers' constants.

use proptest::prelude::*;

use super::{Arena, Step};
use crate::addr::{Addr, AddrRange};
use crate::bytes::Blob;
use crate::memory::{Content, Segment, SegmentMap};

pub(super) const BASE: u64 = 0x7f00_0000_0000;
/// Where the program's variables are.
const VARIABLES: u64 = 0x5500_0000_0000;

/// A manager and its layout: the length of a fragment's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Qm(u64),
    Fm(u64),
    Tlsf(u64),
}

pub(super) const EVERY: [Kind; 9] = [
    Kind::Qm(56),
    Kind::Qm(64),
    Kind::Qm(128),
    Kind::Qm(16),
    Kind::Fm(72),
    Kind::Fm(80),
    Kind::Fm(48),
    Kind::Tlsf(64),
    Kind::Tlsf(32),
];

/// Consecutive fragments that became one: a used one by itself, or free ones that were merged.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    pub(super) used: bool,
    /// Payloads, in bytes.
    pub(super) sizes: Vec<u64>,
    /// What the payload holds.
    pub(super) fill: u8,
}

/// A fragment as it truly is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Truth {
    pub(super) header: u64,
    pub(super) size: u64,
    pub(super) used: bool,
    /// Where the next one's header stands.
    pub(super) end: u64,
}

impl Truth {
    pub(super) fn place(&self) -> std::ops::Range<usize> {
        index(self.header)..index(self.end)
    }
}

#[derive(Clone)]
pub(super) struct Model {
    kind: Kind,
    pub(super) bytes: Vec<u8>,
    pub(super) truth: Vec<Truth>,
    /// Headers that merges left behind.
    pub(super) stale: usize,
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Model").field("truth", &self.truth).finish_non_exhaustive()
    }
}

impl Kind {
    fn header(self) -> u64 {
        match self {
            Self::Qm(header) | Self::Fm(header) => header,
            // The first word lies in the payload before, two links in the fragment's own.
            Self::Tlsf(header) => header - 24,
        }
    }

    fn trailer(self) -> u64 {
        match self {
            Self::Qm(16) => 16,
            Self::Qm(_) => 48,
            Self::Fm(_) | Self::Tlsf(_) => 0,
        }
    }

    fn block(self) -> u64 {
        match self {
            Self::Qm(56) => 235_152,
            Self::Qm(64) => 268_608,
            Self::Qm(128) => 402_880,
            Self::Qm(_) => 100_768,
            Self::Fm(72) => 33_912,
            Self::Fm(_) => 33_904,
            Self::Tlsf(64) => 8440,
            Self::Tlsf(_) => 8408,
        }
    }

    /// Whether a damaged pool of this kind can be told from its own bytes with certainty.
    pub(super) fn has_checks(self) -> bool {
        !matches!(self, Self::Qm(16) | Self::Tlsf(_))
    }

    pub(super) fn arena<'a>(self, memory: &'a SegmentMap) -> Option<Box<dyn Arena + 'a>> {
        let allocator: &dyn super::Allocator = match self {
            Self::Qm(_) => &super::qm::QMalloc,
            Self::Fm(_) => &super::fm::FMalloc,
            Self::Tlsf(_) => &super::tlsf::Tlsf,
        };
        allocator.arena(Addr(BASE), memory, None).ok()
    }
}

impl Model {
    pub(super) fn new(kind: Kind, pieces: &[Piece]) -> Self {
        let mut model =
            Self { kind, bytes: vec![0; index(kind.block())], truth: Vec::new(), stale: 0 };
        for piece in pieces {
            model.piece(piece);
        }
        match kind {
            Kind::Qm(_) => model.finish_qm(),
            Kind::Fm(_) => model.finish_fm(),
            Kind::Tlsf(_) => model.finish_tlsf(),
        }
        model
    }

    fn word(&mut self, at: u64, value: u64) {
        let at = index(at);
        self.bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }

    fn read(&self, at: u64) -> u64 {
        let at = index(at);
        u64::from_le_bytes(self.bytes[at..at + 8].try_into().unwrap())
    }

    fn length(&self) -> u64 {
        u64::try_from(self.bytes.len()).unwrap()
    }

    fn piece(&mut self, piece: &Piece) {
        let start = self.length();
        for &size in &piece.sizes {
            let at = self.length();
            let whole = self.kind.header() + size + self.kind.trailer();
            self.bytes.resize(index(at + whole), piece.fill);
            self.fragment(at, size, piece.used);
        }
        self.stale += piece.sizes.len() - 1;
        let end = self.length();
        let size = end - start - self.kind.header() - self.kind.trailer();
        if piece.sizes.len() > 1 {
            self.merge(start, end, size);
        }
        self.truth.push(Truth {
            header: self.place(start),
            size,
            used: piece.used,
            end: self.place(end),
        });
    }

    /// TLSF's headers begin a word before their own bytes.
    fn place(&self, at: u64) -> u64 {
        match self.kind {
            Kind::Tlsf(_) => at - 8,
            Kind::Qm(_) | Kind::Fm(_) => at,
        }
    }

    /// Writes a header (and a trailer) as if nothing had been merged.
    fn fragment(&mut self, at: u64, size: u64, used: bool) {
        let owner = [(0, 0x5000_1000), (8, 0x5000_1010), (16, 0x5000_1020), (24, 77)];
        match self.kind {
            Kind::Qm(header) => {
                self.word(at, size);
                self.word(at + 8, if used { 0 } else { BASE + 64 });
                let end = at + header + size;
                if header == 16 {
                    self.word(end, size);
                    return;
                }
                for (field, value) in owner {
                    self.word(at + 16 + field, value);
                }
                self.word(at + if header == 128 { 120 } else { 48 }, 0xf0f0_f0f0);
                self.word(end, 0xc0c0_c0c0);
                self.word(end + 8, 0xabcd_efed);
                self.word(end + 32, size);
            }
            Kind::Fm(header) => {
                self.word(at, size);
                let (links, is_free) = if header == 72 { (8, 24) } else { (16, 8) };
                self.word(at + links, 0);
                self.word(at + links + 8, 0);
                // Set for the true free ones when they enter a list.
                self.word(at + is_free, 0);
                if header != 48 {
                    for (field, value) in owner {
                        self.word(at + 32 + field, value);
                    }
                }
                self.word(at + header - 8, 0xf0f0_f0f0);
            }
            Kind::Tlsf(header) => {
                if header == 64 {
                    for (field, value) in owner {
                        self.word(at + field, value);
                    }
                }
                self.word(at + header - 32, size | u64::from(!used));
            }
        }
    }

    /// The first header, and the last trailer, get the sum; the rest stays behind.
    fn merge(&mut self, start: u64, end: u64, size: u64) {
        match self.kind {
            Kind::Qm(_) => {
                self.word(start, size);
                // The last word but one of a trailer, or the first of a short one.
                self.word(end - 16, size);
            }
            Kind::Fm(_) => self.word(start, size),
            Kind::Tlsf(header) => self.word(start + header - 32, size | 1),
        }
    }

    fn finish_qm(&mut self) {
        let Kind::Qm(header) = self.kind else { unreachable!() };
        let (block, total, trailer) = (self.kind.block(), self.length(), self.kind.trailer());
        let (used, all) = self.counters();
        self.word(8, total);
        self.word(16, used);
        self.word(24, block + used + all * (header + trailer));
        self.word(48, BASE + block);
        self.word(56, BASE + total - trailer);
        let bucket = header + trailer + if header == 56 { 8 } else { 16 };
        let back = if header == 16 { 8 } else { 40 };
        let (count, largest) = if header == 56 { (2099, 14) } else { (2098, 15) };
        let head = |list: u64| 64 + list * bucket;
        for list in 0..count {
            self.word(head(list) + 8, BASE + head(list));
            self.word(head(list) + header + back, BASE + head(list));
        }
        for free in self.free() {
            let head = head(hash(free.size, largest));
            let first = self.read(head + 8);
            let trailer_of = |header_at: u64, size: u64| header_at + header + size + back;
            self.word(free.header + 8, first);
            self.word(trailer_of(free.header, free.size), BASE + head);
            match first == BASE + head {
                true => self.word(head + header + back, BASE + free.header),
                false => {
                    let next = first - BASE;
                    let size = self.read(next);
                    self.word(trailer_of(next, size), BASE + free.header);
                }
            }
            self.word(head + 8, BASE + free.header);
            let no = head + header + trailer;
            self.word(no, self.read(no) + 1);
        }
    }

    fn finish_fm(&mut self) {
        let Kind::Fm(header) = self.kind else { unreachable!() };
        let (block, last) = (self.kind.block(), self.length());
        self.bytes.resize(index(last + header), 0);
        self.word(last + header - 8, 0xc0c0_c0c0);
        let (used, all) = self.counters();
        self.word(8, last + header);
        self.word(16, used);
        self.word(24, block + used + (all + 1) * header);
        let old = header == 72;
        let (first, bitmap, hash_at) = if old { (48, 64, 328) } else { (56, 72, 336) };
        self.word(first, BASE + block);
        self.word(first + 8, BASE + last);
        let (links, is_free) = if old { (8, 24) } else { (16, 8) };
        for free in self.free() {
            let list = hash(free.size, if old { 14 } else { 15 });
            let head = hash_at + list * 16;
            let first = self.read(head);
            self.word(free.header + is_free, 1);
            self.word(free.header + links, first);
            if first != 0 {
                self.word(first - BASE + links + 8, BASE + free.header);
            }
            self.word(head, BASE + free.header);
            self.word(head + 8, self.read(head + 8) + 1);
            let marks = bitmap + list / 64 * 8;
            self.word(marks, self.read(marks) | 1 << (list % 64));
        }
    }

    fn finish_tlsf(&mut self) {
        let Kind::Tlsf(header) = self.kind else { unreachable!() };
        let end = self.length();
        self.bytes.resize(index(end + header - 24), 0);
        let (used, _) = self.counters();
        let free = self.free();
        let in_use = u64::try_from(self.truth.len() - free.len()).unwrap();
        let counters = if header == 64 { 64 } else { 32 };
        let block = self.kind.block();
        // total_size leaves out two headers, less what of a header lies in payload.
        self.word(counters, self.length() - 2 * (header - 24));
        self.word(counters + 8, used);
        self.word(counters + 16, block + used + in_use * (header - 8));
        self.word(counters + 32, u64::try_from(free.len()).unwrap());
        let links = header - 16;
        self.word(links, BASE);
        self.word(links + 8, BASE);
        let heads = if header == 64 { 248 } else { 216 };
        for list in 0..1024 {
            self.word(heads + list * 8, BASE);
        }
        for free in free {
            let log = u64::from(free.size.ilog2());
            let (row, place) = match free.size < 256 {
                true => (0, free.size / 8),
                false => (log - 7, (free.size >> (log - 5)) - 32),
            };
            let head = heads + (row * 32 + place) * 8;
            let first = self.read(head);
            self.word(free.header + links, first);
            self.word(free.header + links + 8, BASE);
            if first != BASE {
                self.word(first - BASE + links + 8, BASE + free.header);
            }
            self.word(head, BASE + free.header);
            let rows = if header == 64 { 112 } else { 80 };
            self.bits(rows, row);
            self.bits(rows + 4 + row * 4, place);
            // The header that follows knows.
            self.word(free.end, BASE + free.header);
            let size = free.end + header - 24;
            self.word(size, self.read(size) | 2);
        }
    }

    fn bits(&mut self, at: u64, bit: u64) {
        let at = index(at + bit / 8);
        self.bytes[at] |= 1 << (bit % 8);
    }

    fn free(&self) -> Vec<Truth> {
        self.truth.iter().copied().filter(|truth| !truth.used).collect()
    }

    /// Sets the count of free fragments; used bytes, and fragments.
    fn counters(&mut self) -> (u64, u64) {
        let used = self.truth.iter().filter(|truth| truth.used).map(|truth| truth.size).sum();
        let free = u64::try_from(self.free().len()).unwrap();
        if !matches!(self.kind, Kind::Tlsf(_)) {
            self.word(40, free);
        }
        (used, u64::try_from(self.truth.len()).unwrap())
    }

    /// Where the fragments are.
    pub(super) fn fragments(&self) -> std::ops::Range<usize> {
        index(self.truth[0].header)..index(self.truth.last().unwrap().end)
    }

    pub(super) fn overwrite(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    pub(super) fn memory(&self) -> SegmentMap {
        SegmentMap::new(vec![segment(BASE, self.bytes.clone())])
    }

    /// Beside a segment of variables that point at the payloads of these fragments.
    pub(super) fn memory_with_pointers(&self, to: impl Iterator<Item = Truth>) -> SegmentMap {
        let header = match self.kind {
            Kind::Tlsf(header) => header - 16,
            Kind::Qm(header) | Kind::Fm(header) => header,
        };
        let bytes = to.flat_map(|truth| (BASE + truth.header + header).to_le_bytes());
        let variables = segment(VARIABLES, bytes.collect());
        SegmentMap::new(vec![variables, segment(BASE, self.bytes.clone())])
    }

    /// The true fragment whose header is at an address.
    pub(super) fn at(&self, header: Addr) -> Option<&Truth> {
        self.truth.iter().find(|truth| Addr(BASE + truth.header) == header)
    }
}

fn segment(at: u64, bytes: Vec<u8>) -> Segment {
    let range = AddrRange::new(Addr(at), u64::try_from(bytes.len()).unwrap());
    let content = Content::Bytes { blob: Blob::from_bytes(bytes), offset: 0 };
    Segment { range, writable: Some(true), content }
}

fn index(at: u64) -> usize {
    usize::try_from(at).unwrap()
}

fn hash(size: u64, largest: u32) -> u64 {
    match size <= 1 << largest {
        true => size / ((1 << largest) / 2048),
        false => 2048 + u64::from(size.ilog2() - largest) + 1,
    }
}

/// Pieces of a pool of one kind, the used ones of memory that was never used before.
pub(super) fn pieces(kind: Kind, most: usize) -> impl Strategy<Value = Vec<Piece>> {
    pieces_used_again(kind, most).prop_map(|mut pieces| {
        for piece in pieces.iter_mut().filter(|piece| piece.used) {
            piece.sizes.truncate(1);
        }
        pieces
    })
}

/// Pieces of a pool of one kind; used ones, too, may be made of memory that was merged before.
pub(super) fn pieces_used_again(kind: Kind, most: usize) -> impl Strategy<Value = Vec<Piece>> {
    let step = if matches!(kind, Kind::Qm(56) | Kind::Fm(72) | Kind::Tlsf(_)) { 8 } else { 16 };
    let sizes = proptest::collection::vec((4_u64..60).prop_map(move |n| n * step), 1..5);
    let fill = prop_oneof![Just(0_u8), Just(0xaa), Just(b'x'), Just(8)];
    let piece = (any::<bool>(), sizes, fill);
    proptest::collection::vec(piece, 3..most).prop_map(move |pieces| {
        let mut made: Vec<Piece> = Vec::new();
        for (used, sizes, fill) in pieces {
            match made.last_mut() {
                // TLSF leaves no free neighbours.
                Some(last) if matches!(kind, Kind::Tlsf(_)) && !used && !last.used => {
                    last.sizes.extend(sizes);
                }
                _ => made.push(Piece { used, sizes, fill }),
            }
        }
        made
    })
}

/// The fragments and breaks of a walk.
pub(super) fn steps(kind: Kind, memory: &SegmentMap) -> Vec<Step> {
    kind.arena(memory).map(|arena| arena.walk().collect()).unwrap_or_default()
}
