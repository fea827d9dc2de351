//! What a system call waits for: descriptors, an address, a time, a peer. Arguments as in the
//! manual pages of section 2; structures as on x86-64.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::system_call::SystemCall;
use crate::addr::Addr;
use crate::memory::Memory;
use crate::num::narrow;

/// More descriptors of one call are not read.
const MOST_DESCRIPTORS: u64 = 65_536;
/// `FUTEX_CMD_MASK`: without the flags for private and clock.
const FUTEX_COMMAND: u64 = 0x7f;
/// `FUTEX_PRIVATE_FLAG`: only threads of the same process wake it.
const FUTEX_PRIVATE: u64 = 0x80;

/// For how long a call waits at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// For ever.
    None,
    /// From its start.
    After(Duration),
    /// Until a point of time that this program does not convert.
    Until,
    /// It has a limit, in memory that is not known.
    Unknown,
}

/// A wait for a word of memory to change: `futex` and its newer forms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FutexWait {
    /// The word, 4 bytes.
    pub address: Addr,
    /// The value that it had when the thread went to sleep: it waits while it stays.
    /// `None` for locks that the kernel knows the owner of (`FUTEX_LOCK_PI`).
    pub value: Option<u32>,
    /// Whether threads of other processes may wake it (no `FUTEX_PRIVATE_FLAG`).
    pub shared: bool,
}

/// How the descriptors of a call are found.
enum Reads {
    /// The first argument.
    First,
    /// The first two: `sendfile`, `tee`.
    Two,
    /// The first and the third: `splice`, `copy_file_range`.
    FirstAndThird,
    /// An array of `struct pollfd`, and its length.
    Poll,
    /// The number of bits, and three sets of bits.
    Select,
}

fn reads(name: &str) -> Option<Reads> {
    Some(match name {
        "poll" | "ppoll" => Reads::Poll,
        "select" | "pselect6" => Reads::Select,
        "sendfile" | "tee" => Reads::Two,
        "splice" | "copy_file_range" => Reads::FirstAndThird,
        "read" | "pread64" | "readv" | "preadv" | "preadv2" | "write" | "pwrite64" | "writev"
        | "pwritev" | "pwritev2" | "vmsplice" | "recvfrom" | "recvmsg" | "recvmmsg" | "sendto"
        | "sendmsg" | "sendmmsg" | "connect" | "accept" | "accept4" | "shutdown" | "bind"
        | "listen" | "getsockopt" | "setsockopt" | "epoll_wait" | "epoll_pwait"
        | "epoll_pwait2" | "epoll_ctl" | "close" | "fcntl" | "ioctl" | "flock" | "fsync"
        | "fdatasync" | "syncfs" | "sync_file_range" | "fallocate" | "ftruncate" | "fstat"
        | "lseek" | "getdents" | "getdents64" | "io_uring_enter" | "openat" | "newfstatat"
        | "fstatfs" => Reads::First,
        _ => return None,
    })
}

impl SystemCall {
    /// The descriptors that it is about, by rising number; of `epoll_wait` the epoll itself. Those
    /// in memory that is not known are missing.
    pub fn descriptors(&self, memory: &dyn Memory) -> Vec<i32> {
        let argument = |index| number(self.argument(index));
        let found: BTreeSet<i32> = match self.name.and_then(reads) {
            None => BTreeSet::new(),
            Some(Reads::First) => BTreeSet::from([argument(0)]),
            Some(Reads::Two) => BTreeSet::from([argument(0), argument(1)]),
            Some(Reads::FirstAndThird) => BTreeSet::from([argument(0), argument(2)]),
            Some(Reads::Poll) => polled(Addr(self.argument(0)), self.argument(1), memory),
            Some(Reads::Select) => {
                let sets = [1, 2, 3].map(|index| Addr(self.argument(index)));
                sets.into_iter().flat_map(|set| selected(set, self.argument(0), memory)).collect()
            }
        };
        found.into_iter().filter(|descriptor| *descriptor >= 0).collect()
    }

    /// For how long it waits at most; `None` for calls without a limit among their arguments.
    pub fn limit(&self, memory: &dyn Memory) -> Option<Limit> {
        let milliseconds = |index| match u64::try_from(number(self.argument(index))) {
            Ok(milliseconds) => Limit::After(Duration::from_millis(milliseconds)),
            Err(_) => Limit::None,
        };
        let timespec = |index| duration(Addr(self.argument(index)), 1, memory);
        Some(match self.name? {
            "poll" => milliseconds(2),
            "epoll_wait" | "epoll_pwait" => milliseconds(3),
            "ppoll" | "rt_sigtimedwait" => timespec(2),
            "epoll_pwait2" | "semtimedop" => timespec(3),
            "pselect6" | "recvmmsg" | "io_getevents" => timespec(4),
            "select" => duration(Addr(self.argument(4)), 1000, memory),
            "nanosleep" => timespec(0),
            "clock_nanosleep" => match self.argument(1) & 1 {
                0 => timespec(2),
                _ => Limit::Until,
            },
            "futex" => match self.argument(1) & FUTEX_COMMAND {
                0 => timespec(3),
                _ if self.argument(3) == 0 => Limit::None,
                _ => Limit::Until,
            },
            "futex_wait" => match self.argument(4) {
                0 => Limit::None,
                _ => Limit::Until,
            },
            _ => return None,
        })
    }

