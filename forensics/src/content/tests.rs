use proptest::prelude::*;

use super::classify::{Found, LOOK, classify, looks_like};
use super::kind::{Kind, Target};
use super::mask::{self, Shown, hex, quoted};
use super::{DumpError, DumpOptions, Reader, Selected, Sizes, dump, sip};
use crate::addr::{Addr, AddrRange};
use crate::bytes::Blob;
use crate::kamailio::{OwnerName, PoolKind};
use crate::memory::{Content as Bytes, Segment, SegmentMap};

/// What sipp sent, byte by byte.
const INVITE: &[u8] = b"INVITE sip:alice@127.0.0.1:15099 SIP/2.0\r\n\
    Via: SIP/2.0/UDP 127.0.0.1:15098;branch=z9hG4bK-7443-1-0\r\n\
    From: sipp <sip:sipp@127.0.0.1:15098>;tag=7443SIPpTag001\r\n\
    To: alice <sip:alice@127.0.0.1:15099>\r\n\
    Call-ID: 1-7443@127.0.0.1\r\n\
    CSeq: 1 INVITE\r\n\
    Contact: sip:sipp@127.0.0.1:15098\r\n\
    Max-Forwards: 70\r\n\
    Subject: Performance Test\r\n\
    Content-Type: application/sdp\r\n\
    Content-Length:   129\r\n\r\n\
    v=0\r\n\
    o=user1 53655765 2353687637 IN IP4 127.0.0.1\r\n\
    s=-\r\n\
    c=IN IP4 127.0.0.1\r\n\
    t=0 0\r\n\
    m=audio 6000 RTP/AVP 0\r\n\
    a=rtpmap:0 PCMU/8000\r\n";

const PAYLOAD: u64 = 0x7f00_0000_1000;

fn all(bytes: &[u8]) -> Vec<Found> {
    let payload = AddrRange::new(Addr(PAYLOAD), u64::try_from(bytes.len()).unwrap());
    let resolve = &mut |at: Addr| (at.0 >> 16 == 0x5555_5555).then_some(Target::CHeap);
    classify(payload, bytes, resolve)
}

fn kinds(bytes: &[u8]) -> Vec<Kind> {
    all(bytes).into_iter().map(|found| found.kind).collect()
}

fn only(bytes: &[u8]) -> Kind {
    let [kind] = &kinds(bytes)[..] else { panic!("{:?}", kinds(bytes)) };
    kind.clone()
}

fn value(bytes: &[u8], kind: &Kind) -> String {
    let found = all(bytes).into_iter().find(|found| found.kind == *kind).unwrap();
    String::from_utf8(bytes[found.value].to_vec()).unwrap()
}

#[test]
fn a_message_is_told_with_its_call_id_and_body() {
    let mut bytes = vec![0xee; 24];
    bytes.extend_from_slice(INVITE);
    bytes.push(0);
    assert_eq!(kinds(&bytes), [Kind::SipRequest("INVITE"), Kind::CallIdHeader, Kind::Sdp]);
    assert_eq!(value(&bytes, &Kind::CallIdHeader), "1-7443@127.0.0.1");
    assert!(value(&bytes, &Kind::Sdp).starts_with("v=0\r\no=user1"));
    assert_eq!(value(&bytes, &Kind::SipRequest("INVITE")).as_bytes(), INVITE);

    let message = sip::parse(INVITE).unwrap();
    assert!(message.has_whole_header);
    assert_eq!(message.length, 505);
    assert_eq!(INVITE.len(), 505);
    assert_eq!(message.from, Some(&b"sipp <sip:sipp@127.0.0.1:15098>;tag=7443SIPpTag001"[..]));
}

#[test]
fn a_message_that_is_cut_is_told_as_far_as_it_goes() {
    let cut = &INVITE[..230];
    assert_eq!(kinds(cut), [Kind::SipRequest("INVITE"), Kind::CallIdHeader]);
    let message = sip::parse(cut).unwrap();
    assert_eq!((message.has_whole_header, message.length), (false, 230));
    assert_eq!(kinds(&INVITE[..30]), [Kind::Uri("sip")], "its start line is not whole");
    assert_eq!(only(&INVITE[60..140]), Kind::SipPart, "it has no start line");
}

