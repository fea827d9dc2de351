//! What becomes of each range of a process's address space: data, zero, the file's, stored with a
//! pool, or not saved.
//!
//! Surveyed twice: before the freeze to know how much there is, and in it for good.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use bundle::PAGE_SIZE;

use crate::devices::Devices;
use crate::mappings::{FileKey, Kind, Mapping};
use crate::pages::{self, PageRun};
use crate::part::Part;
use crate::pools_only::NO_POOL;
use crate::spans::Span;

const RING: &str = "a packet ring; --rings saves it";
const DEVICE: &str = "a device mapping";
/// Why a page of the kernel is not saved.
pub(crate) const KERNEL_PAGE: &str = "kernel page";

/// What the survey may do and wants.
#[derive(Clone, Copy, Debug, Default)]
pub struct Choices {
    /// Packet rings are wanted.
    pub rings: bool,
    /// `/proc/PID/map_files` may be opened here.
    pub map_files: bool,
    /// How much of the memory.
    pub part: Part,
}

/// What becomes of a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Its pages exist and are copied.
    Data,
    /// It reads as zero.
    Zero,
    /// A file holds its bytes.
    File {
        /// Path as in `maps`.
        path: Arc<str>,
        /// Offset in the file.
        offset: u64,
    },
    /// It is a part of shared memory.
    Pool {
        /// Which.
        key: FileKey,
        /// Offset in it.
        offset: u64,
    },
    /// It is left out.
    NotSaved {
        /// The reason, for a person.
        why: Arc<str>,
    },
}

/// A range of one mapping with one fate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    /// Its addresses.
    pub span: Span,
    /// `PF_R`, `PF_W`, `PF_X`.
    pub flags: u32,
    /// What becomes of it.
    pub fate: Fate,
}

impl Slice {
    /// Whether the process may keep pointers there.
    pub fn is_writable_memory(&self) -> bool {
        let none = [RING, DEVICE, KERNEL_PAGE];
        let elsewhere = matches!(&self.fate, Fate::NotSaved { why } if none.contains(&&**why));
        self.flags & 2 != 0 && !elsewhere
    }
}

/// Where the memory of a pool lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolSort {
    /// tmpfs, memfd, SysV, `MAP_SHARED | MAP_ANONYMOUS`: absent pages are zero.
    Memory,
    /// Huge pages: the file does not tell which exist.
    Huge,
    /// A file on a disk, mapped writable.
    File,
}

/// A mapping of shared memory in one process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolPart {
    /// Which shared memory.
    pub key: FileKey,
    /// Its name.
    pub name: String,
    /// Where it lives.
    pub sort: PoolSort,
    /// The part of it that is mapped, as offsets in it.
    pub offsets: Span,
    /// Address of the first byte.
    pub address: u64,
    /// Offsets of the pages that this process has touched itself.
    pub touched: Vec<Span>,
    /// Path of the mapping under `map_files`.
    pub path: String,
    /// Offsets of what is wanted of it; nothing here means all.
    pub only: Option<Vec<Span>>,
}

impl PoolPart {
    /// What is wanted of the pages that the process has touched.
    pub(crate) fn wanted(&self) -> Vec<Span> {
        let Some(only) = &self.only else { return self.touched.clone() };
        let inside = |span: &Span| only.iter().map(|wanted| wanted.and(*span)).collect::<Vec<_>>();
        self.touched.iter().flat_map(inside).filter(|span| !span.is_empty()).collect()
    }
}

/// One process's address space.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    /// A thread of the process, for `process_vm_readv` and `/proc`.
    pub id: u32,
    /// The text of `maps`.
    pub maps: Vec<u8>,
    /// The same, parsed.
    pub mappings: Vec<Mapping>,
    /// What becomes of it, by rising address, without holes inside a mapping.
    pub slices: Vec<Slice>,
    /// Its shared memory.
    pub pools: Vec<PoolPart>,
    /// Bytes of data that are in swap.
    pub swapped: u64,
    /// What [`crate::stacks_only`] takes whatever the threads do.
    pub fixed: Vec<Span>,
}

impl Survey {
    /// Bytes to be copied, pools apart.
    pub fn data(&self) -> u64 {
        let data = self.slices.iter().filter(|slice| slice.fate == Fate::Data);
        data.map(|slice| slice.span.length()).sum()
    }

    /// The slices of one mapping.
    pub(crate) fn slices_in(&self, mapping: Span) -> &[Slice] {
        let first = self.slices.partition_point(|slice| slice.span.end <= mapping.start);
        let last = self.slices.partition_point(|slice| slice.span.start < mapping.end);
        self.slices.get(first..last).unwrap_or_default()
    }
}

