//! The processes of a case that died: which is the failure itself, and what lies around the fault.

use std::collections::BTreeMap;

use super::{Case, Inside, inside};
use crate::addr::{Addr, AddrRange};
use crate::crash::{Access, Crash, Standing};
use crate::kamailio::PoolKind;
use crate::memory::Memory as _;
use crate::num::narrow;
use crate::places::{Place, Places};
use crate::threads::{NamedFrame, ThreadView};

/// Words that are shown around an address, half of them before it.
const WORDS: u64 = 8;
/// Registers whose surroundings are shown.
const REGISTERS: usize = 4;
/// Frames whose registers are searched for damaged fragments.
const FRAMES: usize = 12;
/// Bytes of the stack that are searched for them.
const STACK: u64 = 64 * 1024;

/// A crash and its surroundings.
#[derive(Clone, Debug)]
pub struct CrashView {
    /// The crash.
    pub crash: Crash,
    /// Memory near the fault and near the registers that the instruction uses.
    pub nearby: Vec<Nearby>,
    /// Damaged fragments that a register or the stack of its frames points at: header and pool.
    pub damaged: Vec<(Addr, String)>,
    /// What the interrupted shutdown waited for, for a person.
    pub lock: Option<(Addr, String)>,
}

/// Memory near an address that matters.
#[derive(Clone, Debug)]
pub struct Nearby {
    /// Whose: `fault`, or a register.
    pub what: &'static str,
    /// The address.
    pub at: Addr,
    /// What it is, for a person.
    pub place: Option<String>,
    /// The words around it, as far as they are known: address, value, what that points at.
    pub words: Vec<(Addr, u64, Option<String>)>,
    /// Where nothing is mapped: what comes next below and above, each with its words.
    pub neighbours: Vec<(AddrRange, String)>,
}

impl Case {
    /// The processes that died, the likely first failure first.
    pub(super) fn find_crashes(&self) -> Vec<CrashView> {
        if self.threads.iter().all(|thread| thread.signal == 0) {
            return Vec::new();
        }
        let places = self.places();
        let crashes = self.threads.iter().enumerate().filter_map(|(index, view)| {
            let process = &self.members.get(view.member)?.process;
            Crash::of(index, view, process, &places)
        });
        let mut crashes: Vec<CrashView> =
            crashes.map(|crash| self.surround(crash, &places)).collect();
        crashes.sort_by_key(|view| match view.crash.standing {
            Standing::Primary => 0,
            Standing::Sent => 1,
            Standing::Secondary => 2,
        });
        crashes
    }

