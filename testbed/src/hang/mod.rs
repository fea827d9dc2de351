//! Hangs, made on a running instance with the configuration `config/hangs.cfg`: in [`pool`] with the
//! lock of shared memory, in [`slot`] with those of a hash table, in [`script`] without a hash table;
//! [`silent`] is what workers wait for in vain.
//!
//! A recipe returns when the hang is complete, and says what it then reads from the kernel and from
//! the locks' own words: which process holds which lock, and which others wait for it.

pub mod pool;
pub mod script;
pub mod silent;
pub mod slot;

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::kamailio::{Instance, Options};
use crate::proc;

/// UDP workers of an instance made with [`options`].
pub const WORKERS: usize = 4;

/// A process of an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// As we see it.
    pub pid: u32,
    /// What `core.psx` says that it is.
    pub role: String,
}

/// A lock that one process holds while others wait for it.
#[derive(Clone, Debug)]
pub struct Held {
    /// Address of the lock, the same in all processes.
    pub lock: u64,
    /// Who holds it.
    pub holder: Process,
    /// Who wait for it.
    pub waiters: Vec<Process>,
}

/// The options of an instance that can be brought to hang.
pub fn options() -> Options {
    Options { configuration: include_str!("../../config/hangs.cfg"), ..Options::default() }
}

/// All processes of an instance, in the order of its table.
#[track_caller]
pub fn processes(instance: &Instance) -> Vec<Process> {
    let all = instance.pids().iter().zip(instance.rpc().processes());
    all.map(|(pid, process)| Process { pid: *pid, role: process.description }).collect()
}

/// The UDP workers.
#[track_caller]
pub fn workers(instance: &Instance) -> Vec<Process> {
    let mut workers = processes(instance);
    workers.retain(|process| process.role.starts_with("udp receiver"));
    assert_eq!(workers.len(), WORKERS, "UDP workers of the instance");
    workers
}

/// Sends one request to `user` and waits for no answer.
#[track_caller]
pub fn request(instance: &Instance, user: &str) {
    request_with_port(instance, user, 0);
}

/// The same; a connection that the request makes necessary goes to `connect_to`.
#[track_caller]
pub fn request_with_port(instance: &Instance, user: &str, connect_to: u16) {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let own = socket.local_addr().unwrap();
    let to = format!("127.0.0.1:{}", instance.port());
    let lines = [
        format!("OPTIONS sip:{user}@{to} SIP/2.0"),
        format!("Via: SIP/2.0/UDP {own};branch=z9hG4bK-hang-{number}"),
        format!("From: <sip:caller@{own}>;tag={number}"),
        format!("To: <sip:{user}@{to}>"),
        format!("Call-ID: hang-{number}@{own}"),
        "CSeq: 1 OPTIONS".to_owned(),
        "Max-Forwards: 70".to_owned(),
        format!("X-Port: {connect_to}"),
        "Content-Length: 0\r\n\r\n".to_owned(),
    ];
    socket.send_to(lines.join("\r\n").as_bytes(), to).unwrap();
}

/// The futex that each of the processes waits for; those that wait for none are left out.
pub fn futexes(processes: &[Process]) -> BTreeMap<u32, u64> {
    let waits = |process: &Process| Some((process.pid, proc::awaited_futex(process.pid)?));
    processes.iter().filter_map(waits).collect()
}

/// Waits until one of `processes` is in the system call `number`; there must be no second one.
#[track_caller]
fn the_one_in(number: u64, processes: &[Process]) -> Process {
    let inside = |pid| proc::system_call(pid).is_some_and(|call| call.number == number);
    the_one(&format!("a worker is in system call {number}"), processes, inside)
}

/// Waits until one of `processes` has run for half a second; there must be no second one.
#[track_caller]
fn the_busy_one(processes: &[Process]) -> Process {
    the_one("a worker runs in circles", processes, |pid| proc::user_ticks(pid) >= 50)
}

#[track_caller]
fn the_one(what: &str, processes: &[Process], is: impl Fn(u32) -> bool) -> Process {
    proc::until(what, || processes.iter().any(|process| is(process.pid)));
    let found: Vec<&Process> = processes.iter().filter(|process| is(process.pid)).collect();
    let [one] = found[..] else { panic!("{} workers, not one: {what}", found.len()) };
    one.clone()
}

/// All `processes` but one.
fn others(processes: &[Process], than: &Process) -> Vec<Process> {
    processes.iter().filter(|process| *process != than).cloned().collect()
}

/// Lets each of `free` serve a request to `user`, and waits until all of them wait for one and the
/// same futex; its address.
#[track_caller]
fn queue(instance: &Instance, user: &str, free: &[Process]) -> u64 {
    free.iter().for_each(|_| request(instance, user));
    the_one_awaited(free)
}

/// Waits until all of `free` wait for the same futex; its address.
#[track_caller]
fn the_one_awaited(free: &[Process]) -> u64 {
    proc::until("all other workers wait", || futexes(free).len() == free.len());
    let mut addresses: Vec<u64> = futexes(free).into_values().collect();
    addresses.dedup();
    let [lock] = addresses[..] else { panic!("workers wait for {addresses:x?}") };
    assert_eq!(word(free[0].pid, lock), 2, "the lock is taken and waited for");
    lock
}

/// Asserts that the word behind a slot's lock is its holder's PID, as the holder itself knows it.
#[track_caller]
fn assert_recorded(lock: u64, holder: &Process) {
    let own = proc::inner_pid(holder.pid).expect("the holder is there");
    assert_eq!([0, 4].map(|at| word(holder.pid, lock + at)), [2, own], "lock and holder");
}

/// The 32-bit word at `address`.
#[track_caller]
fn word(pid: u32, address: u64) -> u32 {
    let bytes = proc::read_memory(pid, address, 4);
    u32::from_le_bytes(bytes.try_into().unwrap())
}
