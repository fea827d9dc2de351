//! The raw system calls, each behind a safe function.
//!
//! libc rather than nix where nix would lose something: real-time signals in a wait status,
//! XSTATE, `PAGEMAP_SCAN`.
#![expect(unsafe_code, reason = "ptrace, process_vm_readv, ioctl and mmap are raw system calls")]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::thread::JoinHandleExt;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;

use libc::{c_int, c_void, iovec};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

use crate::number::{bytes, size};
use crate::spans::Span;

fn thread(tid: u32) -> libc::pid_t {
    libc::pid_t::try_from(tid).unwrap_or(libc::pid_t::MAX)
}

fn done(result: libc::c_long) -> io::Result<()> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// `PTRACE_SEIZE` without options: should this thread die, the tracee runs on.
pub(crate) fn seize(tid: u32) -> io::Result<()> {
    // SAFETY: PTRACE_SEIZE takes no pointers; options are 0.
    done(unsafe {
        libc::ptrace(libc::PTRACE_SEIZE, thread(tid), ptr::null_mut::<c_void>(), 0_usize)
    })
}

/// `PTRACE_INTERRUPT`: asks the tracee to stop.
pub(crate) fn interrupt(tid: u32) -> io::Result<()> {
    // SAFETY: PTRACE_INTERRUPT takes no pointers.
    done(unsafe {
        libc::ptrace(libc::PTRACE_INTERRUPT, thread(tid), ptr::null_mut::<c_void>(), 0_usize)
    })
}

/// `PTRACE_DETACH`, delivering `signal` (0: none).
pub(crate) fn detach(tid: u32, signal: i32) -> io::Result<()> {
    let signal = usize::try_from(signal).unwrap_or(0);
    // SAFETY: PTRACE_DETACH takes no pointers; the signal number is passed by value.
    done(unsafe {
        libc::ptrace(libc::PTRACE_DETACH, thread(tid), ptr::null_mut::<c_void>(), signal)
    })
}

/// Sets the nice value of the calling thread, which those that it starts inherit. Best effort: below
/// 0 only root may go.
pub(crate) fn set_nice(nice: i32) {
    // SAFETY: no pointers; 0 is the calling thread.
    let result = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) };
    if result != 0 {
        tracing::debug!(nice, error = %io::Error::last_os_error(), "setpriority");
    }
}

/// How the disks serve us, where their scheduler knows priorities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Disks {
    /// Like everybody.
    Equal,
    /// Everybody else first: the lowest of the best-effort class. What is idle only may wait for
    /// ever on a saturated disk.
    Last,
}

/// Sets the I/O priority of the calling thread, which those that it starts inherit. Best effort.
pub(crate) fn set_disks(disks: Disks) {
    /// `IOPRIO_WHO_PROCESS`
    const PROCESS: c_int = 1;
    let priority: c_int = match disks {
        // IOPRIO_CLASS_NONE: as the nice value says.
        Disks::Equal => 0,
        // IOPRIO_PRIO_VALUE(IOPRIO_CLASS_BE, 7)
        Disks::Last => (2 << 13) | 7,
    };
    // SAFETY: no pointers; 0 is the calling thread.
    let result = unsafe { libc::syscall(libc::SYS_ioprio_set, PROCESS, 0, priority) };
    if result != 0 {
        tracing::debug!(?disks, error = %io::Error::last_os_error(), "ioprio_set");
    }
}

