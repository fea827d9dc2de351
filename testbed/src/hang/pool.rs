//! A worker that stands still inside the lock of shared memory.

use nix::sys::signal::Signal;

use super::{
    Held, Process, assert_recorded, futexes, others, queue, request, the_one_awaited, workers,
};
use crate::kamailio::{Instance, Manager};
use crate::load::{Kind, Traffic};
use crate::{gdb, proc};

/// A process that SIGSTOP stopped; it goes on when the value is dropped.
#[derive(Debug)]
struct Stopped(Process);

impl Drop for Stopped {
    fn drop(&mut self) {
        proc::signal(self.0.pid, Signal::SIGCONT);
    }
}

/// A worker that holds the lock of shared memory.
#[derive(Debug)]
pub struct Hang {
    /// That lock; its waiters are all other workers, under SIP load, unless some are `behind`.
    pub pool: Held,
    /// A lock that one of those waiters holds.
    pub behind: Option<Held>,
    _stopped: Stopped,
    _traffic: Option<Traffic>,
}

/// A worker is stopped inside the lock of shared memory; SIP load makes all others wait for it.
#[track_caller]
pub fn stop_inside(instance: &Instance, manager: Manager) -> Hang {
    let workers = workers(instance);
    let holder = workers[1].clone();
    let free = others(&workers, &holder);
    let stopped = stop(instance, manager, &holder, &free);
    let traffic = Traffic::start(instance, Kind::Pass, 200);
    let lock = the_one_awaited(&free);
    let pool = Held { lock, holder, waiters: free };
    Hang { pool, behind: None, _stopped: stopped, _traffic: Some(traffic) }
}

/// The same, but only one worker waits for it: for a fragment that it needs inside the lock of a
/// slot of a hash table, and that lock is what the others wait for.
#[track_caller]
pub fn stop_before_a_holder(instance: &Instance, manager: Manager) -> Hang {
    let workers = workers(instance);
    let holder = workers[1].clone();
    let free = others(&workers, &holder);
    let stopped = stop(instance, manager, &holder, &free);
    request(instance, "want");
    proc::until("a worker waits for the pool", || futexes(&free).len() == 1);
    let (&pid, &lock) = futexes(&free).first_key_value().unwrap();
    let (second, waiters): (Vec<Process>, Vec<Process>) =
        free.into_iter().partition(|process| process.pid == pid);
    let slot = queue(instance, "want", &waiters);
    let behind = Held { lock: slot, holder: second[0].clone(), waiters };
    assert_recorded(slot, &behind.holder);
    let pool = Held { lock, holder, waiters: second };
    Hang { pool, behind: Some(behind), _stopped: stopped, _traffic: None }
}

/// Stops `holder` with SIGSTOP, traced by nobody, where the manager's own allocation begins for the
/// shared pool: inside the lock. The others are stopped meanwhile, so that the only request is its.
#[track_caller]
fn stop(instance: &Instance, manager: Manager, holder: &Process, free: &[Process]) -> Stopped {
    let pids = |processes: &[Process]| processes.iter().map(|p| p.pid).collect::<Vec<_>>();
    let all = [pids(free), vec![holder.pid]].concat();
    proc::stop_all(&all);
    request(instance, "pass");
    let malloc = format!("{}_malloc", manager.name());
    let said = gdb::attached(
        holder.pid,
        &[
            // That which it is stopped by now.
            "handle SIGSTOP nostop noprint nopass",
            // The pool's own block: the second pointer behind the manager's name.
            "set $pool = *(long *) ((long) &_shm_root + 16)",
            &format!("break *{malloc} if $rdi == $pool"),
            "continue",
            "backtrace",
            &format!("shell kill -STOP {}", holder.pid),
            "detach",
        ],
    );
    assert!(said.contains(&format!("in {}_shm_malloc ()", manager.name())), "{said}");
    proc::until("the holder is stopped and traced by nobody", || {
        proc::tracer(holder.pid) == 0 && proc::threads(holder.pid)[0].2 == 'T'
    });
    proc::continue_all(&pids(free));
    Stopped(holder.clone())
}
