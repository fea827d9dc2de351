//! What the locks are called that somebody waits for.

use super::inside;
use super::{Case, Member};
use crate::addr::Addr;
use crate::kamailio::{self, PoolKind};
use crate::locks::{Lock, LockFragment, LockName, Locks};
use crate::memory::Memory as _;
use crate::places::{Place, Places};

impl Case {
    /// Names every lock: by Kamailio's own use of it, by the fragment and by the variable.
    pub(super) fn name_locks(&self, locks: &mut Locks, places: &Places<'_>) {
        let seen_by: Vec<Option<usize>> = (0..locks.locks.len())
            .map(|index| Some(self.threads.get(locks.waits_for(index).next()?.thread)?.member))
            .collect();
        let fragments = self.fragments_of(&locks.locks, &seen_by, places);
        let names: Vec<LockName> = (0_usize..)
            .zip(locks.locks.iter().zip(seen_by))
            .map(|(index, (lock, seen_by))| {
                let fragment = fragments.iter().find(|(at, _)| *at == lock.at);
                let fragment = fragment.map(|(_, fragment)| fragment.clone());
                let of_pool = locks.waits_for(index).any(|wait| {
                    wait.function.as_deref().is_some_and(kamailio::works_on_shared_pool)
                });
                let own = of_pool.then(|| "the lock of the shared pool".to_owned());
                self.lock_name(lock, own, fragment, seen_by, places)
            })
            .collect();
        for (lock, name) in locks.locks.iter_mut().zip(names) {
            lock.name = name;
        }
    }

    /// The fragments of the shared pool that hold locks; `seen_by`: a process that waits for each.
    fn fragments_of(
        &self,
        locks: &[Lock],
        seen_by: &[Option<usize>],
        places: &Places<'_>,
    ) -> Vec<(Addr, LockFragment)> {
        let in_shared_pool = |(lock, member): (&Lock, &Option<usize>)| {
            let place = places.of((*member)?, lock.at.0)?;
            (place == Place::Shm).then_some(lock.at)
        };
        let wanted: Vec<Addr> = locks.iter().zip(seen_by).filter_map(in_shared_pool).collect();
        let mut shared = self.members.iter().flat_map(|member| {
            let roots = member.roots.pools.iter().filter(|root| root.kind == PoolKind::Shm);
            roots.map(move |root| (member, root))
        });
        let Some((member, root)) = shared.next().filter(|_| !wanted.is_empty()) else {
            return Vec::new();
        };
        let found = inside::find(member, root, wanted).into_iter();
        found
            .map(|(at, inside)| (at, LockFragment { payload: inside.payload, owner: inside.owner }))
            .collect()
    }

    fn lock_name(
        &self,
        lock: &Lock,
        own: Option<String>,
        fragment: Option<LockFragment>,
        seen_by: Option<usize>,
        places: &Places<'_>,
    ) -> LockName {
        let place = seen_by.and_then(|member| places.of(member, lock.at.0));
        let on_stack =
            |member: usize| matches!(places.of(member, lock.at.0), Some(Place::Stack { .. }));
        let start = fragment.as_ref().map_or(lock.at, |fragment| fragment.payload.start);
        let member = seen_by.and_then(|member| self.members.get(member));
        let slot = || kamailio::tables::slot_of(&member?.process, lock.at);
        LockName {
            own: own.or_else(slot),
            variable: member.and_then(|member| variable(member, [lock.at, start])),
            fragment,
            place: place.map(|place| place.to_string()),
            on_stack: (0..self.members.len()).any(on_stack),
        }
    }
}

/// The named variable that holds one of these addresses; of several the first by name.
fn variable(member: &Member, addresses: [Addr; 2]) -> Option<String> {
    let memory = &member.process.memory;
    let leads = |at: Addr| memory.pointer(at).is_ok_and(|value| addresses.contains(&value));
    member.process.modules.iter().find_map(|module| {
        let found = module.pointers().filter(|(_, at)| leads(*at)).map(|(name, _)| name).min()?;
        Some(format!("{found} of {}", module.name()))
    })
}
