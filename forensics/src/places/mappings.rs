//! What a process maps, and which of it is a stack or the brk heap.
//!
//! A bundle holds `/proc/PID/maps`, which names them. Kernel and gcore cores do not: there each
//! `PT_LOAD` is a mapping, a stack is where a thread's stack pointer leads, and the heap is
//! recognised by its chunks. A collector's core without its `maps` (a bundle that was cut) says
//! which ranges touch one another, and that serves as well.

use super::glibc;
use crate::addr::{Addr, AddrRange};
use crate::core::{CoreFile, MappedFile, Writer};
use crate::input::Evidence;
use crate::memory::SegmentMap;
use crate::process::Process;

/// The heap begins at most so far behind the executable: the kernel's widest random distance.
const HEAP_DISTANCE: u64 = 1 << 30;

/// Types of the auxiliary vector.
const AT_ENTRY: u64 = 9;
const AT_SYSINFO_EHDR: u64 = 33;

/// One mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mapping {
    /// Its addresses.
    pub(super) range: AddrRange,
    /// Whether the process could write there.
    pub(super) writable: bool,
    /// What it is, where the snapshot says so.
    pub(super) name: Option<Name>,
}

/// What the snapshot says that a mapping is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Name {
    /// `[heap]`: the brk heap.
    Heap,
    /// `[stack]`: that of the first thread.
    Stack,
    /// `[vdso]`
    Vdso,
    /// Memory that processes share without a file.
    Shared,
    /// A file.
    File(String),
}

impl Name {
    /// Of a mapping that the kernel lists with a path.
    fn of_path(path: &str) -> Self {
        let nameless = ["/dev/zero", "/SYSV", "/memfd:", "/anon_hugepage"];
        match nameless.iter().any(|start| path.starts_with(start)) {
            true => Self::Shared,
            false => Self::File(path.to_owned()),
        }
    }
}

impl Mapping {
    /// Whether it is memory of the process's own: anonymous and writable.
    pub(super) fn is_private_memory(&self) -> bool {
        self.writable && !matches!(self.name, Some(Name::File(_) | Name::Shared | Name::Vdso))
    }
}

/// The mappings of one process.
#[derive(Debug)]
pub(super) struct Mappings {
    /// By rising address.
    list: Vec<Mapping>,
    /// Each thread's stack pointer and ID, by rising stack pointer.
    threads: Vec<(Addr, u32)>,
    /// The first thread, whose stack has a name.
    leader: Option<u32>,
    /// The brk heap where no name tells.
    pub(super) heap: Option<AddrRange>,
}

impl Mappings {
    /// Of a process; from the text of its `maps` if the evidence has it.
    pub(super) fn of(process: &Process, evidence: &Evidence) -> Self {
        let text =
            process.pid.and_then(|pid| evidence.text(&bundle::member::process_file(pid, "maps")));
        let mut list = match text.as_deref().map(parse) {
            Some(list) if !list.is_empty() => list,
            _ => of_core(&process.core, &process.memory),
        };
        list.sort_by_key(|mapping| mapping.range.start);
        let mut threads: Vec<(Addr, u32)> = process
            .core
            .notes
            .threads
            .iter()
            .filter_map(|thread| Some((thread.stack_pointer(process.core.machine)?, thread.tid)))
            .collect();
        threads.sort_unstable();
        let leader = process.core.pid().or(process.pid);
        let mut mappings = Self { list, threads, leader, heap: None };
        mappings.heap = mappings.find_heap(process);
        mappings
    }

    /// The mapping that holds an address.
    pub(super) fn at(&self, at: Addr) -> Option<&Mapping> {
        let index = self.list.partition_point(|mapping| mapping.range.end <= at);
        self.list.get(index).filter(|mapping| mapping.range.contains(at))
    }

    /// The thread whose stack a mapping is. Stacks without a guard between them are one mapping:
    /// an address belongs to the thread whose stack pointer is next below it.
    pub(super) fn stack(&self, mapping: &Mapping, at: Addr) -> Option<u32> {
        if !mapping.is_private_memory() {
            return None;
        }
        let first = self.threads.partition_point(|(pointer, _)| *pointer < mapping.range.start);
        let inside = self.threads.get(first..)?.iter();
        let mut inside = inside.take_while(|(pointer, _)| mapping.range.contains(*pointer));
        let lowest = inside.next();
        let below = inside.take_while(|(pointer, _)| *pointer <= at).last().or(lowest);
        let named = self.leader.filter(|_| mapping.name == Some(Name::Stack));
        below.map(|(_, thread)| *thread).or(named)
    }