#[test]
fn a_reply_has_a_status_and_may_use_compact_names() {
    let reply = b"SIP/2.0 486 Busy Here\r\ni: q1w2e3@h\r\nf: <sip:a@b>\r\nl: 0\r\n\r\n";
    assert_eq!(kinds(reply), [Kind::SipReply(486), Kind::CallIdHeader]);
    assert_eq!(value(reply, &Kind::CallIdHeader), "q1w2e3@h");
    for wrong in ["SIP/2.0 099 No", "SIP/2.0 700 No", "SIP/2.0 2000 No", "SIP/2.0 2x0 No"] {
        assert_eq!(only(wrong.as_bytes()), Kind::SipPart, "{wrong}");
    }
    assert_eq!(only(b"Via: SIP/2.0/UDP 192.0.2.1"), Kind::SipPart);
}

#[test]
fn a_call_id_by_itself_is_told_only_by_a_form_that_no_user_has() {
    let kind = |text: &str| only(text.as_bytes());
    for generated in [
        "1-7443@127.0.0.1",
        "17-20943@192.0.2.7",
        "f81d4fae-7dec-11d0-a765-00a0c91e6bf6@foo.example.com",
        "a84b4c76e66710@pc33.example",
        "OWU5MzE0ODMwNTk2YjVk@192.0.2.1",
        "5a3c9d8e7f6b1c2d@[2001:db8::1]",
    ] {
        assert_eq!(kind(generated), Kind::CallIdShape, "{generated}");
    }
    for either in ["alice@example.net", "4930123456@192.0.2.1", "john.smith2024@example.net"] {
        assert_eq!(kind(either), Kind::UserAtHost, "{either}");
    }
    assert_eq!(kind("f81d4fae-7dec-11d0-a765-00a0c91e6bf6"), Kind::Uuid);
    assert_eq!(kind("GYOV5EdzkPGB8rUy4d7Qa"), Kind::Token);
    for text in ["alice@exa mple.net", "@example.net", "alice@@example", "dispatcher", "1-2-3@a b"]
    {
        assert_eq!(kind(text), Kind::Text, "{text}");
    }
}

#[test]
fn texts_behind_a_structure_are_found_one_by_one() {
    let mut cell = Vec::new();
    for word in [0x10_u64, PAYLOAD + 32, 0x5555_5555_0123, u64::MAX] {
        cell.extend_from_slice(&word.to_le_bytes());
    }
    cell.extend_from_slice(b"1-7443@127.0.0.1\0sip:alice@127.0.0.1:15099\0plain words\0");
    assert_eq!(
        kinds(&cell),
        [
            Kind::CallIdShape,
            Kind::Uri("sip"),
            Kind::Text,
            Kind::Pointers(Target::Itself),
            Kind::Pointers(Target::CHeap),
        ]
    );
    assert_eq!(value(&cell, &Kind::CallIdShape), "1-7443@127.0.0.1");
    assert_eq!(value(&cell, &Kind::Uri("sip")), "sip:alice@127.0.0.1:15099");
    assert_eq!(value(&cell, &Kind::Text), "plain words");
}

#[test]
fn what_is_no_text_is_named_too() {
    assert_eq!(only(&[0; 40]), Kind::Zeroes);
    assert_eq!(only(&[0x5a; 40]), Kind::Repeated(0x5a));
    assert_eq!(only(&[1, 2, 3, 4]), Kind::Nothing);
    assert_eq!(only(&[]), Kind::Nothing);
    assert_eq!(only(b"m=audio 4000 RTP/AVP 0"), Kind::Sdp);
    assert_eq!(only(b"see tel:+49301234567"), Kind::Uri("tel"));
    assert_eq!(only(b"no gossip: here"), Kind::Text, "a scheme is a whole word");
}

#[test]
fn a_short_text_is_told_by_its_place() {
    assert_eq!(only(b"acc-7\0\0\0"), Kind::Text);
    assert_eq!(value(b"acc-7\0\0\0", &Kind::Text), "acc-7");
    for other in [&b"\0acc-7\0\0"[..], b"abc\0\0\0\0\0", b"acc-\x07\0\0\0", b"acc-7ac"] {
        assert_eq!(only(other), Kind::Nothing, "{other:?}");
    }
}

