//! One process's core: its notes in the order that gdb expects, and its plan.
//!
//! `PT_LOAD` for data, and without bytes in the file for what is known to be zero. Pools, files and
//! what was not saved have none, since gdb takes a segment without bytes for zero; the note
//! [`bundle::notes::Ranges`] says what became of every mapped byte.

use std::collections::BTreeMap;

use bundle::PAGE_SIZE;
use bundle::corefile::{self, Machine, Notes, Plan, PlanError, Segment};
use bundle::notes::{self, Content, Range, Ranges, RegisterSource, ThreadRecord};
use object::elf;

use crate::copy::Saved;
use crate::freeze::FrozenThread;
use crate::mappings::{FileKey, Mapping};
use crate::number::{bytes, size};
use crate::pools::Rest;
use crate::procfs::ThreadFacts;
use crate::spans::{self, Span};
use crate::survey::{Fate, Slice};

/// What the notes say of the process itself.
#[derive(Clone, Debug, Default)]
pub struct ProcessFacts {
    /// PID.
    pub pid: u32,
    /// Real user and group.
    pub owner: (u32, u32),
    /// The command line, as in `/proc/PID/cmdline`.
    pub command_line: Vec<u8>,
    /// `/proc/PID/auxv`.
    pub auxiliary: Vec<u8>,
    /// By thread ID, as they were before the freeze.
    pub threads: BTreeMap<u32, ThreadFacts>,
}

/// A pool as it is in the bundle.
#[derive(Clone, Debug)]
pub struct StoredPool {
    /// Its member.
    pub member: String,
    /// Saved parts by offset in the pool, each with its offset in the member.
    pub saved: Vec<(Span, u64)>,
    /// What could not be read, and why.
    pub failed: Vec<(Span, std::sync::Arc<str>)>,
    /// What the other pages are.
    pub rest: Rest,
    /// Length of the file behind it.
    pub size: Option<u64>,
}

/// A core, ready to be written: the plan's prefix, then the saved data.
#[derive(Debug)]
pub struct Core {
    /// Its layout.
    pub plan: Plan,
    /// Bytes of the address space by what became of them.
    pub bytes: BTreeMap<String, u64>,
}

/// Everything that a core is made of.
#[derive(Debug)]
pub struct Parts<'a> {
    /// The process.
    pub process: &'a ProcessFacts,
    /// Its threads.
    pub threads: &'a [FrozenThread],
    /// What is mapped.
    pub mappings: &'a [Mapping],
    /// What becomes of it.
    pub slices: &'a [Slice],
    /// Its data as copied.
    pub saved: &'a Saved,
    /// The group's pools.
    pub pools: &'a BTreeMap<FileKey, StoredPool>,
}

