//! Secrets in texts: what is masked, and how.
//!
//! A [`Masker`] overwrites each byte of a secret with `*`, in place, so that lengths, offsets and
//! lines stay. `redactions.json` names rule, member and place, never the secret. [`rules`] knows
//! where secrets stand, [`names`] what they are called, [`values`] what is none; [`learned`] finds
//! those of the configuration wherever else they are. So configurations and command lines must come
//! first, or be taught beforehand with [`Masker::learn`].
//!
//! It promises to leave a text without secrets byte for byte as it is, and to take time in proportion
//! to the text. It cannot know a secret that nothing around it calls one.

mod findings;
mod learned;
mod memory;
mod names;
mod rules;
mod text;
mod values;

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use bundle::Redaction;

use crate::number::bytes;
use findings::{Findings, Found};
use learned::Learned;
use text::Text;

pub use memory::{Redacting, Tally};
pub use text::Kind;

/// Masks secrets. One for a whole collection: it learns.
#[derive(Debug, Default)]
pub struct Masker {
    learned: Mutex<Learned>,
    /// Names that are no secrets although somebody took them as a password: the program's, the
    /// host's.
    names: Vec<String>,
    /// The program takes `-p PASSWORD`.
    sniffer: bool,
}

impl Masker {
    /// For a program of this profile, with the names of the program and of the host.
    pub fn new(profile: &str, names: Vec<String>) -> Self {
        Self { learned: Mutex::default(), names, sniffer: profile == "voipmonitor" }
    }

    /// Masks a member before it is written.
    pub fn mask(&self, member: &str, content: &mut [u8]) -> Vec<Redaction> {
        self.mask_as(Kind::of(member), member, content)
    }

    /// Masks a member of which it is known what it is.
    pub fn mask_as(&self, kind: Kind, member: &str, content: &mut [u8]) -> Vec<Redaction> {
        let text = Text { bytes: content, kind, sniffer: self.sniffer };
        let mut found = rules::find(&text);
        let secrets = if kind.teaches() { lasting(&found, content) } else { Vec::new() };
        if secrets.is_empty() {
            self.known().find(content, &mut found);
            return fill(member, &found, content);
        }
        // What the file itself teaches may stand in it elsewhere: in a comment.
        let mut redactions = fill(member, &found, content);
        let mut known = self.known();
        known.take(&secrets, content, &self.names);
        let mut more = Findings::default();
        known.find(content, &mut more);
        redactions.extend(fill(member, &more, content));
        redactions
    }

    /// Masks a short text of our own: an error, the reason of a collection.
    pub fn mask_words(&self, words: &str) -> String {
        let mut content = words.as_bytes().to_vec();
        let masked = self.mask_as(Kind::Text, "", &mut content);
        if masked.is_empty() { words.to_owned() } else { String::from_utf8_lossy(&content).into() }
    }

    /// Takes the secrets of a configuration or a command line, which stays as it is.
    pub fn learn(&self, kind: Kind, content: &[u8]) {
        let text = Text { bytes: content, kind, sniffer: self.sniffer };
        let found = rules::find(&text);
        let secrets = lasting(&found, content);
        if !secrets.is_empty() {
            let mut masked = content.to_vec();
            fill("", &found, &mut masked);
            self.known().take(&secrets, &masked, &self.names);
        }
    }

    /// Masks what is known of a short binary text of our own: the notes of a core.
    pub fn mask_known(&self, member: &str, content: &mut [u8]) -> Vec<Redaction> {
        let found = self.find_in_memory(content);
        fill(member, &found, content)
    }

    /// How many secrets are so plain or so short that they are masked only where something calls
    /// them secrets.
    pub fn too_plain(&self) -> usize {
        self.known().too_plain()
    }

    /// Secrets in a piece of memory.
    fn find_in_memory(&self, piece: &[u8]) -> Findings {
        let mut found = rules::find_in_memory(piece);
        self.known().find(piece, &mut found);
        found
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Learned> {
        self.learned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lasting(found: &Findings, content: &[u8]) -> Vec<Vec<u8>> {
    let lasting = found.all().iter().filter(|found| found.lasting);
    lasting.filter_map(|found| content.get(found.span.clone())).map(<[u8]>::to_vec).collect()
}

/// Overwrites what was found; lines stay lines.
fn fill(member: &str, found: &Findings, content: &mut [u8]) -> Vec<Redaction> {
    let mut redactions: BTreeMap<&'static str, Redaction> = BTreeMap::new();
    for found in found.all() {
        cover(found, content);
        let redaction = redactions.entry(found.rule).or_insert_with(|| Redaction {
            rule: found.rule.to_owned(),
            member: member.to_owned(),
            offset: bytes(found.span.start),
            count: 0,
        });
        redaction.count += 1;
    }
    redactions.into_values().collect()
}

fn cover(found: &Found, content: &mut [u8]) {
    let Some(secret) = content.get_mut(found.span.clone()) else { return };
    for byte in secret.iter_mut().filter(|byte| !matches!(byte, b'\n' | b'\r')) {
        *byte = b'*';
    }
    if found.number
        && let [first, .., last] = secret
    {
        (*first, *last) = (b'"', b'"');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_parameter_may_go_over_several_lines() {
        for text in [
            "modparam(\"uac\", \"auth_password\",\n    \"S3cret.one\")\n",
            "modparam(\"uac\",\n    \"auth_password\", \"S3cret.one\")\n",
        ] {
            let mut content = text.as_bytes().to_vec();
            let redactions = Masker::default().mask("config/etc/kamailio/k.cfg", &mut content);
            assert_eq!(String::from_utf8_lossy(&content), text.replace("S3cret.one", "**********"));
            assert_eq!(redactions.len(), 1);
        }
    }
}
