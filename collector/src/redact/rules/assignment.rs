//! `NAME = VALUE`, in all the ways in which files, commands and logs write it.
//!
//! Where a line begins with the name, the value is all of the line's rest: passwords have spaces,
//! semicolons and commas in them. In the middle of a line it is one word.

use std::ops::Range;

use super::super::findings::{Findings, Found};
use super::super::names::{self, Sort};
use super::super::text::{Kind, NAME_MOST, Text, is_name};
use super::super::values::is_harmless;
use super::Rule;

/// A name that means a secret, and its value.
#[derive(Debug)]
pub(super) struct Assignment;

impl Rule for Assignment {
    fn name(&self) -> &'static str {
        "assignment"
    }

    fn words(&self) -> &'static [&'static str] {
        &[
            "pass",
            "pwd",
            "pw",
            "secret",
            "token",
            "key",
            "psk",
            "ha1",
            "credential",
            "_iv",
            "vector",
        ]
    }

    fn look(&self, text: &Text<'_>, word: Range<usize>, out: &mut Findings) {
        let Some(place) = Place::of(text, &word) else { return };
        let Some(value) = place.value(text) else { return };
        let bytes = text.get(value.span.clone());
        if is_harmless(bytes, place.sort) || place.is_a_hash_that_is_none(bytes) {
            return;
        }
        let number = value.json && bytes.iter().all(u8::is_ascii_digit) && bytes.len() > 1;
        out.push(Found { rule: self.name(), span: value.span, number, lasting: true });
    }
}

struct Place<'a> {
    /// The name, without dashes before it.
    name: Range<usize>,
    spelled: &'a [u8],
    sort: Sort,
}

struct Value {
    span: Range<usize>,
    /// As JSON writes it: a number needs no quotes.
    json: bool,
}

impl Value {
    fn plain(span: Range<usize>) -> Self {
        Self { span, json: false }
    }
}

impl<'a> Place<'a> {
    fn of(text: &Text<'a>, word: &Range<usize>) -> Option<Self> {
        let start = text.back(word.start, NAME_MOST, is_name);
        let end = text.skip(word.end, NAME_MOST, is_name);
        if end - start >= NAME_MOST {
            return None;
        }
        // `\npassword=`: the letter belongs to the line end.
        let escaped =
            text.before(start) == Some(b'\\') && matches!(text.at(start), Some(b'n' | b'r' | b't'));
        let start = if escaped { start + 1 } else { start };
        let start = if text.before(start) == Some(b'#') && text.starts(start, b"01") {
            start + 3
        } else {
            start
        };
        let name = text.skip(start, NAME_MOST, |byte| byte == b'-' || byte == b'.')..end;
        if name.start > word.start || is_elsewhere(text, &name) {
            return None;
        }
        let spelled = text.get(name.clone());
        let sort = names::sort(spelled).or_else(|| spaced_key(text, &name, spelled))?;
        Some(Self { name, spelled, sort })
    }

    /// `ha1` is a hash of 32 digits or more.
    fn is_a_hash_that_is_none(&self, value: &[u8]) -> bool {
        let lower = self.spelled.to_ascii_lowercase();
        let is_ha1 = lower.windows(3).any(|part| part == b"ha1");
        is_ha1 && !(value.len() >= 32 && value.iter().all(u8::is_ascii_hexdigit))
    }

    fn value(&self, text: &Text<'_>) -> Option<Value> {
        let before = text.before(self.name.start);
        let after = text.at(self.name.end)?;
        if before == Some(b'<') || (before == Some(b':') && after == b'>') {
            return self.element(text);
        }
        if before.is_some_and(|byte| matches!(byte, b'"' | b'\'' | b'`'))
            && text.quote(self.name.end).is_some_and(|quote| Some(quote.mark) == before)
        {
            return self.quoted_name(text);
        }
        if after == b')' && matches!(before, Some(b'(' | b':' | b'>')) {
            return self.variable(text);
        }
        if after == b'(' {
            let quote = text.quote(self.name.end + 1)?;
            let is_function = self.spelled.to_ascii_lowercase().ends_with(b"password");
            return is_function.then(|| Value::plain(quote.inside..text.closing(quote)));
        }
        self.option(text).or_else(|| self.pair(text))
    }

    /// `<password>VALUE</password>`
    fn element(&self, text: &Text<'_>) -> Option<Value> {
        let opened = matches!(text.at(self.name.end), Some(b'>' | b' '));
        let inside = text.skip(self.name.end, 256, |byte| !matches!(byte, b'>' | b'<' | b'\n'));
        opened.then_some(())?;
        (text.at(inside) == Some(b'>')).then_some(())?;
        let end = text.skip(inside + 1, 4096, |byte| byte != b'<' && byte != b'\n');
        text.starts(end, b"</").then(|| Value::plain(inside + 1..end))
    }

