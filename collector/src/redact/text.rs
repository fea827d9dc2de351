//! A text as the rules see it: bytes, and where lines and values end.
//!
//! Logs hold other texts in escaped form: `#012` (rsyslog), `\n` (JSON, journals). Both end a line
//! of the text inside. Every search has a limit, so that a line of 1 GB costs no more than its
//! length.

use std::ops::Range;

/// The longest value that is looked for, in bytes.
pub(super) const VALUE_MOST: usize = 64 * 1024;
/// The longest name, in bytes.
pub(super) const NAME_MOST: usize = 64;

/// What a member is, for the rules that depend on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// Logs, answers of the program, `/proc`.
    #[default]
    Text,
    /// A configuration file: its secrets are looked for everywhere else, too.
    Configuration,
    /// Arguments with a NUL after each: `/proc/PID/cmdline`, `/proc/PID/environ`.
    Arguments,
    /// `host:port:database:user:password` on each line.
    PgPass,
}

impl Kind {
    /// Of a member of this name.
    pub fn of(member: &str) -> Self {
        let name = member.rsplit('/').next().unwrap_or(member);
        match name {
            ".pgpass" | "pgpass" => Self::PgPass,
            "cmdline" | "environ" => Self::Arguments,
            _ if member.starts_with("config/") => Self::Configuration,
            _ => Self::Text,
        }
    }

    /// Whether what is secret here is looked for elsewhere.
    pub fn teaches(self) -> bool {
        self != Self::Text
    }
}

/// The bytes of one member.
#[derive(Clone, Copy, Debug)]
pub(super) struct Text<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) kind: Kind,
    /// Its programs take `-p PASSWORD`.
    pub(super) sniffer: bool,
}

impl<'a> Text<'a> {
    pub(super) fn at(&self, at: usize) -> Option<u8> {
        self.bytes.get(at).copied()
    }

    pub(super) fn before(&self, at: usize) -> Option<u8> {
        self.at(at.checked_sub(1)?)
    }

