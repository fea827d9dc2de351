//! Addresses: in texts, and as the kernel's tables have them.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use super::{Kind, Place, Pseudonyms};

/// The longest text of an IPv6 address.
const LONGEST: usize = 45;

/// An IPv4 address as it is written without leading zeroes.
pub(super) fn parse(text: &str) -> Option<Ipv4Addr> {
    text.parse().ok()
}

/// Addresses that stand by themselves in a text.
pub(super) fn places(content: &[u8]) -> Vec<Place> {
    let mut places = Vec::new();
    let mut at = 0;
    while at < content.len() {
        let start = at;
        while content.get(at).is_some_and(|byte| byte.is_ascii_hexdigit() || b".:".contains(byte)) {
            at += 1;
        }
        if at == start {
            at += 1;
            continue;
        }
        let before = start.checked_sub(1).and_then(|before| content.get(before));
        let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
        // A word before a colon is no part of the address: `udp:203.0.113.5`.
        let colon = content.get(start) == Some(&b':') && content.get(start + 1) != Some(&b':');
        if (colon || !before.is_some_and(is_word)) && !content.get(at).is_some_and(is_word) {
            places.extend(of_token(content, start..at));
        }
    }
    places
}

/// The address in a run of digits, dots and colons; a port may follow it.
fn of_token(content: &[u8], run: Range<usize>) -> Option<Place> {
    let token = std::str::from_utf8(content.get(run.clone())?).ok()?;
    // `udp:203.0.113.5:5060`: the colon belongs to what is before it.
    let after = token.trim_start_matches('.');
    let after = after.strip_prefix(':').filter(|rest| !rest.starts_with(':')).unwrap_or(after);
    let run = run.end - after.len()..run.end;
    let token = after;
    let first = token.split(':').next().unwrap_or(token).trim_end_matches('.');
    if parse(first).is_some_and(tells) {
        return Some((run.start..run.start + first.len(), Kind::V4));
    }
    let token = token.trim_end_matches('.');
    if token.len() > LONGEST || token.matches(':').count() < 2 {
        return None;
    }
    let text = token.strip_suffix(':').filter(|text| !text.ends_with(':')).unwrap_or(token);
    let address: Ipv6Addr = text.parse().ok()?;
    // `a::b` may be a name of C++.
    let groups = text.split(':').filter(|group| !group.is_empty()).count();
    let tells = !address.is_loopback() && !address.is_unspecified() && groups >= 3;
    tells.then(|| (run.start..run.start + text.len(), Kind::V6))
}

/// Whether an address names a host at all.
fn tells(address: Ipv4Addr) -> bool {
    let [first, ..] = address.octets();
    first != 0 && first != 127 && first < 224
}

/// Another address of as many digits, in the same private network.
pub(super) fn of_v4(pseudonyms: &Pseudonyms, address: Ipv4Addr) -> String {
    let octets = of_octets(pseudonyms, address.octets());
    Ipv4Addr::from(octets).to_string()
}

fn of_octets(pseudonyms: &Pseudonyms, octets: [u8; 4]) -> [u8; 4] {
    if !tells(Ipv4Addr::from(octets)) {
        return octets;
    }
    pseudonyms.of_octets(octets, |attempt| draw_octets(pseudonyms, octets, attempt))
}

fn draw_octets(pseudonyms: &Pseudonyms, octets: [u8; 4], attempt: u32) -> [u8; 4] {
    let address = Ipv4Addr::from(octets);
    let [first, second, third, fourth] = octets;
    let mut draw = pseudonyms.draw(b"4", &[&octets[..], &attempt.to_le_bytes()].concat());
    let mut like = |octet: u8| {
        let (least, most) = match octet {
            0..=9 => (0, 9),
            10..=99 => (10, 99),
            _ => (100, 255_u32),
        };
        u8::try_from(least + draw.below(most - least + 1)).unwrap_or(octet)
    };
    let shared = matches!((first, second), (100, 64..=127));
    if first == 10 {
        return [first, like(second), like(third), like(fourth)];
    }
    if address.is_private() || address.is_link_local() || shared {
        return [first, second, like(third), like(fourth)];
    }
    let first = match first {
        1..=9 => 1 + like(first) % 9,
        10..=99 => 11 + like(first) % 89,
        // Neither loopback nor private, link-local, shared or multicast.
        _ => [101, 103, 109, 130, 141, 151, 178, 185, 193, 195, 201, 212]
            .get(usize::from(like(first)) % 12)
            .copied()
            .unwrap_or(first),
    };
    [first, like(second), like(third), like(fourth)]
}

