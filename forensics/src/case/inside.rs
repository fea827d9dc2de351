//! In which fragment an address of a pool lies.
//!
//! Fragments are not kept, so the pool is walked once more; that is done only where something is
//! damaged, and only for a few addresses.

use std::fmt;

use super::Member;
use super::pool::program;
use crate::addr::{Addr, AddrRange};
use crate::heap::{self, Fragment, Step};
use crate::kamailio::{Names, OwnerName, PoolRoot};
use crate::units::size;

/// A fragment that holds an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inside {
    /// The payload.
    pub payload: AddrRange,
    /// Whether the address lies in the header before it.
    pub in_header: bool,
    /// Who allocated it; `None` if it is free.
    pub owner: Option<OwnerName>,
}

/// `inside the fragment at 0x7f… (148 bytes, of htable: ht_api.c: ht_cell_new(189))`
impl fmt::Display for Inside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.in_header { "in the header of" } else { "inside" };
        let Self { payload, owner, .. } = self;
        write!(f, "{what} the fragment at {} ({}, ", payload.start, size(payload.length()))?;
        match owner {
            Some(owner) => write!(f, "of {owner})"),
            None => f.write_str("free)"),
        }
    }
}

/// The fragments of a pool that hold the addresses in `wanted`, by address; `member` is the process
/// that the pool is read through.
pub(super) fn find(member: &Member, root: &PoolRoot, mut wanted: Vec<Addr>) -> Vec<(Addr, Inside)> {
    wanted.sort_unstable();
    wanted.dedup();
    let known = root.manager.as_deref();
    let mut candidates =
        heap::ALL.iter().filter(|allocator| known.is_none_or(|name| name == allocator.name()));
    let arena = candidates.find_map(|allocator| {
        allocator.arena(root.block, &member.process.memory, program(member, root)).ok()
    });
    let Some(arena) = arena else { return Vec::new() };
    let mut names = Names::new(&member.process);
    let mut found = Vec::new();
    let mut wanted = wanted.into_iter().peekable();
    for step in arena.walk() {
        let Step::Fragment(fragment) = step else { continue };
        while let Some(at) = wanted.next_if(|at| *at < fragment.payload.end) {
            if at >= fragment.header {
                found.push((at, inside(&fragment, at, &mut names)));
            }
        }
        if wanted.peek().is_none() {
            break;
        }
    }
    found
}

fn inside(fragment: &Fragment, at: Addr, names: &mut Names<'_>) -> Inside {
    let owner = fragment.owner.filter(|_| fragment.used);
    Inside {
        payload: fragment.payload,
        in_header: at < fragment.payload.start,
        owner: owner.map(|owner| names.owner(owner)),
    }
}