impl Parts<'_> {
    /// Decides the core's layout.
    ///
    /// # Errors
    /// [`PlanError`], only for absurd sizes.
    pub fn plan(&self, machine: Machine) -> Result<Core, PlanError> {
        let (ranges, segments) = self.ranges();
        let mut bytes: BTreeMap<String, u64> = BTreeMap::new();
        for range in &ranges.0 {
            let name = match range.content {
                Content::Data => "data",
                Content::Zero => "zero",
                Content::File { .. } => "file",
                Content::Shared { .. } => "shared",
                Content::NotSaved { .. } => "not saved",
            };
            *bytes.entry(name.to_owned()).or_default() += range.length;
        }
        let plan = corefile::plan(machine, &self.notes(&ranges), &segments)?;
        Ok(Core { plan, bytes })
    }

    /// What became of each range, and the segments that follow from it.
    fn ranges(&self) -> (Ranges, Vec<Segment>) {
        let mut ranges: Vec<Range> = Vec::with_capacity(self.slices.len());
        let mut segments: Vec<Segment> = Vec::new();
        for slice in self.slices {
            match &slice.fate {
                Fate::Data => {
                    for (span, failed) in spans::split(slice.span, &self.saved.failed) {
                        let content = match failed {
                            None => Content::Data,
                            Some(why) => not_saved(why, slice.is_writable_memory()),
                        };
                        add_segment(&mut segments, span, slice.flags, &content);
                        add_range(&mut ranges, span, content);
                    }
                }
                Fate::Zero => {
                    add_segment(&mut segments, slice.span, slice.flags, &Content::Zero);
                    add_range(&mut ranges, slice.span, Content::Zero);
                }
                Fate::File { path, offset } => {
                    let content = Content::File { path: path.to_string().into(), offset: *offset };
                    add_range(&mut ranges, slice.span, content);
                }
                Fate::NotSaved { why } => {
                    let content = not_saved(why, slice.is_writable_memory());
                    add_range(&mut ranges, slice.span, content);
                }
                Fate::Pool { key, offset } => match self.pools.get(key) {
                    Some(pool) => {
                        pool.ranges(slice.span, *offset, slice.is_writable_memory(), &mut ranges);
                    }
                    None => {
                        let content = not_saved("its shared memory was not found", true);
                        add_range(&mut ranges, slice.span, content);
                    }
                },
            }
        }
        (Ranges(ranges), segments)
    }

    fn notes(&self, ranges: &Ranges) -> Notes {
        let mut notes = Notes::default();
        // The first thread in the core is the one that gdb shows first: the process's own.
        let pid = self.process.pid;
        let leader = self.threads.iter().filter(|thread| thread.tid == pid);
        let others = self.threads.iter().filter(|thread| thread.tid != pid);
        for (index, thread) in leader.chain(others).enumerate() {
            notes.push("CORE", elf::NT_PRSTATUS.0, &self.thread_status(thread));
            if index == 0 {
                notes.push("CORE", elf::NT_PRPSINFO.0, &self.process_information());
            }
            if let Some(signal) = &thread.registers.signal {
                notes.push("CORE", elf::NT_SIGINFO.0, signal);
            }
            if index == 0 {
                notes.push("CORE", elf::NT_AUXV.0, &self.process.auxiliary);
                notes.push("CORE", elf::NT_FILE.0, &file_note(self.mappings));
            }
            for set in &thread.registers.extended {
                notes.push(set.owner, set.kind, &set.content);
            }
        }
        let leader = self.threads.iter().filter(|thread| thread.tid == pid);
        let others = self.threads.iter().filter(|thread| thread.tid != pid);
        for thread in leader.chain(others) {
            let facts = self.process.threads.get(&thread.tid);
            let record = ThreadRecord {
                tid: thread.tid,
                state: facts.map_or(b'?', |facts| facts.stat.state),
                registers: thread.registers.source,
                name: facts.map(|facts| facts.stat.name.clone()).unwrap_or_default(),
            };
            notes.push(notes::OWNER, notes::THREAD, &record.encode());
        }
        notes.push(notes::OWNER, notes::RANGES, &ranges.encode());
        notes
    }

    /// `struct elf_prstatus`.
    fn thread_status(&self, thread: &FrozenThread) -> Vec<u8> {
        let facts = self.process.threads.get(&thread.tid).cloned().unwrap_or_default();
        let stat = &facts.stat;
        let signal = u32::try_from(thread.signal).unwrap_or(0);
        let mut out = Structure::default();
        out.u32(signal); // pr_info: si_signo, si_code, si_errno
        out.u32(0);
        out.u32(0);
        out.u32(signal & 0xffff); // pr_cursig and padding
        out.u64(facts.pending);
        out.u64(facts.blocked);
        for id in [thread.tid, stat.parent, stat.process_group, stat.session] {
            out.u32(id);
        }
        for ticks in stat.times {
            // USER_HZ is 100 on every architecture of ours.
            out.u64(ticks / 100);
            out.u64(ticks % 100 * 10_000);
        }
        out.bytes(&thread.registers.general);
        let floating = thread.registers.source == RegisterSource::Stopped;
        out.u32(u32::from(floating)); // pr_fpvalid and padding
        out.u32(0);
        out.0
    }

    /// `struct elf_prpsinfo`.
    fn process_information(&self) -> Vec<u8> {
        let facts = self.process.threads.get(&self.process.pid);
        let facts = facts.or_else(|| self.process.threads.values().next()).cloned();
        let stat = facts.unwrap_or_default().stat;
        let number = "RSDTZW".bytes().position(|letter| letter == stat.state).unwrap_or(6);
        let mut out = Structure::default();
        out.bytes(&[
            u8::try_from(number).unwrap_or(0),
            if number == 6 { b'.' } else { stat.state },
            u8::from(stat.state == b'Z'),
        ]);
        out.bytes(&stat.nice.to_le_bytes());
        out.u32(0); // padding
        out.u64(stat.flags);
        let (user, group) = self.process.owner;
        for id in [user, group, self.process.pid, stat.parent, stat.process_group, stat.session] {
            out.u32(id);
        }
        out.text(stat.name.as_bytes(), 16);
        let words = self.process.command_line.iter().map(|byte| match byte {
            0 => b' ',
            byte => *byte,
        });
        let line: Vec<u8> = words.take(79).collect();
        out.text(line.trim_ascii_end(), 80);
        out.0
    }
}