/// `CLOCK_MONOTONIC` in nanoseconds.
pub(crate) fn monotonic() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` outlives the call; this clock always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    let part = |value: i64| u64::try_from(value).unwrap_or(0);
    part(time.tv_sec) * 1_000_000_000 + part(time.tv_nsec)
}

/// What a tracee of the calling thread reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waited {
    /// Nothing for now.
    Nothing,
    /// It stands still; `event` 0 is a signal that was about to be delivered.
    Stopped { tid: u32, signal: i32, event: i32 },
    /// It ended.
    Ended { tid: u32 },
}

/// Asks one tracee of the calling thread, without waiting. Asking for any of them would make the
/// kernel look at all of them each time.
pub(crate) fn wait_for(tid: u32) -> Waited {
    let mut status: c_int = 0;
    let flags = libc::__WALL | libc::__WNOTHREAD | libc::WNOHANG;
    // SAFETY: `status` outlives the call.
    match unsafe { libc::waitpid(thread(tid), &raw mut status, flags) } {
        0 => Waited::Nothing,
        // No tracee of ours any more.
        ..0 => Waited::Ended { tid },
        _ if libc::WIFSTOPPED(status) => {
            Waited::Stopped { tid, signal: libc::WSTOPSIG(status), event: status >> 16 }
        }
        _ => Waited::Ended { tid },
    }
}

/// The kernel's ID of the calling thread.
pub(crate) fn thread_id() -> u32 {
    u32::try_from(nix::unistd::gettid().as_raw()).unwrap_or(0)
}

/// `PTRACE_GETREGSET`: the register set `kind` (an ELF note type) of a stopped tracee.
pub(crate) fn register_set(tid: u32, kind: u32) -> io::Result<Vec<u8>> {
    // The largest one, XSTATE with AMX tiles, has about 11 KiB. On the stack: with thousands of
    // threads to read, nothing larger than the registers themselves is to be kept.
    let mut buffer = [0_u8; 32 * 1024];
    let mut vector = iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: `vector` describes `buffer`, and both outlive the call.
    done(unsafe {
        libc::ptrace(libc::PTRACE_GETREGSET, thread(tid), size(u64::from(kind)), &raw mut vector)
    })?;
    Ok(buffer.get(..vector.iov_len).unwrap_or_default().to_vec())
}

/// `PTRACE_GETSIGINFO`: the signal for which a tracee stopped, as `NT_SIGINFO` wants it.
pub(crate) fn signal_information(tid: u32) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0_u64; size_of::<libc::siginfo_t>().div_ceil(8)];
    // SAFETY: the buffer has the size of siginfo_t and at least its alignment.
    done(unsafe {
        let place: *mut c_void = buffer.as_mut_ptr().cast();
        libc::ptrace(libc::PTRACE_GETSIGINFO, thread(tid), ptr::null_mut::<c_void>(), place)
    })?;
    Ok(buffer.iter().flat_map(|word| word.to_le_bytes()).collect())
}

/// `process_vm_readv`: fills `into` from the remote ranges (address, length), one after the other.
///
/// Gives the bytes that were read; fewer than asked for: a page could not be read.
pub(crate) fn read_process(
    pid: u32,
    ranges: impl Iterator<Item = (u64, u64)>,
    into: &mut [u8],
) -> io::Result<usize> {
    let remote: Vec<iovec> = ranges
        .map(|(address, length)| iovec {
            iov_base: ptr::without_provenance_mut(size(address)),
            iov_len: size(length),
        })
        .collect();
    let local = iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
    // SAFETY: `local` describes `into`; remote addresses are checked by the kernel.
    let read = unsafe {
        libc::process_vm_readv(
            thread(pid),
            &raw const local,
            1,
            remote.as_ptr(),
            libc::c_ulong::try_from(remote.len()).unwrap_or(0),
            0,
        )
    };
    usize::try_from(read).map_err(|_| io::Error::last_os_error())
}

/// One answer of [`pagemap_scan`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PageRegion {
    /// First address.
    pub(crate) start: u64,
    /// First address after it.
    pub(crate) end: u64,
    /// `PAGE_IS_…` bits of all its pages.
    pub(crate) categories: u64,
}

/// `PAGE_IS_FILE`: a page of a file or of shared memory.
pub(crate) const PAGE_IS_FILE: u64 = 1 << 2;
/// `PAGE_IS_PRESENT`
pub(crate) const PAGE_IS_PRESENT: u64 = 1 << 3;
/// `PAGE_IS_SWAPPED`
pub(crate) const PAGE_IS_SWAPPED: u64 = 1 << 4;
/// `PAGE_IS_PFNZERO`: the kernel's page of zeroes.
pub(crate) const PAGE_IS_PFNZERO: u64 = 1 << 5;
/// `PAGE_IS_GUARD` (Linux 6.15): nothing is there, and whoever touches it is killed
/// (`MADV_GUARD_INSTALL`, with which young C libraries guard stacks). Counts as swapped, too.
pub(crate) const PAGE_IS_GUARD: u64 = 1 << 8;

#[repr(C)]
struct ScanArguments {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

/// `PAGEMAP_SCAN` (Linux 6.7): the pages in `spans` that are present or swapped.
pub(crate) fn pagemap_scan(pagemap: &File, spans: &[Span]) -> io::Result<Vec<PageRegion>> {
    let wanted = PAGE_IS_FILE | PAGE_IS_PRESENT | PAGE_IS_SWAPPED | PAGE_IS_PFNZERO;
    match scan_all(pagemap, spans, wanted | PAGE_IS_GUARD) {
        // Linux before 6.15 does not know guard pages.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            scan_all(pagemap, spans, wanted)
        }
        scanned => scanned,
    }
}

/// Tells the categories `wanted` of each region apart.
fn scan_all(pagemap: &File, spans: &[Span], wanted: u64) -> io::Result<Vec<PageRegion>> {
    let mut found = Vec::new();
    let mut regions = vec![PageRegion::default(); 4096];
    for span in spans {
        let mut at = span.start;
        while at < span.end {
            let (count, reached) =
                scan_once(pagemap, Span::new(at, span.end), wanted, &mut regions)?;
            found.extend(regions.iter().take(count));
            if reached <= at {
                break;
            }
            at = reached;
        }
    }
    Ok(found)
}

/// One call: how many regions it has filled, and the address up to which it has looked.
fn scan_once(
    pagemap: &File,
    span: Span,
    wanted: u64,
    regions: &mut [PageRegion],
) -> io::Result<(usize, u64)> {
    /// `_IOWR('f', 16, struct pm_scan_arg)`
    const PAGEMAP_SCAN: u64 = 0xC060_6610;
    let mut arguments = ScanArguments {
        size: bytes(size_of::<ScanArguments>()),
        flags: 0,
        start: span.start,
        end: span.end,
        walk_end: 0,
        vec: bytes(regions.as_mut_ptr().expose_provenance()),
        vec_len: bytes(regions.len()),
        max_pages: 0,
        category_inverted: 0,
        category_mask: 0,
        category_anyof_mask: PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
        return_mask: wanted,
    };
    let fd: RawFd = pagemap.as_raw_fd();
    // SAFETY: the arguments describe `regions`, which nothing else touches during the call.
    let count = unsafe { libc::syscall(libc::SYS_ioctl, fd, PAGEMAP_SCAN, &raw mut arguments) };
    let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
    Ok((count, arguments.walk_end))
}

/// The first byte of data at or after `at`, and where it ends, in a file with holes.
pub(crate) fn next_data(file: &File, at: u64) -> io::Result<Option<Span>> {
    let seek = |at: u64, whence: c_int| -> io::Result<Option<u64>> {
        let offset = i64::try_from(at).map_err(io::Error::other)?;
        // SAFETY: no pointers.
        let found = unsafe { libc::lseek(file.as_raw_fd(), offset, whence) };
        match u64::try_from(found) {
            Ok(found) => Ok(Some(found)),
            Err(_) => match io::Error::last_os_error() {
                error if error.raw_os_error() == Some(libc::ENXIO) => Ok(None),
                error => Err(error),
            },
        }
    };
    let Some(start) = seek(at, libc::SEEK_DATA)? else { return Ok(None) };
    Ok(seek(start, libc::SEEK_HOLE)?.map(|end| Span::new(start, end)))
}

/// Anonymous memory that is handed out in pieces, each to one owner.
#[derive(Debug)]
struct Arena {
    base: NonNull<u8>,
    length: usize,
}

// SAFETY: the memory is only reached through windows, which do not overlap.
unsafe impl Send for Arena {}
// SAFETY: as above.
unsafe impl Sync for Arena {}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: this is the mapping that `Reserve::new` made, and no window is left.
        let result = unsafe { libc::munmap(self.base.as_ptr().cast(), self.length) };
        debug_assert_eq!(result, 0, "munmap of our own mapping");
    }
}

/// Memory that was reserved and touched beforehand, cut from front to back.
#[derive(Debug)]
pub(crate) struct Reserve {
    arena: Option<Arc<Arena>>,
    used: usize,
}

impl Reserve {
    /// Maps `length` bytes and touches every page, so that no page fault comes later.
    pub(crate) fn new(length: usize) -> io::Result<Self> {
        if length == 0 {
            return Ok(Self { arena: None, used: 0 });
        }
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new anonymous mapping at an address of the kernel's choice.
        let base = unsafe { libc::mmap(ptr::null_mut(), length, access, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base).ok_or_else(|| io::Error::other("mmap gave null"))?;
        let arena = Arena { base: base.cast(), length };
        // SAFETY: advice on our own mapping; a refusal changes nothing.
        unsafe { libc::madvise(base.as_ptr(), length, libc::MADV_HUGEPAGE) };
        // A program that is started meanwhile needs none of it, nor its page tables.
        // SAFETY: as above.
        unsafe { libc::madvise(base.as_ptr(), length, libc::MADV_DONTFORK) };
        // SAFETY: populates our own mapping.
        let populated = unsafe { libc::madvise(base.as_ptr(), length, libc::MADV_POPULATE_WRITE) };
        if populated != 0 {
            // Linux before 5.14.
            for offset in (0..length).step_by(size(bundle::PAGE_SIZE)) {
                // SAFETY: `offset` lies inside our own mapping.
                unsafe { arena.base.add(offset).write_volatile(0) };
            }
        }
        Ok(Self { arena: Some(Arc::new(arena)), used: 0 })
    }

    /// Bytes that are left.
    pub(crate) fn left(&self) -> u64 {
        let length = self.arena.as_ref().map_or(0, |arena| arena.length);
        bytes(length.saturating_sub(self.used))
    }

    /// Cuts the next `length` bytes off; `None` if fewer are left.
    pub(crate) fn cut(&mut self, length: usize) -> Option<Window> {
        let arena = self.arena.as_ref()?;
        let end = self.used.checked_add(length).filter(|end| *end <= arena.length)?;
        let window = Window { arena: Arc::clone(arena), start: self.used, length };
        self.used = end;
        Some(window)
    }
}

/// A piece of a [`Reserve`] that only its owner reaches.
#[derive(Debug)]
pub(crate) struct Window {
    arena: Arc<Arena>,
    start: usize,
    length: usize,
}

impl Window {
    /// Its bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: inside the mapping (`Reserve::cut`), initialised by the kernel, and no other
        // window overlaps it.
        unsafe { std::slice::from_raw_parts(self.arena.base.add(self.start).as_ptr(), self.length) }
    }

    /// Its bytes, to be filled.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`; `&mut self` makes it the only reference.
        unsafe {
            std::slice::from_raw_parts_mut(self.arena.base.add(self.start).as_ptr(), self.length)
        }
    }
}

