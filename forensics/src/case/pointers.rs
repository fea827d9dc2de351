//! What the words in damaged places point at: often that tells who wrote them.

use std::collections::BTreeMap;
use std::fmt;

use super::inside::{self, Inside};
use super::{Member, Overwritten, Pool};
use crate::addr::Addr;
use crate::heap::{Damage, Fragment};
use crate::kamailio::PoolKind;
use crate::memory::Memory;
use crate::num::wide;
use crate::places::{Pattern, Place, Places};

/// Bytes of a damaged header that are looked at.
const HEADER: usize = 64;
/// Bytes behind a payload that are looked at: the check words. What follows them are links, which
/// point into the pool in whole fragments too.
const TRAILER: usize = 16;
/// Pointers into the shared pool, of breaks and of damaged fragments each, whose fragments are looked
/// up: more than are told.
const LOOKED_UP: usize = 100;

/// A word in a damaged place that points at something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pointer {
    /// From the start of the header, or of the trailer, in bytes.
    pub offset: u64,
    /// Whether it stands in the trailer.
    pub in_trailer: bool,
    /// The word.
    pub value: u64,
    /// What it points at.
    pub place: Place,
    /// The fragment that it points into, if that was looked for.
    pub inside: Option<Inside>,
}

/// `word at +16 (0x7f…) points into SHM`
impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { offset, in_trailer, value, place, inside } = self;
        let behind = if *in_trailer { " behind its end" } else { "" };
        let verb = match place {
            Place::Pattern(_) => "is",
            _ => "points into",
        };
        write!(f, "word at +{offset}{behind} ({value:#x}) {verb} {place}")?;
        inside.iter().try_for_each(|inside| write!(f, ", {inside}"))
    }
}

/// The pointers in the damaged places of one pool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pointers {
    /// In the header at each of `summary.breaks`.
    pub in_breaks: Vec<Vec<Pointer>>,
    /// In each of `summary.damaged`: in its header if that was overwritten, behind its payload if
    /// that was.
    pub in_damaged: Vec<Vec<Pointer>>,
}

impl Pointers {
    /// Finds them; `memory` is that of the process which the pool was read through.
    pub(super) fn of(pool: &Pool, memory: &dyn Memory, places: &Places<'_>) -> Self {
        let Some(walked) = pool.walked() else { return Self::default() };
        let finder = Finder { pool, memory, places };
        let of_break =
            |broken: &Overwritten| finder.among(broken.bytes.as_deref().unwrap_or_default(), false);
        let damaged = walked.summary.damaged.kept.iter();
        Self {
            in_breaks: walked.broken.iter().map(of_break).collect(),
            in_damaged: damaged.map(|site| finder.around(&site.what)).collect(),
        }
    }
}

impl Pointers {
    /// Finds the fragments of the shared pool that the first pointers lead into.
    pub(super) fn find_fragments(&mut self, pools: &[Pool], members: &[Member]) {
        let mut shared = first_shared(&mut self.in_breaks);
        shared.extend(first_shared(&mut self.in_damaged));
        if shared.is_empty() {
            return;
        }
        let pool = pools.iter().find(|pool| pool.kind == PoolKind::Shm);
        let Some((member, root)) = pool.and_then(|pool| {
            let member = members.get(pool.member)?;
            Some((member, member.roots.pools.iter().find(|root| root.block == pool.block)?))
        }) else {
            return;
        };
        let wanted = shared.iter().map(|pointer| Addr(pointer.value)).collect();
        let found: BTreeMap<Addr, Inside> =
            inside::find(member, root, wanted).into_iter().collect();
        for pointer in &mut shared {
            pointer.inside = found.get(&Addr(pointer.value)).cloned();
        }
    }
}

fn first_shared(list: &mut [Vec<Pointer>]) -> Vec<&mut Pointer> {
    let all = list.iter_mut().flatten();
    all.filter(|pointer| pointer.place == Place::Shm).take(LOOKED_UP).collect()
}

struct Finder<'a> {
    pool: &'a Pool,
    memory: &'a dyn Memory,
    places: &'a Places<'a>,
}

impl Finder<'_> {
    fn around(&self, fragment: &Fragment) -> Vec<Pointer> {
        let has = |wanted: fn(&Damage) -> bool| fragment.damage.iter().any(wanted);
        let mut found = Vec::new();
        if has(|damage| matches!(damage, Damage::StartCheck { .. })) {
            found.extend(self.read(fragment.header, HEADER, false));
        }
        if has(|damage| matches!(damage, Damage::EndCheck { .. })) {
            found.extend(self.read(fragment.payload.end, TRAILER, true));
        }
        found
    }

    fn read(&self, at: Addr, length: usize, in_trailer: bool) -> Vec<Pointer> {
        let bytes = self.memory.bytes(at, length);
        bytes.map(|bytes| self.among(&bytes, in_trailer)).unwrap_or_default()
    }

    fn among(&self, bytes: &[u8], in_trailer: bool) -> Vec<Pointer> {
        let words = bytes.chunks_exact(8).filter_map(<[u8]>::first_chunk);
        let pointer = |(number, word): (usize, &[u8; 8])| {
            let value = u64::from_le_bytes(*word);
            let place = self.place(value).filter(|place| is_foreign(place, in_trailer))?;
            let offset = wide(number).saturating_mul(8);
            Some(Pointer { offset, in_trailer, value, place, inside: None })
        };
        words.enumerate().filter_map(pointer).collect()
    }

    fn place(&self, value: u64) -> Option<Place> {
        match self.pool.kind {
            PoolKind::Shm => self.places.in_shared_memory(self.pool.member, value),
            PoolKind::Pkg => self.places.of(self.pool.member, value),
        }
    }
}

/// Whether it does not belong there anyway, as the owner's texts and the own check words do.
fn is_foreign(place: &Place, in_trailer: bool) -> bool {
    match place {
        Place::Null { .. } => false,
        Place::Pattern(pattern) => (*pattern == Pattern::StartCheck) == in_trailer,
        Place::Module(place) => place.section.as_deref() != Some(".rodata"),
        _ => true,
    }
}
