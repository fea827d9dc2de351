//! Hangs without a hash table: a plain lock of the script's own, a connection, a loop.

use super::silent::Port;
use super::{
    Held, Process, others, queue, request, request_with_port, the_busy_one, the_one_in, workers,
};
use crate::kamailio::Instance;
use crate::proc;

/// A worker takes the same lock twice; the others then wait for it too. The lock knows no holder.
#[track_caller]
pub fn lock_twice(instance: &Instance) -> Held {
    let workers = workers(instance);
    request(instance, "twice");
    let holder = the_one_in(proc::FUTEX, &workers);
    let waiters = others(&workers, &holder);
    let lock = queue(instance, "once", &waiters);
    assert_eq!(proc::awaited_futex(holder.pid), Some(lock), "the holder waits, too");
    Held { lock, holder, waiters }
}

/// A worker waits for a connection that nobody accepts.
#[track_caller]
pub fn connect(instance: &Instance, port: &Port) -> Process {
    request_with_port(instance, "connect", port.address().port());
    the_one_in(proc::POLL, &workers(instance))
}

/// A worker runs in circles.
#[track_caller]
pub fn run_in_circles(instance: &Instance) -> Process {
    request(instance, "loop");
    the_busy_one(&workers(instance))
}
