//! No secret survives in a text, and a text without one stays as it is.
//!
//! Secrets, and the lines around them, are chosen from a number that the test prints; `TEST_SEED`
//! takes it again.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up fails")]
#![expect(clippy::indexing_slicing, reason = "a test that cannot be set up fails")]

use std::fs;
use std::path::Path;

use collector::redact::{Kind, Masker};

const LOOKALIKES: &str = include_str!("secrets/lookalikes.txt");
const CONFIGURATIONS: &str = include_str!("secrets/configurations.places");
const TEXTS: &str = include_str!("secrets/texts.places");
const DEFAULT: &str = include_str!("secrets/kamailio-5.6.cfg");

/// SplitMix64: every choice follows from one number.
struct Seed(u64);

impl Seed {
    #[expect(clippy::print_stdout, reason = "the number that repeats a failed run")]
    fn choose() -> Self {
        let seed = std::env::var("TEST_SEED").map(|text| text.parse().unwrap());
        let seed = seed.unwrap_or_else(|_| {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
            u64::from(now.subsec_nanos()) ^ (u64::from(std::process::id()) << 32)
        });
        println!("TEST_SEED={seed}");
        Self(seed)
    }

    fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, most: usize) -> usize {
        usize::try_from(self.number() % u64::try_from(most).unwrap()).unwrap()
    }

    fn shuffle<T>(&mut self, things: &mut [T]) {
        for index in (1..things.len()).rev() {
            things.swap(index, self.below(index + 1));
        }
    }
}

const LETTERS: &str = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";

/// The bytes that may stand in a place of this sort; whether blanks may stand inside.
fn alphabet(sort: &str) -> (&'static str, bool) {
    match sort {
        "hex" => ("0123456789abcdef", false),
        "base64" => ("+/", false),
        "word" => ("!*+-_.~^%$", false),
        "url" => ("!$&'()*+,=-_.~%^|{}[]@/:;?#`<>", false),
        "line" => ("!$&'()*+,=-_.~%^|{}[]@/:;?#`<>\"\\", true),
        "quoted" => ("!$&()*+,=-_.~%^|{}[]@/:;?#`<>", true),
        "argument" => ("!$&'()*+,=-_.~%^|{}[]@/;?#`<>\"", true),
        "markup" => ("!$()*+,=-_.~%^|{}[]@/:;?#", true),
        other => panic!("no sort {other}"),
    }
}

fn secret(seed: &mut Seed, sort: &str) -> String {
    let (signs, blanks) = alphabet(sort);
    let letters: Vec<char> = if sort == "hex" {
        signs.chars().collect()
    } else {
        LETTERS.chars().chain(signs.chars()).collect()
    };
    let inner: Vec<char> = match (seed.below(3), sort) {
        // Passwords are mostly letters and digits.
        (0, _) if sort != "hex" => LETTERS.chars().collect(),
        (1, _) if blanks => letters.iter().copied().chain([' ']).collect(),
        _ => letters.clone(),
    };
    let length = if sort == "hex" { 32 } else { 8 + seed.below(33) };
    loop {
        let mut text: String = (0..length).map(|_| inner[seed.below(inner.len())]).collect();
        // At its ends letters: a blank there is the line's, a quote opens a value.
        if sort != "hex" {
            let end = LETTERS.as_bytes();
            text.replace_range(
                ..1,
                char::from(end[seed.below(end.len())]).encode_utf8(&mut [0; 4]),
            );
            text.pop();
            text.push(char::from(end[seed.below(end.len())]));
        }
        // What ends the text that it stands in.
        let ends = ["://", "#01", "#00", "${", "\\n", "\\r", "&lt"];
        let plain = text.bytes().all(|byte| byte.is_ascii_digit());
        // A name of its own, with a sign behind it, makes a value of what follows the secret.
        let lower = text.to_ascii_lowercase();
        let names = ["pw", "psk", "key", "sip:", "_iv", "ha1"];
        let plain = plain || names.iter().any(|name| lower.contains(name));
        if !plain && ends.iter().all(|end| !text.contains(end)) {
            return text;
        }
    }
}

#[derive(Clone, Debug)]
struct Place<'a> {
    member: &'a str,
    sort: &'a str,
    line: String,
}

