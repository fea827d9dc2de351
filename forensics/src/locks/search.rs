//! Finds the waits, the locks and their holders.

use std::collections::{BTreeMap, BTreeSet};

use super::kind::{self, LockKind};
use super::{Holder, How, Lock, LockName, Locks, Presence, Wait, glibc, graph, infer, kamailio};
use crate::activity::{FutexWait, Limit};
use crate::addr::Addr;
use crate::kamailio::ProcessEntry;
use crate::kamailio::tables::slot_of;
use crate::memory::Memory as _;
use crate::places::{Place, Places};
use crate::process::Process;
use crate::threads::ThreadView;

/// What the search for locks sees of a case.
#[derive(Debug)]
pub struct Sight<'a> {
    /// The processes; threads name them by their index.
    pub processes: Vec<&'a Process>,
    /// Every thread.
    pub threads: &'a [ThreadView],
    /// Kamailio's process table, with PIDs of the group's own namespace.
    pub table: &'a [ProcessEntry],
    /// PIDs, in that namespace, of all processes that the group had when it was captured; `None`
    /// where no collector says so.
    pub group: Option<BTreeSet<u32>>,
    /// What lies where.
    pub places: &'a Places<'a>,
}

/// A lock's identity: the same address in private memory of two processes is two locks.
type Key = (Addr, Option<usize>);

/// Of all threads of a case.
pub fn find(sight: &Sight<'_>) -> Locks {
    let mut locks: BTreeMap<Key, (LockKind, Vec<Wait>)> = BTreeMap::new();
    for (index, thread) in sight.threads.iter().enumerate() {
        let Some((at, kind, spins)) = sight.wanted(thread) else { continue };
        let key = (at, (!sight.is_shared(thread.member, at)).then_some(thread.member));
        let function = thread.own_frame().map(|frame| frame.words());
        let lasted = if spins { thread.spun() } else { thread.waited() };
        let has_limit = sight.has_limit(thread);
        let wait = Wait { thread: index, lock: 0, function, lasted, spins, has_limit };
        locks.entry(key).or_insert_with(|| (kind, Vec::new())).1.push(wait);
    }
    let mut found: Vec<(Lock, Vec<Wait>)> = locks
        .into_iter()
        .map(|(key, (kind, waits))| (sight.lock(key, kind, &waits), waits))
        .collect();
    found.sort_by_key(|(_, waits)| std::cmp::Reverse(waits.len()));
    let mut result = Locks::default();
    for (index, (lock, waits)) in found.into_iter().enumerate() {
        result.locks.push(lock);
        result.waits.extend(waits.into_iter().map(|wait| Wait { lock: index, ..wait }));
    }
    result.waits.sort_by_key(|wait| wait.thread);
    let waiting: BTreeMap<usize, usize> =
        result.waits.iter().enumerate().map(|(index, wait)| (wait.thread, index)).collect();
    let next = result.waits.iter().map(|wait| {
        let holder = result.locks.get(wait.lock)?.holder.as_ref()?;
        waiting.get(&holder.thread?).copied()
    });
    result.cycles = graph::cycles(&next.collect::<Vec<_>>());
    result
}

/// The spinlock that a thread asks for in `pthread_spin_lock`, which keeps its only argument where it
/// was given.
fn spinlock(thread: &ThreadView) -> Option<Addr> {
    let innermost = thread.frames.first()?;
    let asks = innermost.function()?.trim_start_matches('_') == "pthread_spin_lock";
    innermost.frame.registers.named("rdi").map(Addr).filter(|_| asks)
}

