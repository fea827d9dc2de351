//! What one payload holds.

use std::ops::Range;

use super::kind::{Kind, Target};
use super::{shape, sip};
use crate::addr::{Addr, AddrRange};

/// Bytes of each payload that are looked at.
pub const LOOK: usize = 4096;
/// Shortest text amid other bytes, in characters.
const SHORTEST: usize = 8;
/// Shortest text at the start of a payload.
const LEADING: usize = 4;

/// Starts of lines of a session description that nothing else has.
const SESSION: [&str; 5] = ["c=IN IP", "m=audio ", "m=video ", "a=rtpmap:", "a=candidate:"];
const SCHEMES: [&str; 3] = ["sips", "sip", "tel"];

/// One thing that a payload holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// What.
    pub kind: Kind,
    /// The text that tells it, from the start of the payload; empty for what is no text.
    pub value: Range<usize>,
}

/// Names what `bytes`, the beginning of a payload, hold; each kind once, never nothing at all.
/// `resolve` says what a word points at.
pub fn classify(
    payload: AddrRange,
    bytes: &[u8],
    resolve: &mut dyn FnMut(Addr) -> Option<Target>,
) -> Vec<Found> {
    let bytes = bytes.get(..LOOK).unwrap_or(bytes);
    let mut found = Finds(Vec::new());
    if let Some(kind) = uniform(bytes) {
        found.add(kind, 0..0);
        return found.0;
    }
    texts(bytes, &mut found);
    for word in bytes.chunks_exact(8).filter_map(<[u8]>::first_chunk) {
        let at = Addr(u64::from_le_bytes(*word));
        if !may_be_address(at) {
            continue;
        }
        let target = match payload.contains(at) {
            true => Some(Target::Itself),
            false => resolve(at),
        };
        if let Some(target) = target {
            found.add(Kind::Pointers(target), 0..0);
        }
    }
    if found.0.is_empty() {
        match leading_text(bytes) {
            Some(length) => found.add(Kind::Text, 0..length),
            None => found.add(Kind::Nothing, 0..0),
        }
    }
    found.0
}

/// What bytes look like that were written over a header, with the text in full; `None` where
/// nothing is recognised.
pub fn looks_like(bytes: &[u8]) -> Option<String> {
    if let Some(kind) = uniform(bytes) {
        return Some(kind.to_string());
    }
    let mut found = Finds(Vec::new());
    texts(bytes, &mut found);
    // A Call-ID's header is part of a message; that is said.
    let told = found.0.into_iter().filter(|found| found.kind != Kind::CallIdHeader);
    let Found { kind, value } = told.min_by(|one, other| one.kind.cmp(&other.kind))?;
    Some(format!("{kind}: {:?}", String::from_utf8_lossy(bytes.get(value)?)))
}

struct Finds(Vec<Found>);

impl Finds {
    fn add(&mut self, kind: Kind, value: Range<usize>) {
        if !self.0.iter().any(|found| found.kind == kind) {
            self.0.push(Found { kind, value });
        }
    }
}

/// Nothing is ever mapped in the first page, nor beyond the lower half of the address space.
fn may_be_address(at: Addr) -> bool {
    (0x1000..1 << 47).contains(&at.0)
}

fn uniform(bytes: &[u8]) -> Option<Kind> {
    let (&first, rest) = bytes.split_first()?;
    let same = rest.iter().all(|&byte| byte == first);
    same.then_some(if first == 0 { Kind::Zeroes } else { Kind::Repeated(first) })
}

/// Finds messages, then other texts between them.
fn texts(bytes: &[u8], found: &mut Finds) {
    // Most payloads are longer than what was written into them.
    let end = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last.saturating_add(1));
    let bytes = bytes.get(..end).unwrap_or(bytes);
    let mut behind = 0;
    for (at, _) in sip::starts(bytes) {
        // A message may carry another one (message/sipfrag).
        if at < behind {
            continue;
        }
        let Some(rest) = bytes.get(at..) else { continue };
        let Some(message) = sip::parse(rest) else { continue };
        runs(bytes, behind..at, found);
        let extent = sip::extent(&message, rest);
        behind = at.saturating_add(extent.end);
        let kind = match message.start {
            sip::Start::Request { method, .. } => Kind::SipRequest(method),
            sip::Start::Reply { status } => Kind::SipReply(status),
        };
        found.add(kind, at..behind);
        if let Some(call_id) = message.call_id {
            found.add(Kind::CallIdHeader, place_of(call_id, bytes));
        }
        if let Some(lines) = session(bytes, at..behind) {
            found.add(Kind::Sdp, lines);
        }
    }
    runs(bytes, behind..bytes.len(), found);
}

/// Where a part of `bytes` lies in them.
fn place_of(part: &[u8], bytes: &[u8]) -> Range<usize> {
    let start = part.as_ptr().addr().saturating_sub(bytes.as_ptr().addr());
    start..start.saturating_add(part.len())
}

