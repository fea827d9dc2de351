//! Credentials in SIP, HTTP and SDP.
//!
//! Of a digest, `response`, `cnonce` and `nonce` are masked: with all of them a password can be
//! guessed without the server. User, realm and URI stay, to tell whose message it was (see
//! `--pseudonymize`), and so do challenges (`WWW-Authenticate`): a server gives them to anyone, and
//! a stale nonce shows only there.

use std::ops::Range;

use super::super::findings::Findings;
use super::super::names::Sort;
use super::super::text::Text;
use super::super::values::is_harmless;
use super::Rule;

/// The longest header, in bytes.
const HEADER_MOST: usize = 4096;

/// `Digest username="…", response="…"`
#[derive(Debug)]
pub(super) struct Digest;

impl Rule for Digest {
    fn name(&self) -> &'static str {
        "digest"
    }

    fn words(&self) -> &'static [&'static str] {
        &["digest ", "rspauth"]
    }

    fn look(&self, text: &Text<'_>, word: Range<usize>, out: &mut Findings) {
        let end = header_end(text, word.start);
        let header = text.get(word.start..end);
        let answer = [&b"response"[..], b"rspauth"];
        if !answer.iter().any(|name| parameters(header, name).next().is_some()) {
            return;
        }
        for name in [&b"response"[..], b"cnonce", b"nonce", b"rspauth"] {
            for at in parameters(header, name) {
                let start = word.start + at;
                let value = match text.quote(start) {
                    Some(quote) => {
                        quote.inside..text.skip(quote.inside, 1024, |byte| {
                            byte != quote.mark && !matches!(byte, b'\\' | b'\n' | 0)
                        })
                    }
                    None => {
                        let plain =
                            |byte: u8| byte.is_ascii_alphanumeric() || b"+/=_-.".contains(&byte);
                        start..text.skip(start, 1024, plain)
                    }
                };
                if value.end <= end {
                    out.passing(self.name(), value);
                }
            }
        }
    }
}

/// Where the values of a parameter begin, from the header's start.
fn parameters<'a>(header: &'a [u8], name: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    header.windows(name.len()).enumerate().filter_map(move |(at, word)| {
        let before = at.checked_sub(1).and_then(|before| header.get(before));
        let begins = before.is_none_or(|byte| !byte.is_ascii_alphanumeric());
        let rest = header.get(at + name.len()..)?;
        let blanks = rest.iter().take_while(|byte| **byte == b' ').count();
        let sign = rest.get(blanks) == Some(&b'=');
        let more = rest.get(blanks + 1..)?.iter().take_while(|byte| **byte == b' ').count();
        let start = at + name.len() + blanks + 1 + more;
        (begins && sign && word.eq_ignore_ascii_case(name)).then_some(start)
    })
}

/// Where a header ends; its next lines may be indented.
fn header_end(text: &Text<'_>, start: usize) -> usize {
    let most = start.saturating_add(HEADER_MOST).min(text.bytes.len());
    let mut at = start;
    while at < most {
        match text.at(at) {
            None | Some(0) => return at,
            Some(b'\n') if !matches!(text.at(at + 1), Some(b' ' | b'\t')) => return at,
            Some(_) => {}
        }
        match text.escaped_end(at) {
            Some(length) => {
                let ends = text.starts(at, b"\\n") || text.starts(at, b"#012");
                let folded = matches!(text.at(at + length), Some(b' ' | b'\t'));
                if ends && !folded {
                    return at;
                }
                at += length;
            }
            None => at += 1,
        }
    }
    most
}

/// `Authorization: Basic …`, `Bearer …` and whatever else is no digest.
#[derive(Debug)]
pub(super) struct Authorization;

impl Rule for Authorization {
    fn name(&self) -> &'static str {
        "authorization"
    }

    fn words(&self) -> &'static [&'static str] {
        &["authorization"]
    }

    fn look(&self, text: &Text<'_>, word: Range<usize>, out: &mut Findings) {
        let sign = text.skip(word.end, 8, |byte| matches!(byte, b'"' | b'\'' | b'\\' | b' '));
        if !matches!(text.at(sign), Some(b':' | b'=')) {
            return;
        }
        let start = text.skip_blanks(sign + 1);
        let quote = text.quote(start);
        let start = quote.map_or(start, |quote| quote.inside);
        let end = match quote {
            Some(quote) => text.closing(quote),
            None => credential_end(text, start),
        };
        let scheme = text.skip(start, 32, |byte| byte.is_ascii_alphanumeric() || byte == b'-');
        let name = text.get(start..scheme).to_ascii_lowercase();
        if name == b"digest" {
            return;
        }
        let known = [&b"basic"[..], b"bearer", b"token", b"negotiate", b"ntlm", b"apikey"];
        if text.at(scheme) == Some(b' ') && scheme + 1 < end {
            let value = text.skip_blanks(scheme);
            let secret = text.get(value..end);
            let long = secret.len() >= 16 && secret.iter().any(u8::is_ascii_digit);
            if known.contains(&name.as_slice()) || long {
                out.passing(self.name(), value..end);
            }
        } else if end - start >= 16 && !is_harmless(text.get(start..end), Sort::Password) {
            out.passing(self.name(), start..end);
        }
    }
}

fn credential_end(text: &Text<'_>, start: usize) -> usize {
    let most = start.saturating_add(HEADER_MOST).min(text.bytes.len());
    let ends = |at: &usize| {
        text.is_any_end(*at) || matches!(text.at(*at), Some(b'"' | b'\'' | b'\\' | b'\n' | b'\r'))
    };
    (start..most).find(ends).unwrap_or(most)
}

/// `Cookie: a=b; c=d`
#[derive(Debug)]
pub(super) struct Cookie;

impl Rule for Cookie {
    fn name(&self) -> &'static str {
        "cookie"
    }

    fn words(&self) -> &'static [&'static str] {
        &["cookie: "]
    }

    fn look(&self, text: &Text<'_>, word: Range<usize>, out: &mut Findings) {
        let set = word
            .start
            .checked_sub(4)
            .filter(|from| text.get(*from..word.start).eq_ignore_ascii_case(b"set-"));
        let start = set.unwrap_or(word.start);
        let opens = text.before(start).is_none_or(|byte| matches!(byte, b'\n' | b'"' | b'\''));
        let inner = start.checked_sub(4).and_then(|from| text.escaped_end(from)) == Some(4)
            || start.checked_sub(2).and_then(|from| text.escaped_end(from)) == Some(2);
        let end = credential_end(text, word.end);
        if (opens || inner) && text.get(word.end..end).contains(&b'=') {
            out.passing(self.name(), word.end..end);
        }
    }
}

/// Keys of media in SDP: `a=crypto: … inline:KEY`, `a=ice-pwd:…`, `a=key-mgmt:mikey …`.
#[derive(Debug)]
pub(super) struct Media;

impl Rule for Media {
    fn name(&self) -> &'static str {
        "media-key"
    }

    fn words(&self) -> &'static [&'static str] {
        &["inline:", "ice-pwd:", "key-mgmt:mikey ", "k=base64:", "k=clear:"]
    }

    fn look(&self, text: &Text<'_>, word: Range<usize>, out: &mut Findings) {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte);
        let end = text.skip(word.end, 2048, plain);
        if end - word.end >= 8 {
            out.passing(self.name(), word.end..end);
        }
    }
}
