//! Secrets in memory images, while they are written: equal length, so that every address stays.
//!
//! What is found: the secrets of configuration, command lines and environments, wherever they are;
//! passwords in URLs and credentials of SIP and HTTP by their form. What is not: pieces of a secret
//! in memory that was used again, forms that a program computes from it, registers.
//!
//! The image passes in pieces. Around each, enough is kept in view that a secret across a border is
//! seen whole once.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{self, Read};

use bundle::Redaction;

use super::Masker;
use super::findings::Found;
use crate::number::bytes;

/// Bytes that are looked at in one piece.
const PIECE: usize = 1 << 20;
/// Bytes that are seen again before a piece, and seen already behind it. More than the longest
/// header, URL or secret that is looked for.
const AROUND: usize = 8 << 10;

/// An image as it is read, without its secrets.
#[derive(Debug)]
pub struct Redacting<'a, R> {
    reader: R,
    masker: &'a Masker,
    /// Behind what was given out, what was masked, and behind that what is only seen.
    window: Vec<u8>,
    given: usize,
    masked: usize,
    /// Where the window begins in the image.
    at: u64,
    ended: bool,
    tally: &'a Tally,
}

/// What was masked in an image: for each rule the first place in it, and how often.
#[derive(Debug, Default)]
pub struct Tally(RefCell<BTreeMap<&'static str, (u64, u64)>>);

impl Tally {
    fn count(&self, rule: &'static str, at: u64) {
        self.0.borrow_mut().entry(rule).or_insert((at, 0)).1 += 1;
    }

    /// As it stands in `redactions.json`; the image begins at `offset` of the member.
    pub fn redactions(&self, member: &str, offset: u64) -> Vec<Redaction> {
        let redaction = |(rule, (first, count)): (&&'static str, &(u64, u64))| Redaction {
            rule: (*rule).to_owned(),
            member: member.to_owned(),
            offset: offset.saturating_add(*first),
            count: *count,
        };
        self.0.borrow().iter().map(redaction).collect()
    }
}

impl<'a, R: Read> Redacting<'a, R> {
    /// An image that is to be masked; `tally` is of this reading only.
    pub fn new(masker: &'a Masker, reader: R, tally: &'a Tally) -> Self {
        tally.0.borrow_mut().clear();
        Self { reader, masker, window: Vec::new(), given: 0, masked: 0, at: 0, ended: false, tally }
    }

    /// Reads the next piece and masks it.
    fn advance(&mut self) -> io::Result<()> {
        let gone = self.given.saturating_sub(AROUND);
        self.window.drain(..gone);
        self.given -= gone;
        self.masked -= gone;
        self.at = self.at.saturating_add(bytes(gone));
        let wanted = self.masked.saturating_add(PIECE + AROUND).saturating_sub(self.window.len());
        let read = self.reader.by_ref().take(bytes(wanted)).read_to_end(&mut self.window)?;
        self.ended = read < wanted;
        let behind = if self.ended { 0 } else { AROUND };
        let end = self.window.len().saturating_sub(behind).max(self.masked);
        let findings = self.masker.find_in_memory(&self.window);
        let own = |found: &&Found| self.masked <= found.span.start && found.span.start < end;
        for found in findings.all().iter().filter(own) {
            if let Some(secret) = self.window.get_mut(found.span.clone()) {
                secret.fill(b'*');
                let at = self.at.saturating_add(bytes(found.span.start));
                self.tally.count(found.rule, at);
            }
        }
        self.masked = end;
        Ok(())
    }
}

impl<R: Read> Read for Redacting<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.given == self.masked && !self.ended {
            self.advance()?;
        }
        let ready = self.window.get(self.given..self.masked).unwrap_or_default();
        let length = ready.len().min(into.len());
        if let (Some(from), Some(to)) = (ready.get(..length), into.get_mut(..length)) {
            to.copy_from_slice(from);
        }
        self.given += length;
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redact::Kind;

    fn redact(image: &[u8]) -> (Vec<u8>, Vec<Redaction>) {
        let masker = Masker::default();
        masker.learn(Kind::Configuration, b"password = S3cret-of-the-db\n");
        let tally = Tally::default();
        let mut redacting = Redacting::new(&masker, image, &tally);
        let mut masked = Vec::new();
        redacting.read_to_end(&mut masked).unwrap();
        (masked, tally.redactions("core", 100))
    }

    #[test]
    fn a_secret_across_any_border_is_masked_whole() {
        let secret = b"S3cret-of-the-db";
        for border in [PIECE, PIECE + AROUND, 2 * PIECE, 2 * PIECE + AROUND] {
            for before in 0..=secret.len() {
                let at = border - before;
                let mut image = vec![0xa5; 3 * PIECE];
                image[at..at + secret.len()].copy_from_slice(secret);
                let (masked, redactions) = redact(&image);
                image[at..at + secret.len()].fill(b'*');
                assert!(masked == image, "{border} {before}");
                assert_eq!(redactions.len(), 1);
                assert_eq!((redactions[0].offset, redactions[0].count), (bytes(at) + 100, 1));
            }
        }
    }

    #[test]
    fn credentials_are_masked_by_their_form() {
        let text = "\0Authorization: Digest username=\"7\", response=\"0123abcd\"\r\n\
            \0mysql://u:p@ss:w@h/db\0Authorization: Basic QWxhZGRpbg==\r\n\0";
        for at in [0, PIECE - 40, PIECE + AROUND - 40, 2 * PIECE - 80] {
            let mut image = vec![0; 2 * PIECE + 12345];
            image[at..at + text.len()].copy_from_slice(text.as_bytes());
            let (masked, redactions) = redact(&image);
            let expected = text
                .replace("0123abcd", "********")
                .replace("p@ss:w", "******")
                .replace("QWxhZGRpbg==", "************");
            assert_eq!(masked.len(), image.len());
            let part = String::from_utf8_lossy(&masked[at..at + text.len()]);
            assert_eq!(part, expected);
            let rules: Vec<&str> = redactions.iter().map(|one| one.rule.as_str()).collect();
            assert_eq!(rules, ["authorization", "digest", "url-password"]);
        }
    }
}
