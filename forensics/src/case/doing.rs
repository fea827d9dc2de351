//! What each thread does, in words: idle, running, waiting for a lock, blocked.
//!
//! Reads: stacks with names, system calls, the samples of `/proc`, the waits for locks. Promises: a
//! thread that waits for input in the loop it was made for is idle, whatever it waits with; one
//! that waits in the middle of its work is blocked. Not for whether that is a fault: rules say so.

use std::fmt;

use crate::activity::SystemCall;
use crate::addr::Addr;
use crate::core::signal_name;
use crate::locks::Wait;
use crate::threads::ThreadView;

/// What a thread does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Doing {
    /// It dies of a signal.
    Crashing {
        /// The signal's number.
        signal: u16,
    },
    /// Somebody has stopped it (SIGSTOP, a debugger); what it did then.
    Stopped(Box<Doing>),
    /// It sleeps for a lock.
    WaitingForLock {
        /// The lock.
        lock: Addr,
    },
    /// It asks for a lock again and again.
    SpinningOnLock {
        /// The lock.
        lock: Addr,
    },
    /// It is inside a handler of a signal that interrupted something else; what it does there.
    InSignalHandler(Box<Doing>),
    /// It waits in the middle of its work: for a peer, a disk, a child.
    Blocked {
        /// The call, for a person.
        call: String,
    },
    /// It waits for work in its normal loop.
    Idle {
        /// The call, for a person.
        call: String,
    },
    /// It sleeps for a time.
    Sleeping {
        /// The call, for a person.
        call: String,
    },
    /// It runs, in its own code or in the kernel.
    Running,
    /// Its registers do not tell.
    Unknown,
}

/// Functions of Kamailio that work on one message or one timer tick: whoever waits below one of
/// them keeps it waiting. All are exported, so they have names in a stripped program.
const WORK: [&str; 6] = [
    "receive_msg",
    "run_top_route",
    "run_actions",
    "do_action",
    "forward_request",
    "sr_event_exec",
];

/// Libraries through which a program talks to a server and waits for the answer.
const CLIENTS: [&str; 18] = [
    "libmysqlclient",
    "libmariadb",
    "libpq",
    "libhiredis",
    "libcurl",
    "libssl",
    "libcrypto",
    "libresolv",
    "libnss_",
    "libldap",
    "libradcli",
    "libfreeradius",
    "libodbc",
    "libmongoc",
    "librabbitmq",
    "libmemcached",
    "librdkafka",
    "libunbound",
];

/// Functions of the C library that ask a name server.
const RESOLVER: [&str; 6] =
    ["res_nsend", "res_send", "res_query", "res_search", "getaddrinfo", "gethostbyname"];

impl Doing {
    /// What a thread does; `wait` is its wait for a lock.
    pub(super) fn of(
        thread: &ThreadView,
        wait: Option<(&Wait, Addr)>,
        describe: impl Fn() -> String,
    ) -> Self {
        if thread.signal != 0 {
            return Self::Crashing { signal: thread.signal };
        }
        let inner = Self::of_call(thread, wait, describe);
        let inner = match handles_signal(thread) {
            true => Self::InSignalHandler(Box::new(inner)),
            false => inner,
        };
        match thread.is_stopped() {
            true => Self::Stopped(Box::new(inner)),
            false => inner,
        }
    }

    fn of_call(
        thread: &ThreadView,
        wait: Option<(&Wait, Addr)>,
        describe: impl Fn() -> String,
    ) -> Self {
        if let Some((wait, lock)) = wait {
            return match wait.spins {
                true => Self::SpinningOnLock { lock },
                false => Self::WaitingForLock { lock },
            };
        }
        let Some(call) = &thread.call else {
            return if thread.frames.is_empty() { Self::Unknown } else { Self::Running };
        };
        let works = is_working(thread);
        match purpose(call) {
            Purpose::Input if !works => Self::Idle { call: describe() },
            Purpose::Input | Purpose::Progress => Self::Blocked { call: describe() },
            Purpose::Time if works => Self::Sleeping { call: describe() },
            Purpose::Time => Self::Idle { call: describe() },
            Purpose::Nothing => Self::Running,
        }
    }