/// Another address in the same text form: each group by its place, with as many digits.
pub(super) fn of_v6_text(pseudonyms: &Pseudonyms, text: &str) -> String {
    let Ok(address) = text.parse::<Ipv6Addr>() else { return text.to_owned() };
    let groups = of_groups(pseudonyms, address.segments());
    // Where `::` stands, the groups behind it count from the end.
    let (head, tail) = text.split_once("::").unwrap_or((text, ""));
    let count = |part: &str| part.split(':').filter(|group| !group.is_empty()).count();
    let dotted = |part: &str| usize::from(part.contains('.'));
    let from_end = groups.len().saturating_sub(count(tail) + dotted(tail));
    let write = |part: &str, first: usize| {
        let mut at = first;
        let mut words = Vec::new();
        for group in part.split(':').filter(|group| !group.is_empty()) {
            if let Some(inner) = parse(group) {
                words.push(of_v4(pseudonyms, inner));
                continue;
            }
            let value = groups.get(at).copied().unwrap_or(0);
            let digits = format!("{value:0width$x}", width = group.len());
            let upper = group.bytes().any(|byte| byte.is_ascii_uppercase());
            words.push(if upper { digits.to_ascii_uppercase() } else { digits });
            at += 1;
        }
        words.join(":")
    };
    let middle = if text.contains("::") { "::" } else { "" };
    format!("{}{middle}{}", write(head, 0), write(tail, from_end))
}

/// Each group by its value and place; zero stays zero, and the network's kind stays.
fn of_groups(pseudonyms: &Pseudonyms, groups: [u16; 8]) -> [u16; 8] {
    let [.., sixth, seventh, eighth] = groups;
    if groups.starts_with(&[0, 0, 0, 0, 0]) && sixth == 0xffff {
        let [a, b] = seventh.to_be_bytes();
        let [c, d] = eighth.to_be_bytes();
        let [a, b, c, d] = of_octets(pseudonyms, [a, b, c, d]);
        return [0, 0, 0, 0, 0, sixth, u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])];
    }
    let mut place = 0_u8;
    groups.map(|group| {
        place += 1;
        let (least, most) = match group {
            0 => return 0,
            1..=0xf => (1, 0xf),
            0x10..=0xff => (0x10, 0xff),
            0x100..=0xfff => (0x100, 0xfff),
            // The first digit of the first group tells global, local and link-local apart.
            _ if place == 1 && group >> 8 == 0xfe => return group,
            _ if place == 1 => (group & 0xf000, group | 0x0fff),
            _ => (0x1000, 0xffff),
        };
        let [high, low] = group.to_be_bytes();
        let mut draw = pseudonyms.draw(b"6", &[place, high, low]);
        let width = u32::from(most - least) + 1;
        least.saturating_add(u16::try_from(draw.below(width)).unwrap_or(0))
    })
}

/// Whether a member is one of the kernel's tables of sockets.
pub(super) fn is_table(member: &str) -> bool {
    let name = member.rsplit('/').next().unwrap_or(member);
    let name = name.trim_end_matches(".1").trim_end_matches(".2");
    member.contains("net/") && ["tcp", "tcp6", "udp", "udp6", "raw", "raw6"].contains(&name)
}

/// `0100007F:13C4` and its like of 32 digits.
pub(super) fn table_places(content: &[u8]) -> Vec<Place> {
    let mut places = Vec::new();
    let mut start = 0;
    for (at, byte) in content.iter().enumerate() {
        if *byte == b':' {
            match at - start {
                8 => places.push((start..at, Kind::Table4)),
                32 => places.push((start..at, Kind::Table6)),
                _ => {}
            }
        }
        if !byte.is_ascii_hexdigit() {
            start = at + 1;
        }
    }
    places
}

/// The kernel writes each word in the machine's order.
fn word(text: &str) -> Option<[u8; 4]> {
    Some(u32::from_str_radix(text, 16).ok()?.to_le_bytes())
}

fn digits(octets: [u8; 4]) -> String {
    format!("{:08X}", u32::from_le_bytes(octets))
}

pub(super) fn of_table4(pseudonyms: &Pseudonyms, text: &str) -> String {
    match word(text) {
        Some(octets) => digits(of_octets(pseudonyms, octets)),
        None => text.to_owned(),
    }
}

