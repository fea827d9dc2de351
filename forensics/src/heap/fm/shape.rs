//! The layouts of `f_malloc`'s structures, bound to plain offsets once for each walk.

use crate::heap::OwnerShape;
use crate::heap::pool::{BlockShape, Fields, Known};
use crate::layout::{Layout, NoField};

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
];

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
                    ("file", 32),
                    ("func", 40),
                    ("mname", 48),
                    ("line", 56),
                    ("check", 72),
                ],
            ),
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
                    ("is_free", 24),
                    ("file", 32),
                    ("func", 40),
                    ("mname", 48),
                    ("line", 56),
                    ("check", 64),
                ],
            ),
        ],
    },
    Known {
        name: "48-byte headers (without memory debugging)",
        structures: &[
            ("fm_block", 33_904, BLOCK),
            ("fm_frag", 48, &[("size", 0), ("is_free", 8), ("check", 40)]),
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
                (shape.header, shape.block.length, shape.owner.is_some())
            })
            .collect();
        assert_eq!(seen, [(80, 33_904, true), (72, 33_912, true), (48, 33_904, false)]);
    }
}