/// Looks at a process whose memory is wanted, or its pools.
///
/// # Errors
/// `maps` or `pagemap` cannot be read.
pub fn survey(id: u32, choices: Choices) -> io::Result<Survey> {
    let maps = fs::read(format!("/proc/{id}/maps"))?;
    let mappings = Mapping::parse_all(&String::from_utf8_lossy(&maps));
    let runs = pages::existing(id, &mappings)?;
    let devices = Devices::of(id, &mappings);
    let mut survey = Survey { id, maps, ..Survey::default() };
    let unneeded = match choices.part {
        Part::Pools(pools) => pools.unneeded(id, &mappings),
        Part::Whole | Part::Stacks(_) => Vec::new(),
    };
    let no_pool: Arc<str> = NO_POOL.into();
    for mapping in &mappings {
        let kind = mapping.kind(devices.are_memory(mapping));
        let touched: Vec<PageRun> = pages::clip(&runs, mapping.span).collect();
        if kind == Kind::Pool {
            survey.pools.push(pool_part(id, mapping, &touched, &devices));
        }
        let readable = choices.map_files || file_is_there(id, mapping);
        let mut slices = classify(mapping, kind, &touched, choices.rings, readable);
        if unneeded.iter().any(|span| span.and(mapping.span) == mapping.span) {
            for slice in slices.iter_mut().filter(|slice| slice.fate == Fate::Data) {
                slice.fate = Fate::NotSaved { why: Arc::clone(&no_pool) };
            }
        }
        survey.swapped += swapped(&slices, &touched);
        survey.slices.extend(slices);
    }
    survey.mappings = mappings;
    Ok(survey)
}

/// Bytes of data that are in swap.
pub(crate) fn swapped(slices: &[Slice], runs: &[PageRun]) -> u64 {
    let in_swap = |slice: &Slice| -> u64 {
        let runs = pages::clip(runs, slice.span).filter(|run| run.swapped);
        runs.map(|run| run.span.length()).sum()
    };
    slices.iter().filter(|slice| slice.fate == Fate::Data).map(in_swap).sum()
}

/// A data file without a name is gone with the process: its pages in memory are the last.
pub(crate) fn is_nameless(mapping: &Mapping) -> bool {
    mapping.name.starts_with("/memfd:")
        || (mapping.name.ends_with(" (deleted)")
            && mapping.flags & 1 == 0
            && !mapping.name.contains(".so"))
}

/// The slices of one mapping. `readable`: its file can be read later, if it has one.
pub(crate) fn classify(
    mapping: &Mapping,
    kind: Kind,
    runs: &[PageRun],
    rings: bool,
    readable: bool,
) -> Vec<Slice> {
    let all = |fate: Fate| vec![Slice { span: mapping.span, flags: mapping.flags, fate }];
    let not_saved = |why: &str| Fate::NotSaved { why: why.into() };
    match kind {
        Kind::Vdso => all(Fate::Data),
        Kind::Ring if rings => all(Fate::Data),
        Kind::Ring => all(not_saved(RING)),
        Kind::Device => all(not_saved(DEVICE)),
        Kind::KernelPage => all(not_saved(KERNEL_PAGE)),
        Kind::Pool => all(Fate::Pool { key: mapping.file(), offset: mapping.offset }),
        Kind::SharedFile => {
            all(Fate::File { path: mapping.name.as_str().into(), offset: mapping.offset })
        }
        Kind::PrivateAnonymous => {
            let data = runs.iter().filter(|run| !run.zero).map(|run| run.span);
            with_rest(mapping, data, |_| Fate::Zero)
        }
        Kind::PrivateFile if readable => {
            let path: Arc<str> = mapping.name.as_str().into();
            // The first page tells an ELF file's build ID, should the file be gone later. Only
            // where it is in memory: a page fault on a dead file server would not come back.
            let first = Span::new(mapping.span.start, mapping.span.start + PAGE_SIZE);
            let head = if mapping.offset == 0 { first } else { Span::new(0, 0) };
            let nameless = is_nameless(mapping);
            let data = runs.iter().filter_map(|run| {
                let span = if run.file && !nameless { run.span.and(head) } else { run.span };
                (!run.zero && !span.is_empty()).then_some(span)
            });
            with_rest(mapping, data, |at| Fate::File {
                path: Arc::clone(&path),
                offset: mapping.offset + (at - mapping.span.start),
            })
        }
        Kind::PrivateFile => {
            let rest = not_saved("its file cannot be read here, and the page is not in memory");
            with_rest(mapping, runs.iter().map(|run| run.span), |_| rest.clone())
        }
    }
}

