//! Pools without owners: the used fragments by payload size, and what a sample of each size holds.

use std::io::{self, Write};

use serde::Serialize;

use super::model::PoolReport;
use super::selection::{Selection, SortKey};
use super::text::{lines, table};
use crate::case::SizeGroup;
use crate::kamailio::Content;
use crate::num::{ratio, wide};
use crate::units::count;

/// Contents shown of each size in text.
const CONTENTS: usize = 2;

/// The used fragments of one size.
#[derive(Clone, Debug, Serialize)]
pub struct PayloadSizeReport {
    /// Payload of each, in bytes.
    pub payload: u64,
    /// How many there are, inherited ones included.
    pub fragments: u64,
    /// Their payload, in bytes.
    pub bytes: u64,
    /// Share of the used payload of the pool, 0 to 1.
    pub share: f64,
    /// How many of them were looked at.
    pub looked_at: u64,
    /// What these hold, the most frequent first.
    pub content: Vec<Content>,
}

/// The sizes that a selection shows, and how many it leaves out. `used` is the used payload of the
/// pool, in bytes.
pub(super) fn select(
    groups: &[SizeGroup],
    used: u64,
    selection: &Selection,
) -> (Vec<PayloadSizeReport>, u64) {
    let mut shown: Vec<PayloadSizeReport> = groups
        .iter()
        .filter(|group| group.size.bytes() >= selection.min_bytes)
        .map(|group| PayloadSizeReport {
            payload: group.size.payload,
            fragments: group.size.fragments,
            bytes: group.size.bytes(),
            share: ratio(group.size.bytes(), used),
            looked_at: wide(group.size.sample.len()),
            content: group.content.clone(),
        })
        .collect();
    match selection.sort {
        // As they are.
        SortKey::Bytes => {}
        SortKey::Count => shown.sort_by_key(|size| std::cmp::Reverse(size.fragments)),
        SortKey::Largest => shown.sort_by_key(|size| std::cmp::Reverse(size.payload)),
        SortKey::Owner => shown.sort_by_key(|size| size.payload),
    }
    shown.truncate(selection.top.unwrap_or(usize::MAX));
    let left_out = wide(groups.len().saturating_sub(shown.len()));
    (shown, left_out)
}

/// The table that stands where the owners' would.
pub(super) fn text(
    pool: &PoolReport,
    sizes: &[PayloadSizeReport],
    out: &mut dyn Write,
) -> io::Result<()> {
    writeln!(
        out,
        "  owners     not recorded by this build; used fragments by payload size instead"
    )?;
    let header = ["fragments", "bytes", "share", "payload", "what a sample of them holds"];
    let mut table = table(&header, 4);
    for size in sizes {
        table.add_row(vec![
            count(size.fragments),
            count(size.bytes),
            format!("{:.1} %", size.share * 100.0),
            count(size.payload),
            content(size),
        ]);
    }
    lines("  ", &table, out)?;
    if pool.payload_sizes_left_out > 0 {
        let left_out = count(pool.payload_sizes_left_out);
        writeln!(out, "  … {left_out} more sizes (forensics heap --top N shows more)")?;
    }
    if pool.inherited_fragments > 0 {
        writeln!(
            out,
            "  inherited  {} of these fragments, from the main process at fork",
            count(pool.inherited_fragments)
        )?;
    }
    Ok(())
}

/// `text (12 of 16): "sip:u7"; pointers into tm.so`: without a number where all hold it.
fn content(size: &PayloadSizeReport) -> String {
    let one = |content: &Content| {
        let part = match content.fragments == size.looked_at {
            true => String::new(),
            false => format!(" ({} of {})", content.fragments, size.looked_at),
        };
        let example = content.example.as_ref().map(|text| format!(": {text}")).unwrap_or_default();
        format!("{}{part}{example}", content.what)
    };
    size.content.iter().take(CONTENTS).map(one).collect::<Vec<_>>().join("; ")
}
