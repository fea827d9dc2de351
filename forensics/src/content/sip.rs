//! SIP messages in bytes: start line, Call-ID, From, length.

use std::ops::Range;

use crate::num::{narrow, wide};

/// Methods that a start line may have: those of the RFCs, and the one of Kamailio's dmq.
const METHODS: [&str; 15] = [
    "INVITE",
    "ACK",
    "BYE",
    "CANCEL",
    "OPTIONS",
    "REGISTER",
    "PRACK",
    "UPDATE",
    "SUBSCRIBE",
    "NOTIFY",
    "PUBLISH",
    "INFO",
    "REFER",
    "MESSAGE",
    "KDMQ",
];

/// Names of headers that tell a message, and that a mask may show at the start of a line.
pub(super) const HEADERS: [&str; 18] = [
    "Via",
    "From",
    "To",
    "Call-ID",
    "CSeq",
    "Contact",
    "Record-Route",
    "Route",
    "Max-Forwards",
    "User-Agent",
    "Content-Length",
    "Content-Type",
    "Authorization",
    "Proxy-Authorization",
    "WWW-Authenticate",
    "Proxy-Authenticate",
    "Expires",
    "Subject",
];

/// Shortest start line, in characters: `SIP/2.0 200`.
const SHORTEST: usize = 11;

/// What a message begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start<'a> {
    /// `METHOD URI SIP/2.0`
    Request { method: &'static str, uri: &'a [u8] },
    /// `SIP/2.0 STATUS …`
    Reply { status: u16 },
}

/// A message, as far as its bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Message<'a> {
    pub(super) start: Start<'a>,
    pub(super) call_id: Option<&'a [u8]>,
    pub(super) from: Option<&'a [u8]>,
    /// In bytes: header, and body as `Content-Length` says; without the end of the header, what is
    /// there.
    pub(super) length: u64,
    /// Whether the empty line behind the header is there.
    pub(super) has_whole_header: bool,
}

/// Whether no text has this byte. Bytes above ASCII may belong to a name in UTF-8.
pub(super) fn ends_text(byte: u8) -> bool {
    byte.is_ascii_control() && !matches!(byte, b'\r' | b'\n' | b'\t')
}

/// The start lines in `bytes`, each with its place: such a line is ASCII, whatever stands before it.
pub(super) fn starts(bytes: &[u8]) -> impl Iterator<Item = (usize, Start<'_>)> {
    let mut at = 0_usize;
    bytes.split(|&byte| byte == b'\n' || ends_text(byte) || !byte.is_ascii()).filter_map(
        move |line| {
            let place = at;
            at = at.saturating_add(line.len()).saturating_add(1);
            let start = (line.len() >= SHORTEST).then(|| start_line(line))?;
            Some((place, start?))
        },
    )
}

/// A start line, with or without its line end.
pub(super) fn start_line(line: &[u8]) -> Option<Start<'_>> {
    let line = line.trim_ascii_end();
    if let Some(rest) = line.strip_prefix(b"SIP/2.0 ") {
        let (status, behind) = rest.split_at_checked(3)?;
        let status = number(status).and_then(|status| u16::try_from(status).ok())?;
        let ends = behind.first().is_none_or(|&byte| byte == b' ');
        return (ends && (100..700).contains(&status)).then_some(Start::Reply { status });
    }
    let line = line.strip_suffix(b" SIP/2.0")?;
    let space = line.iter().position(|&byte| byte == b' ')?;
    let (method, uri) = (line.get(..space)?, line.get(space.saturating_add(1)..)?);
    let method = METHODS.iter().find(|known| known.as_bytes() == method)?;
    Some(Start::Request { method, uri })
}

/// The message whose start line begins at the first byte.
pub(super) fn parse(bytes: &[u8]) -> Option<Message<'_>> {
    let end = bytes.iter().position(|&byte| ends_text(byte)).unwrap_or(bytes.len());
    let text = bytes.get(..end)?;
    let mut lines = text.split_inclusive(|&byte| byte == b'\n');
    let first = lines.next()?;
    let mut message = Message {
        start: start_line(first)?,
        call_id: None,
        from: None,
        length: wide(end),
        has_whole_header: false,
    };
    let mut header = first.len();
    let mut body = 0;
    for line in lines {
        header = header.saturating_add(line.len());
        if matches!(line, b"\r\n" | b"\n") {
            message.has_whole_header = true;
            message.length = wide(header).saturating_add(body);
            return Some(message);
        }
        let Some((name, value)) = header_line(line) else { continue };
        match name {
            b'i' => message.call_id = message.call_id.or(Some(value)),
            b'f' => message.from = message.from.or(Some(value)),
            b'l' => body = number(value).unwrap_or(0),
            _ => {}
        }
    }
    Some(message)
}

/// The part of `bytes` that a message takes which begins at their first one.
pub(super) fn extent(message: &Message<'_>, bytes: &[u8]) -> Range<usize> {
    0..narrow(message.length).min(bytes.len())
}

/// The compact name of a header that is asked for here, and its value.
fn header_line(line: &[u8]) -> Option<(u8, &[u8])> {
    let colon = line.iter().position(|&byte| byte == b':')?;
    let name = line.get(..colon)?.trim_ascii();
    let value = line.get(colon.saturating_add(1)..)?.trim_ascii();
    const NAMES: [(&[u8], u8); 6] = [
        (b"call-id", b'i'),
        (b"i", b'i'),
        (b"from", b'f'),
        (b"f", b'f'),
        (b"content-length", b'l'),
        (b"l", b'l'),
    ];
    let (_, compact) = NAMES.iter().find(|(known, _)| name.eq_ignore_ascii_case(known))?;
    Some((*compact, value))
}

/// A decimal number of at most nine digits.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 9 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}
