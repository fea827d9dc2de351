//! What stands where a fragment was overwritten, and how far that reaches.

use crate::addr::{Addr, AddrRange};
use crate::heap::{Landmark, Neighbour};
use crate::memory::Memory;
use crate::num::narrow;

/// Bytes of an overwritten header that are kept.
const KEPT: usize = 64;
/// No overrun is followed further, in bytes.
const FURTHEST: u64 = 64 * 1024;

/// An overwritten place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overwritten {
    /// The first bytes of the header there, as far as they are known.
    pub bytes: Option<Vec<u8>>,
    /// What is overwritten for certain: from the end of the payload before it, if the same text
    /// runs on from there, to the last word that is wrong or the end of the text.
    pub reach: Option<AddrRange>,
}

impl Overwritten {
    /// Whether an unfinished call of the allocator can have left this: no word of fixed value is
    /// wrong, and the header is no text and no pattern.
    pub fn may_be_unfinished(&self) -> bool {
        let is_zero = |bytes: &Vec<u8>| bytes.iter().all(|byte| *byte == 0);
        let strange =
            |bytes: &Vec<u8>| !is_zero(bytes) && crate::content::looks_like(bytes).is_some();
        self.reach.is_none() && !self.bytes.as_ref().is_some_and(strange)
    }

    /// Looks at the header at `at`, and at the end of the fragment before it.
    pub(super) fn at(
        at: Addr,
        before: Option<&Neighbour>,
        landmarks: &[Landmark],
        memory: &dyn Memory,
    ) -> Self {
        let bytes = memory.bytes(at, KEPT).ok().map(|bytes| bytes.to_vec());
        Self { bytes, reach: reach(at, before, landmarks, memory) }
    }
}

fn reach(
    at: Addr,
    before: Option<&Neighbour>,
    landmarks: &[Landmark],
    memory: &dyn Memory,
) -> Option<AddrRange> {
    let wrong = |landmark: &Landmark| {
        let place = Addr(at.0.checked_add_signed(landmark.offset)?);
        let found = memory.word(place).ok()?;
        (found & landmark.mask != landmark.value).then_some(place)
    };
    let wrong: Vec<Addr> = landmarks.iter().filter_map(wrong).collect();
    let (first, last) = (*wrong.first()?, *wrong.last()?);
    let end = Addr(last.0.saturating_add(8));
    // A landmark of the trailer exists only next to the fragment before.
    let payload_end = before.map(|before| before.payload.end).filter(|end| *end <= first);
    let start = payload_end.unwrap_or(first);
    let text_end = text_end(start, memory);
    match text_end >= first {
        true => Some(AddrRange { start, end: text_end.max(end) }),
        false => Some(AddrRange { start: first, end: self::text_end(first, memory).max(end) }),
    }
}

/// The first byte from `at` on that no text has.
fn text_end(at: Addr, memory: &dyn Memory) -> Addr {
    let is_text =
        |byte: u8| byte.is_ascii_graphic() || matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
    let limit = Addr(at.0.saturating_add(FURTHEST));
    let mut end = at;
    while end < limit {
        let wanted = limit.0.saturating_sub(end.0);
        let Ok(piece) = memory.peek(end, narrow(wanted)) else { return end };
        let run = piece.iter().take_while(|byte| is_text(**byte)).count();
        end = Addr(end.0.saturating_add(crate::num::wide(run)));
        if run < piece.len() {
            return end;
        }
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bytes::Blob;
    use crate::memory::{Content, Segment, SegmentMap};

    /// A payload of 16 bytes, a trailer with one check word, a header with one.
    const LANDMARKS: [Landmark; 2] = [
        Landmark { offset: -8, value: 0xc0, mask: u64::MAX },
        Landmark { offset: 16, value: 0xf0, mask: u64::MAX },
    ];

    fn memory(text: &[u8]) -> SegmentMap {
        let mut bytes = vec![0_u8; 64];
        bytes[16] = 0xc0;
        bytes[40] = 0xf0;
        bytes[..text.len()].copy_from_slice(text);
        let content = Content::Bytes { blob: Blob::from_bytes(bytes), offset: 0 };
        let range = AddrRange::new(Addr(0x1000), 64);
        SegmentMap::new(vec![Segment { range, writable: None, content }])
    }

    fn reach_of(text: &[u8]) -> Option<(u64, u64)> {
        let before = Neighbour {
            header: Addr(0x0ff0),
            payload: AddrRange::new(Addr(0x1000), 16),
            used: true,
            owner: None,
        };
        let found = Overwritten::at(Addr(0x1018), Some(&before), &LANDMARKS, &memory(text));
        found.reach.map(|reach| (reach.start.0, reach.end.0))
    }

    #[test]
    fn an_overrun_with_text_reaches_to_its_last_letter() {
        let text = [b'x'; 50];
        assert_eq!(reach_of(&text), Some((0x1010, 0x1032)));
        assert_eq!(reach_of(&text[..19]), Some((0x1010, 0x1018)), "one word of the trailer");
        assert_eq!(reach_of(&text[..16]), None, "it ends with its payload");
    }

    #[test]
    fn an_overrun_with_other_bytes_reaches_to_the_last_wrong_word() {
        assert_eq!(reach_of(&[0xee; 46]), Some((0x1010, 0x1030)));
    }
}
