//! What the kernel says about a process: its state, its tracer, its mappings and their pages.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use bundle::PAGE_SIZE;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Whence, lseek};

/// One line of `/proc/PID/maps`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Addresses, half-open.
    pub range: Range<u64>,
    /// For instance `rw-s`.
    pub permissions: String,
    /// Offset in the file, in bytes.
    pub offset: u64,
    /// Device, as the kernel writes it.
    pub device: String,
    /// Inode; 0 for private anonymous memory.
    pub inode: u64,
    /// Path, or a name in brackets, or nothing.
    pub name: String,
}

impl Mapping {
    /// Whether the process may write to it.
    pub fn is_writable(&self) -> bool {
        self.permissions.get(1..2) == Some("w")
    }

    /// Whether writes reach other processes.
    pub fn is_shared(&self) -> bool {
        self.permissions.ends_with('s')
    }
}

/// `/proc/PID/maps`
#[track_caller]
pub fn mappings(pid: u32) -> Vec<Mapping> {
    let text = fs::read_to_string(format!("/proc/{pid}/maps")).expect("the process is there");
    text.lines().map(parse_mapping).collect()
}

fn parse_mapping(line: &str) -> Mapping {
    let mut fields = line.splitn(6, ' ');
    let mut next = || fields.next().unwrap_or_default();
    let (start, end) = next().split_once('-').expect("a range");
    let hex = |text| u64::from_str_radix(text, 16).expect("a hexadecimal number");
    Mapping {
        range: hex(start)..hex(end),
        permissions: next().to_owned(),
        offset: hex(next()),
        device: next().to_owned(),
        inode: next().parse().expect("an inode"),
        name: next().trim_start().to_owned(),
    }
}

/// The largest shared mapping: Kamailio's shared pool.
#[track_caller]
pub fn shared_pool(pid: u32) -> Mapping {
    let shared = mappings(pid).into_iter().filter(Mapping::is_shared);
    shared.max_by_key(|mapping| mapping.range.end - mapping.range.start).expect("a shared mapping")
}

/// A field of `/proc/PID/status`; `None` when the process is gone.
pub fn status(pid: u32, field: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.map(|value| value.trim().to_owned())
}

/// The PID of the tracer, 0 if nobody traces the process or it is gone.
pub fn tracer(pid: u32) -> u32 {
    status(pid, "TracerPid").map_or(0, |value| value.parse().expect("a PID"))
}

/// The PID as the process itself knows it.
pub fn inner_pid(pid: u32) -> Option<u32> {
    let numbers = status(pid, "NSpid")?;
    numbers.split_whitespace().next_back()?.parse().ok()
}

/// Thread ID, tracer and state letter of every thread.
pub fn threads(pid: u32) -> Vec<(u32, u32, char)> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let mut threads = Vec::new();
    for task in tasks.flatten() {
        let tid: u32 = task.file_name().to_string_lossy().parse().expect("a thread ID");
        let Ok(text) = fs::read_to_string(task.path().join("status")) else { continue };
        let field = |name: &str| {
            text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim()
        };
        let state = field("State:").chars().next().expect("a state letter");
        threads.push((tid, field("TracerPid:").parse().expect("a PID"), state));
    }
    threads
}

/// Numbers of system calls on x86-64.
pub const READ: u64 = 0;
/// See [`READ`].
pub const POLL: u64 = 7;
/// See [`READ`].
pub const WAIT4: u64 = 61;
/// See [`READ`].
pub const FUTEX: u64 = 202;

/// A system call in which a process waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SystemCall {
    /// For instance [`FUTEX`].
    pub number: u64,
    /// As in its registers.
    pub arguments: [u64; 6],
}

