//! Command lines, SQL, and PostgreSQL's file of passwords.

use std::ops::Range;

use super::super::findings::Findings;
use super::super::names::Sort;
use super::super::text::{Kind, Text};
use super::super::values::is_harmless;
use super::Rule;

/// Programs that take `-pPASSWORD` or `-p PASSWORD`.
const CLIENTS: [&[u8]; 4] = [b"mysql", b"mariadb", b"sshpass", b"voipmonitor"];

/// `mysql -pPASSWORD`, `voipmonitor -p PASSWORD`, `curl -u user:PASSWORD`.
#[derive(Debug)]
pub(super) struct Option;

impl Rule for Option {
    fn name(&self) -> &'static str {
        "command-option"
    }

    fn words(&self) -> &'static [&'static str] {
        &[" -p", "\0-p", " -u ", "\0-u\0", " --user ", "\0--user\0", " -a ", "\0-a\0"]
    }

    fn look(&self, text: &Text<'_>, word: Range<usize>, out: &mut Findings) {
        let line = text.back(word.start, 512, |byte| byte != b'\n');
        let head = text.get(line..word.start).to_ascii_lowercase();
        let names = |name: &[u8]| head.windows(name.len()).any(|part| part == name);
        let letter = text.get(word.clone()).iter().find(|byte| byte.is_ascii_alphabetic());
        let separator = |at: usize| matches!(text.at(at), Some(b' ' | 0));
        let argument = |start: usize| {
            let quote = text.quote(start).filter(|_| text.kind != Kind::Arguments);
            quote.map_or_else(
                || start..text.word_end(start),
                |quote| quote.inside..text.closing(quote),
            )
        };
        let span = match letter {
            Some(b'u') if names(b"curl") || names(b"wget") => {
                let pair = argument(word.end);
                let colon = pair.clone().find(|at| text.at(*at) == Some(b':'));
                let Some(colon) = colon else { return };
                colon + 1..pair.end
            }
            Some(b'a') if names(b"redis-cli") => argument(word.end),
            Some(b'p') => {
                let sniffer = text.sniffer && text.kind == Kind::Arguments;
                let client = CLIENTS.iter().find(|name| names(name));
                match client {
                    None if !sniffer => return,
                    // Of MySQL's own clients `-p VALUE` is a database.
                    Some(name) if name.starts_with(b"m") && separator(word.end) => return,
                    _ if separator(word.end) => argument(word.end + 1),
                    _ => argument(word.end),
                }
            }
            _ => return,
        };
        if !is_harmless(text.get(span.clone()), Sort::Password) {
            out.lasting(self.name(), span);
        }
    }
}

/// `IDENTIFIED BY 'PASSWORD'`
#[derive(Debug)]
pub(super) struct Sql;

impl Rule for Sql {
    fn name(&self) -> &'static str {
        "sql-identified-by"
    }

    fn words(&self) -> &'static [&'static str] {
        &["identified by", "identified with"]
    }

    fn look(&self, text: &Text<'_>, word: Range<usize>, out: &mut Findings) {
        let end = text.skip(word.end, 96, |byte| !matches!(byte, b'\'' | b'"' | b';' | b'\n'));
        let Some(quote) = text.quote(end) else { return };
        let span = quote.inside..text.closing(quote);
        let plugin = text.get(span.clone()).ends_with(b"_password");
        let span =
            match (plugin, text.quote(text.skip(span.end + 1, 16, |b| b != b'\'' && b != b'\n'))) {
                (true, Some(second)) => second.inside..text.closing(second),
                (true, None) => return,
                (false, _) => span,
            };
        if !is_harmless(text.get(span.clone()), Sort::Password) {
            out.lasting(self.name(), span);
        }
    }
}

/// `host:port:database:user:PASSWORD` on each line.
pub(super) fn pgpass(text: &Text<'_>, out: &mut Findings) {
    let mut start = 0;
    while start < text.bytes.len() {
        let length = memchr(text.bytes.get(start..).unwrap_or_default());
        let end = start + length;
        let colons =
            (start..end).filter(|at| text.at(*at) == Some(b':') && text.before(*at) != Some(b'\\'));
        if let Some(colon) = colons.take(4).nth(3)
            && text.at(start) != Some(b'#')
        {
            out.lasting("pgpass", colon + 1..end);
        }
        start = end + 1;
    }
}

fn memchr(bytes: &[u8]) -> usize {
    bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len())
}
