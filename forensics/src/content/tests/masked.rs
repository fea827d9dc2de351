use proptest::prelude::*;

use super::{INVITE, all};
use crate::content::classify::looks_like;
use crate::content::mask::{self, Shown, hex, quoted};

#[test]
fn masked_values_keep_their_form() {
    let masked = |text: &str| quoted(text.as_bytes(), Shown::Masked);
    assert_eq!(masked("1-7443@127.0.0.1"), r#""…@…" (16 bytes)"#);
    assert_eq!(masked("sip:alice@127.0.0.1:15099"), r#""sip:…@…:…" (25 bytes)"#);
    assert_eq!(
        masked("<sip:a@b;transport=tcp>;tag=7"),
        r#""<sip:…@…;transport=…>;tag=…" (29 bytes)"#
    );
    assert_eq!(
        masked("From: Ann <sip:ann@b>\r\nX-Key: 7"),
        r#""From: … <sip:…@…>\n…: …" (31 bytes)"#
    );
    assert_eq!(
        mask::message(INVITE, Shown::Masked),
        "\"INVITE sip:…@…:… SIP/2.0\", 505 bytes, Call-ID \"…@…\" (16 bytes), \
         From \"… <sip:…@…:…>;tag=…\" (50 bytes)"
    );
    assert_eq!(
        mask::message(INVITE, Shown::AsItIs),
        "\"INVITE sip:alice@127.0.0.1:15099 SIP/2.0\", 505 bytes, Call-ID \"1-7443@127.0.0.1\", \
         From \"sipp <sip:sipp@127.0.0.1:15098>;tag=7443SIPpTag001\""
    );
}

#[test]
fn words_of_sip_are_hidden_where_they_are_names_of_users() {
    let masked = |text: &str| mask::masked(text.as_bytes());
    assert_eq!(masked("INVITE sip:tag@branch SIP/2.0"), "INVITE sip:…@… SIP/2.0");
    assert_eq!(masked("sip:tel:lr@tag"), "sip:…:…@…");
    assert_eq!(masked("To: \"From\" <sip:tel@h>"), "To: … <sip:…@…>");
    assert_eq!(masked("INVITE me"), "… …");
    assert_eq!(masked("SIP/2.0 200 Ann is here"), "SIP/2.0 200 …");
}

#[test]
fn masked_hex_keeps_pointers_and_small_numbers() {
    let mut bytes = Vec::new();
    for word in [0_u64, 200, 0x7f00_0000_1000, 0x65_6369_6c61] {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    let is_pointer = |word| word == 0x7f00_0000_1000;
    assert_eq!(
        hex(&bytes, Shown::Masked, &is_pointer),
        "00 00 00 00 00 00 00 00 c8 00 00 00 00 00 00 00 00 10 00 00 00 7f 00 00 \
         ·· ·· ·· ·· ·· ·· ·· ··"
    );
    assert!(hex(&bytes, Shown::AsItIs, &is_pointer).ends_with("61 6c 69 63 65 00 00 00"));
}

/// Private parts of a message.
#[derive(Clone, Debug)]
struct Private {
    user: String,
    host: String,
    name: String,
    call_id: String,
    key: String,
}

fn private() -> impl Strategy<Value = Private> {
    // Letters that no four of our own words in a row have.
    let part = || "[jkqwxz]{1,3}[jkqwxz7.+_~é-]{3,30}";
    (part(), part(), part(), part(), part()).prop_map(|(user, host, name, call_id, key)| Private {
        user,
        host,
        name,
        call_id,
        key,
    })
}

impl Private {
    fn message(&self) -> String {
        let Self { user, host, name, call_id, key } = self;
        format!(
            "REGISTER sip:{host} SIP/2.0\r\nFrom: \"{name}\" <sip:{user}@{host}>;tag={key}\r\n\
             Call-ID: {call_id}@{host}\r\nAuthorization: Digest username=\"{user}\", \
             response=\"{key}\"\r\nX-{name}: {key}\r\nContent-Length: 0\r\n\r\n"
        )
    }

    fn parts(&self) -> [&String; 5] {
        [&self.user, &self.host, &self.name, &self.call_id, &self.key]
    }
}

/// Everything that a masked report could say of a text.
fn all_that_is_said(text: &[u8]) -> String {
    let mut said = vec![mask::masked(text), mask::message(text, Shown::Masked)];
    for found in all(text) {
        said.push(found.kind.to_string());
        said.push(quoted(&text[found.value.clone()], Shown::Masked));
        said.push(mask::message(&text[found.value], Shown::Masked));
    }
    said.push(hex(text, Shown::Masked, &|_| false));
    said.join("\n")
}

proptest! {
    #[test]
    fn masked_content_holds_no_four_characters_of_what_is_private(
        private in private(),
        cut in 0_usize..400,
        from in 0_usize..400,
    ) {
        let message = private.message();
        let end = message.len().saturating_sub(cut);
        let part = message.as_bytes().get(from.min(end)..end).unwrap();
        for text in [message.as_bytes(), part] {
            let said = all_that_is_said(text);
            for secret in private.parts() {
                let letters: Vec<char> = secret.chars().collect();
                for four in letters.windows(4) {
                    let four: String = four.iter().collect();
                    prop_assert!(!said.contains(&four), "{four:?} in {said}");
                }
            }
        }
    }

    #[test]
    fn any_bytes_are_named_and_their_values_lie_inside(
        bytes in proptest::collection::vec(any::<u8>(), 0..600),
        words in proptest::collection::vec(
            prop::sample::select(vec!["SIP/2.0", "INVITE ", "Call-ID: ", "\r\n", "\0", "v=0\n", "sip:", "@"]),
            0..40,
        ),
    ) {
        for text in [bytes, words.concat().into_bytes()] {
            let found = all(&text);
            prop_assert!(!found.is_empty());
            for found in found {
                prop_assert!(text.get(found.value).is_some());
            }
            looks_like(&text);
            all_that_is_said(&text);
        }
    }
}
