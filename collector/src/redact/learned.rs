//! Secrets of the configuration, wherever else they stand.
//!
//! A password that a configuration or a command line holds is looked for, as it is, in every other
//! text: a log line quotes it without saying what it is. A plain word as a password would eat the
//! text: "kamailio" is a password on many hosts, and the name of everything there. So a value is
//! looked for if it is
//! - of 6 bytes or more with at least two sorts of them (lower case, upper case, digits, others),
//!   digits with dots and dashes counting as one sort (a version, an address, a date),
//! - or of one sort, 8 letters or 9 digits or more, no word that this field uses ([`WORDS`]), not
//!   part of the program's or the host's name, and nowhere else in the configuration; then it is
//!   masked only where no letter or digit stands next to it.
//!
//! What is not looked for is masked at its place, and counted.

use std::collections::{BTreeMap, BTreeSet};

use aho_corasick::{AhoCorasick, MatchKind};

use super::findings::Findings;

/// The rule's name in `redactions.json`.
pub(super) const RULE: &str = "known-secret";
/// The most values that are kept; a configuration has dozens.
const MOST: usize = 4096;
/// The longest value that is looked for, in bytes.
const LONGEST: usize = 4096;
/// Words of this field that people take as passwords.
const WORDS: [&str; 34] = [
    "kamailio",
    "opensips",
    "openser",
    "voipmonitor",
    "sniffer",
    "asterisk",
    "freeswitch",
    "rtpengine",
    "mysqlpassword",
    "database",
    "postgres",
    "postgresql",
    "mariadb",
    "rabbitmq",
    "password",
    "passwort",
    "secret",
    "administrator",
    "changeme",
    "localhost",
    "location",
    "subscriber",
    "registrar",
    "default",
    "example",
    "proxyserver",
    "sipserver",
    "sipproxy",
    "username",
    "anonymous",
    "monitoring",
    "internal",
    "telephone",
    "security",
];

/// What is looked for.
#[derive(Debug, Default)]
pub(super) struct Learned {
    /// Each with whether it must stand alone.
    values: BTreeMap<Vec<u8>, bool>,
    /// Values of which nothing is known but that they are masked at their places.
    plain: BTreeSet<Vec<u8>>,
    machine: Option<AhoCorasick>,
    alone: Vec<bool>,
}

impl Learned {
    /// Takes the secrets of one text; `masked` is what is left of it. `names` are the program's and
    /// the host's.
    pub(super) fn take(&mut self, secrets: &[Vec<u8>], masked: &[u8], names: &[String]) {
        let before = self.values.len();
        for secret in secrets {
            for form in forms(secret) {
                if self.values.len() >= MOST {
                    break;
                }
                match worth(&form, masked, names) {
                    Some(alone) if form.len() <= LONGEST => {
                        self.values.insert(form, alone);
                    }
                    _ => {
                        self.plain.insert(form);
                    }
                }
            }
        }
        if self.values.len() != before {
            let builder = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).clone();
            self.machine = builder.build(self.values.keys()).ok();
            self.alone = self.values.values().copied().collect();
        }
    }

    /// How many values are too plain to be looked for.
    pub(super) fn too_plain(&self) -> usize {
        self.plain.len()
    }

    /// Finds them in a text.
    pub(super) fn find(&self, bytes: &[u8], out: &mut Findings) {
        let Some(machine) = &self.machine else { return };
        for hit in machine.find_iter(bytes) {
            let alone = self.alone.get(hit.pattern().as_usize()).copied().unwrap_or(false);
            if !alone || stands_alone(bytes, hit.start(), hit.end()) {
                out.passing(RULE, hit.range());
            }
        }
    }
}

fn stands_alone(bytes: &[u8], start: usize, end: usize) -> bool {
    let letter = |at: Option<usize>| {
        let byte = at.and_then(|at| bytes.get(at));
        byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
    };
    !letter(start.checked_sub(1)) && !letter(Some(end))
}

/// Whether a value is looked for, and whether it must stand alone.
fn worth(value: &[u8], masked: &[u8], names: &[String]) -> Option<bool> {
    let sort = |byte: &u8| match byte {
        b'a'..=b'z' => 0,
        b'A'..=b'Z' => 1,
        b'0'..=b'9' => 2,
        _ => 3,
    };
    let sorts: BTreeSet<u8> = value.iter().map(sort).collect();
    let number = value.iter().all(|byte| byte.is_ascii_digit() || b".-:/ ".contains(byte));
    let word = value.iter().all(u8::is_ascii_alphabetic);
    if !number && !word {
        return (value.len() >= 6 && sorts.len() > 1).then_some(false);
    }
    // Letters in both cases are a word only with one capital, the first.
    let inner = value.iter().skip(1).any(u8::is_ascii_uppercase);
    let lower = value.iter().any(u8::is_ascii_lowercase);
    if word && inner && lower && value.len() >= 6 {
        return Some(false);
    }
    let least = if number { 9 } else { 8 };
    let text = String::from_utf8_lossy(value).to_ascii_lowercase();
    let known = WORDS.contains(&text.as_str())
        || names.iter().any(|name| name.to_ascii_lowercase().contains(&text))
        || memchr_all(masked, value);
    (value.len() >= least && !known).then_some(true)
}