    /// `"password": VALUE`, `modparam("m", "password", VALUE)`, `name="password" value="VALUE"`
    fn quoted_name(&self, text: &Text<'_>) -> Option<Value> {
        let after = text.quote(self.name.end)?.inside;
        let sign = text.skip_blanks(after);
        let behind = text.skip_blanks(sign + 1);
        match text.at(sign)? {
            b',' if is_modparam(text, self.name.start) => {
                // The value may stand in a line of its own.
                let behind = text.skip(behind, NAME_MOST, |byte| byte.is_ascii_whitespace());
                let quote = text.quote(behind)?;
                Some(Value::plain(quote.inside..text.closing(quote)))
            }
            b':' => self.json(text, behind),
            b'=' if text.at(sign + 1) == Some(b'>') => self.json(text, text.skip_blanks(sign + 2)),
            b'=' => self.json(text, behind),
            b'>' => {
                let end = text.skip(sign + 1, 4096, |byte| byte != b'<' && byte != b'\n');
                (text.at(end) == Some(b'<')).then(|| Value::plain(sign + 1..end))
            }
            b'v' if text.starts(sign, b"value=") => {
                let quote = text.quote(sign + 6)?;
                Some(Value::plain(quote.inside..text.closing(quote)))
            }
            _ => None,
        }
    }

    fn json(&self, text: &Text<'_>, at: usize) -> Option<Value> {
        if let Some(quote) = text.quote(at) {
            return Some(Value { span: quote.inside..text.closing(quote), json: false });
        }
        let end =
            text.skip(at, 4096, |byte| byte.is_ascii_alphanumeric() || b"._+/=-".contains(&byte));
        (self.sort == Sort::Password).then_some(Value { span: at..end, json: true })
    }

    /// `$var(password) = "VALUE"`, `$avp(s:password)`, `$xavp(gw[0]=>password)`; not the keys of hash
    /// tables, `$sht(calls=>pass)`.
    fn variable(&self, text: &Text<'_>) -> Option<Value> {
        let within = |byte: u8| is_name(byte) || b":=>[]".contains(&byte);
        let inside = text.back(self.name.start, NAME_MOST, within);
        (text.before(inside) == Some(b'(')).then_some(())?;
        let kind = text.back(inside - 1, 8, |byte| byte.is_ascii_alphanumeric() || byte == b'_');
        (text.before(kind) == Some(b'$')).then_some(())?;
        (text.get(kind..inside - 1) != b"sht").then_some(())?;
        let sign = text.skip_blanks(self.name.end + 1);
        let behind = text.skip(sign, 3, |byte| matches!(byte, b'=' | b'!' | b':'));
        (behind > sign).then_some(())?;
        let quote = text.quote(text.skip_blanks(behind))?;
        Some(Value::plain(quote.inside..text.closing(quote)))
    }

    /// `--password VALUE`, also with a NUL between.
    fn option(&self, text: &Text<'_>) -> Option<Value> {
        let dashes = text.get(self.name.start.checked_sub(2)?..self.name.start);
        (dashes == b"--").then_some(())?;
        let sign = text.at(self.name.end)?;
        let start = match (text.kind, sign) {
            (Kind::Arguments, 0) => self.name.end + 1,
            (_, b' ') => text.skip_blanks(self.name.end),
            _ => return None,
        };
        (text.at(start)? != b'-').then_some(())?;
        Some(Value::plain(start..text.word_end(start)))
    }

