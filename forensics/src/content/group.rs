//! What many fragments hold, counted: for the fragments of one owner and size, or for a sample of
//! them.

use std::collections::BTreeMap;

use serde::Serialize;

use super::classify::{LOOK, classify};
use super::kind::{Kind, Target};
use super::mask::{self, Shown, quoted};
use crate::addr::{Addr, AddrRange};
use crate::memory::Memory;
use crate::num::{narrow, ratio, wide};
use crate::units::{count, size};

/// Fragments of one group that are looked at.
const LOOKED_AT: usize = 10_000;
/// Different kinds that are told apart in one group; a hostile input could make any number.
const KINDS: usize = 64;
/// Kinds that a sentence names.
const NAMED: usize = 4;

/// One thing that fragments of a group hold; a fragment may hold several.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Content {
    /// Stable name of the kind, for scripts.
    pub kind: &'static str,
    /// For a person: `text`, `part of a SIP message`, `pointers into tm.so`, …
    pub what: String,
    /// How many of the fragments that were looked at hold it.
    pub fragments: u64,
    /// One of the texts, quoted, private parts masked unless asked for; null for what is no text.
    pub example: Option<String>,
    /// Payload of the fragment that the example is from.
    pub example_at: Addr,
}

/// What the fragments of one owner and size hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ContentGroup {
    /// Payload of each, in bytes.
    pub payload: u64,
    /// How many there are.
    pub fragments: u64,
    /// How many of them were looked at, spread over all.
    pub looked_at: u64,
    /// Bytes of each payload that were looked at, from its start.
    pub looked_bytes: u64,
    /// What these hold, the most frequent first.
    pub holds: Vec<Content>,
}

/// How payloads are read and shown.
pub struct Reader<'a> {
    /// Where they lie.
    pub memory: &'a dyn Memory,
    /// What a word of theirs points at.
    pub resolve: &'a mut dyn FnMut(Addr) -> Option<Target>,
    /// How examples are shown.
    pub shown: Shown,
}

impl std::fmt::Debug for Reader<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("shown", &self.shown).finish_non_exhaustive()
    }
}

/// The fragments of one owner by payload size, gathered to be looked at.
#[derive(Clone, Debug, Default)]
pub struct Sizes {
    by_size: BTreeMap<u64, Vec<Addr>>,
}

impl Sizes {
    /// Adds a fragment.
    pub fn add(&mut self, payload: AddrRange) {
        self.by_size.entry(payload.length()).or_default().push(payload.start);
    }

    /// The payloads, by size and in the order in which they came.
    pub fn payloads(&self) -> impl Iterator<Item = AddrRange> {
        let of_size = |(size, starts): (&u64, &Vec<Addr>)| {
            let size = *size;
            starts.clone().into_iter().map(move |start| AddrRange::new(start, size))
        };
        self.by_size.iter().flat_map(of_size)
    }

    /// Looks at the fragments: one group for each size, most bytes first.
    pub fn look(&self, reader: &mut Reader<'_>) -> Vec<ContentGroup> {
        let mut groups: Vec<ContentGroup> =
            self.by_size.iter().map(|(payload, starts)| group(*payload, starts, reader)).collect();
        groups.sort_by_key(|group| {
            (std::cmp::Reverse(group.payload.saturating_mul(group.fragments)), group.payload)
        });
        groups
    }
}

fn group(payload: u64, starts: &[Addr], reader: &mut Reader<'_>) -> ContentGroup {
    let stride = starts.len().div_ceil(LOOKED_AT).max(1);
    let sample: Vec<AddrRange> =
        starts.iter().step_by(stride).map(|start| AddrRange::new(*start, payload)).collect();
    ContentGroup {
        payload,
        fragments: wide(starts.len()),
        looked_at: wide(sample.len()),
        looked_bytes: payload.min(wide(LOOK)),
        holds: contents(&sample, reader),
    }
}

/// Fragments that hold one kind, and the last text that told it.
#[derive(Debug, Default)]
struct Tally {
    fragments: u64,
    example: Vec<u8>,
    at: Addr,
}

/// What the payloads of a sample hold, the most frequent first, and among equals the most telling.
pub fn contents(sample: &[AddrRange], reader: &mut Reader<'_>) -> Vec<Content> {
    let mut tallies: BTreeMap<Kind, Tally> = BTreeMap::new();
    for payload in sample {
        let want = narrow(payload.length()).min(LOOK);
        match reader.memory.bytes(payload.start, want) {
            Ok(bytes) => {
                for found in classify(*payload, &bytes, reader.resolve) {
                    let example = bytes.get(found.value).unwrap_or_default();
                    add(&mut tallies, found.kind, example, payload.start);
                }
            }
            Err(absent) => {
                let kind = Kind::NotKnown(absent.why.to_string());
                add(&mut tallies, kind, &[], payload.start);
            }
        }
    }
    let shown = reader.shown;
    let mut contents: Vec<Content> =
        tallies.into_iter().map(|(kind, tally)| content(&kind, &tally, shown)).collect();
    contents.sort_by_key(|content| std::cmp::Reverse(content.fragments));
    contents
}

fn add(tallies: &mut BTreeMap<Kind, Tally>, kind: Kind, example: &[u8], at: Addr) {
    let kind = match tallies.len() < KINDS || tallies.contains_key(&kind) {
        true => kind,
        false => Kind::Pointers(Target::Other("further places".into())),
    };
    let tally = tallies.entry(kind).or_default();
    tally.fragments = tally.fragments.saturating_add(1);
    // The last one: what leaks lies behind what the program took at its start.
    tally.example.clear();
    tally.example.extend_from_slice(example);
    tally.at = at;
}

fn content(kind: &Kind, tally: &Tally, shown: Shown) -> Content {
    let example = match kind {
        Kind::SipRequest(_) | Kind::SipReply(_) => Some(mask::message(&tally.example, shown)),
        kind if kind.is_text() => Some(quoted(&tally.example, shown)),
        _ => None,
    };
    Content {
        kind: kind.id(),
        what: kind.to_string(),
        fragments: tally.fragments,
        example,
        example_at: tally.at,
    }
}

/// `18,204 fragments of 148 bytes: Call-ID (by its form) in 96 %, pointers into itself in all`
impl std::fmt::Display for ContentGroup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let plural = if self.fragments == 1 { "" } else { "s" };
        write!(f, "{} fragment{plural} of {}", count(self.fragments), size(self.payload))?;
        let looked_at = self.looked_at < self.fragments;
        let looked_bytes = self.looked_bytes < self.payload;
        match (looked_at, looked_bytes) {
            (false, false) => {}
            (true, false) => write!(f, " ({} looked at)", count(self.looked_at))?,
            (false, true) => write!(f, " (the first {} looked at)", size(self.looked_bytes))?,
            (true, true) => write!(
                f,
                " ({} looked at, the first {} of each)",
                count(self.looked_at),
                size(self.looked_bytes)
            )?,
        }
        f.write_str(":")?;
        for (number, content) in self.holds.iter().take(NAMED).enumerate() {
            let comma = if number > 0 { "," } else { "" };
            write!(f, "{comma} {}", content.what)?;
            if self.fragments > 1 {
                write!(f, " in {}", part(content.fragments, self.looked_at))?;
            }
        }
        Ok(())
    }
}

/// `all`, `96 %`; a part is never rounded to all or to nothing.
fn part(fragments: u64, of: u64) -> String {
    if fragments >= of {
        return "all".to_owned();
    }
    let percent = (ratio(fragments, of) * 100.0).round().clamp(1.0, 99.0);
    format!("{percent:.0} %")
}
