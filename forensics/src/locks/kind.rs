//! Which kind of lock a thread waits for, by the functions on its stack.

use serde::Serialize;

use crate::activity::FutexWait;
use crate::threads::ThreadView;

/// A kind of lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LockKind {
    /// `gen_lock_t` of Kamailio: one word, 0 free, 1 held, 2 held and somebody may wait.
    KamailioLock,
    /// The same with the holder's PID beside it: it may take the lock again.
    KamailioRecursiveLock,
    /// `gen_lock_t` of a build without futexes: a word that is asked for again and again.
    KamailioFastLock,
    /// `pthread_spinlock_t`.
    PthreadSpinlock,
    /// `pthread_mutex_t`.
    PthreadMutex,
    /// `pthread_rwlock_t`.
    PthreadRwlock,
    /// A lock of libssl or libcrypto, which is a `pthread_rwlock_t` or a `pthread_mutex_t`.
    OpensslLock,
    /// A lock inside the C library: its heap, its streams, its loader.
    CLibraryLock,
}

impl LockKind {
    /// For a person.
    pub fn words(self) -> &'static str {
        match self {
            Self::KamailioLock => "Kamailio lock",
            Self::KamailioRecursiveLock => "recursive Kamailio lock",
            Self::KamailioFastLock => "Kamailio lock without a futex",
            Self::PthreadSpinlock => "pthread spinlock",
            Self::PthreadMutex => "pthread mutex",
            Self::PthreadRwlock => "pthread rwlock",
            Self::OpensslLock => "OpenSSL lock",
            Self::CLibraryLock => "lock of the C library",
        }
    }
}

/// Functions of the C library that sleep for something that is no lock.
const NO_LOCK: [&str; 9] = [
    "pthread_cond_",
    "cnd_wait",
    "cnd_timedwait",
    "sem_",
    "pthread_join",
    "pthread_timedjoin",
    "pthread_clockjoin",
    "pthread_barrier_wait",
    "thrd_join",
];
/// Frames of the C library that stand between a system call and the caller, at most.
const NEAR: usize = 8;

/// What stands in a lock's word while it is held and somebody waits for it: Kamailio's and glibc's
/// locks share that number.
pub(super) const CONTENDED: u32 = 2;

/// The kind of lock that a thread sleeps for in a futex call, by the functions on its stack; `None`
/// where they say that it is a condition, a semaphore or another thread's end, or say nothing:
/// programs and languages that sleep in their own ways do so for many things that are no lock.
///
/// Kamailio's own code calls `syscall` (its futexes are not glibc's) with a word that other
/// processes may change; glibc's locks are taken by functions that it exports, so they have names
/// even in a stripped library, unless such a function ends in a jump to one that has none.
/// `in_kamailio`: the word is where Kamailio may have its locks.
pub(super) fn of_futex(
    thread: &ThreadView,
    wait: &FutexWait,
    in_kamailio: bool,
) -> Option<LockKind> {
    let near = || thread.frames.iter().take(NEAR);
    let library: Vec<&str> = near()
        .take_while(|frame| frame.is_c_library())
        .flat_map(|frame| frame.functions())
        .map(|name| name.trim_start_matches('_').trim_start_matches("GI_").trim_start_matches('_'))
        .map(|name| name.trim_start_matches("new_"))
        .collect();
    let calls = |start: &str| library.iter().any(|name| name.starts_with(start));
    if NO_LOCK.iter().any(|start| calls(start)) {
        return None;
    }
    let openssl =
        near().flat_map(|frame| frame.functions()).any(|name| name.starts_with("CRYPTO_THREAD_"));
    let of_pthread = calls("pthread_rwlock_") || calls("pthread_mutex_") || calls("mtx_");
    let in_module = near().find(|frame| !frame.is_c_library()).is_some_and(|f| f.module.is_some());
    let contended = wait.value == Some(CONTENDED);
    Some(match () {
        () if openssl && of_pthread => LockKind::OpensslLock,
        () if calls("pthread_rwlock_") => LockKind::PthreadRwlock,
        () if of_pthread => LockKind::PthreadMutex,
        // The innermost function is `syscall` itself, called by the program.
        () if calls("syscall") => {
            let of_kamailio = in_kamailio && in_module && as_kamailio_waits(wait);
            return of_kamailio.then_some(LockKind::KamailioLock);
        }
        () if contended && !library.is_empty() => LockKind::CLibraryLock,
        () => return None,
    })
}

/// Whether a wait is like those for Kamailio's locks: for a word that other processes may change,
/// while it says that the lock is held and somebody waits.
pub(super) fn as_kamailio_waits(wait: &FutexWait) -> bool {
    wait.shared && wait.value == Some(CONTENDED)
}
