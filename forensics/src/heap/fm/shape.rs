//! The layouts of `f_malloc`'s structures, bound to plain offsets once for each walk.

use crate::heap::OwnerShape;
use crate::heap::lists::SizeClasses;
use crate::heap::pool::{BlockShape, Fields, Known};
use crate::layout::{Layout, NoField};

/// Where the free lists are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ListShape {
    /// `free_hash` in the block.
    pub(super) start: u64,
    /// Size of one list's head (`struct fm_frag_lnk`), in bytes.
    pub(super) bucket: u64,
    /// How many fragments the list says it has, in the bucket.
    pub(super) said: u64,
    /// `free_bitmap` in the block.
    pub(super) bitmap: u64,
    /// A free fragment's link forwards.
    pub(super) next: u64,
    /// A free fragment's link backwards.
    pub(super) previous: u64,
    pub(super) classes: SizeClasses,
}

impl ListShape {
    fn bind(block: &Layout, bucket: Option<&Layout>, frag: &Layout) -> Option<Self> {
        let bucket = bucket?;
        let start = block.optional("free_hash")?;
        let lists = block.size.saturating_sub(start).checked_div(bucket.size)?;
        Some(Self {
            start,
            bucket: bucket.size,
            said: bucket.optional("no")?,
            bitmap: block.optional("free_bitmap")?,
            next: frag.optional("next_free")?,
            previous: frag.optional("prev_free")?,
            classes: SizeClasses::hash(lists)?,
        })
    }
}

/// Every offset that a walk needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::heap) struct Shape {
    /// Length of a fragment's header (`struct fm_frag`), in bytes.
    pub(super) header: u64,
    pub(super) size: u64,
    /// An `int` until 5.7, a `long` since; its low half tells in both.
    pub(super) is_free: u64,
    pub(super) owner: Option<OwnerShape>,
    /// An `int` until 5.7, a `long` since; its low half tells in both.
    pub(super) check: u64,
    pub(super) lists: Option<ListShape>,
    pub(super) block: BlockShape,
}

impl Shape {
    /// Binds the structures `fm_block` and `fm_frag` by field name.
    ///
    /// # Errors
    /// [`NoField`] names a missing structure or a field that every build has.
    pub(super) fn bind(layouts: &[Layout]) -> Result<Self, NoField> {
        let block = Layout::find(layouts, "fm_block")?;
        let frag = Layout::find(layouts, "fm_frag")?;
        Ok(Self {
            header: frag.size,
            size: frag.offset("size")?,
            is_free: frag.offset("is_free")?,
            owner: OwnerShape::bind(frag)?,
            check: frag.offset("check")?,
            lists: ListShape::bind(block, Layout::find(layouts, "fm_frag_lnk").ok(), frag),
            block: BlockShape::bind(block, "last_frag")?,
        })
    }
}

const OLD_BLOCK: Fields = &[
    ("type", 0),
    ("size", 8),
    ("used", 16),
    ("real_used", 24),
    ("max_real_used", 32),
    ("ffrags", 40),
    ("first_frag", 48),
    ("last_frag", 56),
    ("free_bitmap", 64),
    ("free_hash", 328),
];
const BLOCK: Fields = &[
    ("type", 0),
    ("size", 8),
    ("used", 16),
    ("real_used", 24),
    ("max_real_used", 32),
    ("ffrags", 40),
    ("first_frag", 56),
    ("last_frag", 64),
    ("free_bitmap", 72),
    ("free_hash", 336),
];
const LIST: Fields = &[("first", 0), ("no", 8)];

/// Every layout seen so far, most frequent first.
pub(super) const KNOWN: &[Known] = &[
    Known {
        name: "80-byte headers (5.8 and later)",
        structures: &[
            ("fm_block", 33_904, BLOCK),
            (
                "fm_frag",
                80,
                &[
                    ("size", 0),
                    ("is_free", 8),
                    ("next_free", 16),
                    ("prev_free", 24),
                    ("file", 32),
                    ("func", 40),
                    ("mname", 48),
                    ("line", 56),
                    ("check", 72),
                ],
            ),
            ("fm_frag_lnk", 16, LIST),
        ],
    },
    Known {
        name: "72-byte headers (5.2 to 5.7)",
        structures: &[
            ("fm_block", 33_912, OLD_BLOCK),
            (
                "fm_frag",
                72,
                &[
                    ("size", 0),
                    ("next_free", 8),
                    ("prev_free", 16),
                    ("is_free", 24),
                    ("file", 32),
                    ("func", 40),
                    ("mname", 48),
                    ("line", 56),
                    ("check", 64),
                ],
            ),
            ("fm_frag_lnk", 16, LIST),
        ],
    },
    Known {
        name: "48-byte headers (without memory debugging)",
        structures: &[
            ("fm_block", 33_904, BLOCK),
            (
                "fm_frag",
                48,
                &[("size", 0), ("is_free", 8), ("next_free", 16), ("prev_free", 24), ("check", 40)],
            ),
            ("fm_frag_lnk", 16, LIST),
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
                (shape.header, shape.block.length, shape.owner.is_some(), lists)
            })
            .collect();
        assert_eq!(
            seen,
            [(80, 33_904, true, 2098), (72, 33_912, true, 2099), (48, 33_904, false, 2098)]
        );
    }
}
