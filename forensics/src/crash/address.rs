//! What the address of a fault looks like, and what lies around it.

use std::fmt;

use crate::addr::{Addr, AddrRange};
use crate::memory::SegmentMap;
use crate::places::{Pattern, Place};

/// Structures are seldom longer: a fault so far behind a null pointer is a field's, in bytes.
const NULL_REACH: u64 = 64 * 1024;
/// A fault so near a pattern of an allocator is one of a field, in bytes.
const PATTERN_REACH: u64 = 4096;
/// The kernel keeps so much free below the first thread's stack (`stack_guard_gap`), in bytes.
const GUARD: u64 = 1 << 20;
/// A frame that is larger may jump over a guard; so far the stack pointer may be from the fault.
const FRAME: u64 = 256 * 1024;
/// Printable bytes that make a value text.
const TEXT: usize = 5;

/// What an address that could not be used is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// Behind a null pointer: a field of a structure that is not there.
    Null {
        /// In bytes.
        offset: u64,
    },
    /// Before a null pointer: a header or list link of one.
    BelowNull {
        /// In bytes.
        back: u64,
    },
    /// At or near a word that an allocator writes around its fragments.
    Pattern {
        /// Which.
        pattern: Pattern,
        /// From it, in bytes.
        offset: i64,
    },
    /// Its bytes are text: something was overwritten by it.
    Text(String),
    /// No address of this machine: its upper bits are neither all 0 nor all 1.
    NonCanonical,
    /// Below the end of the thread's stack.
    StackOverflow {
        /// The stack.
        stack: AddrRange,
    },
    /// Mapped.
    Mapped(Place),
    /// Not mapped.
    Unmapped,
    /// The snapshot does not say whether it was mapped.
    Unknown,
}

impl Meaning {
    /// Of an address that a thread with this stack pointer could not use; `place` is what
    /// [`crate::places::Places`] says of it.
    pub(super) fn of(
        at: Addr,
        stack_pointer: Option<u64>,
        memory: &SegmentMap,
        place: Option<Place>,
    ) -> Self {
        if at.0 < NULL_REACH && memory.find(at).is_none() {
            return Self::Null { offset: at.0 };
        }
        let back = 0_u64.wrapping_sub(at.0);
        if back <= PATTERN_REACH {
            return Self::BelowNull { back };
        }
        if let Some(stack) = stack_pointer.and_then(|pointer| overflown(at, pointer, memory)) {
            return Self::StackOverflow { stack };
        }
        if let Some(place) = place.filter(Place::is_memory) {
            return Self::Mapped(place);
        }
        if let Some(near) = near_pattern(at.0) {
            return near;
        }
        if let Some(text) = text(at.0) {
            return Self::Text(text);
        }
        if !is_canonical(at) {
            return Self::NonCanonical;
        }
        match crate::memory::Memory::peek(memory, at, 1) {
            Err(absent) if absent.why == crate::memory::Why::Unmapped => Self::Unmapped,
            _ => Self::Unknown,
        }
    }
}

impl fmt::Display for Meaning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null { offset: 0 } => f.write_str("a null pointer"),
            Self::Null { offset } => write!(f, "a null pointer plus {offset:#x}"),
            Self::BelowNull { back } => write!(f, "a null pointer minus {back:#x}"),
            Self::Pattern { pattern, offset } => {
                write!(f, "{}", Place::Pattern(*pattern))?;
                match offset {
                    0 => f.write_str(" taken as a pointer"),
                    1.. => write!(f, " plus {offset:#x}, taken as a pointer"),
                    _ => write!(f, " minus {:#x}, taken as a pointer", offset.unsigned_abs()),
                }
            }
            Self::Text(text) => write!(f, "text taken as a pointer: {text:?}"),
            Self::NonCanonical => f.write_str("no address that x86-64 has"),
            Self::StackOverflow { stack } => {
                write!(f, "below the stack at {stack}: the stack has overflown")
            }
            Self::Mapped(place) => place.fmt(f),
            Self::Unmapped => f.write_str("not mapped"),
            Self::Unknown => f.write_str("the core does not say what was there"),
        }
    }
}

/// Whether bits 47 to 63 are all the same.
pub(super) fn is_canonical(at: Addr) -> bool {
    matches!(at.0 >> 47, 0 | 0x1_ffff)
}

fn near_pattern(value: u64) -> Option<Meaning> {
    const PATTERNS: [u64; 3] = [0xf0f0_f0f0, 0xc0c0_c0c0, 0xabcd_efed];
    let near = PATTERNS.into_iter().find(|pattern| value.abs_diff(*pattern) < PATTERN_REACH)?;
    let offset = i64::try_from(value).ok()?.checked_sub_unsigned(near)?;
    Some(Meaning::Pattern { pattern: Pattern::of(near)?, offset })
}