/// Whether the text holds the value by itself.
fn memchr_all(bytes: &[u8], value: &[u8]) -> bool {
    let Ok(machine) = AhoCorasick::new([value]) else { return false };
    machine.find_iter(bytes).any(|hit| stands_alone(bytes, hit.start(), hit.end()))
}

/// The forms in which texts quote a value: as it is, without and with percent signs and backslashes.
fn forms(secret: &[u8]) -> BTreeSet<Vec<u8>> {
    let plain = without_backslashes(&without_percents(secret));
    let all = [
        secret.to_vec(),
        without_percents(secret),
        without_backslashes(secret),
        percents(&plain, false),
        percents(&plain, true),
        backslashes(&plain),
        backslashes(secret),
        percents(secret, false),
        percents(secret, true),
        plain,
    ];
    all.into_iter().collect()
}

fn without_percents(bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let digits = bytes.get(at + 1..at + 3).and_then(|digits| str::from_utf8(digits).ok());
        let coded = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match coded.filter(|_| byte == b'%') {
            Some(coded) => {
                plain.push(coded);
                at += 3;
            }
            None => {
                plain.push(byte);
                at += 1;
            }
        }
    }
    plain
}

fn without_backslashes(bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(bytes.len());
    let mut bytes = bytes.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        match bytes.peek() {
            Some(b'"' | b'\\' | b'\'' | b'/') if byte == b'\\' => plain.extend(bytes.next()),
            _ => plain.push(byte),
        }
    }
    plain
}

fn percents(bytes: &[u8], upper: bool) -> Vec<u8> {
    let code = |byte: &u8| match byte {
        b'-' | b'_' | b'.' | b'~' => vec![*byte],
        byte if byte.is_ascii_alphanumeric() => vec![*byte],
        byte if upper => format!("%{byte:02X}").into_bytes(),
        byte => format!("%{byte:02x}").into_bytes(),
    };
    bytes.iter().flat_map(code).collect()
}

fn backslashes(bytes: &[u8]) -> Vec<u8> {
    let code = |byte: &u8| match byte {
        b'"' | b'\\' => vec![b'\\', *byte],
        byte => vec![*byte],
    };
    bytes.iter().flat_map(code).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worth_of(value: &str) -> Option<bool> {
        worth(value.as_bytes(), b"listen=udp:1.2.3.4 table subscribers", &["proxy7".into()])
    }

    #[test]
    fn plain_words_and_numbers_are_not_looked_for() {
        for value in ["kamailio", "short", "ab1", "12345678", "5.8.4", "subscribers", "proxy7"] {
            assert_eq!(
                worth_of(value),
                if value == "proxy7" { Some(false) } else { None },
                "{value}"
            );
        }
        assert_eq!(worth_of("openserrw"), Some(true));
        assert_eq!(worth_of("123456789"), Some(true));
        assert_eq!(worth_of("hunter2"), Some(false));
        assert_eq!(worth_of("p@ssword"), Some(false));
        assert_eq!(worth_of("CorrectHorse"), Some(false));
    }

    #[test]
    fn a_secret_is_found_in_each_of_its_forms() {
        let mut learned = Learned::default();
        learned.take(&[b"p%40ss\"w/rd".to_vec()], b"", &[]);
        for text in ["p%40ss\"w/rd", "p@ss\"w/rd", "p%40ss%22w%2Frd", "p@ss\\\"w/rd"] {
            let mut found = Findings::default();
            learned.find(format!("[{text}]").as_bytes(), &mut found);
            let spans: Vec<(usize, usize)> =
                found.all().iter().map(|found| (found.span.start, found.span.end)).collect();
            assert_eq!(spans, [(1, text.len() + 1)], "{text}");
        }
    }

    #[test]
    fn a_plain_word_is_masked_only_where_it_stands_alone() {
        let mut learned = Learned::default();
        learned.take(&[b"openserrw".to_vec()], b"", &[]);
        let mut found = Findings::default();
        learned.find(b"openserrwx 'openserrw' my_openserrw", &mut found);
        let spans: Vec<(usize, usize)> =
            found.all().iter().map(|found| (found.span.start, found.span.end)).collect();
        assert_eq!(spans, [(12, 21)]);
    }
}