impl Sight<'_> {
    /// Whether the call in which a thread waits ends after a time by itself.
    fn has_limit(&self, thread: &ThreadView) -> bool {
        let process = self.processes.get(thread.member);
        let limit = thread.call.zip(process).and_then(|(call, p)| call.limit(&p.memory));
        limit.is_some_and(|limit| limit != Limit::None)
    }

    /// The lock that a thread waits for: its address, its kind, and whether the thread spins.
    fn wanted(&self, thread: &ThreadView) -> Option<(Addr, LockKind, bool)> {
        if let Some(at) = spinlock(thread) {
            return Some((at, LockKind::PthreadSpinlock, true));
        }
        let call = thread.call.as_ref()?;
        if call.name == Some("sched_yield") {
            return Some((self.asked_for(thread)?, LockKind::KamailioFastLock, true));
        }
        let wait = call.futex_wait()?;
        let at = wait.address;
        let process = self.processes.get(thread.member)?;
        let in_kamailio =
            self.is_shared(thread.member, at) || process.modules.symbol("_shm_root").is_some();
        let by_functions = kind::of_futex(thread, &wait, in_kamailio);
        let kind = by_functions
            .or_else(|| self.recorded_mutex(thread.member, &wait))
            .or_else(|| self.unnamed_lock(thread, &wait))?;
        let is_rwlock = thread.functions().any(|name| name.contains("pthread_rwlock_"));
        let start = is_rwlock.then(|| glibc::rwlock_start(at)).flatten();
        Some((start.unwrap_or(at), kind, false))
    }

    /// The lock's own words say that it is a mutex and which captured thread holds it: enough where
    /// no function on the stack has a name.
    fn recorded_mutex(&self, member: usize, wait: &FutexWait) -> Option<LockKind> {
        let memory = &self.processes.get(member)?.memory;
        let owner = glibc::mutex_owner(memory, wait.address)?;
        let private = (!self.is_shared(member, wait.address)).then_some(member);
        let known = self.owner(owner, private).is_some();
        (known && glibc::waits_for_mutex(memory, wait, owner)).then_some(LockKind::PthreadMutex)
    }

    /// Without a file of the C library its functions have no names: what a thread sleeps for in
    /// shared memory in the way of Kamailio's locks is one.
    fn unnamed_lock(&self, thread: &ThreadView, wait: &FutexWait) -> Option<LockKind> {
        let unnamed = thread.frames.first()?.function().is_none() && thread.own_frame().is_some();
        let alike = kind::as_kamailio_waits(wait) && self.is_shared(thread.member, wait.address);
        (unnamed && alike).then_some(LockKind::KamailioLock)
    }

    /// The lock that a thread asks for again and again between giving up its turn: the only held
    /// one that a register of the asking function points to.
    fn asked_for(&self, thread: &ThreadView) -> Option<Addr> {
        let frame = &thread.own_frame()?.frame;
        let memory = &self.processes.get(thread.member)?.memory;
        let held = |at: &Addr| {
            self.is_shared(thread.member, *at) && memory.int(*at).is_ok_and(|word| word == 1)
        };
        let mut found: Vec<Addr> =
            frame.registers.known().map(|(_, value)| Addr(value)).filter(held).collect();
        found.sort_unstable();
        found.dedup();
        match found[..] {
            [only] => Some(only),
            _ => None,
        }
    }

    fn is_shared(&self, member: usize, at: Addr) -> bool {
        matches!(self.places.of(member, at.0), Some(Place::Shm | Place::Shared))
    }

    fn lock(&self, (at, member): Key, kind: LockKind, waits: &[Wait]) -> Lock {
        let seen_by = waits.first().and_then(|wait| self.threads.get(wait.thread));
        let memory = seen_by.and_then(|thread| self.processes.get(thread.member));
        let word = memory.and_then(|process| process.memory.int(at).ok());
        let word = word.map(|word| u32::from_le_bytes(word.to_le_bytes()));
        let readers = match kind {
            LockKind::PthreadRwlock => word.unwrap_or(0) >> glibc::READERS_SHIFT,
            _ => 0,
        };
        let name = LockName::default();
        let mut lock = Lock { at, member, kind, word, readers, name, holder: None };
        if let Some(process) = memory
            && word != Some(0)
        {
            lock.holder = self.holder(&mut lock.kind, (at, member), process, waits);
        }
        lock
    }

    fn holder(
        &self,
        kind: &mut LockKind,
        (at, member): Key,
        process: &Process,
        waits: &[Wait],
    ) -> Option<Holder> {
        match kind {
            LockKind::KamailioLock | LockKind::KamailioFastLock => {
                let is_pid = |pid| self.is_pid(pid);
                let is_slot = || slot_of(process, at).is_some();
                let recorded = kamailio::recorded(&process.memory, at, is_pid, is_slot);
                if let Some(recorded) = recorded {
                    *kind = LockKind::KamailioRecursiveLock;
                    return Some(self.recorded(recorded.pid, How::LockerPid));
                }
                self.inferred(at, waits)
            }
            LockKind::PthreadMutex => {
                Some(self.owned_by(glibc::mutex_owner(&process.memory, at)?, member))
            }
            LockKind::PthreadRwlock | LockKind::OpensslLock => {
                let is_thread = |tid: &u32| self.owner(*tid, member).is_some();
                let writer = glibc::rwlock_writer(&process.memory, at).filter(is_thread);
                let owner = writer.or_else(|| glibc::mutex_owner(&process.memory, at));
                Some(self.owned_by(owner.filter(is_thread)?, member))
            }
            LockKind::KamailioRecursiveLock
            | LockKind::PthreadSpinlock
            | LockKind::CLibraryLock => None,
        }
    }

    /// Whether a number is the PID of a process that the group has or had.
    fn is_pid(&self, pid: u32) -> bool {
        let in_table = |entry: &ProcessEntry| u32::try_from(entry.pid) == Ok(pid);
        self.table.iter().any(in_table) || self.thread(pid).is_some()
    }

    /// The thread with an ID, in the group's own namespace or on the host.
    fn thread(&self, id: u32) -> Option<usize> {
        let inner = |thread: &ThreadView| {
            let process = self.processes.get(thread.member)?;
            process.inner_pid.filter(|_| process.pid == Some(thread.tid))
        };
        let mut threads = self.threads.iter();
        let by_inner = threads.position(|thread| inner(thread) == Some(id));
        by_inner.or_else(|| {
            let by_host = |thread: &ThreadView| inner(thread).is_none() && thread.tid == id;
            self.threads.iter().position(by_host)
        })
    }

    /// The thread that glibc's locks call `id`, of the process `member` or, in shared memory, of
    /// any.
    fn owner(&self, id: u32, member: Option<usize>) -> Option<usize> {
        let threads = || self.threads.iter().enumerate();
        let here = |thread: &ThreadView| member.is_none_or(|member| thread.member == member);
        let mut by_own = threads().filter(|(_, thread)| here(thread) && thread.own_id == Some(id));
        by_own.next().map(|(index, _)| index).or_else(|| {
            let index = self.thread(id)?;
            let thread = self.threads.get(index)?;
            (here(thread) && thread.own_id.is_none()).then_some(index)
        })
    }

    /// A thread of another process may be anywhere; of a thread of this one it is certain that it
    /// has ended if the IDs of all that there are were known.
    fn owned_by(&self, id: u32, member: Option<usize>) -> Holder {
        let found = self.owner(id, member);
        let mut here = self.threads.iter().filter(|thread| Some(thread.member) == member);
        let all_known = member.is_some() && here.all(|thread| thread.own_id.is_some());
        let presence = match found {
            Some(_) => Presence::Captured,
            None if all_known => Presence::Ended,
            None => Presence::NotInInput,
        };
        let process = member.and_then(|member| self.processes.get(member)?.pid);
        let pid = found.and_then(|thread| self.pid(thread)).or(process).unwrap_or(id);
        let tid = found.is_none().then_some(id);
        Holder { pid, tid, thread: found, how: How::OwnerField, presence }
    }

    fn recorded(&self, id: u32, how: How) -> Holder {
        let thread = self.thread(id);
        let in_table = self.table.iter().any(|entry| u32::try_from(entry.pid) == Ok(id));
        let ended = self.group.as_ref().is_some_and(|group| !group.contains(&id));
        let presence = match (thread, in_table) {
            (Some(_), _) => Presence::Captured,
            (None, true) if !ended => Presence::NotInInput,
            (None, _) => Presence::Ended,
        };
        let pid = thread.and_then(|thread| self.pid(thread)).unwrap_or(id);
        Holder { pid, tid: None, thread, how, presence }
    }

    fn pid(&self, thread: usize) -> Option<u32> {
        self.processes.get(self.threads.get(thread)?.member)?.pid
    }

    /// Who may hold a plain lock, by the stacks.
    fn inferred(&self, at: Addr, waits: &[Wait]) -> Option<Holder> {
        let others = || infer::candidates(self.threads, waits);
        let thread = |index: usize| self.threads.get(index);
        let waiter = thread(waits.first()?.thread)?;
        let module = waiter.own_frame()?.module.as_deref()?;
        let memory = |index: usize| {
            thread(index).and_then(|t| self.processes.get(t.member)).map(|process| &process.memory)
        };
        let found = if kamailio::holds_shared_pool(waiter).is_some() {
            infer::only(others(), |index| {
                let function = kamailio::holds_shared_pool(thread(index)?)?;
                Some(format!("it is inside {function}, which runs with this lock held"))
            })
        } else {
            let mentions = infer::only(others(), |index| {
                let found = infer::mentions(thread(index)?, memory(index)?, at, module)?;
                Some(format!("the lock's address stands on its stack, in {found}"))
            });
            mentions.or_else(|| {
                let in_module = self.is_library(waiter.member, module);
                infer::only(others().filter(|_| in_module), |index| {
                    let found = infer::inside(thread(index)?, module)?;
                    Some(format!("no other process is inside {module}: it is in {found}"))
                })
            })
        };
        let (index, because) = found?;
        let pid = self.pid(index)?;
        let how = How::Inferred { because };
        Some(Holder { pid, tid: None, thread: Some(index), how, presence: Presence::Captured })
    }

    /// Whether a module is no program: every process of the group is inside its program.
    fn is_library(&self, member: usize, module: &str) -> bool {
        let process = self.processes.get(member);
        let found = process.and_then(|process| process.modules.iter().find(|m| m.name() == module));
        found.is_some_and(|found| found.name().contains(".so"))
    }
}
