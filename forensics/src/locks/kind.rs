//! Which kind of lock a thread waits for, by the functions on its stack.

use serde::Serialize;

use crate::activity::SystemCall;
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
            Self::PthreadMutex => "pthread mutex",
            Self::PthreadRwlock => "pthread rwlock",
            Self::OpensslLock => "OpenSSL lock",
            Self::CLibraryLock => "lock of the C library",
        }
    }
}

/// What a lock's word holds while somebody has it and somebody may wait.
const CONTENDED: u32 = 2;

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

/// What the arguments of a futex call say of the lock that it is for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    /// `FUTEX_WAIT` for any process that maps the word, without a time limit.
    shared: bool,
    /// The word said "held, and somebody may wait": 2 in every kind of simple lock.
    contended: bool,
}

impl Asked {
    pub(super) fn of(call: &SystemCall) -> Self {
        let [_, operation, _, limit, ..] = call.arguments;
        let contended = call.futex_wait().is_some_and(|wait| wait.value == Some(CONTENDED));
        Self { shared: operation == 0 && limit == 0, contended }
    }
}

/// The kind of lock that a thread sleeps for in a futex call, by the functions on its stack; `None`
/// where nothing shows that it is a lock: conditions, semaphores and the end of other threads are
/// waited for with the same call. `in_kamailio`: the word is where Kamailio may have its locks.
///
/// Kamailio's own code calls `syscall` (its futexes are not glibc's); glibc's locks are taken by
/// functions that it exports, so they have names even in a stripped library.
pub(super) fn of_futex(thread: &ThreadView, asked: Asked, in_kamailio: bool) -> Option<LockKind> {
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
    let own_code = library.iter().all(|name| *name == "syscall");
    match () {
        () if openssl && of_pthread => Some(LockKind::OpensslLock),
        () if calls("pthread_rwlock_") => Some(LockKind::PthreadRwlock),
        () if of_pthread => Some(LockKind::PthreadMutex),
        () if own_code => {
            let kamailio = asked.shared && asked.contended && in_kamailio;
            kamailio.then_some(LockKind::KamailioLock)
        }
        () => asked.contended.then_some(LockKind::CLibraryLock),
    }
}