    /// `password = VALUE`, `password: VALUE`
    fn pair(&self, text: &Text<'_>) -> Option<Value> {
        let sign = text.skip_blanks(self.name.end);
        let begins = text.begins_line(self.name.start);
        let behind = match (text.at(sign)?, text.at(sign + 1)) {
            // A key of a hash table, a scope of C++, a URL.
            (b'=', Some(b'>')) | (b':', Some(b':')) => return None,
            (b':', Some(b'/')) if text.at(sign + 2) == Some(b'/') => return None,
            (b'=' | b'!', Some(b'=')) => {
                let quote = text.quote(text.skip_blanks(sign + 2))?;
                return Some(Value::plain(quote.inside..text.closing(quote)));
            }
            (b':', Some(b'=')) => sign + 2,
            (b'=', _) => sign + 1,
            (b':', _) if self.is_path(text) => return None,
            (b':', _) => sign + 1,
            _ if sign > self.name.end && begins == Some(false) => {
                return self.directive(text, sign);
            }
            _ => return None,
        };
        let is_colon = text.at(sign) == Some(b':');
        let start = text.skip_blanks(behind);
        if text.is_any_end(start) {
            return None;
        }
        if let Some(quote) = text.quote(start) {
            return Some(Value::plain(quote.inside..text.closing(quote)));
        }
        // `"NAME=VALUE"`
        let quoted = text.before(self.name.start).filter(|byte| matches!(byte, b'"' | b'\''));
        if let Some(mark) = quoted
            && text.kind != Kind::Arguments
        {
            let most = text.line_end(start, true);
            let end = (start..most).find(|at| text.at(*at) == Some(mark)).unwrap_or(most);
            return Some(Value::plain(start..end));
        }
        let Some(inside) = begins.filter(|_| text.kind != Kind::Arguments) else {
            let span = start..text.word_end(start);
            let prose =
                is_colon && self.sort == Sort::Weak && is_word_of_prose(text.get(span.clone()));
            return (!prose && !self.is_working_folder(text, start)).then_some(Value::plain(span));
        };
        let end = text.line_end(start, inside);
        let end = text.back(end, NAME_MOST, |byte| byte == b' ' || byte == b'\t');
        let end = end.max(start);
        (!self.is_working_folder(text, start)).then_some(Value::plain(start..end))
    }

    /// `requirepass VALUE`: two words on a line.
    fn directive(&self, text: &Text<'_>, start: usize) -> Option<Value> {
        let line = text.back(self.name.start, 8, |byte| byte == b' ' || byte == b'\t');
        let alone = matches!(text.before(line), None | Some(b'\n'));
        (alone && text.kind == Kind::Configuration).then_some(())?;
        let end = text.skip(start, 4096, |byte| !byte.is_ascii_whitespace() && byte != 0);
        let rest = text.skip_blanks(end);
        let value = text.get(start..end);
        let word = value.iter().all(|byte| !matches!(byte, b'(' | b'{' | b'['));
        (text.is_end(rest) && word && value != b"=").then(|| Value::plain(start..end))
    }

    /// `PWD=/root` of an environment.
    fn is_working_folder(&self, text: &Text<'_>, start: usize) -> bool {
        matches!(self.spelled, b"PWD" | b"OLDPWD") && text.at(start) == Some(b'/')
    }

    /// `/etc/passwd: no such file`
    fn is_path(&self, text: &Text<'_>) -> bool {
        text.before(self.name.start) == Some(b'/')
    }
}

/// A token of a grammar (`parse error near token: ';'`), or a part of a Call-ID, which may hold any
/// word.
fn is_elsewhere(text: &Text<'_>, name: &Range<usize>) -> bool {
    const BEFORE_A_TOKEN: [&[u8]; 5] = [b"near", b"unexpected", b"expected", b"next", b"last"];
    let blank = text.back(name.start, 2, |byte| byte == b' ');
    let before = text.get(text.back(blank, 16, |byte| byte.is_ascii_alphabetic())..blank);
    let before = before.to_ascii_lowercase();
    let call_id =
        text.back(name.start, 12, |byte| byte.is_ascii_alphabetic() || b"-: ".contains(&byte));
    let call_id = text.get(call_id..name.start).to_ascii_lowercase();
    BEFORE_A_TOKEN.contains(&before.as_slice()) || call_id.trim_ascii().ends_with(b"call-id:")
}

/// `api key: VALUE`
fn spaced_key(text: &Text<'_>, name: &Range<usize>, spelled: &[u8]) -> Option<Sort> {
    let is_key = spelled.eq_ignore_ascii_case(b"key") && text.before(name.start) == Some(b' ');
    is_key.then_some(())?;
    let end = name.start - 1;
    let start = text.back(end, NAME_MOST, is_name);
    let joined = [text.get(start..end), b"_key"].concat();
    let known = matches!(
        joined.to_ascii_lowercase().as_slice(),
        b"api_key"
            | b"secret_key"
            | b"auth_key"
            | b"access_key"
            | b"aes_key"
            | b"encryption_key"
            | b"license_key"
            | b"mask_key"
            | b"shared_key"
    );
    known.then_some(Sort::Key)
}

/// Whether the name is the second argument of `modparam`.
fn is_modparam(text: &Text<'_>, name: usize) -> bool {
    // The statement may go over several lines; the one before it ended.
    let start = text.back(name, 160, |byte| !matches!(byte, b')' | b';' | b'}'));
    let head = text.get(start..name);
    head.windows(8).any(|word| word.eq_ignore_ascii_case(b"modparam"))
}

/// After `token:` in running text: a word as languages have them.
fn is_word_of_prose(value: &[u8]) -> bool {
    value.len() < 16 && !value.iter().any(u8::is_ascii_digit)
}
