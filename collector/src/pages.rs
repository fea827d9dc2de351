//! Which pages of a process exist: `PAGEMAP_SCAN`, or `/proc/PID/pagemap` where the kernel is older.
//!
//! The answer is one process's view. Of shared memory it shows only what this process has touched
//! itself: use [`crate::pools`] for that.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use bundle::PAGE_SIZE;

use crate::mappings::Mapping;
use crate::number::size;
use crate::spans::Span;
use crate::sys::{self, PAGE_IS_FILE, PAGE_IS_GUARD, PAGE_IS_PFNZERO, PAGE_IS_SWAPPED};

/// Pages of one kind, side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRun {
    /// Their addresses.
    pub span: Span,
    /// They are in swap.
    pub swapped: bool,
    /// They belong to a file or to shared memory: nobody wrote to a private copy.
    pub file: bool,
    /// They are the kernel's page of zeroes.
    pub zero: bool,
}

impl PageRun {
    fn of(region: &sys::PageRegion) -> Self {
        let is = |bit: u64| region.categories & bit != 0;
        Self {
            span: Span::new(region.start, region.end),
            swapped: is(PAGE_IS_SWAPPED),
            file: is(PAGE_IS_FILE),
            zero: is(PAGE_IS_PFNZERO),
        }
    }

    /// The run of one entry of `/proc/PID/pagemap`, if the page exists. Zero pages do not show.
    fn of_entry(address: u64, entry: u64) -> Option<Self> {
        let is = |bit: u32| entry & (1 << bit) != 0;
        // Bit 58 (Linux 6.15) is a guard page, where nothing is.
        ((is(63) || is(62)) && !is(58)).then(|| Self {
            span: Span::new(address, address.saturating_add(PAGE_SIZE)),
            swapped: is(62),
            file: is(61),
            zero: false,
        })
    }
}

/// The pages that exist, by rising address. `id` is a thread of the process.
///
/// # Errors
/// The pagemap cannot be opened or read: no privilege, or the process is gone.
pub fn existing(id: u32, mappings: &[Mapping]) -> io::Result<Vec<PageRun>> {
    // [vsyscall] lies in the kernel's half, where the scan refuses to look.
    let user = |mapping: &&Mapping| mapping.span.end <= 1 << 63;
    let spans: Vec<Span> = mappings.iter().filter(user).map(|mapping| mapping.span).collect();
    let (Some(first), Some(last)) = (spans.first(), spans.last()) else { return Ok(Vec::new()) };
    look(id, &[Span::new(first.start, last.end)], &spans)
}

/// Those that exist of some spans of whole pages, which are by rising address.
///
/// # Errors
/// As of [`existing`].
pub fn existing_in(id: u32, spans: &[Span]) -> io::Result<Vec<PageRun>> {
    if spans.is_empty() { Ok(Vec::new()) } else { look(id, spans, spans) }
}

/// Scans `fast` or reads the entries of `slow`, of which there is one for each page.
fn look(id: u32, fast: &[Span], slow: &[Span]) -> io::Result<Vec<PageRun>> {
    let pagemap = File::open(format!("/proc/{id}/pagemap"))?;
    match sys::pagemap_scan(&pagemap, fast) {
        Ok(regions) => {
            let pages = regions.iter().filter(|region| region.categories & PAGE_IS_GUARD == 0);
            Ok(pages.map(PageRun::of).collect())
        }
        Err(error) => {
            tracing::debug!(id, %error, "no PAGEMAP_SCAN, reading pagemap");
            read_pagemap(&pagemap, slow)
        }
    }
}

/// Reads `/proc/PID/pagemap` entry by entry.
fn read_pagemap(pagemap: &File, spans: &[Span]) -> io::Result<Vec<PageRun>> {
    const ENTRY: u64 = 8;
    const AT_A_TIME: u64 = 16 * 1024;
    let mut runs: Vec<PageRun> = Vec::new();
    let mut buffer = vec![0_u8; size(AT_A_TIME * ENTRY)];
    for span in spans {
        let mut at = span.start;
        while at < span.end {
            let pages = ((span.end - at) / PAGE_SIZE).min(AT_A_TIME);
            let Some(entries) = buffer.get_mut(..size(pages * ENTRY)) else { break };
            pagemap.read_exact_at(entries, at / PAGE_SIZE * ENTRY)?;
            let (words, _) = entries.as_chunks::<8>();
            for (address, word) in (at..).step_by(size(PAGE_SIZE)).zip(words) {
                if let Some(page) = PageRun::of_entry(address, u64::from_le_bytes(*word)) {
                    push(&mut runs, page);
                }
            }
            at += pages * PAGE_SIZE;
        }
    }
    Ok(runs)
}

/// Appends a page, joined to the last run where it goes on.
fn push(runs: &mut Vec<PageRun>, page: PageRun) {
    match runs.last_mut() {
        Some(last)
            if last.span.end == page.span.start && PageRun { span: page.span, ..*last } == page =>
        {
            last.span.end = page.span.end;
        }
        _ => runs.push(page),
    }
}

/// The part of `runs` that lies in `span`.
pub fn clip(runs: &[PageRun], span: Span) -> impl Iterator<Item = PageRun> {
    let first = runs.partition_point(|run| run.span.end <= span.start);
    runs.iter()
        .skip(first)
        .take_while(move |run| run.span.start < span.end)
        .map(move |run| PageRun { span: run.span.and(span), ..*run })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_see_the_same_pages_of_our_own() {
        let text = std::fs::read_to_string("/proc/self/maps").unwrap();
        let heap: Vec<Mapping> = Mapping::parse_all(&text)
            .into_iter()
            .filter(|mapping| mapping.name.starts_with("/") && mapping.flags == 5)
            .collect();
        let pagemap = File::open("/proc/self/pagemap").unwrap();
        let spans: Vec<Span> = heap.iter().map(|mapping| mapping.span).collect();
        let slow = read_pagemap(&pagemap, &spans).unwrap();
        assert!(!slow.is_empty());
        for span in spans {
            let regions = sys::pagemap_scan(&pagemap, &[span]).unwrap();
            let fast: Vec<PageRun> = regions.iter().map(PageRun::of).collect();
            let slow: Vec<PageRun> = clip(&slow, span).collect();
            let pages = |runs: &[PageRun]| runs.iter().map(|run| run.span.length()).sum::<u64>();
            // Code is paged in while we look: the first look saw no more than the second.
            assert!(pages(&slow) <= pages(&fast), "{slow:?} {fast:?}");
        }
    }

    #[test]
    fn entries_are_joined_while_they_are_alike() {
        let present = 1 << 63;
        let mut runs = Vec::new();
        for (page, entry) in [(1, present), (2, present), (3, 0), (4, 1 << 62), (5, 3 << 61)] {
            if let Some(page) = PageRun::of_entry(page * 4096, entry) {
                push(&mut runs, page);
            }
        }
        let run = |start: u64, end: u64, swapped, file| PageRun {
            span: Span::new(start * 4096, end * 4096),
            swapped,
            file,
            zero: false,
        };
        assert_eq!(runs, [run(1, 3, false, false), run(4, 5, true, false), run(5, 6, true, true)]);
        let clipped: Vec<PageRun> = clip(&runs, Span::new(8192, 20480)).collect();
        assert_eq!(clipped, [run(2, 3, false, false), run(4, 5, true, false)]);
    }
}
