//! What the locks are called that somebody waits for.

use super::inside;
use super::{Case, Member};
use crate::addr::Addr;
use crate::kamailio::PoolKind;
use crate::locks::{Lock, LockFragment, LockName, Locks};
use crate::memory::Memory as _;
use crate::places::{Place, Places};

impl Case {
    /// Names every lock: by Kamailio's own use of it, by the fragment and by the variable.
    pub(super) fn name_locks(&self, locks: &mut Locks, places: &Places<'_>) {
        let fragments = self.fragments_of(locks, places);
        let names: Vec<LockName> = locks
            .locks
            .iter()
            .enumerate()
            .map(|(index, lock)| {
                let fragment = fragments.iter().find(|(at, _)| *at == lock.at);
                self.lock_name(locks, index, lock, fragment.map(|(_, found)| found), places)
            })
            .collect();
        for (lock, name) in locks.locks.iter_mut().zip(names) {
            lock.name = name;
        }
    }

    /// The fragments of the shared pool that hold locks.
    fn fragments_of(&self, locks: &Locks, places: &Places<'_>) -> Vec<(Addr, LockFragment)> {
        let wanted = |lock: &&Lock| {
            let seen_by = self.seen_by(locks, lock);
            seen_by.is_some_and(|member| places.of(member, lock.at.0) == Some(Place::Shm))
        };
        let wanted: Vec<Addr> = locks.locks.iter().filter(wanted).map(|lock| lock.at).collect();
        let shared = self.pools.iter().find(|pool| pool.kind == PoolKind::Shm);
        let Some((pool, member)) = shared
            .filter(|_| !wanted.is_empty())
            .and_then(|pool| Some((pool, self.members.get(pool.member)?)))
        else {
            return Vec::new();
        };
        let found = inside::find(pool, member, wanted).into_iter();
        found
            .map(|(at, inside)| (at, LockFragment { payload: inside.payload, owner: inside.owner }))
            .collect()
    }

    /// A process that waits for a lock.
    fn seen_by(&self, locks: &Locks, lock: &Lock) -> Option<usize> {
        let index = locks.locks.iter().position(|other| std::ptr::eq(other, lock))?;
        let wait = locks.waits_for(index).next()?;
        Some(self.threads.get(wait.thread)?.member)
    }

    fn lock_name(
        &self,
        locks: &Locks,
        index: usize,
        lock: &Lock,
        fragment: Option<&LockFragment>,
        places: &Places<'_>,
    ) -> LockName {
        let Some(member) = self.seen_by(locks, lock) else { return LockName::default() };
        let place = places.of(member, lock.at.0);
        let shared_pool = locks
            .waits_for(index)
            .any(|wait| wait.function.as_deref().is_some_and(crate::locks::uses_shared_pool));
        let on_stack =
            |member: usize| matches!(places.of(member, lock.at.0), Some(Place::Stack { .. }));
        let process = self.members.get(member);
        LockName {
            own: shared_pool.then(|| "the lock of the shared pool".to_owned()),
            variable: process.and_then(|process| {
                let payload = fragment.map_or(lock.at, |fragment| fragment.payload.start);
                variable(process, &[lock.at, payload])
            }),
            fragment: fragment.cloned(),
            place: place.map(|place| place.to_string()),
            on_stack: on_stack(member) || (0..self.members.len()).any(on_stack),
        }
    }
}

/// The named variable that holds one of these addresses; of several the first by name.
fn variable(member: &Member, addresses: &[Addr]) -> Option<String> {
    let memory = &member.process.memory;
    let leads = |at: Addr| memory.pointer(at).is_ok_and(|value| addresses.contains(&value));
    member.process.modules.iter().find_map(|module| {
        let found = module.pointers().filter(|(_, at)| leads(*at)).map(|(name, _)| name).min()?;
        Some(format!("{found} of {}", module.name()))
    })
}
