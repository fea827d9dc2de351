//! The layouts of TLSF's structures, bound to plain offsets once for each walk.

use crate::heap::OwnerShape;
use crate::heap::pool::Known;
use crate::layout::{Layout, NoField};

/// Offsets within `control_t`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ControlShape {
    pub(super) total_size: u64,
    pub(super) allocated: u64,
    pub(super) real_used: u64,
    pub(super) max_used: u64,
    pub(super) fragments: u64,
    /// Its size in bytes.
    pub(super) length: u64,
}

/// Where the free lists are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ListShape {
    /// `fl_bitmap` in the control structure.
    pub(super) rows: u64,
    /// `sl_bitmap` in the control structure.
    pub(super) places: u64,
    /// `blocks` in the control structure.
    pub(super) heads: u64,
    /// A free fragment's link backwards.
    pub(super) previous: u64,
}

impl ListShape {
    fn bind(control: &Layout, block: &Layout) -> Option<Self> {
        Some(Self {
            rows: control.optional("fl_bitmap")?,
            places: control.optional("sl_bitmap")?,
            heads: control.optional("blocks")?,
            previous: block.optional("prev_free")?,
        })
    }
}

/// Every offset that a walk needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::heap) struct Shape {
    /// Size of `block_header_t` in bytes; its free-list links lie in the payload.
    pub(super) header_length: u64,
    pub(super) size: u64,
    /// `next_free`, where the payload begins.
    pub(super) next_free: u64,
    pub(super) owner: Option<OwnerShape>,
    pub(super) lists: Option<ListShape>,
    pub(super) control: ControlShape,
}

impl Shape {
    /// Binds the structures `control_t` and `block_header_t` by field name. The owner's fields lie
    /// in a structure of their own, `alloc_info`: file, function and module, a word each, and the
    /// line, an `unsigned int` with stale padding behind it.
    ///
    /// # Errors
    /// [`NoField`] names a missing structure or a field that every build has.
    pub(super) fn bind(layouts: &[Layout]) -> Result<Self, NoField> {
        let control = Layout::find(layouts, "control_t")?;
        let block = Layout::find(layouts, "block_header_t")?;
        let owner = block.optional("alloc_info").map(|info| OwnerShape {
            file: info,
            function: info.saturating_add(8),
            module: info.saturating_add(16),
            line: info.saturating_add(24),
            short_line: true,
        });
        Ok(Self {
            header_length: block.size,
            size: block.offset("size")?,
            next_free: block.offset("next_free")?,
            owner,
            lists: ListShape::bind(control, block),
            control: ControlShape {
                total_size: control.offset("total_size")?,
                allocated: control.offset("allocated")?,
                real_used: control.offset("real_used")?,
                max_used: control.offset("max_used")?,
                fragments: control.offset("fragments")?,
                length: control.size,
            },
        })
    }
}

/// Every layout seen so far, most frequent first.
pub(super) const KNOWN: &[Known] = &[
    Known {
        name: "64-byte headers (5.2 and later)",
        structures: &[
            (
                "control_t",
                8440,
                &[
                    ("total_size", 64),
                    ("allocated", 72),
                    ("real_used", 80),
                    ("max_used", 88),
                    ("fragments", 96),
                    ("fl_bitmap", 112),
                    ("sl_bitmap", 116),
                    ("blocks", 248),
                ],
            ),
            (
                "block_header_t",
                64,
                &[("alloc_info", 8), ("size", 40), ("next_free", 48), ("prev_free", 56)],
            ),
        ],
    },
    Known {
        name: "32-byte headers (without memory debugging)",
        structures: &[
            (
                "control_t",
                8408,
                &[
                    ("total_size", 32),
                    ("allocated", 40),
                    ("real_used", 48),
                    ("max_used", 56),
                    ("fragments", 64),
                    ("fl_bitmap", 80),
                    ("sl_bitmap", 84),
                    ("blocks", 216),
                ],
            ),
            ("block_header_t", 32, &[("size", 8), ("next_free", 16), ("prev_free", 24)]),
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
                (shape.header_length, shape.next_free, shape.control.length, shape.owner.is_some())
            })
            .collect();
        assert_eq!(seen, [(64, 48, 8440, true), (32, 16, 8408, false)]);
    }
}
