//! What findings say of a damaged place: its bytes, how far the damage reaches, its neighbours.

use super::{Fact, fact_at};
use crate::addr::Addr;
use crate::case::{Overwritten, Pointer, Walked};
use crate::heap::Neighbour;
use crate::leak::Site;
use crate::units::size;

/// What to do where an unfinished call of the allocator explains what was found.
pub(super) const UNFINISHED: &str = "A call of the allocator that is not finished looks like this in a healthy process; so does \
     memory that was overwritten. A second snapshot tells: damage is still there.";

/// Pointers that are told of each damaged place.
const POINTERS: usize = 4;

/// The bytes at an overwritten header, in hex and as what they look like, and how far it reaches.
pub(super) fn overwritten(at: Addr, found: &Overwritten) -> Vec<Fact> {
    let mut facts = Vec::new();
    if let Some(bytes) = &found.bytes {
        facts.push(fact_at(at, format!("its header: {}", hex(bytes))));
        if let Some(kind) = crate::content::looks_like(bytes) {
            facts.push(fact_at(at, format!("that looks like {kind}")));
        }
    }
    facts.extend(reach(found));
    facts
}

/// What the words in a damaged place point at.
pub(super) fn pointers(at: Addr, pointers: Option<&Vec<Pointer>>) -> Vec<Fact> {
    let told = pointers.into_iter().flatten().take(POINTERS);
    told.map(|pointer| fact_at(at, format!("at {at}: {pointer}"))).collect()
}

/// How far an overrun reaches.
pub(super) fn reach(found: &Overwritten) -> Option<Fact> {
    let reach = found.reach?;
    let text = format!(
        "overwritten are at least {}, from {} to {}",
        size(reach.length()),
        reach.start,
        reach.end
    );
    Some(fact_at(reach.start, text))
}

/// Up to three fragments before a place and three behind it.
pub(super) fn neighbours<T>(walked: &Walked, site: &Site<T>) -> Vec<Fact> {
    let further = |fragment| tell(walked, "further before", fragment);
    let behind = |fragment| tell(walked, "behind it", fragment);
    let nearest = site.before.first().map(|fragment| right_before(walked, fragment));
    let before = nearest.into_iter().chain(site.before.iter().skip(1).map(further));
    before.chain(site.after.iter().map(behind)).collect()
}

/// The fragment that ends where a damaged place begins: its owner is the likely writer.
pub(super) fn right_before(walked: &Walked, fragment: &Neighbour) -> Fact {
    tell(walked, "right before it", fragment)
}

fn tell(walked: &Walked, place: &str, fragment: &Neighbour) -> Fact {
    fact_at(fragment.header, format!("{place}: {}", neighbour(walked, fragment)))
}

/// A fragment for a person.
pub(super) fn neighbour(walked: &Walked, fragment: &Neighbour) -> String {
    let length = size(fragment.payload.length());
    match walked.owner_name(fragment) {
        Some(owner) => format!("{length} at {} of {owner}", fragment.payload.start),
        None if fragment.used => format!("{length} at {}, in use", fragment.payload.start),
        None => format!("{length} at {}, free", fragment.payload.start),
    }
}

fn hex(bytes: &[u8]) -> String {
    let words: Vec<String> = bytes.chunks(8).map(crate::modules::hex).collect();
    words.join(" ")
}