    /// What it waits for, if that is a word of memory.
    pub fn futex_wait(&self) -> Option<FutexWait> {
        let address = Addr(self.argument(0));
        let low = |value: u64| u32::try_from(value & 0xffff_ffff).ok();
        let shared = |flags: u64| flags & FUTEX_PRIVATE == 0;
        let (value, flags) = match self.name? {
            "futex" => match self.argument(1) & FUTEX_COMMAND {
                // FUTEX_WAIT, FUTEX_WAIT_BITSET, FUTEX_WAIT_REQUEUE_PI
                0 | 9 | 11 => (low(self.argument(2)), self.argument(1)),
                // FUTEX_LOCK_PI, FUTEX_LOCK_PI2
                6 | 13 => (None, self.argument(1)),
                _ => return None,
            },
            "futex_wait" => (low(self.argument(1)), self.argument(3)),
            _ => return None,
        };
        Some(FutexWait { address, value, shared: shared(flags) })
    }

    /// The address that it sends or connects to, as its arguments have it; a path for unix sockets.
    pub fn destination(&self, memory: &dyn Memory) -> Option<String> {
        let (at, length) = match self.name? {
            "connect" => (self.argument(1), self.argument(2)),
            "sendto" => (self.argument(4), self.argument(5)),
            _ => return None,
        };
        /// `sizeof(struct sockaddr_un)`
        const LONGEST: u64 = 110;
        let bytes = memory.bytes(Addr(at), narrow(length.min(LONGEST))).ok()?;
        socket_address(&bytes)
    }
}

/// The `int` in the low half of a register.
fn number(register: u64) -> i32 {
    let [a, b, c, d, ..] = register.to_le_bytes();
    i32::from_le_bytes([a, b, c, d])
}

/// `struct pollfd`: 8 bytes, the descriptor first; negative ones are passed over by the kernel.
fn polled(at: Addr, count: u64, memory: &dyn Memory) -> BTreeSet<i32> {
    let entry = |index: u64| memory.int(at.checked_add(index.checked_mul(8)?)?).ok();
    (0..count.min(MOST_DESCRIPTORS)).map_while(entry).collect()
}

/// `fd_set`: bit N stands for descriptor N.
fn selected(set: Addr, count: u64, memory: &dyn Memory) -> BTreeSet<i32> {
    let count = count.min(MOST_DESCRIPTORS);
    let word = |index: u64| memory.word(set.checked_add(index.checked_mul(8)?)?).ok();
    let words = (0..count.div_ceil(64)).filter(|_| !set.is_null()).map_while(word);
    let bits = (0_u64..).zip(words).flat_map(|(index, word)| {
        let bits = (0..64_u64).filter(move |bit| word >> bit & 1 == 1);
        bits.map(move |bit| index.saturating_mul(64).saturating_add(bit))
    });
    bits.filter(|bit| *bit < count).filter_map(|bit| i32::try_from(bit).ok()).collect()
}

/// Seconds, and a fraction in units of so many nanoseconds, at a pointer that may be null.
fn duration(at: Addr, unit: u32, memory: &dyn Memory) -> Limit {
    if at.is_null() {
        return Limit::None;
    }
    let fraction = at.checked_add(8).and_then(|at| memory.word(at).ok());
    let (Ok(seconds), Some(fraction)) = (memory.word(at), fraction) else { return Limit::Unknown };
    let nanoseconds = u32::try_from(fraction).ok().and_then(|part| part.checked_mul(unit));
    match nanoseconds {
        Some(part) if part < 1_000_000_000 => Limit::After(Duration::new(seconds, part)),
        _ => Limit::Unknown,
    }
}

/// `struct sockaddr`: the family, then what it says.
fn socket_address(bytes: &[u8]) -> Option<String> {
    const UNIX: u16 = 1;
    const INTERNET: u16 = 2;
    const INTERNET_6: u16 = 10;
    let (family, rest) = bytes.split_first_chunk::<2>()?;
    let port = || Some(u16::from_be_bytes(*rest.first_chunk()?));
    let host = match u16::from_le_bytes(*family) {
        INTERNET => IpAddr::from(Ipv4Addr::from(*rest.get(2..)?.first_chunk::<4>()?)),
        INTERNET_6 => IpAddr::from(Ipv6Addr::from(*rest.get(6..)?.first_chunk::<16>()?)),
        UNIX => {
            let (mark, path) = match rest.split_first()? {
                (0, name) => ("@", name),
                _ => ("", rest),
            };
            let end = path.iter().position(|byte| *byte == 0).unwrap_or(path.len());
            let path = String::from_utf8_lossy(path.get(..end)?);
            return Some(format!("{mark}{path}"));
        }
        _ => return None,
    };
    Some(SocketAddr::new(host, port()?).to_string())
}