fn places(text: &str) -> Vec<Place<'_>> {
    let (mut member, mut sort) = ("", "");
    let mut places = Vec::new();
    for line in text.lines() {
        if let Some(head) = line.strip_prefix("== ") {
            (member, sort) = head.rsplit_once(' ').unwrap();
            continue;
        }
        // Only `#015#012` ends a line inside a text; these are real ones.
        let real = !line.starts_with('{') && !line.contains("\"a=");
        let mut line = line.replace("\\0", "\0").replace("\\t", "\t");
        if real {
            line = line.replace("\\r\\n", "\r\n");
        }
        places.push(Place { member, sort, line });
    }
    places
}

/// Masks what stands in `[[…]]`.
fn with_marks(line: &str) -> String {
    match line.split_once("[[").map(|(before, rest)| (before, rest.split_once("]]").unwrap())) {
        Some((before, (inside, after))) => format!("{before}{}{after}", "*".repeat(inside.len())),
        None => line.to_owned(),
    }
}

/// A member with secrets, and how it must look afterwards.
#[derive(Default)]
struct Text {
    content: Vec<u8>,
    expected: Vec<u8>,
    secrets: Vec<(String, String)>,
}

impl Text {
    fn of(seed: &mut Seed, places: &[&Place<'_>]) -> Self {
        let mut text = Self::default();
        for place in places {
            let filler = LOOKALIKES.lines().nth(seed.below(LOOKALIKES.lines().count())).unwrap();
            // Arguments and JSON are one line each.
            if !place.member.ends_with("cmdline") && !place.member.ends_with(".pgpass") {
                text.push(filler, filler);
            }
            match place.line.split_once("{}") {
                None => text.push(&place.line, &place.line),
                Some((before, after)) => {
                    let secret = secret(seed, place.sort);
                    let plain = |text: &str| text.replace("[[", "").replace("]]", "");
                    let line = format!("{}{secret}{}", plain(before), plain(after));
                    let mask = "*".repeat(secret.len());
                    text.push(&line, &with_marks(&format!("{before}{mask}{after}")));
                    text.secrets.push((secret, place.line.clone()));
                }
            }
        }
        text
    }

    fn push(&mut self, content: &str, expected: &str) {
        for (into, line) in [(&mut self.content, content), (&mut self.expected, expected)] {
            into.extend_from_slice(line.as_bytes());
            if !line.ends_with('\0') {
                into.push(b'\n');
            }
        }
    }
}

fn percents(text: &str) -> String {
    let code = |byte: u8| match byte {
        b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
        byte if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(code).collect()
}

fn holds(content: &[u8], part: &[u8]) -> bool {
    content.windows(part.len()).any(|window| window == part)
}

fn assert_same(member: &str, masked: &[u8], expected: &[u8]) {
    let (masked, expected) = (String::from_utf8_lossy(masked), String::from_utf8_lossy(expected));
    for (one, other) in masked.split(['\n', '\0']).zip(expected.split(['\n', '\0'])) {
        assert_eq!(one, other, "{member}");
    }
    assert_eq!(masked, expected, "{member}");
}

#[test]
fn no_secret_survives_and_nothing_else_changes() {
    let mut seed = Seed::choose();
    let configurations = places(CONFIGURATIONS);
    let texts = places(TEXTS);
    for _ in 0..60 {
        let masker = Masker::new("voipmonitor", vec!["sip1".into()]);
        for places in [&configurations, &texts] {
            let mut members: Vec<&str> = places.iter().map(|place| place.member).collect();
            members.sort_unstable();
            members.dedup();
            for member in members {
                let mut own: Vec<&Place<'_>> =
                    places.iter().filter(|place| place.member == member).collect();
                seed.shuffle(&mut own);
                if member.ends_with("cmdline") {
                    own.truncate(1);
                }
                let text = Text::of(&mut seed, &own);
                let mut masked = text.content.clone();
                let redactions = masker.mask(member, &mut masked);
                assert_same(member, &masked, &text.expected);
                let count: u64 = redactions.iter().map(|redaction| redaction.count).sum();
                assert!(count >= u64::try_from(text.secrets.len()).unwrap(), "{redactions:?}");
                for (secret, line) in &text.secrets {
                    let coded = percents(secret);
                    assert!(!holds(&masked, coded.as_bytes()), "{line}: {secret}");
                    for piece in secret.as_bytes().windows(8) {
                        assert!(!holds(&masked, piece), "{line}: {secret}");
                    }
                }
            }
        }
    }
}

#[test]
fn what_only_looks_like_a_secret_stays() {
    let kinds = [Kind::Text, Kind::Configuration];
    for line in LOOKALIKES.lines().chain([LOOKALIKES]) {
        for kind in kinds {
            let masker = Masker::default();
            let mut masked = line.as_bytes().to_vec();
            let redactions = masker.mask_as(kind, "x", &mut masked);
            assert_same("lookalikes", &masked, line.as_bytes());
            assert_eq!(redactions, []);
        }
    }
}

#[test]
fn of_the_default_configuration_only_the_password_is_masked() {
    let masker = Masker::default();
    let mut masked = DEFAULT.as_bytes().to_vec();
    masker.mask("config/etc/kamailio/kamailio.cfg", &mut masked);
    let expected = DEFAULT.replace("kamailio:kamailiorw@", "kamailio:**********@");
    assert_same("kamailio.cfg", &masked, expected.as_bytes());
}

#[test]
fn a_secret_of_the_configuration_is_masked_where_a_log_quotes_it() {
    let mut seed = Seed::choose();
    for _ in 0..200 {
        let secret = secret(&mut seed, "quoted");
        let masker = Masker::default();
        masker.learn(
            Kind::Configuration,
            format!("modparam(\"auth_ephemeral\", \"secret\", \"{secret}\")\n").as_bytes(),
        );
        let coded = percents(&secret);
        let log = format!("refused '{secret}' and x{secret}y, query ?q={coded} of 5060\n");
        let mut masked = log.clone().into_bytes();
        masker.mask("logs/syslog", &mut masked);
        let stars = |text: &str| "*".repeat(text.len());
        let expected = log.replace(&coded, &stars(&coded)).replace(&secret, &stars(&secret));
        assert_same("logs/syslog", &masked, expected.as_bytes());
    }
}

#[test]
fn recorded_answers_and_samples_of_this_process_stay() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let masker = Masker::default();
    let mut files = vec![root.join("forensics/tests"), root.join("samples/recorded")];
    let mut read = 0;
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        let extension = path.extension().and_then(|extension| extension.to_str());
        if matches!(extension, Some("txt" | "log" | "json" | "snap" | "cfg")) {
            let content = fs::read(&path).unwrap();
            let mut masked = content.clone();
            masker.mask("logs/x", &mut masked);
            assert_same(&path.to_string_lossy(), &masked, &content);
            read += 1;
        }
    }
    for name in ["status", "maps", "limits", "smaps_rollup", "mountinfo", "net/unix"] {
        let content = fs::read(format!("/proc/self/{name}")).unwrap();
        let mut masked = content.clone();
        masker.mask("processes/1/x", &mut masked);
        assert_same(name, &masked, &content);
    }
    println!("{read} files");
}

