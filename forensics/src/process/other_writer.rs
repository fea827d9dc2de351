//! The address space of a core that the kernel or gcore wrote.
//!
//! What neither has: the bytes of file mappings that the process could not have changed, which are
//! the file's. What it could have changed and is not in the core is not known, nor is what
//! `coredump_filter` or `MADV_DONTDUMP` left out.

use std::sync::Arc;

use super::from_file;
use crate::addr::{Addr, AddrRange};
use crate::core::{CoreFile, Load, MappedFile, Writer};
use crate::memory::{Content, Segment, SegmentMap, Why};
use crate::modules::ModuleMap;

/// Everything that is known of the address space, and why the rest is not.
pub(super) fn segments(core: &CoreFile, files: &[MappedFile], modules: &ModuleMap) -> Vec<Segment> {
    debug_assert_ne!(core.writer, Writer::Collector);
    let files = disjoint(files);
    // Overlapping PT_LOADs of a hostile core are cut apart first.
    let loaded = SegmentMap::new(core.loads.iter().flat_map(|load| parts(core, load)).collect());
    let mut segments = Vec::new();
    let mut reached = Addr::NULL;
    let mut not_loaded = Vec::new();
    for segment in loaded.segments() {
        not_loaded.push(AddrRange { start: reached, end: segment.range.start });
        reached = segment.range.end;
        match &segment.content {
            Content::Absent(why) => {
                let from = Hole { range: segment.range, writable: segment.writable, why };
                segments.extend(fill(&from, &files, modules));
            }
            _ => segments.push(segment.clone()),
        }
    }
    not_loaded.push(AddrRange { start: reached, end: Addr(u64::MAX) });
    // gcore gives what it leaves out no PT_LOAD.
    let why = left_out(core.writer);
    for range in not_loaded {
        let first = files.partition_point(|file| file.range.end <= range.start);
        for file in files.iter().skip(first).take_while(|file| file.range.start < range.end) {
            let start = file.range.start.max(range.start);
            let range = AddrRange { start, end: file.range.end.min(range.end) };
            segments.extend(fill(&Hole { range, writable: None, why: &why }, &files, modules));
        }
    }
    segments
}

fn left_out(writer: Writer) -> Why {
    let who = match writer {
        Writer::Gcore => "gcore",
        Writer::Kernel | Writer::Collector => "the kernel",
    };
    Why::NotSaved(format!("{who} left it out (coredump_filter or MADV_DONTDUMP)").into())
}

/// What a `PT_LOAD` holds, what is behind the end of a file that was cut, and what was not saved.
fn parts(core: &CoreFile, load: &Load) -> Vec<Segment> {
    let held = core.blob.length().saturating_sub(load.offset).min(load.saved);
    let border = |length: u64| Addr(load.range.start.0.saturating_add(length)).min(load.range.end);
    let (cut, end) = (border(held), border(load.saved));
    let bytes = Content::Bytes { blob: core.blob.clone(), offset: load.offset };
    [
        (load.range.start, cut, bytes),
        (cut, end, Content::Absent(Why::Truncated)),
        (end, load.range.end, Content::Absent(left_out(core.writer))),
    ]
    .into_iter()
    .map(|(start, end, content)| Segment {
        range: AddrRange { start, end },
        writable: Some(load.writable),
        content,
    })
    .filter(|segment| segment.range.start < segment.range.end)
    .collect()
}

/// The mapped files by address, none overlapping.
fn disjoint(files: &[MappedFile]) -> Vec<MappedFile> {
    let mut files = files.to_vec();
    files.sort_by_key(|file| file.range.start);
    let mut end = Addr::NULL;
    files.retain_mut(|file| {
        let skipped = end.0.saturating_sub(file.range.start.0);
        file.offset = file.offset.saturating_add(skipped);
        file.range.start = file.range.start.max(end);
        end = end.max(file.range.end);
        file.range.start < file.range.end
    });
    files
}

/// Addresses that the core has no bytes of.
struct Hole<'a> {
    range: AddrRange,
    writable: Option<bool>,
    why: &'a Why,
}

/// What is known of a hole: the parts that a file was mapped at and nobody could write to.
fn fill(hole: &Hole<'_>, files: &[MappedFile], modules: &ModuleMap) -> Vec<Segment> {
    let mut segments = Vec::new();
    let mut at = hole.range.start;
    let mut next = files.partition_point(|file| file.range.end <= at);
    while at < hole.range.end {
        let file = files.get(next);
        let Some(file) = file.filter(|file| file.range.start < hole.range.end) else {
            segments.push(unknown(AddrRange { start: at, end: hole.range.end }, hole, hole.why));
            break;
        };
        if at < file.range.start {
            segments.push(unknown(AddrRange { start: at, end: file.range.start }, hole, hole.why));
            at = file.range.start;
        }
        let range = AddrRange { start: at, end: file.range.end.min(hole.range.end) };
        segments.extend(mapped(range, hole, file, modules));
        at = range.end;
        next = next.saturating_add(1);
    }
    segments
}

/// What is known of a part of a hole where a file was mapped.
fn mapped(
    range: AddrRange,
    hole: &Hole<'_>,
    file: &MappedFile,
    modules: &ModuleMap,
) -> Vec<Segment> {
    if is_shared_memory(&file.path) {
        let cut = *hole.why == Why::Truncated;
        let why = Why::NotSaved("shared memory was not dumped (coredump_filter)".into());
        return vec![unknown(range, hole, if cut { hole.why } else { &why })];
    }
    let module = modules.by_path(&file.path);
    let changed =
        hole.writable == Some(true) || module.is_some_and(|module| module.is_writable(range.start));
    if changed {
        return vec![unknown(range, hole, hole.why)];
    }
    let inside = range.start.0.saturating_sub(file.range.start.0);
    let path: Arc<str> = file.path.as_str().into();
    from_file(range, &path, file.offset.saturating_add(inside), modules)
}

fn unknown(range: AddrRange, hole: &Hole<'_>, why: &Why) -> Segment {
    Segment { range, writable: hole.writable, content: Content::Absent(why.clone()) }
}

/// Anonymous shared memory has the name of a file that it does not have.
fn is_shared_memory(path: &str) -> bool {
    ["/dev/zero", "/dev/shm/", "/SYSV", "/memfd:"].iter().any(|start| path.starts_with(start))
}
