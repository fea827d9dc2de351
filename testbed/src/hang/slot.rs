//! Locks of a hash table's slots, which know their holder.

use nix::sys::signal::Signal;

use super::silent::{Fifo, Port};
use super::{
    Held, Process, assert_recorded, futexes, others, queue, request, request_with_port,
    the_busy_one, the_one_awaited, the_one_in, workers,
};
use crate::kamailio::Instance;
use crate::proc;

/// What the holder of a slot does instead of giving it back.
#[derive(Clone, Copy, Debug)]
pub enum Busy<'a> {
    /// It reads what a child writes, which reads the FIFO.
    Reading(&'a Fifo),
    /// It waits until that child ends.
    Waiting(&'a Fifo),
    /// It waits for a connection.
    Connecting(&'a Port),
    /// It runs in circles.
    Looping,
}

/// A worker that holds a slot and is not stopped; all others wait for it.
#[track_caller]
pub fn hold(instance: &Instance, busy: Busy<'_>) -> Held {
    let workers = workers(instance);
    let holder = match busy {
        Busy::Reading(_) => {
            request(instance, "hold-read");
            the_one_in(proc::READ, &workers)
        }
        Busy::Waiting(_) => {
            request(instance, "hold-child");
            the_one_in(proc::WAIT4, &workers)
        }
        Busy::Connecting(port) => {
            request_with_port(instance, "hold-connect", port.address().port());
            the_one_in(proc::POLL, &workers)
        }
        Busy::Looping => {
            request(instance, "hold-loop");
            the_busy_one(&workers)
        }
    };
    let waiters = others(&workers, &holder);
    let lock = queue(instance, "want", &waiters);
    assert_recorded(lock, &holder);
    Held { lock, holder, waiters }
}

/// Two workers, each of which holds what the other waits for.
#[derive(Debug)]
pub struct Cycle {
    /// The slots of the keys `a` and `b`; a third worker waits for the former.
    pub slots: [Held; 2],
    /// A worker that has nothing to do.
    pub idle: Process,
}

/// Two workers take two slots in different order.
#[track_caller]
pub fn cycle(instance: &Instance) -> Cycle {
    let workers = workers(instance);
    request(instance, "first");
    request(instance, "second");
    proc::until("two workers wait", || futexes(&workers).len() == 2);
    let caught = |process: &Process| futexes(&workers).contains_key(&process.pid);
    let (in_cycle, free): (Vec<Process>, Vec<Process>) = workers.iter().cloned().partition(caught);
    request(instance, "want");
    proc::until("a third worker waits", || futexes(&free).len() == 1);
    let (&third, &a) = futexes(&free).first_key_value().unwrap();

    let waits = futexes(&in_cycle);
    let (wants_a, wants_b): (Vec<Process>, Vec<Process>) =
        in_cycle.into_iter().partition(|process| waits[&process.pid] == a);
    let ([wants_a], [wants_b]) = (&wants_a[..], &wants_b[..]) else { panic!("{waits:x?}") };
    let b = waits[&wants_b.pid];
    let (third, idle): (Vec<Process>, Vec<Process>) =
        free.into_iter().partition(|process| process.pid == third);
    let slot_a = Held {
        lock: a,
        holder: wants_b.clone(),
        waiters: [wants_a.clone()].into_iter().chain(third).collect(),
    };
    let slot_b = Held { lock: b, holder: wants_a.clone(), waiters: vec![wants_b.clone()] };
    let slots = [slot_a, slot_b];
    slots.iter().for_each(|slot| assert_recorded(slot.lock, &slot.holder));
    Cycle { slots, idle: idle[0].clone() }
}

/// A holder that is gone: the main process, which would end all others, was killed before it.
#[track_caller]
pub fn die_holding(instance: &mut Instance) -> Held {
    let held = hold(instance, Busy::Looping);
    for pid in [instance.main_pid(), held.holder.pid] {
        proc::signal(pid, Signal::SIGKILL);
        proc::until("the killed process is gone", || {
            instance.reap();
            !proc::is_alive(pid)
        });
    }
    assert_eq!(the_one_awaited(&held.waiters), held.lock, "who waited still waits");
    held
}