/// Slices of data, and between them slices of what `rest` says of their first address.
fn with_rest(
    mapping: &Mapping,
    data: impl Iterator<Item = Span>,
    rest: impl Fn(u64) -> Fate,
) -> Vec<Slice> {
    let mut slices: Vec<Slice> = Vec::new();
    let mut add = |span: Span, fate: Fate| match slices.last_mut() {
        _ if span.is_empty() => {}
        Some(Slice { span: last, fate: Fate::Data, .. })
            if last.end == span.start && fate == Fate::Data =>
        {
            last.end = span.end;
        }
        _ => slices.push(Slice { span, flags: mapping.flags, fate }),
    };
    let mut at = mapping.span.start;
    for span in data {
        add(Span::new(at, span.start), rest(at));
        add(span, Fate::Data);
        at = span.end;
    }
    add(Span::new(at, mapping.span.end), rest(at));
    slices
}

pub(crate) fn pool_part(
    id: u32,
    mapping: &Mapping,
    runs: &[PageRun],
    devices: &Devices,
) -> PoolPart {
    let huge = mapping.name.starts_with("/anon_hugepage")
        || mapping.name.starts_with("/dev/hugepages/")
        || devices.huge.contains(&mapping.device);
    let memory = mapping.is_nameless_memory()
        || mapping.name.starts_with("/dev/shm/")
        || devices.memory.contains(&mapping.device);
    let sort = match (huge, memory) {
        (true, _) => PoolSort::Huge,
        (false, true) => PoolSort::Memory,
        (false, false) => PoolSort::File,
    };
    let offset = |address: u64| mapping.offset + (address - mapping.span.start);
    let touched = runs.iter().map(|run| Span::new(offset(run.span.start), offset(run.span.end)));
    PoolPart {
        key: mapping.file(),
        name: mapping.name.clone(),
        sort,
        offsets: Span::new(offset(mapping.span.start), offset(mapping.span.end)),
        address: mapping.span.start,
        touched: touched.collect(),
        path: format!("/proc/{id}/map_files/{}", mapping.map_files_name()),
        only: None,
    }
}

/// Without `map_files`, whether the file's path at least leads to something.
pub(crate) fn file_is_there(id: u32, mapping: &Mapping) -> bool {
    if mapping.inode == 0 || mapping.name.ends_with(" (deleted)") {
        return false;
    }
    let path = format!("/proc/{id}/root{}", mapping.name);
    fs::symlink_metadata(Path::new(&path)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(start: u64, end: u64) -> PageRun {
        PageRun {
            span: Span::new(start * 4096, end * 4096),
            swapped: false,
            file: false,
            zero: false,
        }
    }

    fn fates(line: &str, runs: &[PageRun]) -> Vec<(u64, u64, Fate)> {
        let mapping = Mapping::parse(line).unwrap();
        let slices = classify(&mapping, mapping.kind(false), runs, false, true);
        let plain = |slice: Slice| (slice.span.start / 4096, slice.span.end / 4096, slice.fate);
        slices.into_iter().map(plain).collect()
    }

    #[test]
    fn anonymous_memory_is_data_and_zero() {
        let runs = [
            run(2, 3),
            PageRun { swapped: true, ..run(3, 4) },
            PageRun { zero: true, ..run(4, 5) },
        ];
        assert_eq!(
            fates("1000-8000 rw-p 00000000 00:00 0 [heap]", &runs),
            [(1, 2, Fate::Zero), (2, 4, Fate::Data), (4, 8, Fate::Zero)]
        );
        assert_eq!(fates("1000-8000 ---p 00000000 00:00 0", &[]), [(1, 8, Fate::Zero)]);
    }

    #[test]
    fn of_a_private_file_only_written_pages_and_the_first_are_data() {
        let file = |offset| Fate::File { path: "/bin/x".into(), offset };
        let clean = |start, end| PageRun { file: true, ..run(start, end) };
        assert_eq!(
            fates("1000-8000 rw-p 00003000 fe:00 7 /bin/x", &[clean(1, 3), run(3, 4)]),
            [(1, 3, file(0x3000)), (3, 4, Fate::Data), (4, 8, file(0x6000))]
        );
        assert_eq!(
            fates("1000-4000 r--p 00000000 fe:00 7 /bin/x", &[clean(1, 4)]),
            [(1, 2, Fate::Data), (2, 4, file(0x1000))]
        );
    }
}