    fn surround(&self, crash: Crash, places: &Places<'_>) -> CrashView {
        let member = self.threads.get(crash.thread).map_or(0, |thread| thread.member);
        let mut wanted: Vec<(&'static str, Addr)> =
            crash.fault.iter().map(|fault| ("fault", fault.address)).collect();
        // A jump into nowhere used no register, and an abort has none that matter.
        let fault = crash.fault.as_ref().filter(|fault| fault.access != Some(Access::Jump));
        let used = crash.instruction.iter().filter(|_| fault.is_some());
        let used = used.flat_map(|instruction| &instruction.registers);
        wanted.extend(used.take(REGISTERS).map(|(name, value)| (*name, Addr(*value))));
        let interrupted = crash.interrupted.as_ref().and_then(|interrupted| interrupted.lock);
        let mut addresses: Vec<Addr> = wanted.iter().map(|(_, at)| *at).collect();
        addresses.extend(interrupted);
        let fragments = self.fragments_at(member, &addresses, places);
        let words = |at: Addr| self.place_words(member, at, &fragments, places);
        let nearby = wanted.iter().map(|(what, at)| self.nearby(member, what, *at, &words, places));
        CrashView {
            nearby: nearby.collect(),
            damaged: self.damaged_near(&crash),
            lock: interrupted.map(|at| (at, words(at).unwrap_or_default())),
            crash,
        }
    }

    /// The fragments that hold addresses of a process.
    fn fragments_at(
        &self,
        member: usize,
        addresses: &[Addr],
        places: &Places<'_>,
    ) -> BTreeMap<Addr, Inside> {
        let mut by_kind: BTreeMap<PoolKind, Vec<Addr>> = BTreeMap::new();
        for at in addresses {
            let kind = match places.of(member, at.0) {
                Some(Place::Shm) => PoolKind::Shm,
                Some(Place::Pkg { .. }) => PoolKind::Pkg,
                _ => continue,
            };
            by_kind.entry(kind).or_default().push(*at);
        }
        let found = by_kind.into_iter().filter_map(|(kind, wanted)| {
            let member = self.members.get(member)?;
            let root = member.roots.pools.iter().find(|root| root.kind == kind)?;
            Some(inside::find(member, root, wanted))
        });
        found.flatten().collect()
    }

    fn place_words(
        &self,
        member: usize,
        at: Addr,
        fragments: &BTreeMap<Addr, Inside>,
        places: &Places<'_>,
    ) -> Option<String> {
        let place = places.of(member, at.0)?;
        Some(match fragments.get(&at) {
            Some(inside) => format!("{place}, {inside}"),
            None => place.to_string(),
        })
    }

    fn nearby(
        &self,
        member: usize,
        what: &'static str,
        at: Addr,
        place: &dyn Fn(Addr) -> Option<String>,
        places: &Places<'_>,
    ) -> Nearby {
        let Some(process) = self.members.get(member).map(|member| &member.process) else {
            return Nearby { what, at, place: None, words: Vec::new(), neighbours: Vec::new() };
        };
        let start = Addr((at.0 & !7).saturating_sub(WORDS / 2 * 8));
        let words = (0..WORDS).filter_map(|number| {
            let at = start.checked_add(number.saturating_mul(8))?;
            let value = process.memory.word(at).ok()?;
            let points = places.of(member, value).filter(Place::is_memory);
            Some((at, value, points.map(|place| place.to_string())))
        });
        let words: Vec<_> = words.collect();
        let segments = process.memory.segments();
        let next = segments.partition_point(|segment| segment.range.end <= at);
        let inside = segments.get(next).is_some_and(|segment| segment.range.contains(at));
        let around = [next.checked_sub(1), Some(next)].into_iter().flatten();
        let neighbours = around.filter(|_| !inside && what == "fault").filter_map(|index| {
            let range = segments.get(index)?.range;
            let place = places.of(member, range.start.0)?;
            Some((range, place.to_string()))
        });
        Nearby { what, at, place: place(at), neighbours: neighbours.collect(), words }
    }

    /// The words on the stack of a thread up to the first function outside the memory manager.
    fn stack_words(&self, view: &ThreadView) -> Vec<u64> {
        let manager = |frame: &NamedFrame| frame.functions().any(crate::crash::is_manager);
        let words = || {
            let start = Addr(view.frames.first()?.frame.registers.named("rsp")?);
            let outermost = view.frames.iter().take(FRAMES).rfind(|frame| manager(frame))?;
            let length = outermost.frame.cfa?.offset_from(start)?.min(STACK);
            let memory = &self.members.get(view.member)?.process.memory;
            memory.bytes(start, narrow(length)).ok().map(|bytes| bytes.to_vec())
        };
        let bytes = words().unwrap_or_default();
        bytes.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word)).collect()
    }

    /// Damaged fragments whose header or payload a register of the frames or their stack holds: the
    /// one that the memory manager looked at.
    fn damaged_near(&self, crash: &Crash) -> Vec<(Addr, String)> {
        let Some(view) = self.threads.get(crash.thread).filter(|_| crash.is_heap_damage) else {
            return Vec::new();
        };
        let frames = view.frames.iter().take(FRAMES);
        let mut values: Vec<u64> = frames
            .flat_map(|frame| frame.frame.registers.known())
            .map(|(_, value)| value)
            .collect();
        values.extend(self.stack_words(view));
        let held = |at: Addr| values.contains(&at.0);
        let mut found = Vec::new();
        for pool in &self.pools {
            let (Some(walked), Some(member)) = (pool.walked(), self.members.get(pool.member))
            else {
                continue;
            };
            if pool.kind == PoolKind::Pkg && pool.member != view.member {
                continue;
            }
            let damaged = walked.summary.damaged.kept.iter();
            let damaged = damaged.map(|site| (site.what.header, site.what.payload.start));
            for (header, payload) in damaged {
                if held(header) || held(payload) {
                    found.push((header, super::pool_name(pool.kind, member)));
                }
            }
        }
        found
    }
}
