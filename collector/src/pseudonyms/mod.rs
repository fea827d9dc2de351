//! Pseudonyms for what names people and hosts in texts (`--pseudonymize`): addresses, users and
//! hosts of SIP URIs, display names, this host's own name.
//!
//! Equal length and equal form: digits stay digits, letters letters, a private address stays in its
//! network, so that every table still parses. One original has one pseudonym in the whole bundle,
//! another one in the next: they are drawn with a key that is thrown away. Who must translate back
//! has the map, which stays on the host. Loopback and unspecified addresses stay as they are.
//!
//! It promises nothing for what nothing around it shows to be a name. A name that was met in a URI
//! is replaced elsewhere, too, if it cannot be taken for a word or a count: a number of seven digits,
//! or letters with digits or dots. Memory is full of names; so this goes without memory only.
//!
//! [`address`] finds addresses in texts and in the kernel's tables, [`identity`] users and hosts.

mod address;
mod identity;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use aho_corasick::{AhoCorasick, MatchKind};
use bundle::Redaction;
use sha2::{Digest, Sha256};

use crate::number::bytes;

/// Texts that hold versions of four numbers, and no addresses.
const VERSIONS: [&str; 3] =
    ["system/packages.json", "logs/var/log/dpkg.log", "logs/var/log/apt/history.log"];
/// A shorter number may be a count, a port or a time.
const SHORTEST_NUMBER: usize = 7;
/// Shorter names are left: they would be found everywhere, and tell nobody.
const SHORTEST: usize = 3;

/// What is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// An IPv4 address in dotted form.
    V4,
    /// An IPv6 address in text form.
    V6,
    /// An IPv4 address in a table of the kernel, eight digits.
    Table4,
    /// An IPv6 address in a table of the kernel, 32 digits.
    Table6,
    /// A user, a host, a display name.
    Name,
}

impl Kind {
    fn rule(self) -> &'static str {
        match self {
            Self::V4 | Self::V6 | Self::Table4 | Self::Table6 => "pseudonym-of-address",
            Self::Name => "pseudonym-of-name",
        }
    }
}

/// A place in a text.
type Place = (Range<usize>, Kind);

/// Draws pseudonyms, and remembers them. One for a whole collection.
#[derive(Debug)]
pub(crate) struct Pseudonyms {
    key: [u8; 32],
    /// Names that are replaced wherever they stand.
    always: Vec<String>,
    map: Mutex<BTreeMap<String, String>>,
    /// The same for addresses of four bytes, whatever form they are met in.
    octets: Mutex<BTreeMap<[u8; 4], [u8; 4]>>,
}

impl Pseudonyms {
    /// With a fresh key; `names` are replaced wherever they stand.
    ///
    /// # Errors
    /// The kernel gives no random bytes.
    pub(crate) fn new(names: &[String]) -> io::Result<Self> {
        let mut key = [0; 32];
        File::open("/dev/urandom")?.read_exact(&mut key)?;
        Ok(Self::with_key(key, names))
    }

    fn with_key(key: [u8; 32], names: &[String]) -> Self {
        let always: Vec<String> =
            names.iter().filter(|name| name.len() >= SHORTEST).cloned().collect();
        let pseudonyms = Self { key, always, map: Mutex::default(), octets: Mutex::default() };
        for name in &pseudonyms.always {
            pseudonyms.of_name(name);
        }
        pseudonyms
    }

    /// Replaces in place; says what, how often and where first.
    pub(crate) fn replace(&self, member: &str, content: &mut [u8]) -> Vec<Redaction> {
        let mut redactions: BTreeMap<&str, Redaction> = BTreeMap::new();
        for (range, kind) in self.places(member, content) {
            let start = bytes(range.start);
            let Some(place) = content.get_mut(range) else { continue };
            let original = String::from_utf8_lossy(place).into_owned();
            let pseudonym = self.of(kind, &original);
            if pseudonym == original || pseudonym.len() != place.len() {
                continue;
            }
            place.copy_from_slice(pseudonym.as_bytes());
            let rule = kind.rule().to_owned();
            let first = Redaction { rule, member: member.to_owned(), offset: start, count: 0 };
            redactions.entry(kind.rule()).or_insert(first).count += 1;
        }
        redactions.into_values().collect()
    }

