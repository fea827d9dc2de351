//! What the fragments of an owner hold, for reports.

use rustc_hash::FxHashMap;

use crate::addr::Addr;
use crate::case::{Case, Pool};
use crate::content::{ContentGroup, Reader, Shown, Sizes, Target};
use crate::kamailio::PoolKind;
use crate::places::Places;
use crate::units::count;

/// Sizes that text tells of one owner.
const SIZES: usize = 2;
/// Words whose places are remembered: the same few globals and neighbours come again and again.
const REMEMBERED: usize = 1 << 16;

/// What fragments of one pool hold, by size.
pub(super) fn held(
    case: &Case,
    places: &Places<'_>,
    pool: &Pool,
    sizes: &Sizes,
    shown: Shown,
) -> Vec<ContentGroup> {
    let Some(member) = case.members.get(pool.member) else { return Vec::new() };
    let mut known: FxHashMap<Addr, Option<Target>> = FxHashMap::default();
    let mut resolve = |at: Addr| {
        if known.len() >= REMEMBERED {
            known.clear();
        }
        let look = || {
            let place = match pool.kind {
                PoolKind::Shm => places.in_shared_memory(pool.member, at.0),
                PoolKind::Pkg => places.of(pool.member, at.0),
            };
            place.and_then(Target::of)
        };
        known.entry(at).or_insert_with(look).clone()
    };
    sizes.look(&mut Reader { memory: &member.process.memory, resolve: &mut resolve, shown })
}

/// One line for each of the first sizes, and how many more there are.
pub(super) fn lines(groups: &[ContentGroup]) -> Vec<String> {
    let mut lines = Vec::new();
    for group in groups.iter().take(SIZES) {
        let example = group.holds.iter().find_map(|content| content.example.as_deref());
        lines.push(match example {
            Some(example) => format!("{group}; such as {example}"),
            None => group.to_string(),
        });
    }
    let rest = groups.get(SIZES..).unwrap_or_default();
    if !rest.is_empty() {
        let fragments = rest.iter().map(|group| group.fragments).sum();
        let sizes = count(crate::num::wide(rest.len()));
        lines.push(format!("{} fragments of {sizes} other sizes", count(fragments)));
    }
    lines
}
