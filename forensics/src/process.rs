//! One process of the snapshot: its core, the files it mapped, and all its memory that can be
//! known, put together.
//!
//! Where the core has no byte, three answers are possible, and which one holds depends on who
//! wrote it. Our collector says so for each range. The kernel and gcore leave out private file
//! mappings that were never written (the file's bytes hold) and whatever `coredump_filter` or a
//! `MADV_DONTDUMP` excludes (not known); `p_filesz < p_memsz` means "not saved" there, never zero.

mod from_file;
mod other_writer;

use std::collections::BTreeMap;
use std::sync::Arc;

use bundle::notes::Content as RangeContent;

use from_file::from_file;

use crate::addr::{Addr, AddrRange};
use crate::core::{CoreError, CoreFile, Writer};
use crate::gap::Gap;
use crate::input::{CoreInput, Evidence};
use crate::memory::{Content, Segment, SegmentMap, Why};
use crate::modules::{Files, Library, Module, ModuleMap};

/// A process of the snapshot.
#[derive(Debug)]
pub struct Process {
    /// How the user knows its core.
    pub label: String,
    /// Its PID on the host, from the bundle or the core.
    pub pid: Option<u32>,
    /// Its PID in its own namespace, where the bundle says it.
    pub inner_pid: Option<u32>,
    /// Its core's headers.
    pub core: CoreFile,
    /// Its memory.
    pub memory: SegmentMap,
    /// Its modules.
    pub modules: ModuleMap,
    /// What is not known of it.
    pub gaps: Vec<Gap>,
}

impl Process {
    /// Puts a process together.
    ///
    /// # Errors
    /// [`CoreError`] where the core's headers cannot be read.
    pub fn open(
        input: &CoreInput,
        evidence: &Evidence,
        library: &Library,
    ) -> Result<Self, CoreError> {
        let core = CoreFile::read(&input.blob)?;
        let in_core = SegmentMap::new(saved_segments(&core));
        let files = Files::of(&core, &in_core, library);
        let modules = ModuleMap::find(&files, &in_core, library);
        let segments = match &core.notes.ranges {
            Some(ranges) => ranges
                .0
                .iter()
                .flat_map(|range| {
                    let place = AddrRange::new(Addr(range.start), range.length);
                    collected(place, &range.content, &core, evidence, &modules)
                })
                .collect(),
            None => other_writer::segments(&core, &files.mapped, &modules),
        };
        // The kernel gives every mapping a segment, gdb only those that it saves.
        let outside = (core.writer == Writer::Gcore)
            .then(|| Why::NotSaved("gcore wrote no segment there".into()));
        let pid = input.pid.or_else(|| core.pid());
        let record = evidence.manifest.as_ref().and_then(|manifest| {
            manifest.processes.iter().find(|process| Some(process.pid) == pid)
        });
        let mut gaps = core.gaps.clone();
        gaps.extend(module_gaps(&modules, evidence));
        Ok(Self {
            label: input.label.clone(),
            pid,
            inner_pid: record.map(|record| record.inner_pid).or_else(|| inner_pid(pid, evidence)),
            memory: SegmentMap::new(segments).with_outside(outside),
            core,
            modules,
            gaps,
        })
    }
}

/// What is not known of the modules' files; modules of which the same is to be said share a line.
fn module_gaps(modules: &ModuleMap, evidence: &Evidence) -> Vec<Gap> {
    let mut by_why: BTreeMap<String, Vec<&Module>> = BTreeMap::new();
    for module in modules.iter() {
        let why = match &module.file {
            Ok(file) if file.debug_only => {
                format!("only its debug information is at hand ({})", file.origin)
            }
            Ok(_) if module.build_id.is_none() && !evidence.is_bundle => {
                "taken by its name: its build ID is not in the core".to_owned()
            }
            Ok(_) => continue,
            Err(why) => why.clone(),
        };
        // Where the collector says itself that it left the file out, that is enough.
        if !evidence.gaps.iter().any(|gap| gap.what.contains(&module.path)) {
            by_why.entry(why).or_default().push(module);
        }
    }
    let gap = |(why, modules): (String, Vec<&Module>)| match modules[..] {
        [module] => Gap::new(format!("file of module {}", module.path), why),
        _ => {
            let names: Vec<&str> = modules.iter().map(|module| module.name()).collect();
            let what = format!("files of {} modules ({})", names.len(), names.join(", "));
            Gap::new(what, why)
        }
    };
    by_why.into_iter().map(gap).collect()
}

/// The innermost `NSpid` of `/proc/PID/status`, for bundles that were cut before the manifest.
fn inner_pid(pid: Option<u32>, evidence: &Evidence) -> Option<u32> {
    let pid = pid?;
    let first = bundle::member::process_file(pid, "status.1");
    let plain = bundle::member::process_file(pid, "status");
    let status = evidence.text(&first).or_else(|| evidence.text(&plain))?;
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    line.split_whitespace().next_back()?.parse().ok()
}

/// What the core's `PT_LOAD`s hold.
fn saved_segments(core: &CoreFile) -> Vec<Segment> {
    let segment = |load: &crate::core::Load| Segment {
        range: AddrRange::new(load.range.start, load.saved),
        writable: Some(load.writable),
        content: Content::Bytes { blob: core.blob.clone(), offset: load.offset },
    };
    core.loads.iter().filter(|load| load.saved > 0).map(segment).collect()
}

/// One range of a collector's core.
fn collected(
    place: AddrRange,
    content: &RangeContent,
    core: &CoreFile,
    evidence: &Evidence,
    modules: &ModuleMap,
) -> Vec<Segment> {
    let one = |content, writable| vec![Segment { range: place, writable, content }];
    match content {
        RangeContent::Data => data(place, core),
        RangeContent::Zero => one(Content::Zero, Some(true)),
        RangeContent::NotSaved { why, writable } => {
            one(Content::Absent(Why::NotSaved(Arc::clone(why))), writable.then_some(true))
        }
        RangeContent::Shared { member, offset } => match evidence.shared.get(&**member) {
            Some(blob) => one(Content::Bytes { blob: blob.clone(), offset: *offset }, Some(true)),
            None => one(Content::Absent(Why::Truncated), Some(true)),
        },
        RangeContent::File { path, offset } => from_file(place, path, *offset, modules),
    }
}

/// A range of data may span several `PT_LOAD`s that touch one another; what none covers is not known
/// to be anything else.
fn data(place: AddrRange, core: &CoreFile) -> Vec<Segment> {
    let mut segments = Vec::new();
    let mut reached = place.start;
    let missing = |start, end| Segment {
        range: AddrRange { start, end },
        writable: Some(true),
        content: Content::Absent(Why::Truncated),
    };
    let first = core.loads.partition_point(|load| load.range.end <= place.start);
    for load in core.loads.iter().skip(first).take_while(|load| load.range.start < place.end) {
        let start = load.range.start.max(place.start);
        let end = Addr(load.range.start.0.saturating_add(load.saved)).min(place.end);
        if start < end {
            if reached < start {
                segments.push(missing(reached, start));
            }
            reached = end;
            let inside = start.0.saturating_sub(load.range.start.0);
            let offset = load.offset.saturating_add(inside);
            segments.push(Segment {
                range: AddrRange { start, end },
                writable: Some(load.writable),
                content: Content::Bytes { blob: core.blob.clone(), offset },
            });
        }
    }
    if reached < place.end {
        segments.push(missing(reached, place.end));
    }
    segments
}
