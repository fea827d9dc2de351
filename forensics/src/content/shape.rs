//! Texts that are told by their form alone: Call-IDs as generators write them, UUIDs, `user@host`.
//!
//! A Call-ID has no form of its own: RFC 3261 allows any word, with or without `@` and another one.
//! So only what no person writes is taken for one, and what an address of a user could be is said
//! to be either.

use super::kind::Kind;

/// Shortest word without a host that counts as generated, in characters.
const TOKEN: usize = 16;
/// Shortest word before a host that counts as generated, unless it is two numbers.
const WORD: usize = 12;
/// Changes between letters and digits that no name has.
const CHANGES: usize = 4;

/// What a text is that stands by itself, without blanks or quotes.
pub(super) fn of(text: &[u8]) -> Option<Kind> {
    if is_uuid(text) {
        return Some(Kind::Uuid);
    }
    let Some(at) = text.iter().position(|&byte| byte == b'@') else {
        let token = text.len() >= TOKEN && is_generated(text);
        return token.then_some(Kind::Token);
    };
    let (word, host) = (text.get(..at)?, text.get(at.saturating_add(1)..)?);
    if word.is_empty() || !word.iter().all(|byte| is_word_byte(*byte)) || !is_host(host) {
        return None;
    }
    let generated =
        is_uuid(word) || is_two_numbers(word) || (word.len() >= WORD && is_generated(word));
    Some(if generated { Kind::CallIdShape } else { Kind::UserAtHost })
}

/// Bytes of a `word` in a Call-ID (RFC 3261, 25.1) that are no delimiters elsewhere.
fn is_word_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-.!%*_+`'~/?{}()".contains(&byte)
}

/// `8-4-4-4-12` hexadecimal digits.
fn is_uuid(text: &[u8]) -> bool {
    text.len() == 36
        && text.iter().enumerate().all(|(index, byte)| match index {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

/// `N-PID`, as sipp writes them.
fn is_two_numbers(word: &[u8]) -> bool {
    let mut parts = word.split(|&byte| byte == b'-');
    let number = |part: Option<&[u8]>| {
        part.is_some_and(|part| !part.is_empty() && part.iter().all(u8::is_ascii_digit))
    };
    number(parts.next()) && number(parts.next()) && parts.next().is_none()
}

/// Whether letters and digits change too often for a name.
fn is_generated(word: &[u8]) -> bool {
    let class = |byte: &u8| byte.is_ascii_digit();
    let both = word.iter().filter(|byte| byte.is_ascii_alphanumeric());
    let changes = both.clone().zip(both.skip(1)).filter(|(one, next)| class(one) != class(next));
    word.iter().all(|byte| is_word_byte(*byte)) && changes.count() >= CHANGES
}

/// A host name, or an address with or without brackets.
fn is_host(host: &[u8]) -> bool {
    let Ok(host) = std::str::from_utf8(host) else { return false };
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    if bare.parse::<std::net::IpAddr>().is_ok() {
        return true;
    }
    let is_label = |label: &str| {
        let plain = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        plain && (1..=63).contains(&label.len())
    };
    host.len() <= 253 && host.split('.').all(is_label)
}