#[test]
fn damage_is_described_by_what_was_written() {
    let kind = |bytes: &[u8]| looks_like(bytes);
    assert_eq!(kind(&[0; 16]).unwrap(), "zeroes");
    assert_eq!(kind(&[0x41; 16]).unwrap(), "one byte repeated (0x41)");
    assert_eq!(
        kind(b"\0\0;branch=z9hG4bK77\r\n\0").unwrap(),
        r#"part of a SIP message: ";branch=z9hG4bK77\r\n""#
    );
    assert_eq!(
        kind(b"m=audio 4000 RTP/AVP 0").unwrap(),
        r#"part of an SDP body: "m=audio 4000 RTP/AVP 0""#
    );
    assert_eq!(kind(b"\x01\x02abc\x03\x04"), None);
}

#[test]
fn a_text_in_utf_8_keeps_its_message_together() {
    let text =
        "OPTIONS sip:a@b SIP/2.0\r\nFrom: \"Jürgen Müller\" <sip:j@b>\r\nCall-ID: x1@b\r\n\r\n";
    assert_eq!(kinds(text.as_bytes()), [Kind::SipRequest("OPTIONS"), Kind::CallIdHeader]);
    let broken = [&b"OPTIONS sip:a@b SIP/2.0\r\nFrom: \xc3\x28\xff <sip:j@b>\r\n\r\n"[..], &[0]];
    assert_eq!(kinds(&broken.concat()), [Kind::SipRequest("OPTIONS")]);
}

/// Each would be slow, or worse, if a part of it were read again and again.
#[test]
fn hostile_payloads_are_read_once() {
    for word in [
        "SIP/2.0",
        "SIP/2.0 200 \n",
        "INVITE sip:a SIP/2.0\n",
        "Call-ID:",
        "Call-ID: \r\n",
        "sip:",
        "sip: ",
        "\n",
        "v=0\r\n",
        "@",
        "a@",
        "branch=",
        "\0",
        "\r\n\r\n",
    ] {
        let bytes: Vec<u8> = word.bytes().cycle().take(1 << 20).collect();
        assert!(!all(&bytes).is_empty());
        for found in all(&bytes) {
            assert!(found.value.end <= LOOK, "{word:?}: {found:?}");
            mask::message(&bytes[found.value.clone()], Shown::Masked);
            let shown = quoted(&bytes[found.value], Shown::AsItIs);
            assert!(shown.chars().count() <= 64, "{shown}");
        }
    }
}

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

/// Fragments of 64 bytes, one behind the other.
fn memory(texts: impl Iterator<Item = Vec<u8>>) -> SegmentMap {
    let mut bytes = Vec::new();
    for mut text in texts {
        text.resize(64, 0);
        bytes.extend(text);
    }
    let range = AddrRange::new(Addr(PAYLOAD), u64::try_from(bytes.len()).unwrap());
    let content = Bytes::Bytes { blob: Blob::from_bytes(bytes), offset: 0 };
    SegmentMap::new(vec![Segment { range, writable: Some(true), content }])
}

fn groups(number: u64, text: impl Fn(u64) -> String, shown: Shown) -> Vec<super::ContentGroup> {
    let memory = memory((0..number).map(|index| text(index).into_bytes()));
    let mut sizes = Sizes::default();
    for index in 0..number {
        sizes.add(AddrRange::new(Addr(PAYLOAD + index * 64), 64));
    }
    sizes.look(&mut Reader { memory: &memory, resolve: &mut |_| None, shown })
}