    pub(super) fn get(&self, range: Range<usize>) -> &'a [u8] {
        self.bytes.get(range).unwrap_or_default()
    }

    pub(super) fn starts(&self, at: usize, with: &[u8]) -> bool {
        self.bytes.get(at..).is_some_and(|rest| rest.starts_with(with))
    }

    /// The first place from `at` on that is no blank.
    pub(super) fn skip_blanks(&self, at: usize) -> usize {
        self.skip(at, NAME_MOST, |byte| byte == b' ' || byte == b'\t')
    }

    /// The first place from `at` on whose byte is not wanted, at most `most` away.
    pub(super) fn skip(&self, at: usize, most: usize, wanted: impl Fn(u8) -> bool) -> usize {
        let rest = self.bytes.get(at..).unwrap_or_default();
        at + rest.iter().take(most).take_while(|byte| wanted(**byte)).count()
    }

    /// The first place before `at` from which on all bytes are wanted, at most `most` away.
    pub(super) fn back(&self, at: usize, most: usize, wanted: impl Fn(u8) -> bool) -> usize {
        let head = self.bytes.get(..at).unwrap_or_default();
        at - head.iter().rev().take(most).take_while(|byte| wanted(**byte)).count()
    }

    /// Whether a real line, or an argument, ends here.
    pub(super) fn is_end(&self, at: usize) -> bool {
        match self.at(at) {
            None | Some(0) => true,
            Some(b'\n' | b'\r') => self.kind != Kind::Arguments,
            Some(_) => false,
        }
    }

    /// The length of an escaped line end here: `\n`, `\r`, `#012`, `#015`, `#000`.
    pub(super) fn escaped_end(&self, at: usize) -> Option<usize> {
        match self.at(at)? {
            b'\\' if matches!(self.at(at + 1), Some(b'n' | b'r')) => Some(2),
            b'#' => {
                let digits = self.get(at + 1..at + 4);
                matches!(digits, b"012" | b"015" | b"000").then_some(4)
            }
            _ => None,
        }
    }

    /// Whether a line ends here, also one of a text inside the text.
    pub(super) fn is_any_end(&self, at: usize) -> bool {
        self.is_end(at) || self.escaped_end(at).is_some()
    }

    /// Where the line ends that holds `at`; also that of a text inside, if `escaped`.
    pub(super) fn line_end(&self, at: usize, escaped: bool) -> usize {
        let most = at.saturating_add(VALUE_MOST).min(self.bytes.len());
        let ends = |at: &usize| if escaped { self.is_any_end(*at) } else { self.is_end(*at) };
        (at..most).find(ends).unwrap_or(most)
    }

    /// Whether only a line's beginning, indents and marks of comments stand before `at`; what line:
    /// `Some(true)` for one of a text inside.
    pub(super) fn begins_line(&self, at: usize) -> Option<bool> {
        let mark =
            |byte: u8| matches!(byte, b' ' | b'\t' | b'#' | b';' | b'*' | b'/' | b'-' | b'!');
        let mut start = self.back(at, NAME_MOST, mark);
        for word in [&b"export"[..], b"set", b"Environment="] {
            if start.checked_sub(word.len()).is_some_and(|from| self.get(from..start) == word) {
                start = self.back(start - word.len(), NAME_MOST, mark);
            }
        }
        match self.before(start) {
            None | Some(b'\n' | b'\r' | 0) => Some(false),
            Some(_) if self.escaped_before(start) => Some(true),
            Some(_) => None,
        }
    }

    fn escaped_before(&self, at: usize) -> bool {
        let short = at.checked_sub(2).and_then(|from| self.escaped_end(from)) == Some(2);
        short || at.checked_sub(4).and_then(|from| self.escaped_end(from)) == Some(4)
    }

    /// An opening quote here: the quote, and the place behind it. Also one that is escaped.
    pub(super) fn quote(&self, at: usize) -> Option<Quote> {
        let start = self.skip(at, 4, |byte| byte == b'\\');
        let mark = self.at(start).filter(|byte| matches!(byte, b'"' | b'\'' | b'`'))?;
        Some(Quote { mark, escapes: start - at, inside: start + 1 })
    }

    /// Where a quoted value ends: before the quote that closes it. A quote within a word closes
    /// nothing. Without one, the line's end.
    pub(super) fn closing(&self, quote: Quote) -> usize {
        let most = quote.inside.saturating_add(VALUE_MOST).min(self.bytes.len());
        let mut at = quote.inside;
        while at < most && !self.is_end(at) {
            match self.at(at) {
                Some(b'\\') => {
                    let run = self.skip(at, VALUE_MOST, |byte| byte == b'\\') - at;
                    let is_mark = self.at(at + run) == Some(quote.mark);
                    if is_mark && run == quote.escapes && self.delimits(at + run + 1) {
                        return at;
                    }
                    // An even number of them escapes nothing.
                    at += run + usize::from(is_mark && (quote.escapes > 0 || run % 2 == 1));
                }
                Some(byte) if byte == quote.mark && self.delimits(at + 1) => return at,
                _ => at += 1,
            }
        }
        at.min(most)
    }

    /// Whether what stands here can follow a closed quote.
    fn delimits(&self, at: usize) -> bool {
        let Some(byte) = self.at(at) else { return true };
        byte.is_ascii_whitespace()
            || matches!(byte, 0 | b',' | b';' | b')' | b']' | b'}' | b'>' | b'/' | b'&' | b':')
            || matches!(byte, b'"' | b'\'' | b'|' | b'\\' | b'#')
    }

    /// Where an unquoted value in running text ends.
    pub(super) fn word_end(&self, start: usize) -> usize {
        let most = start.saturating_add(VALUE_MOST).min(self.bytes.len());
        if self.kind == Kind::Arguments {
            return (start..most).find(|at| self.is_end(*at)).unwrap_or(most);
        }
        let mut end = (start..most).find(|at| self.ends_word(*at)).unwrap_or(most);
        while end > start && matches!(self.before(end), Some(b',' | b')' | b']' | b'}' | b'>')) {
            end -= 1;
        }
        end
    }

    fn ends_word(&self, at: usize) -> bool {
        let Some(byte) = self.at(at) else { return true };
        match byte {
            0..=b' ' | b';' | 0x7f => true,
            b'"' | b'\'' | b'`' => self.delimits(at + 1),
            b'\\' => matches!(self.at(at + 1), Some(b'n' | b'r' | b't' | b'"' | b'\'' | b'\\')),
            b'#' => self.escaped_end(at).is_some() || self.starts(at, b"#011"),
            b'<' => self.at(at + 1) == Some(b'/'),
            b',' | b'&' => self.pair_follows(at + 1),
            _ => false,
        }
    }

    /// Whether `name=` or `name:` stands here.
    fn pair_follows(&self, at: usize) -> bool {
        let start = self.skip_blanks(at);
        let end = self.skip(start, NAME_MOST, is_name);
        end > start && matches!(self.at(end), Some(b'=' | b':'))
    }
}

/// An opening quote.
#[derive(Clone, Copy, Debug)]
pub(super) struct Quote {
    pub(super) mark: u8,
    /// Backslashes before it.
    escapes: usize,
    pub(super) inside: usize,
}

/// What names of settings are made of.
pub(super) fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.')
}