impl StoredPool {
    /// What became of the pool's bytes from `offset` on, which are mapped at `span`.
    fn ranges(&self, span: Span, offset: u64, writable: bool, ranges: &mut Vec<Range>) {
        let address = |at: u64| span.start + (at - offset);
        let whole = Span::new(offset, offset + span.length());
        let end = self.size.map_or(u64::MAX, crate::number::page_ceil);
        for (piece, saved) in spans::split(whole, &self.saved) {
            if let Some(at_member) = saved {
                let begin = self.saved.partition_point(|(known, _)| known.end <= piece.start);
                let skipped =
                    self.saved.get(begin).map_or(0, |(known, _)| piece.start - known.start);
                let content = Content::Shared {
                    member: self.member.as_str().into(),
                    offset: at_member + skipped,
                };
                add_range(ranges, Span::new(address(piece.start), address(piece.end)), content);
                continue;
            }
            for (piece, failed) in spans::split(piece, &self.failed) {
                let content = match (failed, &self.rest) {
                    (Some(why), _) => not_saved(why, writable),
                    (None, Rest::Zero) => Content::Zero,
                    (None, Rest::NotSaved(why)) => not_saved(why, writable),
                    (None, Rest::File(path)) => {
                        Content::File { path: path.to_string().into(), offset: piece.start }
                    }
                };
                let inside = piece.and(Span::new(0, end));
                if !inside.is_empty() {
                    let span = Span::new(address(inside.start), address(inside.end));
                    add_range(ranges, span, content);
                }
                let beyond = piece.and(Span::new(end, u64::MAX));
                if !beyond.is_empty() {
                    let span = Span::new(address(beyond.start), address(beyond.end));
                    add_range(ranges, span, not_saved("beyond the end of its file", false));
                }
            }
        }
    }
}

fn not_saved(why: &str, writable: bool) -> Content {
    Content::NotSaved { why: why.into(), writable }
}

/// Appends a range, joined to the last one where it goes on.
fn add_range(ranges: &mut Vec<Range>, span: Span, content: Content) {
    if span.is_empty() {
        return;
    }
    let length = span.length();
    if let Some(last) = ranges.last_mut()
        && last.start + last.length == span.start
    {
        let goes_on = match (&last.content, &content) {
            (Content::Data, Content::Data) | (Content::Zero, Content::Zero) => true,
            (
                Content::File { path: one, offset: from },
                Content::File { path: two, offset: to },
            ) => one == two && from + last.length == *to,
            (
                Content::Shared { member: one, offset: from },
                Content::Shared { member: two, offset: to },
            ) => one == two && from + last.length == *to,
            (Content::NotSaved { .. }, Content::NotSaved { .. }) => last.content == content,
            _ => false,
        };
        if goes_on {
            last.length += length;
            return;
        }
    }
    ranges.push(Range { start: span.start, length, content });
}

/// Appends a segment for data or zeroes, joined to the last one where it goes on.
fn add_segment(segments: &mut Vec<Segment>, span: Span, flags: u32, content: &Content) {
    let length = span.length();
    let in_file = match content {
        Content::Data => length,
        Content::Zero => 0,
        _ => return,
    };
    if let Some(last) = segments.last_mut()
        && last.flags == flags
        && last.start + last.memory == span.start
        && (last.file == last.memory || in_file == 0)
    {
        last.memory += length;
        last.file += in_file;
        return;
    }
    segments.push(Segment { start: span.start, memory: length, file: in_file, flags });
}