    /// For scripts.
    pub fn id(&self) -> &'static str {
        match self {
            Self::Crashing { .. } => "crashing",
            Self::Stopped(_) => "stopped",
            Self::WaitingForLock { .. } => "waiting-for-lock",
            Self::SpinningOnLock { .. } => "spinning-on-lock",
            Self::InSignalHandler(_) => "in-signal-handler",
            Self::Blocked { .. } => "blocked",
            Self::Idle { .. } => "idle",
            Self::Sleeping { .. } => "sleeping",
            Self::Running => "running",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for Doing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Crashing { signal } => write!(f, "crashing ({})", signal_name(*signal)),
            Self::Stopped(inner) => write!(f, "stopped, {inner}"),
            Self::WaitingForLock { lock } => write!(f, "waiting on lock {lock}"),
            Self::SpinningOnLock { lock } => write!(f, "spinning on lock {lock}"),
            Self::InSignalHandler(inner) => write!(f, "in a signal handler, {inner}"),
            Self::Blocked { call } => write!(f, "blocked in {call}"),
            Self::Idle { call } => write!(f, "idle in {call}"),
            Self::Sleeping { call } => write!(f, "sleeping in {call}"),
            Self::Running => f.write_str("running"),
            Self::Unknown => f.write_str("not known"),
        }
    }
}

/// What a thread waits for in a system call.
enum Purpose {
    /// That something arrives: there may be nothing to do until then.
    Input,
    /// That something it has begun comes to its end.
    Progress,
    /// That a time passes.
    Time,
    /// Nothing: the call ends by itself.
    Nothing,
}

fn purpose(call: &SystemCall) -> Purpose {
    match call.name.unwrap_or_default() {
        // Without descriptors to watch it is a way to sleep.
        "select" | "pselect6" | "poll" | "ppoll" if watches_nothing(call) => Purpose::Time,
        "nanosleep" | "clock_nanosleep" => Purpose::Time,
        "read" | "readv" | "recvfrom" | "recvmsg" | "recvmmsg" | "accept" | "accept4" | "poll"
        | "ppoll" | "select" | "pselect6" | "epoll_wait" | "epoll_pwait" | "epoll_pwait2"
        | "pause" | "rt_sigtimedwait" | "rt_sigsuspend" | "futex" | "futex_wait"
        | "futex_waitv" | "wait4" | "waitid" | "io_getevents" | "io_uring_enter" | "msgrcv"
        | "mq_timedreceive" | "semop" | "semtimedop" => Purpose::Input,
        "sched_yield" | "getpid" | "gettid" | "clock_gettime" | "gettimeofday" => Purpose::Nothing,
        _ => Purpose::Progress,
    }
}

/// The number of descriptors is the first argument of `select`, the second of `poll`.
fn watches_nothing(call: &SystemCall) -> bool {
    let count = if call.name.is_some_and(|name| name.ends_with("poll")) { 1 } else { 0 };
    call.argument(count) == 0
}

/// Whether a signal interrupted it and its handler has not returned.
fn handles_signal(thread: &ThreadView) -> bool {
    thread.frames.iter().any(|frame| frame.frame.is_signal_frame)
}

/// Whether it is in the middle of some work: a message, or a question to a server.
fn is_working(thread: &ThreadView) -> bool {
    let client = |module: &str| CLIENTS.iter().any(|client| module.starts_with(client));
    let asks =
        |name: &str| RESOLVER.iter().any(|start| name.trim_start_matches('_').starts_with(start));
    thread.frames.iter().filter_map(|frame| frame.module.as_deref()).any(client)
        || thread.functions().any(|name| WORK.contains(&name) || asks(name))
}
