//! Pools without owners: the used fragments by payload size, and what a sample of each size holds.

use std::cmp::Reverse;
use std::io::{self, Write};

use serde::Serialize;

use super::model::PoolReport;
use super::selection::{Selection, SortKey};
use super::text::{lines, table};
use crate::case::SizeGroup;
use crate::content::Content;
use crate::leak::Summary;
use crate::num::{ratio, wide};
use crate::units::{count, size as bytes};

/// Contents shown of each size in text.
const CONTENTS: usize = 2;

/// The used fragments of one size.
#[derive(Clone, Debug, Serialize)]
pub struct PayloadSizeReport {
    /// Payload of each, in bytes.
    pub payload: u64,
    /// How many there are.
    pub fragments: u64,
    /// Their payload, in bytes.
    pub bytes: u64,
    /// Of `fragments`: inherited from the main process at fork.
    pub inherited_fragments: u64,
    /// Of `fragments`: not inherited.
    pub own_fragments: u64,
    /// Of `bytes`: not inherited.
    pub own_bytes: u64,
    /// Share of `own_bytes` in the used payload of the pool, 0 to 1.
    pub own_share: f64,
    /// How many of them were looked at.
    pub looked_at: u64,
    /// What these hold, the most frequent first.
    pub content: Vec<Content>,
}

/// The sizes that a selection shows, and how many with fragments of their own it leaves out.
pub(super) fn select(
    groups: &[SizeGroup],
    summary: &Summary,
    selection: &Selection,
) -> (Vec<PayloadSizeReport>, u64) {
    let all: Vec<PayloadSizeReport> = groups.iter().map(|group| one(group, summary)).collect();
    let own = |sizes: &[PayloadSizeReport]| sizes.iter().filter(|s| s.own_fragments > 0).count();
    let with_own = own(&all);
    let mut shown: Vec<PayloadSizeReport> =
        all.into_iter().filter(|size| size.bytes >= selection.min_bytes).collect();
    shown.sort_by_key(|size| match selection.sort {
        SortKey::Bytes => (Reverse(size.own_bytes), Reverse(size.bytes), size.payload),
        SortKey::Count => (Reverse(size.own_fragments), Reverse(size.fragments), size.payload),
        SortKey::Largest => (Reverse(size.payload), Reverse(0), 0),
        SortKey::Owner => (Reverse(0), Reverse(0), size.payload),
    });
    shown.truncate(selection.top.unwrap_or(usize::MAX));
    let left_out = wide(with_own.saturating_sub(own(&shown)));
    (shown, left_out)
}

fn one(group: &SizeGroup, summary: &Summary) -> PayloadSizeReport {
    let size = &group.size;
    let inherited = summary.inherited_sizes.get(&size.payload).copied().unwrap_or(0);
    let own_fragments = size.fragments.saturating_sub(inherited);
    let own_bytes = own_fragments.saturating_mul(size.payload);
    PayloadSizeReport {
        payload: size.payload,
        fragments: size.fragments,
        bytes: size.bytes(),
        inherited_fragments: inherited,
        own_fragments,
        own_bytes,
        own_share: ratio(own_bytes, summary.used_bytes),
        looked_at: wide(size.sample.len()),
        content: group.content.clone(),
    }
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
    for size in sizes.iter().filter(|size| size.own_fragments > 0) {
        table.add_row(vec![
            count(size.own_fragments),
            count(size.own_bytes),
            format!("{:.1} %", size.own_share * 100.0),
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
            "  inherited  {} fragments, {}, from the main process at fork; not counted above",
            count(pool.inherited_fragments),
            bytes(pool.inherited_bytes)
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