    /// Originals and their pseudonyms, for those who may translate back.
    pub(crate) fn map(&self) -> BTreeMap<String, String> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// All places, by rising start; none overlaps another.
    fn places(&self, member: &str, content: &[u8]) -> Vec<Place> {
        let mut places = identity::places(content);
        for (range, _) in &places {
            let name = content.get(range.clone()).unwrap_or_default();
            self.of_name(&String::from_utf8_lossy(name));
        }
        places.extend(self.known(content));
        if !VERSIONS.contains(&member) {
            places.extend(address::places(content));
        }
        if address::is_table(member) {
            places.extend(address::table_places(content));
        }
        places.sort_by_key(|(range, kind)| (range.start, std::cmp::Reverse(range.end), *kind));
        let mut end = 0;
        places.retain(|(range, _)| {
            let free = range.start >= end;
            end = if free { range.end } else { end };
            free
        });
        places
    }

    /// Names that are known, where they stand as whole words.
    fn known(&self, content: &[u8]) -> Vec<Place> {
        let map = self.map();
        let names: Vec<&String> = map
            .keys()
            .filter(|name| address::parse(name).is_none())
            .filter(|name| is_telling(name) || self.always.contains(name))
            .collect();
        let searcher = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(names);
        let Ok(searcher) = searcher else { return Vec::new() };
        let is_word = |at: Option<usize>| {
            at.and_then(|at| content.get(at)).is_some_and(u8::is_ascii_alphanumeric)
        };
        let found = searcher.find_iter(content).map(|found| found.range());
        let whole =
            found.filter(|range| !is_word(range.start.checked_sub(1)) && !is_word(Some(range.end)));
        whole.map(|range| (range, Kind::Name)).collect()
    }

    fn of(&self, kind: Kind, original: &str) -> String {
        match kind {
            Kind::V4 => match address::parse(original) {
                Some(address) => self.remember(original, || address::of_v4(self, address)),
                None => original.to_owned(),
            },
            Kind::V6 => self.remember(original, || address::of_v6_text(self, original)),
            Kind::Table4 => address::of_table4(self, original),
            Kind::Table6 => address::of_table6(self, original),
            Kind::Name => self.of_name(original),
        }
    }

    /// A name of the same form: digits for digits, letters for letters.
    fn of_name(&self, original: &str) -> String {
        if original.len() < SHORTEST || original.eq_ignore_ascii_case("localhost") {
            return original.to_owned();
        }
        // The same number, whether it is written with its plus or without.
        if let Some(number) = original.strip_prefix('+') {
            return format!("+{}", self.of_name(number));
        }
        const TRIES: u32 = 50;
        let taken = |name: &String| {
            let map = self.map.lock().unwrap_or_else(PoisonError::into_inner);
            name == original || map.values().any(|other| other == name)
        };
        self.remember(original, || {
            let free = (0..TRIES).map(|attempt| self.draw_name(original, attempt));
            free.into_iter().find(|name| !taken(name)).unwrap_or_else(|| original.to_owned())
        })
    }

    fn draw_name(&self, original: &str, attempt: u32) -> String {
        let mut draw = self.draw(b"name", &[original.as_bytes(), &attempt.to_le_bytes()].concat());
        let letter = |letter: char| match letter {
            'a'..='z' => from(b'a', draw.below(26)),
            'A'..='Z' => from(b'A', draw.below(26)),
            '0'..='9' => from(b'0', draw.below(10)),
            other => other,
        };
        original.chars().map(letter).collect()
    }

    fn remember(&self, original: &str, make: impl FnOnce() -> String) -> String {
        if let Some(known) = self.map.lock().unwrap_or_else(PoisonError::into_inner).get(original) {
            return known.clone();
        }
        let pseudonym = make();
        let mut map = self.map.lock().unwrap_or_else(PoisonError::into_inner);
        if pseudonym != original {
            map.insert(original.to_owned(), pseudonym.clone());
        }
        pseudonym
    }

