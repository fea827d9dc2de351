//! What findings say of a damaged place: its bytes, how far the damage reaches, its neighbours.

use super::{Fact, fact_at};
use crate::addr::Addr;
use crate::case::{Overwritten, Pointer, Walked};
use crate::heap::Neighbour;
use crate::leak::Site;
use crate::units::size;

/// Pointers that are told of each damaged place.
const POINTERS: usize = 4;

/// The bytes at an overwritten header, in hex and as what they look like, and how far it reaches.
pub(super) fn overwritten(at: Addr, found: &Overwritten) -> Vec<Fact> {
    let mut facts = Vec::new();
    if let Some(bytes) = &found.bytes {
        facts.push(fact_at(at, format!("its header: {}", hex(bytes))));
        if let Some(kind) = crate::kamailio::looks_like(bytes) {
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
    let tell = |place: &'static str| {
        move |fragment: &Neighbour| {
            fact_at(fragment.header, format!("{place}: {}", neighbour(walked, fragment)))
        }
    };
    let (nearest, further) = match site.before.split_first() {
        Some((nearest, further)) => (Some(nearest), further),
        None => (None, [].as_slice()),
    };
    let before = nearest.map(tell("right before it"));
    let further = further.iter().map(tell("further before"));
    before.into_iter().chain(further).chain(site.after.iter().map(tell("behind it"))).collect()
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
