//! The C library's locks: `pthread_mutex_t` and `pthread_rwlock_t` of glibc 2.25 and later on
//! 64-bit machines.
//!
//! A mutex is its word at 0, a count at 4, the owner's thread ID at 8, users at 12, its kind at 16.
//! A rwlock has two words to sleep for, at 8 and at 12, and the writer's thread ID at 24; readers
//! leave no name.

use super::kind::CONTENDED;
use crate::activity::FutexWait;
use crate::addr::Addr;
use crate::memory::Memory;

const MUTEX_OWNER: u64 = 8;
const MUTEX_USERS: u64 = 12;
const MUTEX_KIND: u64 = 16;
/// Type, robustness, priority protocol, elision, pshared: no kind has other bits.
const MUTEX_KIND_BITS: u32 = 0x0fff;

/// In the word of a lock that names its owner: somebody waits.
const FUTEX_WAITERS: u32 = 0x8000_0000;
/// In the word of a lock that names its owner: the thread's ID.
const FUTEX_TID_MASK: u32 = 0x3fff_ffff;

/// The lowest bits of a rwlock's first word are flags; above them its readers are counted.
pub(super) const READERS_SHIFT: u32 = 3;
const RWLOCK_WRITER: u64 = 24;
/// Where in a rwlock the word may be that a thread sleeps for.
const RWLOCK_WORDS: [u64; 2] = [8, 12];

/// Thread ID of the holder of a mutex whose word is at `at`, if its fields can be one's.
pub(super) fn mutex_owner(memory: &dyn Memory, at: Addr) -> Option<u32> {
    let holder = half(memory, at, MUTEX_OWNER)?;
    let users = half(memory, at, MUTEX_USERS)?;
    let kind = half(memory, at, MUTEX_KIND)?;
    let plausible = holder != 0 && users < 1 << 20 && kind & !MUTEX_KIND_BITS == 0;
    plausible.then_some(holder)
}

/// Whether a thread that sleeps for the word at `at` as `wait` says may sleep for a mutex that
/// `owner` holds. A robust mutex and one with priority inheritance have the owner's ID in the word.
pub(super) fn waits_for_mutex(memory: &dyn Memory, wait: &FutexWait, owner: u32) -> bool {
    let word = half(memory, wait.address, 0);
    let names_owner = |value: u32| value & FUTEX_WAITERS != 0 && value & FUTEX_TID_MASK == owner;
    match (wait.value, word) {
        (Some(CONTENDED), Some(word)) => word == CONTENDED || word == 1,
        (Some(value), Some(word)) => names_owner(value) && names_owner(word),
        (None, Some(word)) => names_owner(word),
        (_, None) => false,
    }
}

/// Where the rwlock begins of which a word to sleep for is at `at`: the structure is aligned, so one
/// of the two words fits only.
pub(super) fn rwlock_start(at: Addr) -> Option<Addr> {
    let starts = RWLOCK_WORDS.iter().filter_map(|offset| at.checked_sub(*offset));
    starts.into_iter().find(|start| start.0.is_multiple_of(8))
}

/// Thread ID of the writer that holds a rwlock; anything if readers hold it.
pub(super) fn rwlock_writer(memory: &dyn Memory, start: Addr) -> Option<u32> {
    half(memory, start, RWLOCK_WRITER)
}

fn half(memory: &dyn Memory, at: Addr, offset: u64) -> Option<u32> {
    let value = memory.int(at.checked_add(offset)?).ok()?;
    Some(u32::from_le_bytes(value.to_le_bytes()))
}
