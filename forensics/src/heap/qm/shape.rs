//! The layouts of `q_malloc`'s structures, bound to plain offsets once for each walk.

use crate::heap::lists::SizeClasses;
use crate::heap::pool::{BlockShape, Fields, Known};
use crate::heap::{BacktraceShape, OwnerShape};
use crate::layout::{Layout, NoField};

/// Offsets of the check words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CheckShape {
    /// In the header.
    pub(super) start: u64,
    /// In the trailer.
    pub(super) end: [u64; 2],
}

/// Where the free lists are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ListShape {
    /// `free_hash` in the block.
    pub(super) start: u64,
    /// Size of one list's head and tail (`struct qm_frag_lnk`), in bytes.
    pub(super) bucket: u64,
    /// The tail's link backwards, in the bucket.
    pub(super) tail_back: u64,
    /// How many fragments the list says it has, in the bucket.
    pub(super) said: u64,
    /// A fragment's link backwards, in its trailer.
    pub(super) back: u64,
    pub(super) classes: SizeClasses,
}

impl ListShape {
    fn bind(block: &Layout, bucket: Option<&Layout>, trailer: &Layout) -> Option<Self> {
        let bucket = bucket?;
        let start = block.optional("free_hash")?;
        let back = trailer.optional("prev_free")?;
        let lists = block.size.saturating_sub(start).checked_div(bucket.size)?;
        Some(Self {
            start,
            bucket: bucket.size,
            tail_back: bucket.optional("tail")?.saturating_add(back),
            said: bucket.optional("no")?,
            back,
            classes: SizeClasses::hash(lists)?,
        })
    }
}

/// Every offset that a walk needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::heap) struct Shape {
    /// Length of a fragment's header (`struct qm_frag`), in bytes.
    pub(super) header: u64,
    /// Length of a fragment's trailer (`struct qm_frag_end`), in bytes.
    pub(super) trailer: u64,
    pub(super) size: u64,
    /// The union `u`: 0 exactly in a used fragment.
    pub(super) link: u64,
    pub(super) owner: Option<OwnerShape>,
    pub(super) checks: Option<CheckShape>,
    pub(super) backtrace: Option<BacktraceShape>,
    pub(super) trailer_size: u64,
    pub(super) lists: Option<ListShape>,
    pub(super) block: BlockShape,
}

impl Shape {
    /// Binds the structures `qm_block`, `qm_frag` and `qm_frag_end` by field name. Owner and check
    /// words are there only in builds with memory debugging.
    ///
    /// # Errors
    /// [`NoField`] names a missing structure or a field that every build has.
    pub(super) fn bind(layouts: &[Layout]) -> Result<Self, NoField> {
        let find = |name: &str| Layout::find(layouts, name);
        let (block, frag, end) = (find("qm_block")?, find("qm_frag")?, find("qm_frag_end")?);
        let owner = OwnerShape::bind(frag)?;
        let checks = match (frag.optional("check"), end.optional("check1")) {
            (Some(start), Some(first)) => {
                Some(CheckShape { start, end: [first, end.offset("check2")?] })
            }
            _ => None,
        };
        // The check word follows the array: debug information tells where, not how long.
        let backtrace = frag.optional("backtrace").zip(frag.optional("check"));
        let backtrace = backtrace.and_then(|(offset, check)| {
            let count = check.checked_sub(offset)? / 8;
            Some(BacktraceShape { offset, count })
        });
        Ok(Self {
            backtrace,
            header: frag.size,
            trailer: end.size,
            size: frag.offset("size")?,
            link: frag.offset("u")?,
            owner,
            checks,
            trailer_size: end.offset("size")?,
            lists: ListShape::bind(block, find("qm_frag_lnk").ok(), end),
            block: BlockShape::bind(block, "last_frag_end")?,
        })
    }
}

