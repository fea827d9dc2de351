//! What payloads are told by (here), what masks hide, how many are counted and written.

mod counted;
mod masked;

use super::classify::{Found, LOOK, classify, looks_like};
use super::kind::{Kind, Target};
use super::mask::{self, Shown, quoted};
use super::sip;
use crate::addr::{Addr, AddrRange};

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