#[test]
fn fragments_are_counted_by_what_they_hold() {
    let text = |index| match index % 25 {
        0 => "nothing to see here".to_owned(),
        _ => format!("{index}-4242@192.0.2.1"),
    };
    let group = &groups(1000, text, Shown::Masked)[0];
    assert_eq!(
        group.to_string(),
        "1,000 fragments of 64 bytes: Call-ID (by its form) in 96 %, text in 4 %"
    );
    let [call_id, text] = &group.holds[..] else { panic!("{group:?}") };
    assert_eq!((call_id.kind, call_id.fragments), ("call-id-shape", 960));
    assert_eq!(call_id.example.as_deref(), Some("\"…@…\" (18 bytes)"));
    assert_eq!((text.kind, text.fragments), ("text", 40));
    let shown = &groups(3, |index| format!("{index}-4242@192.0.2.1"), Shown::AsItIs)[0];
    assert_eq!(shown.holds[0].example.as_deref(), Some("\"2-4242@192.0.2.1\""));
    assert_eq!(shown.holds[0].example_at, Addr(PAYLOAD + 128));
}

#[test]
fn of_many_fragments_some_are_looked_at_and_that_is_said() {
    let group = &groups(25_000, |_| "1-4242@192.0.2.1".to_owned(), Shown::Masked)[0];
    assert_eq!((group.fragments, group.looked_at), (25_000, 8334));
    assert_eq!(
        group.to_string(),
        "25,000 fragments of 64 bytes (8,334 looked at): Call-ID (by its form) in all"
    );
    assert_eq!(group.holds[0].example_at, Addr(PAYLOAD + 24_999 * 64), "spread over all");
}

#[test]
fn one_odd_fragment_is_not_rounded_away() {
    let text = |index| if index == 0 { String::new() } else { "1-4242@192.0.2.1".to_owned() };
    let group = &groups(2000, text, Shown::Masked)[0];
    assert_eq!(
        group.to_string(),
        "2,000 fragments of 64 bytes: Call-ID (by its form) in 99 %, zeroes in 1 %"
    );
}

#[test]
fn what_the_input_lacks_is_said() {
    let memory = memory(std::iter::once(b"some text".to_vec()));
    let mut sizes = Sizes::default();
    sizes.add(AddrRange::new(Addr(PAYLOAD + 32), 64));
    let reader = &mut Reader { memory: &memory, resolve: &mut |_| None, shown: Shown::Masked };
    assert_eq!(sizes.look(reader)[0].holds[0].what, "not known: not mapped");
}

#[test]
fn a_dump_writes_what_is_known_and_counts_what_it_leaves_out() {
    let memory = memory((0..4).map(|index| format!("payload number {index}").into_bytes()));
    let owner = OwnerName { module: Some("../../htable".to_owned()), ..OwnerName::default() };
    let selected = |start: u64, length: u64| Selected {
        pool: PoolKind::Shm,
        pid: None,
        owner: &owner,
        payload: AddrRange::new(Addr(start), length),
        memory: &memory,
    };
    let all = || {
        // Too long for the limit, then two that fit, then one that the input does not hold.
        [(PAYLOAD, 256), (PAYLOAD, 64), (PAYLOAD + 64, 64), (PAYLOAD + 224, 64)]
            .into_iter()
            .map(|(start, length)| selected(start, length))
    };
    let scratch = tempfile::tempdir().unwrap();
    let directory = scratch.path().join("payloads");
    let mut options = DumpOptions { directory: directory.clone(), force: false, max_bytes: 200 };
    let report = dump(all(), &options).unwrap();
    assert_eq!((report.files, report.bytes), (2, 128));
    assert_eq!((report.over_limit, report.over_limit_bytes, report.not_known), (1, 256, 1));
    let mut names: Vec<_> =
        std::fs::read_dir(&directory).unwrap().map(|file| file.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["index.json", "shm-0x7f0000001000.bin", "shm-0x7f0000001040.bin"]);
    let second = std::fs::read(directory.join("shm-0x7f0000001040.bin")).unwrap();
    assert_eq!(second.len(), 64);
    assert!(second.starts_with(b"payload number 1\0"));

    let again = dump(all(), &options);
    assert!(matches!(again, Err(DumpError::NotEmpty(_))), "{again:?}");
    options.force = true;
    assert_eq!(dump(all(), &options).unwrap().files, 2);
    options.directory = scratch.path().join("no/such/parent");
    let orphan = dump(all(), &options);
    assert!(matches!(orphan, Err(DumpError::Directory { .. })), "{orphan:?}");
}
