//! Existing pages to memory that was reserved before the freeze, and what does not fit there to a
//! spool file that has no name.
//!
//! `process_vm_readv` is the fastest door, but it *breaks copy-on-write*: since Linux 5.19 it gives
//! the process a copy of its own of every page that it still shares with the process it was forked
//! from. Twelve processes that share 2 GiB would grow to 24 GiB while they are read. So where pages
//! may be shared, `/proc/PID/mem` is read, which does not.
//!
//! Two threads copy pieces of at most 1 MiB. What cannot be read is bisected to pages and reported
//! with the kernel's words; nothing is made up for it. When the pause limit passes, or the operator
//! interrupts, the rest is reported as not saved.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bundle::PAGE_SIZE;

use crate::number::{bytes, size};
use crate::parallel;
use crate::spans::{self, Span};
use crate::spool::SpoolFile;
use crate::sys::{self, Reserve, Window};

/// The most bytes that are copied in one piece.
const PIECE: u64 = 1024 * 1024;
/// The most runs in one `process_vm_readv`; the kernel allows 1024.
const VECTOR: usize = 512;

/// Where bytes are read.
#[derive(Clone, Debug)]
pub enum Origin {
    /// A process's memory.
    Process(Arc<Door>),
    /// A file: that of a shared mapping.
    File(Arc<File>),
}

impl Origin {
    fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Process(one), Self::Process(two)) => Arc::ptr_eq(one, two),
            (Self::File(one), Self::File(two)) => Arc::ptr_eq(one, two),
            _ => false,
        }
    }
}

/// The ways into a process's memory.
#[derive(Debug)]
pub struct Door {
    /// A thread of the process.
    pub id: u32,
    /// `/proc/PID/mem`, if it could be opened.
    memory: Option<File>,
    /// `process_vm_readv` comes first: no page is shared copy-on-write with another process.
    sole: bool,
}

impl Door {
    /// Of the process with the thread `id`; `sole` if it shares no private page with another.
    pub fn new(id: u32, sole: bool) -> Arc<Self> {
        Arc::new(Self { id, memory: File::open(format!("/proc/{id}/mem")).ok(), sole })
    }

    /// Reads one range, through the other way if the first is shut.
    fn read(&self, from: u64, into: &mut [u8]) -> io::Result<()> {
        let by_file = |into: &mut [u8]| match &self.memory {
            Some(memory) => memory.read_exact_at(into, from),
            None => Err(io::ErrorKind::PermissionDenied.into()),
        };
        let by_call = |into: &mut [u8]| {
            let range = std::iter::once((from, bytes(into.len())));
            match sys::read_process(self.id, range, into)? {
                done if done == into.len() => Ok(()),
                _ => Err(io::ErrorKind::UnexpectedEof.into()),
            }
        };
        if self.sole {
            by_call(into).or_else(|_| by_file(into))
        } else {
            by_file(into).or_else(|_| by_call(into))
        }
    }
}

/// Bytes to copy.
#[derive(Clone, Debug)]
pub struct Run {
    /// What they are called afterwards: an address, or an offset in a pool.
    pub at: u64,
    /// Where they are read: an address in the process, or an offset in the file.
    pub from: u64,
    /// How many.
    pub length: u64,
    /// Whose.
    pub origin: Origin,
}

/// Room for the copy.
#[derive(Debug)]
pub struct Store {
    reserve: Reserve,
    spool: Option<Spool>,
}

#[derive(Debug)]
struct Spool {
    file: Arc<SpoolFile>,
    used: u64,
    limit: u64,
}

impl Store {
    /// Reserves `memory` bytes now; `spool` is the most bytes that its file may take.
    ///
    /// # Errors
    /// The memory is not to be had.
    pub fn new(memory: u64, spool: Option<(SpoolFile, u64)>) -> io::Result<Self> {
        let reserve = Reserve::new(size(memory))?;
        let spool = spool.map(|(file, limit)| Spool { file: Arc::new(file), used: 0, limit });
        Ok(Self { reserve, spool })
    }