static INTERRUPTS: AtomicU32 = AtomicU32::new(0);

extern "C" fn count_interrupt(_: c_int) {
    if INTERRUPTS.fetch_add(1, Ordering::SeqCst) > 0 {
        // The second one: end at once. The kernel lets every tracee run on.
        // SAFETY: _exit is async-signal-safe.
        unsafe { libc::_exit(2) };
    }
}

/// From now on SIGINT, SIGTERM and SIGHUP are counted; the second one ends the program at once. A
/// terminal's wish to stop us is passed over: with us the whole group would stand still. So is the
/// signal of a file that becomes too large, which is an error of writing like others.
pub(crate) fn count_interrupts() -> io::Result<()> {
    let action =
        SigAction::new(SigHandler::Handler(count_interrupt), SaFlags::SA_RESTART, SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // SAFETY: the handler only touches an atomic and calls _exit.
        unsafe { sigaction(signal, &action) }.map_err(io::Error::from)?;
    }
    let ignored = SigAction::new(SigHandler::SigIgn, SaFlags::empty(), SigSet::empty());
    for signal in [Signal::SIGTSTP, Signal::SIGTTIN, Signal::SIGTTOU, Signal::SIGXFSZ] {
        // SAFETY: no handler runs.
        unsafe { sigaction(signal, &ignored) }.map_err(io::Error::from)?;
    }
    Ok(())
}

