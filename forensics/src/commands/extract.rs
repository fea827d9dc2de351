//! A complete, standalone core of one process: what the bundle stores once for the group, or as a
//! module's file, is put back in its place.
//!
//! Pages that never existed are `p_filesz < p_memsz`; ranges that are not known have no `PT_LOAD`
//! at all, since gdb would read them as zero.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use bundle::corefile::{Machine, Notes, Segment as PlannedSegment, plan};
use bundle::notes::{self, Content as RangeContent, Range, Ranges};

use crate::addr::{Addr, AddrRange};
use crate::memory::{Content, Memory as _, Segment, Why};
use crate::num::{narrow, wide};
use crate::process::Process;
use crate::units::size;

const READ: u32 = 4;
const WRITE: u32 = 2;
const EXECUTE: u32 = 1;

/// Bytes that are copied at a time.
const PIECE: u64 = 1 << 20;

/// Writes the core of `process` to `output`.
///
/// # Errors
/// An existing file without `force`; the system's words.
pub fn extract(process: &Process, output: &Path, force: bool, out: &mut dyn Write) -> Result<()> {
    let pieces: Vec<Piece> = process.memory.segments().iter().flat_map(pieces).collect();
    let segments = planned(&pieces);
    let machine = match process.core.machine {
        "x86-64" => Machine::X86_64,
        "aarch64" => Machine::Aarch64,
        other => bail!("cores of {other} cannot be written"),
    };
    let plan = plan(machine, &core_notes(process, &pieces), &segments)?;
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600).truncate(true);
    let options = if force { options.create(true) } else { options.create_new(true) };
    let file = options
        .open(output)
        .with_context(|| format!("{} (--force replaces a file)", output.display()))?;
    let mut writer = BufWriter::with_capacity(1 << 20, file);
    writer.write_all(&plan.prefix)?;
    for piece in pieces.iter().filter(|piece| piece.kind == Kind::Data) {
        copy(process, piece.range, &mut writer)
            .with_context(|| format!("writing {}", output.display()))?;
    }
    writer.flush()?;
    writeln!(out, "{}: {}, {} segments", output.display(), size(plan.size), segments.len())?;
    Ok(())
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Data,
    Zero,
    Absent(String),
}

#[derive(Clone, Debug)]
struct Piece {
    range: AddrRange,
    flags: u32,
    kind: Kind,
}

/// A segment of the process in up to two pieces: what is held, and what was cut off.
fn pieces(segment: &Segment) -> Vec<Piece> {
    let flags = match segment.writable {
        Some(true) => READ | WRITE,
        _ => READ | EXECUTE,
    };
    let piece = |range, kind| Piece { range, flags, kind };
    match &segment.content {
        Content::Zero => vec![piece(segment.range, Kind::Zero)],
        Content::Absent(why) => vec![piece(segment.range, Kind::Absent(why.to_string()))],
        Content::Bytes { blob, offset } => {
            let length = segment.range.length();
            let held = blob.length().saturating_sub(*offset).min(length);
            let middle = Addr(segment.range.start.0.saturating_add(held));
            let head = AddrRange { start: segment.range.start, end: middle };
            let tail = AddrRange { start: middle, end: segment.range.end };
            let tail = piece(tail, Kind::Absent(Why::Truncated.to_string()));
            let all = [piece(head, Kind::Data), tail];
            all.into_iter().filter(|piece| piece.range.length() > 0).collect()
        }
    }
}

/// Pieces that touch and share their flags become one `PT_LOAD`: data first, zero pages after it.
fn planned(pieces: &[Piece]) -> Vec<PlannedSegment> {
    let mut segments: Vec<PlannedSegment> = Vec::new();
    for piece in pieces {
        let length = piece.range.length();
        let data = match piece.kind {
            Kind::Data => length,
            Kind::Zero => 0,
            Kind::Absent(_) => continue,
        };
        let start = piece.range.start.0;
        let last = segments.last_mut().filter(|last| {
            let touches = last.start.checked_add(last.memory) == Some(start);
            touches && last.flags == piece.flags && (data == 0 || last.file == last.memory)
        });
        match last {
            Some(last) => {
                last.memory = last.memory.saturating_add(length);
                last.file = last.file.saturating_add(data);
            }
            None => segments.push(PlannedSegment {
                start,
                memory: length,
                file: data,
                flags: piece.flags,
            }),
        }
    }
    segments
}

/// The core's own notes as they were, and ours brought up to date.
fn core_notes(process: &Process, pieces: &[Piece]) -> Notes {
    let mut written = Notes::default();
    for (owner, kind, content) in &process.core.notes.raw {
        written.push(owner, *kind, content);
    }
    for thread in &process.core.notes.threads {
        if let Some(record) = &thread.record {
            written.push(notes::OWNER, notes::THREAD, &record.encode());
        }
    }
    let ranges = pieces.iter().map(|piece| Range {
        start: piece.range.start.0,
        length: piece.range.length(),
        content: match &piece.kind {
            Kind::Data => RangeContent::Data,
            Kind::Zero => RangeContent::Zero,
            Kind::Absent(why) => RangeContent::NotSaved {
                why: why.as_str().into(),
                writable: piece.flags & WRITE != 0,
            },
        },
    });
    written.push(notes::OWNER, notes::RANGES, &Ranges(ranges.collect()).encode());
    written
}

fn copy(process: &Process, range: AddrRange, writer: &mut dyn Write) -> io::Result<()> {
    let mut at = range.start;
    while at < range.end {
        let want = narrow(range.end.0.saturating_sub(at.0).min(PIECE));
        let chunk = process.memory.peek(at, want).map_err(io::Error::other)?;
        writer.write_all(&chunk)?;
        at = Addr(at.0.saturating_add(wide(chunk.len())));
    }
    Ok(())
}

/// Writes the files of a process's modules below `folder`, under the paths that the process knew.
///
/// # Errors
/// The system's words.
pub fn extract_modules(process: &Process, folder: &Path, out: &mut dyn Write) -> Result<()> {
    let mut written = 0_usize;
    for module in process.modules.iter() {
        let Ok(file) = &module.file else { continue };
        let path = module.path.strip_suffix(" (deleted)").unwrap_or(&module.path);
        let Some(target) = inside(folder, path) else { continue };
        if let Some(parent) = target.parent() {
            std::fs::create_dir_all(parent)
                .with_context(|| format!("creating {}", parent.display()))?;
        }
        File::create(&target)
            .and_then(|mut opened| opened.write_all(file.bytes()))
            .with_context(|| format!("writing {}", target.display()))?;
        written = written.saturating_add(1);
    }
    writeln!(out, "{}: {written} modules", folder.display())?;
    Ok(())
}

/// A path of the customer's host below our folder; `None` if it would lead out of it.
fn inside(folder: &Path, path: &str) -> Option<PathBuf> {
    let parts: Vec<&str> =
        path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    let tame = !parts.is_empty() && !parts.contains(&"..");
    tame.then(|| parts.iter().fold(folder.to_owned(), |path, part| path.join(part)))
}