    /// The next piece of at most `wanted` bytes.
    fn place(&mut self, wanted: u64) -> Option<Place> {
        let length = wanted.min(self.reserve.left());
        if length >= wanted.min(PAGE_SIZE)
            && let Some(window) = self.reserve.cut(size(length))
        {
            return Some(Place::Memory(window));
        }
        let spool = self.spool.as_mut()?;
        let length = wanted.min(spool.limit.saturating_sub(spool.used));
        if length < wanted.min(PAGE_SIZE) {
            return None;
        }
        let place = Place::Spool { file: Arc::clone(&spool.file), at: spool.used, length };
        spool.used += length;
        Some(place)
    }
}

/// Room for one piece.
#[derive(Debug)]
enum Place {
    Memory(Window),
    Spool { file: Arc<SpoolFile>, at: u64, length: u64 },
}

impl Place {
    fn length(&self) -> u64 {
        match self {
            Self::Memory(window) => bytes(window.bytes().len()),
            Self::Spool { length, .. } => *length,
        }
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        match self {
            Self::Memory(window) => {
                let from = size(offset);
                let source = window.bytes().get(from..from.saturating_add(into.len()));
                into.copy_from_slice(source.ok_or(io::ErrorKind::UnexpectedEof)?);
                Ok(())
            }
            Self::Spool { file, at, .. } => file.read_at(into, at + offset),
        }
    }
}

/// A part of an object as planned: where its bytes come from and go to.
#[derive(Debug)]
struct Piece {
    object: usize,
    runs: Arc<Vec<Run>>,
    place: Place,
}

/// Bytes that were copied.
#[derive(Clone, Debug)]
pub struct Stored {
    /// What they are: addresses, or offsets in a pool.
    pub span: Span,
    place: Arc<Place>,
    offset: u64,
}

/// What became of one object: a core's data, or a pool.
#[derive(Clone, Debug, Default)]
pub struct Saved {
    /// Copied, in the order of the object's runs.
    pub stored: Vec<Stored>,
    /// Not copied, by rising start, and why.
    pub failed: Vec<(Span, Arc<str>)>,
}

impl Saved {
    /// Bytes that were copied.
    pub fn length(&self) -> u64 {
        self.stored.iter().map(|stored| stored.span.length()).sum()
    }

    /// What of it lies in `parts`; the rest is not saved, and why.
    pub fn within(&self, parts: &[(Span, ())], why: &str) -> Self {
        let why: Arc<str> = why.into();
        let mut kept = Self { stored: Vec::new(), failed: self.failed.clone() };
        for stored in &self.stored {
            for (span, inside) in spans::split(stored.span, parts) {
                if inside.is_some() {
                    let offset = stored.offset + (span.start - stored.span.start);
                    kept.stored.push(Stored { span, place: Arc::clone(&stored.place), offset });
                } else {
                    kept.failed.push((span, Arc::clone(&why)));
                }
            }
        }
        kept.failed.sort_by_key(|(span, _)| *span);
        kept
    }

    /// All copied bytes, one after the other.
    pub fn reader(&self) -> Reader<'_> {
        Reader { stored: &self.stored, offset: 0 }
    }
}

/// Reads the copied bytes of an object.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    stored: &'a [Stored],
    offset: u64,
}

impl Read for Reader<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let Some((first, rest)) = self.stored.split_first() else { return Ok(0) };
        let left = size(first.span.length() - self.offset);
        let length = left.min(into.len());
        let Some(into) = into.get_mut(..length) else { return Ok(0) };
        first.place.read(first.offset + self.offset, into)?;
        if length == left {
            (self.stored, self.offset) = (rest, 0);
        } else {
            self.offset += bytes(length);
        }
        Ok(length)
    }
}