extern "C" fn end_this_thread(_: c_int) {
    // SAFETY: ends the calling thread without unwinding or destructors; it owns nothing that
    // another one waits for.
    unsafe { libc::syscall(libc::SYS_exit, 0) };
}

/// Ends a thread that hangs in an interruptible system call. It must not be joined afterwards.
pub(crate) fn end_thread<T>(thread: &JoinHandle<T>) -> io::Result<()> {
    let action =
        SigAction::new(SigHandler::Handler(end_this_thread), SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler makes one system call and does not return.
    unsafe { sigaction(Signal::SIGUSR2, &action) }.map_err(io::Error::from)?;
    // SAFETY: the handle was not joined, so the thread's ID is valid.
    let result = unsafe { libc::pthread_kill(thread.as_pthread_t(), libc::SIGUSR2) };
    if result == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(result)) }
}

/// Whether one of those signals came.
pub(crate) fn interrupted() -> bool {
    INTERRUPTS.load(Ordering::SeqCst) > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_cut_one_after_the_other() {
        let mut reserve = Reserve::new(8192).unwrap();
        let mut first = reserve.cut(5000).unwrap();
        let mut second = reserve.cut(3192).unwrap();
        assert!(reserve.cut(1).is_none());
        first.bytes_mut().fill(1);
        second.bytes_mut().fill(2);
        assert!(first.bytes().iter().all(|byte| *byte == 1));
        assert!(second.bytes().iter().all(|byte| *byte == 2));
    }

    #[test]
    fn a_thread_that_hangs_is_ended() {
        let (sender, receiver) = std::sync::mpsc::channel();
        let hangs = std::thread::spawn(move || {
            sender.send(thread_id()).unwrap();
            std::thread::sleep(std::time::Duration::from_secs(60));
        });
        let trace = format!("/proc/self/task/{}", receiver.recv().unwrap());
        end_thread(&hangs).unwrap();
        let begun = std::time::Instant::now();
        while std::path::Path::new(&trace).exists() {
            assert!(begun.elapsed() < std::time::Duration::from_secs(10));
            std::thread::yield_now();
        }
    }

    #[test]
    fn our_own_memory_is_read() {
        let secret = [7_u8; 100];
        let mut copy = [0_u8; 100];
        let address = bytes(secret.as_ptr().expose_provenance());
        let ranges = [(address, 60), (address + 60, 40)];
        let read = read_process(std::process::id(), ranges.into_iter(), &mut copy).unwrap();
        assert_eq!((read, copy), (100, secret));
    }

    #[test]
    fn holes_of_a_file_are_seen() {
        use std::os::unix::fs::FileExt;
        let file = tempfile::tempfile_in("/dev/shm").unwrap();
        file.set_len(1 << 20).unwrap();
        file.write_all_at(&[1; 4096], 65536).unwrap();
        assert_eq!(next_data(&file, 0).unwrap(), Some(Span::new(65536, 69632)));
        assert_eq!(next_data(&file, 69632).unwrap(), None);
    }
}