/// The block's counters stand at the same offsets in every build from 5.2 to 6.2.
const BLOCK: Fields = &[
    ("type", 0),
    ("size", 8),
    ("used", 16),
    ("real_used", 24),
    ("max_real_used", 32),
    ("ffrags", 40),
    ("first_frag", 48),
    ("last_frag_end", 56),
    ("free_hash", 64),
];
const END: Fields = &[("check1", 0), ("check2", 8), ("size", 32), ("prev_free", 40)];
const FRAG: Fields = &[
    ("size", 0),
    ("u", 8),
    ("file", 16),
    ("func", 24),
    ("mname", 32),
    ("line", 40),
    ("check", 48),
];
const FRAG_BACKTRACE: Fields = &[
    ("size", 0),
    ("u", 8),
    ("file", 16),
    ("func", 24),
    ("mname", 32),
    ("line", 40),
    ("backtrace", 48),
    ("check", 120),
];

/// Every layout seen so far, most frequent first. The block sizes differ with the length of the
/// free lists' heads, and are what a scan without symbols goes by.
pub(super) const KNOWN: &[Known] = &[
    Known {
        name: "64-byte headers (5.8 to 6.1)",
        structures: &[
            ("qm_block", 268_608, BLOCK),
            ("qm_frag", 64, FRAG),
            ("qm_frag_end", 48, END),
            ("qm_frag_lnk", 128, &[("head", 0), ("tail", 64), ("no", 112)]),
        ],
    },
    Known {
        name: "56-byte headers (5.2 to 5.7)",
        structures: &[
            ("qm_block", 235_152, BLOCK),
            ("qm_frag", 56, FRAG),
            ("qm_frag_end", 48, END),
            ("qm_frag_lnk", 112, &[("head", 0), ("tail", 56), ("no", 104)]),
        ],
    },
    Known {
        name: "128-byte headers (6.2 with backtraces)",
        structures: &[
            ("qm_block", 402_880, BLOCK),
            ("qm_frag", 128, FRAG_BACKTRACE),
            ("qm_frag_end", 48, END),
            ("qm_frag_lnk", 192, &[("head", 0), ("tail", 128), ("no", 176)]),
        ],
    },
    Known {
        name: "16-byte headers (without memory debugging)",
        structures: &[
            ("qm_block", 100_768, BLOCK),
            ("qm_frag", 16, &[("size", 0), ("u", 8)]),
            ("qm_frag_end", 16, &[("size", 0), ("prev_free", 8)]),
            ("qm_frag_lnk", 48, &[("head", 0), ("tail", 16), ("no", 32)]),
        ],
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_layout_binds() {
        let seen: Vec<_> = KNOWN
            .iter()
            .map(|known| {
                let shape = Shape::bind(&known.layouts()).unwrap();
                let lists = shape.lists.unwrap().classes.count();
                (shape.header, shape.trailer, shape.owner.is_some(), shape.checks.is_some(), lists)
            })
            .collect();
        assert_eq!(
            seen,
            [
                (64, 48, true, true, 2098),
                (56, 48, true, true, 2099),
                (128, 48, true, true, 2098),
                (16, 16, false, false, 2098)
            ]
        );
    }

    #[test]
    fn only_the_layout_with_backtraces_has_them() {
        let known = KNOWN.iter().map(|known| Shape::bind(&known.layouts()).unwrap().backtrace);
        let nine = BacktraceShape { offset: 48, count: 9 };
        assert_eq!(known.collect::<Vec<_>>(), [None, None, Some(nine), None]);
    }

    #[test]
    fn a_missing_field_is_named() {
        let layouts = [
            Layout::new("qm_block", 64, BLOCK),
            Layout::new("qm_frag", 16, &[("size", 0)]),
            Layout::new("qm_frag_end", 16, &[("size", 0)]),
        ];
        let error = Shape::bind(&layouts).unwrap_err();
        assert_eq!(error.to_string(), "struct qm_frag has no field u");
    }
}