/// Copies the objects' runs, the first object first. `stop` is asked all the time; what it gives
/// is the reason why the rest is not saved.
pub fn copy(
    objects: &[Vec<Run>],
    store: &mut Store,
    threads: usize,
    stop: &(impl Fn() -> Option<&'static str> + Clone + Send + Sync + 'static),
) -> Vec<Saved> {
    let mut saved = vec![Saved::default(); objects.len()];
    let mut pieces = Vec::new();
    for (index, runs) in objects.iter().enumerate() {
        let no_room = plan(index, runs, store, &mut pieces);
        if let Some(saved) = saved.get_mut(index) {
            saved.failed = no_room;
        }
    }
    let plans: Vec<(usize, Arc<Vec<Run>>)> =
        pieces.iter().map(|piece| (piece.object, Arc::clone(&piece.runs))).collect();
    let asked = stop.clone();
    let work = move |piece: Piece| match asked() {
        Some(_) => None,
        None => Some(copy_piece(piece)),
    };
    let results = parallel::each(pieces, threads, work, || stop().is_some());
    for ((object, runs), result) in plans.into_iter().zip(results) {
        let Some(saved) = saved.get_mut(object) else { continue };
        match result.flatten() {
            Some((place, failed)) => saved.add(&runs, place, failed),
            None => {
                let why: Arc<str> = stop().unwrap_or("the copy was given up").into();
                let spans = runs.iter().map(|run| Span::new(run.at, run.at + run.length));
                saved.failed.extend(spans.map(|span| (span, Arc::clone(&why))));
            }
        }
    }
    for saved in &mut saved {
        saved.failed.sort_by_key(|(span, _)| *span);
    }
    saved
}

impl Saved {
    fn add(&mut self, runs: &[Run], place: Place, failed: Vec<(Span, Arc<str>)>) {
        let place = Arc::new(place);
        let mut offset = 0;
        for run in runs {
            let whole = Span::new(run.at, run.at + run.length);
            for (span, failure) in spans::split(whole, &failed) {
                if failure.is_none() {
                    let offset = offset + (span.start - run.at);
                    self.stored.push(Stored { span, place: Arc::clone(&place), offset });
                }
            }
            offset += run.length;
        }
        self.failed.extend(failed);
    }
}

/// Cuts an object into pieces and gives each its room; what has none is returned.
fn plan(
    object: usize,
    runs: &[Run],
    store: &mut Store,
    pieces: &mut Vec<Piece>,
) -> Vec<(Span, Arc<str>)> {
    let why: Arc<str> = "no room: neither in memory nor in the spool file".into();
    let mut no_room = Vec::new();
    let mut waiting: Vec<Run> = Vec::new();
    let mut flush = |waiting: &mut Vec<Run>| {
        let mut runs = std::mem::take(waiting);
        while !runs.is_empty() {
            let wanted = runs.iter().map(|run| run.length).sum();
            let Some(place) = store.place(wanted) else {
                let spans = runs.iter().map(|run| Span::new(run.at, run.at + run.length));
                no_room.extend(spans.map(|span| (span, Arc::clone(&why))));
                break;
            };
            let rest = cut(&mut runs, place.length());
            pieces.push(Piece { object, runs: Arc::new(runs), place });
            runs = rest;
        }
    };
    let mut length = 0;
    for run in runs {
        let mut run = run.clone();
        loop {
            let other = waiting.first().is_some_and(|first| !first.origin.same(&run.origin));
            if other || waiting.len() >= VECTOR || length >= PIECE {
                flush(&mut waiting);
                length = 0;
            }
            let room = PIECE - length;
            if run.length <= room {
                length += run.length;
                waiting.push(run);
                break;
            }
            let mut head = vec![run];
            let rest = cut(&mut head, room).into_iter().next();
            waiting.append(&mut head);
            length = PIECE;
            let Some(rest) = rest else { break };
            run = rest;
        }
    }
    flush(&mut waiting);
    no_room
}