/// The system call in which a process waits (`/proc/PID/syscall`); `None` when it runs, or is
/// stopped outside of one.
pub fn system_call(pid: u32) -> Option<SystemCall> {
    let text = fs::read_to_string(format!("/proc/{pid}/syscall")).ok()?;
    let mut words = text.split_whitespace();
    let number = words.next()?.parse().ok()?;
    let hex = |word: &str| u64::from_str_radix(word.strip_prefix("0x")?, 16).ok();
    let arguments: Vec<u64> = words.take(6).map_while(hex).collect();
    Some(SystemCall { number, arguments: arguments.try_into().ok()? })
}

/// Address of the futex that a process waits for.
pub fn awaited_futex(pid: u32) -> Option<u64> {
    let call = system_call(pid).filter(|call| call.number == FUTEX)?;
    let [address, operation, ..] = call.arguments;
    (operation & 0x7f == 0).then_some(address) // FUTEX_WAIT, private or shared
}

/// Processor time that a process has spent in its own code, in ticks of 10 ms; 0 when it is gone.
pub fn user_ticks(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let behind_name = text.rsplit(')').next().unwrap_or_default();
    let field = behind_name.split_whitespace().nth(11); // utime, the 14th of all
    field.map_or(0, |ticks| ticks.parse().expect("a number of ticks"))
}

/// Whether the process runs or waits: neither gone nor a zombie.
pub fn is_alive(pid: u32) -> bool {
    status(pid, "State").is_some_and(|state| !state.starts_with(['Z', 'X']))
}

/// The arguments of a process, joined with spaces; empty when it is gone.
pub fn command_line(pid: u32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ")
}

/// The children, and theirs, of a process; not itself.
pub fn descendants(pid: u32) -> Vec<u32> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc").expect("/proc is mounted").flatten() {
        let Ok(child) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        if let Some(parent) = status(child, "PPid").and_then(|value| value.parse::<u32>().ok()) {
            parents.push((child, parent));
        }
    }
    let mut found = vec![pid];
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        found.extend(parents.iter().filter(|entry| entry.1 == parent).map(|entry| entry.0));
        next += 1;
    }
    found.remove(0);
    found
}

/// Sends a signal; a process that is gone is no error.
pub fn signal(pid: u32, signal: Signal) {
    match kill(Pid::from_raw(pid.cast_signed()), signal) {
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(error) => panic!("cannot send {signal} to {pid}: {error}"),
    }
}

/// Stops every process with SIGSTOP and waits until all stand still.
pub fn stop_all(pids: &[u32]) {
    for &pid in pids {
        signal(pid, Signal::SIGSTOP);
    }
    let stopped = |pid: &u32| threads(*pid).iter().all(|thread| thread.2 == 'T');
    until("all processes stand still", || pids.iter().all(stopped));
}

/// Lets stopped processes run on.
pub fn continue_all(pids: &[u32]) {
    for &pid in pids {
        signal(pid, Signal::SIGCONT);
    }
}

/// Polls `condition`; panics when it does not hold within 20 seconds.
#[track_caller]
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..4000 {
        if condition() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    panic!("waited 20 s in vain until {what}");
}

