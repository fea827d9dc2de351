//! Kamailio's configuration: definitions, calls and module parameters whose secret has no name of
//! its own in front.

use std::ops::Range;

use super::super::findings::Findings;
use super::super::names::{self, Sort};
use super::super::text::{NAME_MOST, Text, is_name};
use super::super::values::is_harmless;
use super::Rule;

/// `#!define MY_SECRET value`, `#!substdef "!MY_SECRET!value!g"`.
#[derive(Debug)]
pub(super) struct Definition;

impl Rule for Definition {
    fn name(&self) -> &'static str {
        "kamailio-definition"
    }

    fn words(&self) -> &'static [&'static str] {
        &[
            "#!define",
            "#!trydef",
            "#!redefine",
            "#!defenv",
            "#!subst",
            "!!define",
            "!!trydef",
            "!!redefine",
            "!!subst",
            "substdef",
            "substexp",
        ]
    }

    fn look(&self, text: &Text<'_>, word: Range<usize>, out: &mut Findings) {
        let after = text.skip(word.end, 8, |byte| byte.is_ascii_alphabetic());
        let start = text.skip(after, NAME_MOST, |byte| matches!(byte, b' ' | b'\t' | b'=' | 0));
        let is_subst = text.get(word).to_ascii_lowercase().windows(5).any(|part| part == b"subst");
        let name = if is_subst {
            // The quote, if any, and the sign that separates.
            let quoted = text.quote(start).map_or(start, |quote| quote.inside);
            let Some(sign) = text.at(quoted).filter(u8::is_ascii_punctuation) else { return };
            let end = text.skip(quoted + 1, 128, |byte| byte != sign && byte != b'\n');
            let value = end + 1;
            let most = text.skip(value, 1024, |byte| byte != sign && byte != b'\n' && byte != 0);
            if text.at(most) != Some(sign) {
                return;
            }
            (quoted + 1..end, value..most)
        } else {
            let end = text.skip(start, NAME_MOST, is_name);
            if names::sort(text.get(start..end)).is_none() {
                return;
            }
            let line = text.line_end(end, false);
            let value = text.skip_blanks(end);
            let value = match text.quote(value) {
                Some(quote) => quote.inside..text.closing(quote),
                None => value..text.back(line, NAME_MOST, |byte| byte == b' ' || byte == b'\t'),
            };
            (start..end, value)
        };
        let (name, value) = name;
        let Some(sort) = names::sort(text.get(name)).map(not_weak) else { return };
        let bytes = text.get(value.clone());
        // Of a database's URL only the password is secret: another rule's.
        let is_url = bytes.windows(3).any(|part| part == b"://");
        if !is_url && value.start < value.end && !is_harmless(bytes, sort) {
            out.lasting(self.name(), value);
        }
    }
}

fn not_weak(sort: Sort) -> Sort {
    if sort == Sort::Weak { Sort::Password } else { sort }
}

/// `pv_www_authenticate("realm", "password", "0")`: the second argument.
#[derive(Debug)]
pub(super) struct Call;

impl Rule for Call {
    fn name(&self) -> &'static str {
        "kamailio-call"
    }

    fn words(&self) -> &'static [&'static str] {
        &["pv_www_authenticate(", "pv_proxy_authenticate(", "pv_auth_check("]
    }

    fn look(&self, text: &Text<'_>, word: Range<usize>, out: &mut Findings) {
        let Some(first) = text.quote(text.skip_blanks(word.end)) else { return };
        let comma = text.skip_blanks(text.closing(first) + 1);
        if text.at(comma) != Some(b',') {
            return;
        }
        let Some(second) = text.quote(text.skip_blanks(comma + 1)) else { return };
        let span = second.inside..text.closing(second);
        if !is_harmless(text.get(span.clone()), Sort::Password) {
            out.lasting(self.name(), span);
        }
    }
}

/// `modparam("uac", "credential", "user:realm:PASSWORD")`,
/// `modparam("auth_xkeys", "auth_xkey", "id=a;name=b;value=KEY;…")`.
#[derive(Debug)]
pub(super) struct Credential;

impl Rule for Credential {
    fn name(&self) -> &'static str {
        "kamailio-credential"
    }

    fn words(&self) -> &'static [&'static str] {
        &["\"credential\"", "\"auth_xkey\"", "\"xkey\"", "'credential'"]
    }

    fn look(&self, text: &Text<'_>, word: Range<usize>, out: &mut Findings) {
        let comma = text.skip_blanks(word.end);
        if text.at(comma) != Some(b',') {
            return;
        }
        let Some(quote) = text.quote(text.skip_blanks(comma + 1)) else { return };
        let (start, end) = (quote.inside, text.closing(quote));
        let value = text.get(start..end);
        let name = b"value=";
        let span = if let Some(at) = value.windows(name.len()).position(|part| part == name) {
            let from = start + at + name.len();
            from..(from..end).find(|at| text.at(*at) == Some(b';')).unwrap_or(end)
        } else {
            let mut colons = (start..end).filter(|at| text.at(*at) == Some(b':'));
            let Some(colon) = colons.nth(1) else { return };
            colon + 1..end
        };
        out.lasting(self.name(), span);
    }
}
