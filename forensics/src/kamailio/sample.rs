//! What a sample of fragments holds, in words: the only hint at their owner in builds that record
//! none.

use std::collections::BTreeMap;

use serde::Serialize;

use super::looks_like;
use crate::addr::{Addr, AddrRange};
use crate::memory::Memory as _;
use crate::num::{narrow, wide};
use crate::process::Process;

/// Bytes of each payload that are looked at.
const LOOK: usize = 128;
/// Longest example, in characters.
const EXAMPLE: usize = 48;

/// One thing that fragments of a sample hold; a fragment may hold several.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Content {
    /// For a person: `text`, `part of a SIP message`, `pointers into tm.so`, …
    pub what: String,
    /// How many fragments of the sample hold it.
    pub fragments: u64,
    /// One of the texts, quoted; null for what is no text.
    pub example: Option<String>,
}

/// What the payloads of a sample hold, the most frequent first. `pool` is where pointers to other
/// fragments lead.
pub fn contents(process: &Process, sample: &[AddrRange], pool: AddrRange) -> Vec<Content> {
    let mut found: BTreeMap<String, (u64, Option<String>)> = BTreeMap::new();
    for payload in sample {
        for (what, example) in of_one(process, *payload, pool) {
            let entry = found.entry(what).or_insert((0, None));
            entry.0 = entry.0.saturating_add(1);
            // The last one: what leaks lies behind what the program took at its start.
            entry.1 = example.or(entry.1.take());
        }
    }
    let mut contents: Vec<Content> = found
        .into_iter()
        .map(|(what, (fragments, example))| Content { what, fragments, example })
        .collect();
    contents.sort_by_key(|content| std::cmp::Reverse(content.fragments));
    contents
}

/// Words for one payload, each with an example if it is a text.
fn of_one(
    process: &Process,
    payload: AddrRange,
    pool: AddrRange,
) -> BTreeMap<String, Option<String>> {
    let mut found = BTreeMap::new();
    let want = narrow(payload.length()).min(LOOK);
    let bytes = match process.memory.bytes(payload.start, want) {
        Ok(bytes) => bytes,
        Err(absent) => {
            found.insert(format!("not known: {}", absent.why), None);
            return found;
        }
    };
    if let Some(words) = looks_like(&bytes) {
        match words.split_once(": ") {
            Some((what, text)) => found.insert(what.to_owned(), Some(shortened(text))),
            None => found.insert(words, None),
        };
    }
    for word in bytes.chunks_exact(8).filter_map(|word| word.first_chunk()) {
        let at = Addr(u64::from_le_bytes(*word));
        if pool.contains(at) {
            found.insert("pointers into this pool".to_owned(), None);
        } else if let Some(module) = process.modules.at(at) {
            found.insert(format!("pointers into {}", module.name()), None);
        }
    }
    if found.is_empty() {
        match leading_text(&bytes) {
            Some(text) => found.insert("text".to_owned(), Some(format!("{text:?}"))),
            None => found.insert("nothing recognised".to_owned(), None),
        };
    }
    found
}

/// A C string of at least four characters at the start: shorter than what stands out amid other
/// bytes, but at its place.
fn leading_text(bytes: &[u8]) -> Option<String> {
    let end = bytes.iter().position(|&byte| byte == 0)?;
    let text = bytes.get(..end).filter(|text| text.len() >= 4)?;
    let plain = text.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ');
    plain.then(|| String::from_utf8_lossy(text).into_owned())
}

/// A quoted text that fits into a table.
fn shortened(quoted: &str) -> String {
    if wide(quoted.chars().count()) <= wide(EXAMPLE) {
        return quoted.to_owned();
    }
    let start: String = quoted.chars().take(EXAMPLE.saturating_sub(2)).collect();
    format!("{start}…\"")
}

#[cfg(test)]
mod tests {
    use super::{leading_text, shortened};

    #[test]
    fn a_short_text_is_told_by_its_place() {
        assert_eq!(leading_text(b"acc-7\0\0\0").as_deref(), Some("acc-7"));
        assert_eq!(leading_text(b"\0acc-7\0\0"), None);
        assert_eq!(leading_text(b"abc\0\0\0\0\0"), None);
        assert_eq!(leading_text(b"acc-\x07\0\0\0"), None);
        assert_eq!(leading_text(b"acc-7acc"), None);
    }

    #[test]
    fn a_long_example_is_cut_and_stays_quoted() {
        assert_eq!(shortened("\"sip:a\""), "\"sip:a\"");
        let long = format!("\"{}\"", "x".repeat(100));
        let short = shortened(&long);
        assert_eq!(short.chars().count(), 48);
        assert!(short.ends_with("x…\""), "{short}");
    }
}