    /// Nameless mappings and the first thread's stack that a stack pointer leads into, but not the
    /// brk heap, each with the lowest stack pointer in it.
    pub(super) fn stacks(&self) -> Vec<(AddrRange, Addr)> {
        let mut stacks: Vec<(AddrRange, Addr)> = Vec::new();
        for (pointer, _) in &self.threads {
            let Some(mapping) = self.at(*pointer) else { continue };
            let heap = mapping.name == Some(Name::Heap)
                || self.heap.is_some_and(|heap| heap.contains(*pointer));
            let known = stacks.last().is_some_and(|(range, _)| *range == mapping.range);
            if mapping.is_private_memory() && !heap && !known {
                stacks.push((mapping.range, *pointer));
            }
        }
        stacks
    }

    /// The brk heap by its bytes: the first memory of the process's own behind the executable.
    fn find_heap(&self, process: &Process) -> Option<AddrRange> {
        if self.list.iter().any(|mapping| mapping.name == Some(Name::Heap)) {
            return None;
        }
        let auxv = &process.core.notes.auxv;
        let entry = auxv.iter().find(|(kind, _)| *kind == AT_ENTRY).map(|(_, value)| Addr(*value));
        let program = entry.and_then(|entry| process.modules.at(entry));
        let behind = program.or_else(|| process.modules.iter().next())?.image.end;
        let first = self.list.partition_point(|mapping| mapping.range.end <= behind);
        let mut own = self.list.get(first..)?.iter().skip_while(|m| !m.is_private_memory());
        let start = own.next()?.range;
        let mut heap = AddrRange { start: start.start.max(behind), end: start.end };
        if heap.start.offset_from(behind)? > HEAP_DISTANCE {
            return None;
        }
        // After a fork the kernel may not join what brk adds with what was there.
        for mapping in own.take_while(|mapping| mapping.is_private_memory()) {
            if mapping.range.start != heap.end {
                break;
            }
            heap.end = mapping.range.end;
        }
        glibc::is_main_heap(&process.memory, heap).then_some(heap)
    }
}

/// The text of `/proc/PID/maps`; lines that are none are left out.
fn parse(text: &str) -> Vec<Mapping> {
    text.lines().filter_map(parse_line).collect()
}

/// `start-end permissions offset device inode name`; the name is the rest and may hold spaces.
fn parse_line(line: &str) -> Option<Mapping> {
    let mut fields = line.splitn(6, ' ');
    let (start, end) = fields.next()?.split_once('-')?;
    let permissions = fields.next()?;
    let name = fields.nth(3).unwrap_or_default().trim_start();
    let (start, end) = (start.parse().ok()?, end.parse().ok()?);
    let name = match name {
        "[heap]" => Some(Name::Heap),
        "[stack]" => Some(Name::Stack),
        "[vdso]" => Some(Name::Vdso),
        other if other.is_empty() || other.starts_with('[') => None,
        path => Some(Name::of_path(path)),
    };
    let range = AddrRange { start, end };
    (start < end).then_some(Mapping { range, writable: permissions.contains('w'), name })
}

/// What a core itself says.
fn of_core(core: &CoreFile, memory: &SegmentMap) -> Vec<Mapping> {
    let vdso = core.notes.auxv.iter().find(|(kind, _)| *kind == AT_SYSINFO_EHDR);
    let mut files: Vec<&MappedFile> = core.notes.files.iter().collect();
    files.sort_by_key(|file| file.range.start);
    let named = |range: AddrRange, writable| {
        let index = files.partition_point(|file| file.range.end <= range.start);
        let file = files.get(index).filter(|file| file.range.contains(range.start));
        let name = match file {
            Some(file) => Some(Name::of_path(&file.path)),
            None if vdso.is_some_and(|(_, at)| *at == range.start.0) => Some(Name::Vdso),
            None => None,
        };
        Mapping { range, writable, name }
    };
    if core.writer != Writer::Collector {
        let all = core.loads.iter();
        return all.map(|load| named(load.range, load.writable)).collect();
    }
    let mut list: Vec<Mapping> = Vec::new();
    for segment in memory.segments() {
        let next = named(segment.range, segment.writable == Some(true));
        match list.last_mut() {
            Some(last)
                if last.range.end == next.range.start
                    && last.writable == next.writable
                    && last.name == next.name =>
            {
                last.range.end = next.range.end;
            }
            _ => list.push(next),
        }
    }
    list
}
