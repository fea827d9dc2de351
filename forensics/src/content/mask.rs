//! What is shown of private content: its form, never its letters.
//!
//! Text is private by default. A run of bytes between separators becomes `…`, however long; of the
//! separators at most three in a row are kept. Only words of SIP itself stay, and each only at its
//! own place: a start line's method, a header's name at the start of its line, a parameter's name
//! between `;` and `=`, a scheme before its `:`. So a user whose name is one of these words is
//! hidden all the same.

use std::fmt::Write as _;

use super::sip;

/// Longest value that is shown, in characters.
const LONGEST: usize = 64;
/// Bytes of a value that are worth masking for [`LONGEST`].
const ENOUGH: usize = 1024;
/// Separators in a row that are kept.
const IN_A_ROW: usize = 3;

/// How content is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shown {
    /// Private parts are hidden.
    #[default]
    Masked,
    /// As it is.
    AsItIs,
}

impl From<bool> for Shown {
    /// Of `--show-content`.
    fn from(as_it_is: bool) -> Self {
        if as_it_is { Self::AsItIs } else { Self::Masked }
    }
}

/// A text between quotes, cut to what fits into a line; masked, with its length.
pub fn quoted(text: &[u8], shown: Shown) -> String {
    match shown {
        Shown::AsItIs => {
            let kept = text.get(..ENOUGH).unwrap_or(text);
            let all = format!("{:?}", String::from_utf8_lossy(kept));
            shortened(&all)
        }
        Shown::Masked => {
            format!("{} ({} bytes)", shortened(&format!("\"{}\"", masked(text))), text.len())
        }
    }
}

/// A message: start line, length, Call-ID, From.
pub(super) fn message(bytes: &[u8], shown: Shown) -> String {
    let Some(message) = sip::parse(bytes) else { return quoted(bytes, shown) };
    let first = bytes.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
    let first = match shown {
        Shown::AsItIs => quoted(first, shown),
        Shown::Masked => shortened(&format!("\"{}\"", masked(first))),
    };
    let at_least = if message.has_whole_header { "" } else { "cut after " };
    let mut text = format!("{first}, {at_least}{} bytes", message.length);
    for (name, value) in [("Call-ID", message.call_id), ("From", message.from)] {
        if let Some(value) = value {
            // Writing to a String cannot fail.
            let _ = write!(text, ", {name} {}", quoted(value, shown));
        }
    }
    text
}

/// Words of 8 bytes as hex: masked, only null words, small numbers and pointers.
pub fn hex(bytes: &[u8], shown: Shown, is_pointer: &dyn Fn(u64) -> bool) -> String {
    let mut text = String::with_capacity(bytes.len().saturating_mul(3));
    for word in bytes.chunks(8) {
        let value = word.first_chunk().map(|word| u64::from_le_bytes(*word));
        let plain = value.is_some_and(|value| value < 256 || is_pointer(value));
        for byte in word {
            let _ = match plain || shown == Shown::AsItIs {
                true => write!(text, "{byte:02x} "),
                false => write!(text, "·· "),
            };
        }
    }
    text.truncate(text.trim_end().len());
    text
}

fn shortened(quoted: &str) -> String {
    if quoted.chars().nth(LONGEST).is_none() {
        return quoted.to_owned();
    }
    let start: String = quoted.chars().take(LONGEST.saturating_sub(2)).collect();
    format!("{start}…\"")
}

/// The form of a text.
pub(super) fn masked(text: &[u8]) -> String {
    let text = text.get(..ENOUGH).unwrap_or(text);
    let mut form = String::new();
    for (number, line) in text.split(|&byte| byte == b'\n').enumerate() {
        if number > 0 {
            form.push_str("\\n");
        }
        masked_line(line.strip_suffix(b"\r").unwrap_or(line), &mut form);
    }
    form
}

const PARAMETERS: [&str; 9] =
    ["branch", "tag", "transport", "received", "rport", "lr", "expires", "q", "maddr"];
const SCHEMES: [&str; 3] = ["sip", "sips", "tel"];

fn masked_line(line: &[u8], form: &mut String) {
    match sip::start_line(line) {
        Some(sip::Start::Request { method, uri }) => {
            let _ = write!(form, "{method} ");
            masked_value(uri, form);
            form.push_str(" SIP/2.0");
        }
        Some(sip::Start::Reply { status }) => {
            let _ = write!(form, "SIP/2.0 {status} …");
        }
        None => {
            let is_header = |name: &&&str| {
                let rest = line.strip_prefix(name.as_bytes());
                rest.is_some_and(|rest| rest.starts_with(b":"))
            };
            match sip::HEADERS.iter().find(is_header) {
                Some(name) => {
                    form.push_str(name);
                    masked_value(line.get(name.len()..).unwrap_or_default(), form);
                }
                None => masked_value(line, form),
            }
        }
    }
}

fn is_separator(byte: u8) -> bool {
    b" \t:;,@=<>\"?&/|".contains(&byte)
}

fn masked_value(value: &[u8], form: &mut String) {
    let (mut at, mut in_a_row) = (0_usize, 0_usize);
    let mut before = None;
    for word in value.split(|&byte| is_separator(byte)) {
        at = at.saturating_add(word.len());
        let separator = value.get(at).copied();
        if !word.is_empty() {
            in_a_row = 0;
            form.push_str(known(word, before, separator).unwrap_or("…"));
        }
        if let Some(separator) = separator {
            if in_a_row < IN_A_ROW && separator != b'\t' && separator != b'"' {
                form.push(char::from(separator));
                in_a_row = in_a_row.saturating_add(1);
            }
            before = Some(separator);
        }
        at = at.saturating_add(1);
    }
}

/// A word of SIP itself at its own place.
fn known(word: &[u8], before: Option<u8>, behind: Option<u8>) -> Option<&'static str> {
    let is = |known: &&&str| known.as_bytes() == word;
    match (before, behind) {
        (None | Some(b' ' | b'<'), Some(b':')) => SCHEMES.iter().find(is).copied(),
        (Some(b';'), Some(b'=')) => PARAMETERS.iter().find(is).copied(),
        _ => None,
    }
}