pub(super) fn of_table6(pseudonyms: &Pseudonyms, text: &str) -> String {
    let words: Option<Vec<[u8; 4]>> =
        (0..4).map(|index| word(text.get(index * 8..index * 8 + 8)?)).collect();
    let Some(octets) = words.and_then(|words| <[u8; 16]>::try_from(words.concat()).ok()) else {
        return text.to_owned();
    };
    let address = Ipv6Addr::from(octets);
    if address.is_loopback() || address.is_unspecified() {
        return text.to_owned();
    }
    let groups = of_groups(pseudonyms, address.segments());
    let octets = Ipv6Addr::from(groups).octets();
    let (words, _) = octets.as_chunks::<4>();
    words.iter().map(|word| digits(*word)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pseudonyms() -> Pseudonyms {
        Pseudonyms::with_key([7; 32], &[])
    }

    #[test]
    fn addresses_keep_their_digits_and_their_private_network() {
        let pseudonyms = pseudonyms();
        for text in [
            "203.0.113.77",
            "8.8.8.8",
            "10.1.22.133",
            "192.168.7.1",
            "172.20.100.9",
            "45.67.89.101",
        ] {
            let now = of_v4(&pseudonyms, text.parse().unwrap());
            assert_eq!(now.len(), text.len(), "{text} {now}");
            let (old, new): (Ipv4Addr, Ipv4Addr) = (text.parse().unwrap(), now.parse().unwrap());
            assert_eq!(old.is_private(), new.is_private(), "{text} {now}");
            assert!(tells(new) && old != new, "{text} {now}");
        }
    }

    #[test]
    fn a_table_and_a_text_give_one_address_one_pseudonym() {
        let pseudonyms = pseudonyms();
        // 203.0.113.77, as the kernel writes it on a little-endian machine.
        let now = of_table4(&pseudonyms, "4D7100CB");
        let text = of_v4(&pseudonyms, "203.0.113.77".parse().unwrap());
        assert_eq!(Ipv4Addr::from(word(&now).unwrap()).to_string(), text);
        assert_eq!(of_table4(&pseudonyms, "0100007F"), "0100007F");

        let table = "B80D0120000000000000000034120000";
        let now = of_table6(&pseudonyms, table);
        let words: Vec<[u8; 4]> =
            (0..4).map(|at| word(&now[at * 8..at * 8 + 8]).unwrap()).collect();
        let octets: [u8; 16] = words.concat().try_into().unwrap();
        assert_ne!(now, table);
        let text = of_v6_text(&pseudonyms, "2001:db8::1234");
        assert_eq!(Ipv6Addr::from(octets), text.parse::<Ipv6Addr>().unwrap());
    }

    #[test]
    fn addresses_of_one_network_stay_apart() {
        let pseudonyms = pseudonyms();
        let originals = (0..10).flat_map(|third| (0..9).map(move |last| (third, last + 1)));
        let now: std::collections::BTreeSet<String> = originals
            .map(|(third, last)| of_v4(&pseudonyms, Ipv4Addr::new(172, 16, third, last)))
            .collect();
        assert_eq!(now.len(), 90);
    }

    #[test]
    fn a_transport_or_a_label_before_an_address_is_no_part_of_it() {
        let found = |text: &'static str| -> Vec<&str> {
            places(text.as_bytes()).into_iter().map(|(range, _)| &text[range]).collect()
        };
        assert_eq!(found("via udp:203.0.113.5:5060"), ["203.0.113.5"]);
        assert_eq!(found("tcp:8.8.4.4 sip:203.0.113.9"), ["8.8.4.4", "203.0.113.9"]);
        assert_eq!(
            found("addr:2001:db8::1:2, [2001:db8::7:1]:5060"),
            ["2001:db8::1:2", "2001:db8::7:1"]
        );
        assert_eq!(found("at 05:46:10: x::y std::cout"), Vec::<&str>::new());
    }

    #[test]
    fn forms_of_one_long_address_agree() {
        let pseudonyms = pseudonyms();
        let short = of_v6_text(&pseudonyms, "2001:db8::42:a1");
        let long = of_v6_text(&pseudonyms, "2001:0db8:0000:0000:0000:0000:0042:00a1");
        assert_eq!(short.parse::<Ipv6Addr>().unwrap(), long.parse::<Ipv6Addr>().unwrap());
        assert_eq!(short.len(), "2001:db8::42:a1".len());
        assert_ne!(short, "2001:db8::42:a1");
        let mapped = of_v6_text(&pseudonyms, "::ffff:203.0.113.77");
        let inner = of_v4(&pseudonyms, "203.0.113.77".parse().unwrap());
        assert_eq!(mapped, format!("::ffff:{inner}"));
    }

    #[test]
    fn addresses_of_a_table_are_found_before_their_ports() {
        let line = b"   0: 0100007F:13C4 4D7100CB:0050 0A 00000000:00000000 00:00000000 00000000";
        let found: Vec<_> = table_places(line).into_iter().map(|(range, _)| range).collect();
        assert_eq!(found, [6..14, 20..28, 37..45]);
        assert!(is_table("processes/7/net/tcp6") && is_table("system/net/udp.1"));
        assert!(!is_table("system/net/snmp") && !is_table("logs/tcp"));
    }
}