/// Keeps the first `length` bytes in `runs` and gives the others back.
fn cut(runs: &mut Vec<Run>, length: u64) -> Vec<Run> {
    let mut left = length;
    let mut rest = Vec::new();
    for (index, run) in runs.iter_mut().enumerate() {
        if run.length <= left {
            left -= run.length;
            continue;
        }
        rest.push(Run {
            at: run.at + left,
            from: run.from + left,
            length: run.length - left,
            origin: run.origin.clone(),
        });
        run.length = left;
        let keep = if left == 0 { index } else { index + 1 };
        rest.extend(runs.drain(keep..).skip(usize::from(left == 0)));
        break;
    }
    rest
}

type Failures = Vec<(Span, Arc<str>)>;

fn copy_piece(mut piece: Piece) -> (Place, Failures) {
    let failed = match &mut piece.place {
        Place::Memory(window) => fill(&piece.runs, window.bytes_mut()),
        Place::Spool { file, at, length } => {
            let mut buffer = vec![0; size(*length)];
            let mut failed = fill(&piece.runs, &mut buffer);
            if let Err(error) = file.write_at(&mut buffer, *at) {
                let why: Arc<str> = format!("the spool file: {error}").into();
                let spans = piece.runs.iter().map(|run| Span::new(run.at, run.at + run.length));
                failed = spans.map(|span| (span, Arc::clone(&why))).collect();
            }
            failed
        }
    };
    (piece.place, failed)
}

/// Reads runs of one origin, one after the other, into `buffer`.
fn fill(runs: &[Run], buffer: &mut [u8]) -> Failures {
    let mut failed = Vec::new();
    let mut rest = runs;
    let mut buffer = buffer;
    while let Some((first, after)) = rest.split_first() {
        let done = match &first.origin {
            Origin::Process(door) if door.sole => {
                let batch = rest.iter().take(VECTOR).map(|run| (run.from, run.length));
                sys::read_process(door.id, batch, buffer).unwrap_or(0)
            }
            _ => 0,
        };
        // Runs that were read whole.
        let mut left = bytes(done);
        let whole = rest.iter().take_while(|run| {
            let fits = run.length <= left;
            left = if fits { left - run.length } else { 0 };
            fits
        });
        let whole = whole.count();
        let taken: u64 = rest.iter().take(whole).map(|run| run.length).sum();
        buffer = buffer.split_at_mut(size(taken)).1;
        if whole > 0 {
            rest = rest.get(whole..).unwrap_or_default();
            continue;
        }
        // One by one; or the first run has a page that cannot be read.
        let (into, behind) = buffer.split_at_mut(size(first.length));
        fill_by_page(first, into, &mut failed);
        (rest, buffer) = (after, behind);
    }
    failed
}

