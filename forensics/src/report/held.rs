//! What the fragments of an owner hold, for reports.

use std::io::{self, Write};

use rustc_hash::FxHashMap;

use super::text::wrapped;

use crate::addr::Addr;
use crate::case::{Case, Pool};
use crate::content::{ContentGroup, Reader, Shown, Sizes, Target};
use crate::kamailio::PoolKind;
use crate::num::wide;
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

/// What the fragments of some owners hold, as text: `name` is an owner for a person.
pub(super) fn text<'a>(
    owners: impl Iterator<Item = (String, &'a [ContentGroup])>,
    shown: Shown,
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut owners = owners.filter(|(_, groups)| !groups.is_empty()).peekable();
    if owners.peek().is_none() {
        return Ok(());
    }
    match shown {
        Shown::Masked => {
            writeln!(out, "What they hold (masked; --show-content shows it as it is)")?
        }
        Shown::AsItIs => writeln!(out, "What they hold")?,
    }
    for (name, groups) in owners {
        writeln!(out, "  {name}")?;
        for line in lines(groups) {
            wrapped("    ", &line, out)?;
        }
    }
    writeln!(out)
}

/// One line for each of the first sizes, and how many more there are.
fn lines(groups: &[ContentGroup]) -> Vec<String> {
    let mut lines: Vec<String> = groups.iter().take(SIZES).map(line).collect();
    let rest = groups.get(SIZES..).unwrap_or_default();
    let fragments = count(rest.iter().map(|group| group.fragments).sum());
    match rest.len() {
        0 => {}
        1 => lines.push(format!("{fragments} more of another size")),
        sizes => lines.push(format!("{fragments} more of {} other sizes", count(wide(sizes)))),
    }
    lines
}

/// With the most telling text; the form of a text that has none says nothing.
fn line(group: &ContentGroup) -> String {
    let mut examples = group.holds.iter().filter_map(|content| content.example.as_deref());
    match examples.find(|example| !example.starts_with("\"…\"")) {
        Some(example) => format!("{group}; such as {example}"),
        None => group.to_string(),
    }
}