/// `NT_FILE`: every mapping of a file, as the kernel writes it.
fn file_note(mappings: &[Mapping]) -> Vec<u8> {
    let files: Vec<&Mapping> = mappings.iter().filter(|mapping| mapping.inode != 0).collect();
    let mut out = Structure::default();
    out.u64(bytes(files.len()));
    out.u64(PAGE_SIZE);
    for file in &files {
        out.u64(file.span.start);
        out.u64(file.span.end);
        out.u64(file.offset / PAGE_SIZE);
    }
    for file in &files {
        out.bytes(file.name.as_bytes());
        out.bytes(&[0]);
    }
    out.0
}

/// A C structure being laid out.
#[derive(Debug, Default)]
struct Structure(Vec<u8>);

impl Structure {
    fn u32(&mut self, value: u32) {
        self.bytes(&value.to_le_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.bytes(&value.to_le_bytes());
    }

    fn bytes(&mut self, value: &[u8]) {
        self.0.extend_from_slice(value);
    }

    /// A text in a field of `length` bytes, with its terminating zero.
    fn text(&mut self, value: &[u8], length: u64) {
        let length = size(length);
        let kept = value.get(..length.saturating_sub(1)).unwrap_or(value);
        let end = self.0.len() + length;
        self.bytes(kept);
        self.0.resize(end, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_is_split_at_holes_failures_and_its_end() {
        let pool = StoredPool {
            member: "shared/00.01-7".into(),
            saved: vec![(Span::new(0x1000, 0x3000), 0), (Span::new(0x8000, 0x9000), 0x2000)],
            failed: vec![(Span::new(0x3000, 0x4000), "unreadable".into())],
            rest: Rest::Zero,
            size: Some(0xa000),
        };
        let mut ranges = Vec::new();
        pool.ranges(Span::new(0x70_0000, 0x70_a000), 0x2000, true, &mut ranges);
        let shared = |offset| Content::Shared { member: "shared/00.01-7".into(), offset };
        let range = |start, length, content| Range { start, length, content };
        assert_eq!(
            ranges,
            [
                range(0x70_0000, 0x1000, shared(0x1000)),
                range(0x70_1000, 0x1000, not_saved("unreadable", true)),
                range(0x70_2000, 0x4000, Content::Zero),
                range(0x70_6000, 0x1000, shared(0x2000)),
                range(0x70_7000, 0x1000, Content::Zero),
                range(0x70_8000, 0x2000, not_saved("beyond the end of its file", false)),
            ]
        );
    }

    #[test]
    fn zeroes_after_data_lengthen_its_segment() {
        let mut segments = Vec::new();
        add_segment(&mut segments, Span::new(0, 10), 6, &Content::Zero);
        add_segment(&mut segments, Span::new(10, 20), 6, &Content::Data);
        add_segment(&mut segments, Span::new(20, 25), 6, &Content::Data);
        add_segment(&mut segments, Span::new(25, 30), 6, &Content::Zero);
        add_segment(&mut segments, Span::new(30, 35), 6, &Content::Data);
        add_segment(&mut segments, Span::new(35, 40), 4, &Content::Zero);
        let segment = |start, memory, file, flags| Segment { start, memory, file, flags };
        assert_eq!(
            segments,
            [
                segment(0, 10, 0, 6),
                segment(10, 20, 15, 6),
                segment(30, 5, 5, 6),
                segment(35, 5, 0, 4)
            ]
        );
    }

    #[test]
    fn structures_have_the_kernels_length() {
        let process = ProcessFacts { pid: 7, ..ProcessFacts::default() };
        let registers = crate::registers::Registers::none();
        let thread = FrozenThread { pid: 7, tid: 7, registers, unstopped: None, signal: 0 };
        let parts = Parts {
            process: &process,
            threads: &[],
            mappings: &[],
            slices: &[],
            saved: &Saved::default(),
            pools: &BTreeMap::new(),
        };
        assert_eq!(parts.process_information().len(), 136);
        assert_eq!(parts.thread_status(&thread).len(), crate::arch::GENERAL_LENGTH + 120);
    }
}
