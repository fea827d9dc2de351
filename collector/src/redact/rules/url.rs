//! Passwords in URLs: `scheme://user:PASSWORD@host`, `sip:user:PASSWORD@host`.
//!
//! Of a database's URL the password goes up to the last `@`: Kamailio and libraries take any byte
//! there. A URL of the web has a path that may hold an `@`, and a colon that may begin a port.

use std::ops::Range;

use super::super::findings::Findings;
use super::super::names::Sort;
use super::super::text::Text;
use super::super::values::is_harmless;
use super::Rule;

/// The longest URL up to its host, in bytes.
const MOST: usize = 1024;

/// A URL with an authority.
#[derive(Debug)]
pub(super) struct Url;

impl Rule for Url {
    fn name(&self) -> &'static str {
        "url-password"
    }

    fn words(&self) -> &'static [&'static str] {
        &["://"]
    }

    fn look(&self, text: &Text<'_>, word: Range<usize>, out: &mut Findings) {
        let letter =
            |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.' | b'_');
        let from = text.back(word.start, 24, letter);
        let scheme = text.get(from..word.start).to_ascii_lowercase();
        if scheme.is_empty() {
            return;
        }
        let web = [&b"http"[..], b"https", b"ws", b"wss", b"ftp", b"sip", b"sips"];
        let web = web.iter().any(|name| scheme.ends_with(name));
        if let Some(span) = password(text, from, word.end, web)
            && !is_harmless(text.get(span.clone()), Sort::Password)
        {
            out.lasting(self.name(), span);
        }
    }
}

fn password(text: &Text<'_>, from: usize, start: usize, web: bool) -> Option<Range<usize>> {
    let end = end(text, from, start);
    let colon = (start..end).find(|at| text.at(*at) == Some(b':'))?;
    let user = text.get(start..colon);
    if user.iter().any(|byte| matches!(byte, b'/' | b'?' | b'[')) {
        return None;
    }
    // `tcp://10.0.0.1:8080/a@b`: an address is no user, and what follows it a port.
    if user.contains(&b'.') && user.iter().all(|byte| byte.is_ascii_digit() || *byte == b'.') {
        return None;
    }
    let value = colon + 1;
    let slash = (value..end).find(|at| matches!(text.at(*at), Some(b'/' | b'?' | b'#')));
    let slash = slash.unwrap_or(end);
    let is_host = |at: usize| {
        text.at(at + 1)
            .is_some_and(|byte| byte.is_ascii_alphanumeric() || b"[_$%{<*".contains(&byte))
    };
    let last =
        |end: usize| (value..end).rev().find(|at| text.at(*at) == Some(b'@') && is_host(*at));
    let at = match (web, last(slash)) {
        (true, Some(at)) => at,
        // `http://host:80/path@x`
        (true, None) if is_port(text.get(value..slash)) => return None,
        _ => last(end)?,
    };
    Some(value..at)
}

fn is_port(bytes: &[u8]) -> bool {
    bytes.len() <= 5 && bytes.iter().all(u8::is_ascii_digit)
}

/// Where the URL ends at the latest.
fn end(text: &Text<'_>, from: usize, start: usize) -> usize {
    let opened = text.before(from);
    let most = start.saturating_add(MOST).min(text.bytes.len());
    for at in start..most {
        let ends = match text.at(at) {
            None | Some(0..=b' ' | b'"' | 0x7f) => true,
            Some(b'\\') => {
                text.escaped_end(at).is_some() || matches!(text.at(at + 1), Some(b'"' | b't'))
            }
            Some(b'#') => text.escaped_end(at).is_some() || text.starts(at, b"#011"),
            Some(byte @ (b'\'' | b'`')) => opened == Some(byte),
            Some(b'>') => opened == Some(b'<'),
            // The next one of a list: what is before its scheme.
            Some(b':') if text.starts(at, b"://") => {
                return text.back(at, 24, |byte| byte.is_ascii_alphanumeric());
            }
            Some(_) => false,
        };
        if ends {
            return at;
        }
    }
    most
}

/// A SIP URI with a password.
#[derive(Debug)]
pub(super) struct SipUri;

impl Rule for SipUri {
    fn name(&self) -> &'static str {
        "sip-uri-password"
    }

    fn words(&self) -> &'static [&'static str] {
        &["sip:", "sips:"]
    }

    fn look(&self, text: &Text<'_>, word: Range<usize>, out: &mut Findings) {
        let legal =
            |byte: u8| byte.is_ascii_alphanumeric() || b"-_.!~*'()&=+$,;?/%".contains(&byte);
        let colon = text.skip(word.end, 128, legal);
        if colon == word.end || text.at(colon) != Some(b':') {
            return;
        }
        let end = text.skip(colon + 1, 128, |byte| {
            byte.is_ascii_graphic()
                && !matches!(byte, b';' | b'?' | b',' | b'@' | b'<' | b'>' | b'"')
        });
        if end > colon + 1 && text.at(end) == Some(b'@') {
            out.lasting(self.name(), colon + 1..end);
        }
    }
}