    /// The pseudonym of an address: one that no other address has, as far as its form leaves any.
    fn of_octets(&self, original: [u8; 4], make: impl Fn(u32) -> [u8; 4]) -> [u8; 4] {
        const TRIES: u32 = 200;
        let mut known = self.octets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pseudonym) = known.get(&original) {
            return *pseudonym;
        }
        let is_free = |one: &[u8; 4]| *one != original && !known.values().any(|other| other == one);
        let free = (0..TRIES).map(&make).find(is_free);
        let pseudonym = free.unwrap_or_else(|| make(0));
        known.insert(original, pseudonym);
        pseudonym
    }

    /// Numbers that depend on the key and on `original` only.
    fn draw(&self, kind: &[u8], original: &[u8]) -> Draw {
        let start = Sha256::new().chain_update(self.key).chain_update(kind).chain_update(original);
        Draw { start, block: 0, left: Vec::new() }
    }
}

/// Whether a name can be taken for nothing else where nothing around it calls it one.
fn is_telling(name: &str) -> bool {
    let digits = name.bytes().filter(u8::is_ascii_digit).count();
    let letters = name.bytes().any(|byte| byte.is_ascii_alphabetic());
    let mixed = letters && name.len() > SHORTEST && (digits > 0 || name.contains('.'));
    mixed || (!letters && digits >= SHORTEST_NUMBER)
}

fn from(first: u8, number: u32) -> char {
    let number = u8::try_from(number).unwrap_or(0);
    char::from(first.saturating_add(number))
}

/// A sequence of numbers.
#[derive(Debug)]
struct Draw {
    start: Sha256,
    block: u64,
    left: Vec<u8>,
}

impl Draw {
    /// A number below `limit`, at most 65,536.
    fn below(&mut self, limit: u32) -> u32 {
        let mut byte = || {
            if self.left.is_empty() {
                let hash = self.start.clone().chain_update(self.block.to_le_bytes()).finalize();
                self.left = hash.to_vec();
                self.block += 1;
            }
            u32::from(self.left.pop().unwrap_or(0))
        };
        // Four bytes for two: the remainder is as good as even.
        let number = (byte() << 24) | (byte() << 16) | (byte() << 8) | byte();
        number.checked_rem(limit).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pseudonyms() -> Pseudonyms {
        Pseudonyms::with_key([7; 32], &["proxy7".to_owned()])
    }

    fn replaced(pseudonyms: &Pseudonyms, text: &str) -> String {
        let mut content = text.as_bytes().to_vec();
        pseudonyms.replace("logs/syslog", &mut content);
        String::from_utf8(content).unwrap()
    }

    #[test]
    fn one_original_has_one_pseudonym_of_its_length_wherever_it_stands() {
        let pseudonyms = pseudonyms();
        let text = "Nov 23 05:46:10 proxy7 kamailio[17]: INVITE sip:+4917012345@voip.example.org;x=1 \
                    from 203.0.113.77:5060, again 203.0.113.77, user 4917012345 of voip.example.org";
        let now = replaced(&pseudonyms, text);
        assert_eq!(now.len(), text.len());
        for original in ["proxy7", "4917012345", "voip.example.org", "203.0.113.77"] {
            assert!(!now.contains(original), "{original}: {now}");
        }
        let map = pseudonyms.map();
        for original in ["4917012345", "voip.example.org", "203.0.113.77"] {
            assert_eq!(now.matches(map[original].as_str()).count(), 2, "{original}: {now}");
        }
        assert!(now.starts_with("Nov 23 05:46:10 "), "times stay: {now}");
        assert_eq!(replaced(&pseudonyms, text), now);
        assert_ne!(replaced(&Pseudonyms::with_key([8; 32], &[]), text), now);
    }

    #[test]
    fn what_names_nobody_stays() {
        let text = "listen 127.0.0.1:5060 0.0.0.0 ::1, kamailio 5.6.3, sip:a@localhost, std::string, \
                    05:46:10.123456, 1.2.3, 1.2.3.4.5, x1.2.3.4, 300.1.2.3 aa:bb:cc:dd:ee:ff";
        assert_eq!(replaced(&pseudonyms(), text), text);
    }

    #[test]
    fn what_was_replaced_is_counted_by_kind() {
        let mut content = b"at 198.51.100.9 and 198.51.100.10 sip:alice@x".to_vec();
        let redactions = pseudonyms().replace("logs/x", &mut content);
        let found: Vec<_> =
            redactions.iter().map(|one| (one.rule.as_str(), one.offset, one.count)).collect();
        assert_eq!(found, [("pseudonym-of-address", 3, 2), ("pseudonym-of-name", 38, 1)]);
    }
}