/// The texts in a part of `bytes`.
fn runs(bytes: &[u8], part: Range<usize>, found: &mut Finds) {
    let mut at = part.start;
    for run in bytes.get(part).unwrap_or_default().split(|&byte| !is_text(byte)) {
        let place = at..at.saturating_add(run.len());
        at = place.end.saturating_add(1);
        if run.len() >= SHORTEST {
            text(bytes, place, found);
        }
    }
}

fn is_text(byte: u8) -> bool {
    byte.is_ascii_graphic() || matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

/// Names one run of printable bytes.
fn text(bytes: &[u8], place: Range<usize>, found: &mut Finds) {
    let run = bytes.get(place.clone()).unwrap_or_default();
    let before = found.0.len();
    let part = |range: Range<usize>| {
        place.start.saturating_add(range.start)..place.start.saturating_add(range.end)
    };
    let marks = Marks::of(run);
    if let Some(value) = marks.call_id.clone() {
        found.add(Kind::CallIdHeader, part(value));
    }
    if marks.is_sip {
        found.add(Kind::SipPart, place.clone());
    } else if let Some((scheme, value)) = marks.uri.clone() {
        found.add(Kind::Uri(scheme), part(value));
    }
    if let Some(lines) = session(bytes, place.clone()) {
        found.add(Kind::Sdp, lines);
    }
    let is_new = found.0.len() == before && !marks.is_any();
    if is_new {
        let trimmed = run.trim_ascii();
        let kind = shape::of(trimmed).unwrap_or(Kind::Text);
        found.add(kind, place_of(trimmed, bytes));
    }
}

/// What stands out in a run of text.
#[derive(Default)]
struct Marks {
    is_sip: bool,
    /// The value of a Call-ID header.
    call_id: Option<Range<usize>>,
    uri: Option<(&'static str, Range<usize>)>,
    is_session: bool,
}

impl Marks {
    /// In one pass: every mark has a `:`, `=` or `/` at its end.
    fn of(run: &[u8]) -> Self {
        let mut marks = Self::default();
        for (at, byte) in run.iter().enumerate() {
            let before = run.get(..at).unwrap_or_default();
            let behind = at.saturating_add(1);
            match byte {
                b':' => marks.colon(run, before, behind),
                b'=' if ends_with(before, "branch") => marks.is_sip = true,
                b'/' if ends_with(before, "SIP") => {
                    marks.is_sip |= run.get(behind..).is_some_and(|run| run.starts_with(b"2.0"));
                }
                _ => {}
            }
        }
        marks.is_session = session(run, 0..run.len()).is_some();
        marks
    }

    fn colon(&mut self, run: &[u8], before: &[u8], behind: usize) {
        let line_end = || {
            let rest = run.get(behind..).unwrap_or_default();
            let length = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n'));
            behind.saturating_add(length.unwrap_or(rest.len()))
        };
        if let Some(name) = sip::HEADERS.iter().find(|name| ends_with(before, name)) {
            self.is_sip = true;
            if *name == "Call-ID" && self.call_id.is_none() {
                let value = run.get(behind..line_end()).unwrap_or_default().trim_ascii();
                self.call_id = (!value.is_empty()).then(|| place_of(value, run));
            }
        }
        if self.uri.is_some() {
            return;
        }
        let Some(scheme) = SCHEMES.iter().find(|scheme| ends_with(before, scheme)) else { return };
        let rest = run.get(behind..).unwrap_or_default();
        let end = rest.iter().position(|byte| b" \t\r\n<>\"".contains(byte)).unwrap_or(rest.len());
        if end > 0 {
            let start = before.len().saturating_sub(scheme.len());
            self.uri = Some((scheme, start..behind.saturating_add(end)));
        }
    }

    fn is_any(&self) -> bool {
        self.is_sip || self.is_session || self.uri.is_some()
    }
}

/// Whether `text` ends with a whole `word`.
fn ends_with(text: &[u8], word: &str) -> bool {
    let rest = text.strip_suffix(word.as_bytes());
    rest.is_some_and(|rest| !rest.last().is_some_and(u8::is_ascii_alphanumeric))
}

/// The lines of a session description in a part of `bytes`, from the first one that tells it.
fn session(bytes: &[u8], part: Range<usize>) -> Option<Range<usize>> {
    let end = part.end;
    let mut at = part.start;
    let lines = bytes.get(part)?.split_inclusive(|&byte| byte == b'\n');
    let mut version = None;
    for line in lines {
        let start = at;
        at = at.saturating_add(line.len());
        let begins = |word: &str| line.starts_with(word.as_bytes());
        let is_version = line.trim_ascii_end() == b"v=0";
        if SESSION.iter().any(|word| begins(word)) || (version.is_some() && begins("o=")) {
            return Some(version.unwrap_or(start)..end);
        }
        version = is_version.then_some(start);
    }
    None
}

/// Length of a C string of at least four characters at the start: shorter than what stands out amid
/// other bytes, but at its place.
fn leading_text(bytes: &[u8]) -> Option<usize> {
    let end = bytes.iter().position(|&byte| byte == 0)?;
    let text = bytes.get(..end).filter(|text| text.len() >= LEADING)?;
    text.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ').then_some(end)
}