/// The bytes in the order of memory, if nearly all are printable.
fn text(value: u64) -> Option<String> {
    let bytes = value.to_le_bytes();
    let end = bytes.iter().rposition(|byte| *byte != 0)?.saturating_add(1);
    let bytes = bytes.get(..end)?;
    let printable = |byte: &u8| byte.is_ascii_graphic() || b" \r\n\t".contains(byte);
    let all = bytes.len() >= TEXT && bytes.iter().all(printable);
    all.then(|| String::from_utf8_lossy(bytes).into_owned())
}

/// The stack that an address lies right below, if the stack pointer has come to its end.
fn overflown(at: Addr, stack_pointer: u64, memory: &SegmentMap) -> Option<AddrRange> {
    if at.0.abs_diff(stack_pointer) > FRAME {
        return None;
    }
    let segments = memory.segments();
    let first = segments.partition_point(|segment| segment.range.end <= at);
    let writable = |segment: &&crate::memory::Segment| segment.writable == Some(true);
    let stack = segments.iter().skip(first).take(2).find(writable)?.range;
    let below = stack.start.offset_from(at)?;
    // A thread's own stack has a guard that is mapped without any right.
    let is_guard = segments.get(first).is_some_and(|segment| segment.range.contains(at));
    let near = below <= GUARD.saturating_add(FRAME) || is_guard;
    (below > 0 && near && stack_pointer < stack.start.0.saturating_add(FRAME)).then_some(stack)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{Content, Segment};

    const STACK: AddrRange =
        AddrRange { start: Addr(0x7fff_0000_0000), end: Addr(0x7fff_0080_0000) };

    fn meaning(at: u64, stack_pointer: u64) -> Meaning {
        let segment = |range, writable| Segment { range, writable, content: Content::Zero };
        let memory = SegmentMap::new(vec![
            segment(AddrRange::new(Addr(0x40_0000), 0x1000), Some(false)),
            segment(STACK, Some(true)),
        ]);
        Meaning::of(Addr(at), Some(stack_pointer), &memory, None)
    }

    fn words(at: u64) -> String {
        meaning(at, 0).to_string()
    }

    #[test]
    fn null_pointers_and_fields_behind_them() {
        assert_eq!(words(0), "a null pointer");
        assert_eq!(words(0x28), "a null pointer plus 0x28");
        assert_eq!(words(0x2000), "a null pointer plus 0x2000");
        assert_eq!(words(0xffff_ffff_ffff_fff8), "a null pointer minus 0x8");
    }

    #[test]
    fn patterns_of_allocators() {
        let end = "the allocator's first end check";
        assert_eq!(words(0xc0c0_c0c0), format!("{end} taken as a pointer"));
        assert_eq!(words(0xc0c0_c0c8), format!("{end} plus 0x8, taken as a pointer"));
        assert_eq!(words(0xc0c0_c0b8), format!("{end} minus 0x8, taken as a pointer"));
        assert_eq!(words(0xc0c0_d0c0), "not mapped");
    }

    #[test]
    fn text_as_a_pointer() {
        let value = u64::from_le_bytes(*b"INVITE s");
        assert_eq!(words(value), "text taken as a pointer: \"INVITE s\"");
        assert_eq!(words(u64::from_le_bytes(*b"INVI\0\0\0\0")), "not mapped");
        assert_eq!(words(u64::from_le_bytes(*b"\x01\x02\x03\x04\x05\x06\x07\x08")), NON_CANONICAL);
    }

    const NON_CANONICAL: &str = "no address that x86-64 has";

    #[test]
    fn addresses_that_the_machine_has() {
        assert_eq!(words(0xdead_beef_dead_beef), NON_CANONICAL);
        assert_eq!(words(0x8000_0000_0000), NON_CANONICAL);
        assert_eq!(words(0x7000_0000_0000), "not mapped");
        assert_eq!(words(0x40_0010), "the core does not say what was there");
    }

    #[test]
    fn a_stack_that_is_used_to_its_end() {
        let below = STACK.start.0 - 16;
        assert_eq!(meaning(below, below + 8), Meaning::StackOverflow { stack: STACK });
        // With room left on the stack an address below it is just wrong.
        assert_eq!(meaning(below, STACK.end.0 - 0x1000), Meaning::Unmapped);
        // What is on the stack is no overflow.
        assert_eq!(meaning(STACK.start.0 + 8, STACK.start.0 + 8), Meaning::Unknown);
    }
}