#[test]
fn a_private_key_is_masked_line_by_line() {
    let key = "-----BEGIN RSA PRIVATE KEY-----\nMIIEow+/=\nabc\n-----END RSA PRIVATE KEY-----\nx\n";
    let mut masked = key.as_bytes().to_vec();
    let redactions = Masker::default().mask("config/etc/k.pem", &mut masked);
    let expected =
        "-----BEGIN RSA PRIVATE KEY-----\n*********\n***\n-----END RSA PRIVATE KEY-----\nx\n";
    assert_same("k.pem", &masked, expected.as_bytes());
    assert_eq!((redactions[0].rule.as_str(), redactions[0].offset), ("private-key", 31));
}

#[test]
fn a_number_in_json_becomes_a_text_of_the_same_length() {
    let mut masked = b"{\"password\": 123456, \"port\": 5060}".to_vec();
    Masker::default().mask("kamailio/x.json", &mut masked);
    assert_eq!(masked, b"{\"password\": \"****\", \"port\": 5060}");
    serde_json::from_slice::<serde_json::Value>(&masked).unwrap();
}

#[test]
fn hostile_texts_take_time_in_proportion() {
    let begun = std::time::Instant::now();
    for unit in [
        "pass=",
        "password=\"",
        "://",
        "a://b:",
        "sip:a:",
        "Digest response=",
        "authorization: ",
        "#!subst ",
        "-p",
        "\\\\\"pass\":\"",
        "key-----BEGIN PRIVATE KEY-----",
    ] {
        let text = unit.repeat((1 << 18) / unit.len());
        Masker::default().mask("logs/x", &mut text.into_bytes());
        println!("{unit}: {:?}", begun.elapsed());
    }
    assert!(begun.elapsed() < std::time::Duration::from_secs(30), "{:?}", begun.elapsed());
}
