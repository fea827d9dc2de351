//! Users, hosts and display names of SIP and telephone URIs; telephone numbers with a plus.

use memchr::memmem;

use super::{Kind, Place, SHORTEST};

/// What begins a URI with a user in it.
const SCHEMES: [&[u8]; 3] = [b"sip:", b"sips:", b"tel:"];
/// Users and hosts are shorter, display names too.
const LONGEST: usize = 256;

/// All of them in a text.
pub(super) fn places(content: &[u8]) -> Vec<Place> {
    let mut places = Vec::new();
    // Schemes are written in either case.
    let lower = content.to_ascii_lowercase();
    for scheme in SCHEMES {
        for at in memmem::find_iter(&lower, scheme) {
            let begins = at.checked_sub(1).and_then(|before| content.get(before));
            if begins.is_none_or(|byte| !byte.is_ascii_alphanumeric()) {
                uri(content, at + scheme.len(), &mut places);
                display_name(content, at, &mut places);
            }
        }
    }
    for at in memchr::memchr_iter(b'+', content) {
        international(content, at, &mut places);
    }
    for at in memmem::find_iter(content, b"username=\"") {
        let start = at + b"username=\"".len();
        let end = start + run(content, start, |byte| byte != b'"' && byte != b'\n');
        push(start, end, &mut places);
    }
    places
}

/// What follows the scheme: `user@host`, `user:password@host`, `host`, or a number.
fn uri(content: &[u8], start: usize, places: &mut Vec<Place>) {
    let user = start
        + run(content, start, |byte| {
            byte.is_ascii_alphanumeric() || b"+-_.!~*'()&=$,%#".contains(&byte)
        });
    let password = match content.get(user) {
        Some(b':') => {
            user + 1
                + run(content, user + 1, |byte| {
                    byte.is_ascii_graphic() && !b"@>;\"'".contains(&byte)
                })
        }
        _ => user,
    };
    if content.get(password) == Some(&b'@') {
        push(start, user, places);
        host(content, password + 1, places);
    } else if content.get(start).is_some_and(|byte| byte.is_ascii_digit() || *byte == b'+')
        && content.get(start..user).is_some_and(|text| !text.contains(&b'.'))
    {
        // A number by itself.
        push(start, user, places);
    } else {
        host(content, start, places);
    }
}

/// A number in international form, which nobody takes for a count.
fn international(content: &[u8], plus: usize, places: &mut Vec<Place>) {
    let before = plus.checked_sub(1).and_then(|before| content.get(before));
    let digits = run(content, plus + 1, |byte| byte.is_ascii_digit());
    let after = content.get(plus + 1 + digits);
    let alone = |byte: Option<&u8>| byte.is_none_or(|byte| !byte.is_ascii_alphanumeric());
    if (7..=15).contains(&digits) && alone(before) && alone(after) {
        push(plus, plus + 1 + digits, places);
    }
}

/// A host that is no address.
fn host(content: &[u8], start: usize, places: &mut Vec<Place>) {
    let end =
        start + run(content, start, |byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte));
    let text = content.get(start..end).unwrap_or_default();
    if text.iter().any(u8::is_ascii_alphabetic) && !text.eq_ignore_ascii_case(b"localhost") {
        push(start, end, places);
    }
}

/// `"Alice" <` right before a URI.
fn display_name(content: &[u8], scheme: usize, places: &mut Vec<Place>) {
    let before = content.get(..scheme).unwrap_or_default();
    let Some(before) = before.strip_suffix(b"<") else { return };
    let Some(name) = before.trim_ascii_end().strip_suffix(b"\"") else { return };
    let far = name.len().saturating_sub(LONGEST);
    let near = name.get(far..).unwrap_or_default();
    if let Some(quote) = memchr::memrchr2(b'"', b'\n', near)
        && near.get(quote) == Some(&b'"')
    {
        push(far + quote + 1, name.len(), places);
    }
}

fn run(content: &[u8], start: usize, belongs: impl Fn(u8) -> bool) -> usize {
    let rest = content.get(start..).unwrap_or_default();
    rest.iter().take(LONGEST).take_while(|byte| belongs(**byte)).count()
}

fn push(start: usize, end: usize, places: &mut Vec<Place>) {
    if end.saturating_sub(start) >= SHORTEST {
        places.push((start..end, Kind::Name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<&str> {
        places(text.as_bytes()).into_iter().map(|(range, _)| &text[range]).collect()
    }

    #[test]
    fn users_and_hosts_of_uris_are_found() {
        assert_eq!(
            found("INVITE sip:alice@voip.example.org;transport=udp"),
            ["alice", "voip.example.org"]
        );
        assert_eq!(found("sips:+49170@203.0.113.1:5061"), ["+49170"]);
        assert_eq!(found("SIP:Dave@Voip.Example.com"), ["Dave", "Voip.Example.com"]);
        assert_eq!(found("<sip:bob:pw@host.example>"), ["bob", "host.example"]);
        assert_eq!(found("tel:4917012345"), ["4917012345"]);
        assert_eq!(found("listen=sip:sbc.example.net:5060"), ["sbc.example.net"]);
        assert_eq!(
            found("calls of +4917012345, main+1234567, +0000 and 1+12345678x"),
            ["+4917012345"]
        );
        assert_eq!(found("Digest username=\"carol\", realm=\"x\""), ["carol"]);
    }

    #[test]
    fn a_display_name_belongs_to_its_uri() {
        assert_eq!(
            found("From: \"Alice Doe\" <sip:al1ce@example.org>"),
            ["al1ce", "example.org", "Alice Doe"]
        );
        assert_eq!(found("say \"this\" and <sip:al1ce@example.org>"), ["al1ce", "example.org"]);
    }

    #[test]
    fn what_is_no_uri_stays() {
        for text in
            ["gossip:alice@x.org", "sip:a@localhost", "sip module", "tel: none", "sip:127.0.0.1"]
        {
            assert_eq!(found(text), Vec::<&str>::new(), "{text}");
        }
    }
}