/// Reads one run, page by page if it cannot be read at once.
fn fill_by_page(run: &Run, into: &mut [u8], failed: &mut Failures) {
    let read = |from: u64, into: &mut [u8]| match &run.origin {
        Origin::Process(door) => door.read(from, into),
        Origin::File(file) => file.read_exact_at(into, from),
    };
    if read(run.from, into).is_ok() {
        return;
    }
    let mut at = 0;
    for page in into.chunks_mut(size(PAGE_SIZE)) {
        let length = bytes(page.len());
        if let Err(error) = read(run.from + at, page) {
            let span = Span::new(run.at + at, run.at + at + length);
            let why = format!("unreadable: {error}");
            match failed.last_mut() {
                Some((last, known)) if last.end == span.start && **known == *why => {
                    last.end = span.end;
                }
                _ => failed.push((span, why.into())),
            }
        }
        at += length;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_of(bytes_of: &[u8], at: u64) -> Run {
        Run {
            at,
            from: bytes(bytes_of.as_ptr().expose_provenance()),
            length: bytes(bytes_of.len()),
            origin: Origin::Process(Door::new(std::process::id(), at.is_multiple_of(8192))),
        }
    }

    fn read_all(saved: &Saved) -> Vec<u8> {
        let mut content = Vec::new();
        saved.reader().read_to_end(&mut content).unwrap();
        content
    }

    fn content(seed: u8, pages: u64) -> Vec<u8> {
        (0..size(pages * PAGE_SIZE)).map(|n| seed.wrapping_add((n / 7).to_le_bytes()[0])).collect()
    }

    #[test]
    fn memory_first_then_the_spool_file_then_nothing() {
        let (one, two) = (content(3, 300), content(90, 20));
        let objects = [vec![run_of(&one, 0x1000)], vec![run_of(&two, 0x0)]];
        let spool = SpoolFile::plain(tempfile::tempfile().unwrap());
        let mut store = Store::new(200 * PAGE_SIZE, Some((spool, 110 * PAGE_SIZE))).unwrap();
        let saved = copy(&objects, &mut store, 2, &|| None);
        assert_eq!(saved[0].failed, []);
        assert!(read_all(&saved[0]) == one);
        assert!(read_all(&saved[1]) == two[..10 * 4096]);
        let [(span, why)] = saved[1].failed.as_slice() else { panic!("{:?}", saved[1].failed) };
        assert_eq!(*span, Span::new(10 * 4096, 20 * 4096));
        assert!(why.contains("no room"), "{why}");
    }

    #[test]
    fn a_part_of_what_was_saved_keeps_its_bytes() {
        let source = content(9, 10);
        let mut store = Store::new(100 * PAGE_SIZE, None).unwrap();
        let saved = &copy(&[vec![run_of(&source, 0x1000)]], &mut store, 1, &|| None)[0];
        let page = |start: u64, end: u64| Span::new(start << 12, end << 12);
        let kept = saved.within(&[(page(0, 2), ()), (page(4, 6), ())], "no room");
        assert!(read_all(&kept) == [&source[..4096], &source[3 * 4096..5 * 4096]].concat());
        let gaps = [page(2, 4), page(6, 11)].map(|span| (span, "no room".into()));
        assert_eq!(kept.failed, gaps);
    }

    #[test]
    fn many_small_runs_come_back_in_order_through_either_door() {
        let source = content(1, 2000);
        for sole in [false, true] {
            let origin = Origin::Process(Door::new(std::process::id(), sole));
            let pages = source.chunks(4096).zip((0..).step_by(8192));
            let pages = pages.map(|(page, at)| Run { origin: origin.clone(), ..run_of(page, at) });
            let pages: Vec<Run> = pages.collect();
            let mut store = Store::new(bytes(source.len()), None).unwrap();
            let saved = copy(&[pages], &mut store, 2, &|| None);
            assert_eq!(saved[0].failed, []);
            assert_eq!(saved[0].stored.len(), 2000);
            assert_eq!(saved[0].stored[1999].span.start, 1999 * 8192);
            assert!(read_all(&saved[0]) == source);
        }
    }

    #[test]
    fn a_page_that_cannot_be_read_costs_only_itself() {
        let source = content(5, 4);
        let mut wild = run_of(&source, 0x9000);
        (wild.from, wild.length) = (0x10, 8192);
        let runs = vec![run_of(&source, 0), wild, run_of(&source, 0x10_0000)];
        let mut store = Store::new(100 * PAGE_SIZE, None).unwrap();
        let saved = copy(&[runs], &mut store, 1, &|| None);
        assert!(read_all(&saved[0]) == [source.as_slice(), &source].concat());
        let [(span, why)] = saved[0].failed.as_slice() else { panic!("{:?}", saved[0].failed) };
        assert_eq!(*span, Span::new(0x9000, 0xb000));
        assert!(why.starts_with("unreadable: "), "{why}");
    }

    #[test]
    fn what_the_limit_cuts_off_is_reported() {
        let source = content(5, 4);
        let mut store = Store::new(100 * PAGE_SIZE, None).unwrap();
        let saved = copy(&[vec![run_of(&source, 0)]], &mut store, 1, &|| Some("pause limit"));
        assert_eq!(saved[0].failed, [(Span::new(0, 4 * 4096), "pause limit".into())]);
        assert!(saved[0].stored.is_empty());
    }
}
