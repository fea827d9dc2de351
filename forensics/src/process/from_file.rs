//! Ranges of a process that hold a file's bytes.
//!
//! Reads: the module file that has the mapping's build ID. Promises: what the file itself lacks
//! (the code, where a bundle holds modules without it) is absent and not zero.

use std::ops::Range;
use std::sync::Arc;

use crate::addr::{Addr, AddrRange};
use crate::memory::{Content, Segment, Why};
use crate::modules::{ModuleFile, ModuleMap};

/// A range that holds a file's bytes from `offset` on, if the file is at hand. The last page of a
/// mapping is zero behind the end of the file.
pub(super) fn from_file(
    place: AddrRange,
    path: &Arc<str>,
    offset: u64,
    modules: &ModuleMap,
) -> Vec<Segment> {
    let module = modules.by_path(path);
    let file = module.and_then(|module| module.file.as_ref().ok());
    let Some(file) = file.filter(|file| !file.debug_only) else {
        let path = module.map_or_else(|| Arc::clone(path), |module| module.path.as_str().into());
        let why = Why::ModuleMissing { path };
        return vec![Segment { range: place, writable: None, content: Content::Absent(why) }];
    };
    let held = file.blob().length().saturating_sub(offset).min(place.length());
    let end = offset.saturating_add(held);
    let mut segments: Vec<Segment> = pieces(offset..end, file)
        .into_iter()
        .map(|(part, content)| {
            let at = |offset_in_file: u64| {
                Addr(place.start.0.saturating_add(offset_in_file.saturating_sub(offset)))
            };
            let range = AddrRange { start: at(part.start), end: at(part.end) };
            Segment { range, writable: None, content }
        })
        .collect();
    let behind = AddrRange { start: Addr(place.start.0.saturating_add(held)), end: place.end };
    segments.push(Segment { range: behind, writable: None, content: Content::Zero });
    segments
}

/// The parts of a range of offsets: what the file holds, and what it lacks.
fn pieces(wanted: Range<u64>, file: &ModuleFile) -> Vec<(Range<u64>, Content)> {
    let mut pieces = Vec::new();
    let mut at = wanted.start;
    let hold = |range: Range<u64>| {
        let offset = range.start;
        (range, Content::Bytes { blob: file.blob().clone(), offset })
    };
    for lacking in &file.lacking {
        let start = lacking.start.clamp(at, wanted.end);
        let end = lacking.end.clamp(start, wanted.end);
        if start == end {
            continue;
        }
        if at < start {
            pieces.push(hold(at..start));
        }
        let why = Why::NotSaved("the bundle holds this module without its code".into());
        pieces.push((start..end, Content::Absent(why)));
        at = end;
    }
    if at < wanted.end {
        pieces.push(hold(at..wanted.end));
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bytes::Blob;

    /// This test's own program.
    fn program() -> ModuleFile {
        let bytes = std::fs::read("/proc/self/exe").unwrap();
        ModuleFile::read(&Blob::from_bytes(bytes), "program").unwrap()
    }

    #[test]
    fn what_a_file_lacks_is_absent_and_never_zero() {
        let mut file = program();
        file.lacking = vec![10..20, 100..200, 250..400];
        let pieces: Vec<(Range<u64>, Option<u64>)> = pieces(100..300, &file)
            .into_iter()
            .map(|(range, content)| match content {
                Content::Bytes { offset, .. } => (range, Some(offset)),
                Content::Absent(Why::NotSaved(_)) => (range, None),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(pieces[..3], [(100..200, None), (200..250, Some(200)), (250..300, None)]);
    }

    #[test]
    fn a_whole_file_is_one_piece() {
        let pieces = pieces(0..4096, &program());
        assert_eq!(pieces.len(), 1);
        assert!(matches!(pieces[0], (Range { start: 0, end: 4096 }, Content::Bytes { .. })));
    }
}
