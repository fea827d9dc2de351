//! Private keys in PEM form.

use std::ops::Range;

use super::super::findings::Findings;
use super::super::text::{Text, VALUE_MOST};
use super::Rule;

/// `-----BEGIN … PRIVATE KEY-----` and what follows it up to `-----END`.
#[derive(Debug)]
pub(super) struct KeyBlock;

impl Rule for KeyBlock {
    fn name(&self) -> &'static str {
        "private-key"
    }

    fn words(&self) -> &'static [&'static str] {
        &["private key-----", "private key block-----"]
    }

    fn look(&self, text: &Text<'_>, word: Range<usize>, out: &mut Findings) {
        let head = text.get(word.start.saturating_sub(48)..word.start).to_ascii_lowercase();
        let begin = head.windows(5).rposition(|part| part == b"begin");
        let end = head.windows(4).rposition(|part| part == b"-end");
        if begin.is_none() || end > begin {
            return;
        }
        // Without an end: as long as it looks like a key.
        let most = word.end.saturating_add(VALUE_MOST).min(text.bytes.len());
        let of_key = |byte: u8| {
            byte.is_ascii_alphanumeric()
                || byte.is_ascii_whitespace()
                || b"+/=\\:,-#".contains(&byte)
        };
        let end = (word.end..most).find(|at| {
            text.starts(*at, b"-----END") || text.at(*at).is_none_or(|byte| !of_key(byte))
        });
        out.passing(self.name(), word.end..end.unwrap_or(most));
    }
}
