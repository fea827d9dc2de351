//! How far one write goes on that began in the bytes at a place.
//!
//! Most overruns write text, or the same word again and again; where those end, the write ends.

use super::islands;
use crate::addr::Addr;
use crate::memory::Memory;

/// Where words like the one at `from` end, at most `to`; `to` itself where they are neither text
/// nor alike, so that nothing tells.
pub(super) fn end_of_run(memory: &dyn Memory, from: Addr, to: Addr) -> Addr {
    let Ok(first) = memory.word(from) else { return to };
    let repeats = memory.word(next(from)).is_ok_and(|second| second == first);
    let is_like = |word: u64| if is_text(first) { is_text(word) } else { word == first };
    if !is_text(first) && !repeats {
        return to;
    }
    let mut end = from;
    islands::words(memory, from, to, |at, word| {
        if at == end && is_like(word) {
            end = next(at);
        }
    });
    end
}

fn next(at: Addr) -> Addr {
    Addr(at.0.saturating_add(8))
}

fn is_text(word: u64) -> bool {
    word.to_le_bytes().iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::AddrRange;
    use crate::bytes::Blob;
    use crate::memory::{Content, Segment, SegmentMap};

    fn end(bytes: &[u8]) -> u64 {
        let length = u64::try_from(bytes.len()).unwrap();
        let range = AddrRange::new(Addr(0x1000), length);
        let content = Content::Bytes { blob: Blob::from_bytes(bytes.to_vec()), offset: 0 };
        let memory = SegmentMap::new(vec![Segment { range, writable: Some(true), content }]);
        end_of_run(&memory, Addr(0x1000), Addr(0x1000 + length)).0 - 0x1000
    }

    #[test]
    fn text_goes_on_to_the_first_word_that_is_not_all_text() {
        assert_eq!(end(b"Via: SIP/2.0/UDP\r\nTo: <\0\0\0\0\0\0\0\0more text"), 16);
    }

    #[test]
    fn a_fill_goes_on_while_the_word_is_the_same() {
        let mut bytes = vec![0xaa; 40];
        bytes.resize(64, 0xbb);
        assert_eq!(end(&bytes), 40);
    }

    #[test]
    fn of_other_bytes_nothing_tells_the_end() {
        let bytes: Vec<u8> = (0..64).map(|number| number ^ 0x80).collect();
        assert_eq!(end(&bytes), 64);
    }
}
