//! What a thread waits for: work in its normal loop, or the end of something that it has begun.
//!
//! The system call alone does not tell: a receiver that waits for a datagram is idle, and one that
//! waits for a name server's keeps a message waiting. The stack does.

use super::ThreadView;
use crate::activity::SystemCall;

/// What a thread waits for in a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waits {
    /// That there is something to do, or that it is time for it.
    ForWork,
    /// In the middle of its work: for a peer, a disk, a child.
    InWork,
    /// In the middle of its work, for a time.
    ForTime,
}

/// Functions of Kamailio that work on one message or one event: whoever waits below one of them keeps
/// it waiting. All are exported, so they have names in a stripped program.
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

impl ThreadView {
    /// What it waits for; `None` if it is in no system call, or in one that ends by itself.
    pub fn waits(&self) -> Option<Waits> {
        let call = self.call.as_ref()?;
        match (kind(call)?, is_working(self)) {
            (Kind::Progress, _) | (Kind::Input, true) => Some(Waits::InWork),
            (Kind::Time, true) => Some(Waits::ForTime),
            (Kind::Input | Kind::Time, false) => Some(Waits::ForWork),
        }
    }
}

/// What a call itself waits for.
enum Kind {
    /// That something arrives.
    Input,
    /// That a time passes.
    Time,
    /// That what it does comes to its end.
    Progress,
}

fn kind(call: &SystemCall) -> Option<Kind> {
    Some(match call.name.unwrap_or_default() {
        // Without descriptors to watch it is a way to sleep.
        "select" | "pselect6" | "poll" | "ppoll" if watches_nothing(call) => Kind::Time,
        "nanosleep" | "clock_nanosleep" => Kind::Time,
        "read" | "readv" | "recvfrom" | "recvmsg" | "recvmmsg" | "accept" | "accept4" | "poll"
        | "ppoll" | "select" | "pselect6" | "epoll_wait" | "epoll_pwait" | "epoll_pwait2"
        | "pause" | "rt_sigtimedwait" | "rt_sigsuspend" | "futex" | "futex_wait"
        | "futex_waitv" | "wait4" | "waitid" | "io_getevents" | "io_uring_enter" | "msgrcv"
        | "mq_timedreceive" | "semop" | "semtimedop" => Kind::Input,
        "sched_yield" | "getpid" | "gettid" | "clock_gettime" | "gettimeofday" => return None,
        _ => Kind::Progress,
    })
}

/// The number of descriptors is the first argument of `select`, the second of `poll`.
fn watches_nothing(call: &SystemCall) -> bool {
    let count = if call.name.is_some_and(|name| name.ends_with("poll")) { 1 } else { 0 };
    call.argument(count) == 0
}

/// Whether it is in the middle of some work: a message, or a question to a server.
fn is_working(thread: &ThreadView) -> bool {
    let client = |module: &str| CLIENTS.iter().any(|client| module.starts_with(client));
    let asks =
        |name: &str| RESOLVER.iter().any(|start| name.trim_start_matches('_').starts_with(start));
    thread.frames.iter().filter_map(|frame| frame.module.as_deref()).any(client)
        || thread.functions().any(|name| WORK.contains(&name) || asks(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::threads::testing::{call, view};

    /// The stack of a worker of Debian's 5.6.3 below a system call.
    fn worker(
        inner: &[(&'static str, &'static str)],
        number: u64,
        arguments: [u64; 2],
    ) -> Option<Waits> {
        let outer = [("kamailio", "udp_rcv_loop"), ("kamailio", "main_loop"), ("kamailio", "main")];
        let frames: Vec<_> = inner.iter().chain(&outer).copied().collect();
        ThreadView { call: Some(call(number, arguments)), ..view(&frames) }.waits()
    }

    const MESSAGE: (&str, &str) = ("kamailio", "receive_msg");

    #[test]
    fn the_same_call_is_idle_in_the_loop_and_blocked_below_a_message() {
        const RECVFROM: u64 = 45;
        assert_eq!(worker(&[("libc.so.6", "recvfrom")], RECVFROM, [5, 0]), Some(Waits::ForWork));
        let inner = [("libc.so.6", "recvfrom"), MESSAGE];
        assert_eq!(worker(&inner, RECVFROM, [5, 0]), Some(Waits::InWork));
    }

    #[test]
    fn who_asks_a_database_or_a_name_server_is_not_idle() {
        const POLL: u64 = 7;
        let database = [("libc.so.6", "poll"), ("libmariadb.so.3", "")];
        assert_eq!(worker(&database, POLL, [0x1000, 1]), Some(Waits::InWork));
        let name_server = [("libc.so.6", "poll"), ("libc.so.6", "__res_nsend")];
        assert_eq!(worker(&name_server, POLL, [0x1000, 1]), Some(Waits::InWork));
    }

    #[test]
    fn a_call_that_watches_nothing_passes_time() {
        const SELECT: u64 = 23;
        assert_eq!(worker(&[("libc.so.6", "select")], SELECT, [0, 0]), Some(Waits::ForWork));
        assert_eq!(
            worker(&[("libc.so.6", "select"), MESSAGE], SELECT, [0, 0]),
            Some(Waits::ForTime)
        );
        assert_eq!(
            worker(&[("libc.so.6", "select"), MESSAGE], SELECT, [9, 0]),
            Some(Waits::InWork)
        );
    }

    #[test]
    fn connecting_is_never_idle_and_giving_up_a_turn_is_no_wait() {
        assert_eq!(worker(&[("libc.so.6", "connect")], 42, [5, 0]), Some(Waits::InWork));
        assert_eq!(worker(&[("libc.so.6", "sched_yield")], 24, [0, 0]), None);
    }
}