/// The pages of a shared mapping that exist, as SEEK_DATA gives them: addresses, merged.
#[track_caller]
pub fn seek_data(pid: u32, mapping: &Mapping) -> Vec<Range<u64>> {
    let Range { start, end } = mapping.range;
    let path = format!("/proc/{pid}/map_files/{start:x}-{end:x}");
    let file = File::open(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let base = mapping.offset;
    let limit = base + (end - start);
    let seek = |from: u64, whence| {
        let from = i64::try_from(from).unwrap();
        lseek(&file, from, whence).map(|offset| u64::try_from(offset).unwrap())
    };
    let mut found = Vec::new();
    let mut at = base;
    while at < limit {
        match seek(at, Whence::SeekData) {
            Ok(data) if data < limit => {
                let hole = seek(data, Whence::SeekHole).unwrap().min(limit);
                found.push(start + (data - base)..start + (hole - base));
                at = hole;
            }
            Ok(_) | Err(Errno::ENXIO) => break,
            Err(error) => panic!("{path}: {error}"),
        }
    }
    found
}

/// The pages of a mapping that are present or in swap, as `/proc/PID/pagemap` gives them.
#[track_caller]
pub fn pagemap(pid: u32, mapping: &Mapping) -> Vec<u64> {
    const PRESENT: u64 = 1 << 63;
    const SWAPPED: u64 = 1 << 62;
    let Range { start, end } = mapping.range;
    let file = File::open(format!("/proc/{pid}/pagemap")).expect("the pagemap is readable");
    let count = usize::try_from((end - start) / PAGE_SIZE).unwrap();
    let mut words = vec![0; count * 8];
    file.read_exact_at(&mut words, start / PAGE_SIZE * 8).expect("the pagemap covers the mapping");
    let entries = words.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().unwrap()));
    let pages = (start..end).step_by(usize::try_from(PAGE_SIZE).unwrap()).zip(entries);
    pages.filter(|(_, entry)| entry & (PRESENT | SWAPPED) != 0).map(|(page, _)| page).collect()
}

/// The address of every writable page that exists, by `pagemap` for private and by SEEK_DATA for
/// shared memory.
pub fn writable_pages(pid: u32) -> BTreeSet<u64> {
    let mut pages = BTreeSet::new();
    for mapping in mappings(pid).iter().filter(|mapping| mapping.is_writable()) {
        if mapping.is_shared() {
            for data in seek_data(pid, mapping) {
                pages.extend(data.step_by(usize::try_from(PAGE_SIZE).unwrap()));
            }
        } else {
            pages.extend(pagemap(pid, mapping));
        }
    }
    pages
}

/// `length` bytes at `address` through `/proc/PID/mem`.
#[track_caller]
pub fn read_memory(pid: u32, address: u64, length: u64) -> Vec<u8> {
    let file = File::open(format!("/proc/{pid}/mem")).expect("the memory is readable");
    let mut bytes = vec![0; usize::try_from(length).unwrap()];
    file.read_exact_at(&mut bytes, address)
        .unwrap_or_else(|error| panic!("{address:#x} of process {pid}: {error}"));
    bytes
}

/// Notices, on a thread of its own, who is traced while something else happens.
#[derive(Debug)]
pub struct Watch {
    stop: Arc<AtomicBool>,
    seen: JoinHandle<BTreeSet<u32>>,
}

impl Watch {
    /// Starts looking at the processes, as often as the machine allows.
    pub fn start(pids: &[u32]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (pids, end) = (pids.to_owned(), Arc::clone(&stop));
        let seen = std::thread::spawn(move || {
            let mut seen = BTreeSet::new();
            while !end.load(Ordering::Relaxed) {
                seen.extend(pids.iter().copied().filter(|pid| tracer(*pid) != 0));
            }
            seen
        });
        Self { stop, seen }
    }

    /// The processes that had a tracer at some moment.
    pub fn stop(self) -> BTreeSet<u32> {
        self.stop.store(true, Ordering::Relaxed);
        self.seen.join().expect("the watching thread ends")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_maps_is_read() {
        let mapping = parse_mapping(
            "7f0000000000-7f0000100000 rw-s 00001000 00:01 1026                       /dev/zero (deleted)",
        );
        assert_eq!(mapping.range, 0x7f00_0000_0000..0x7f00_0010_0000);
        assert_eq!(mapping.offset, 0x1000);
        assert_eq!(mapping.inode, 1026);
        assert_eq!(mapping.name, "/dev/zero (deleted)");
        assert!(mapping.is_shared() && mapping.is_writable());
    }

    #[test]
    fn this_process_is_alive_and_untraced() {
        let pid = std::process::id();
        assert!(is_alive(pid));
        assert_eq!(tracer(pid), 0);
        assert_eq!(inner_pid(pid), Some(pid));
        assert!(threads(pid).iter().any(|thread| thread.0 == pid));
    }
}
