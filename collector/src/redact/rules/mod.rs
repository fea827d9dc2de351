//! The rules, one file for each place where secrets stand.
//!
//! A rule names the words that it is woken by; one pass over a text finds them all. It is then shown
//! where a word stands and decides by what is around it. It must not look further than the limits of
//! [`super::text`], so that a pass is linear in the text whatever that holds.
//!
//! To add a rule: one file, one `mod` line, one entry in [`ALL`].

mod assignment;
mod command;
mod key_block;
mod scripts;
mod sip;
mod url;

use std::ops::Range;
use std::sync::LazyLock;

use aho_corasick::AhoCorasick;

use super::findings::Findings;
use super::text::{Kind, Text};

/// A place where secrets stand.
pub(super) trait Rule: Sync {
    /// Stable name, for `redactions.json`.
    fn name(&self) -> &'static str;
    /// The words that wake it, in any case of letters.
    fn words(&self) -> &'static [&'static str];
    /// Looks around one of its words.
    fn look(&self, text: &Text<'_>, word: Range<usize>, out: &mut Findings);
}

/// Every rule; what two of them claim is that of the one whose word comes first.
static ALL: &[&dyn Rule] = &[
    &url::Url,
    &url::SipUri,
    &assignment::Assignment,
    &scripts::Definition,
    &scripts::Call,
    &scripts::Credential,
    &command::Option,
    &command::Sql,
    &sip::Digest,
    &sip::Authorization,
    &sip::Cookie,
    &sip::Media,
    &key_block::KeyBlock,
];

/// The rules that are sure enough for memory images, where there are no lines.
static SURE: &[&dyn Rule] = &[&url::Url, &sip::Digest, &sip::Authorization];

struct Words {
    machine: Option<AhoCorasick>,
    owners: Vec<&'static dyn Rule>,
}

impl Words {
    fn of(rules: &'static [&'static dyn Rule]) -> Self {
        let pairs = rules.iter().flat_map(|rule| rule.words().iter().map(|word| (*rule, *word)));
        let (owners, words): (Vec<_>, Vec<_>) = pairs.unzip();
        let machine = AhoCorasick::builder().ascii_case_insensitive(true).build(words);
        Self { machine: machine.ok(), owners }
    }

    fn look(&self, text: &Text<'_>, out: &mut Findings) {
        let Some(machine) = &self.machine else { return };
        for hit in machine.find_overlapping_iter(text.bytes) {
            if out.covers(hit.start()) {
                continue;
            }
            if let Some(rule) = self.owners.get(hit.pattern().as_usize()) {
                rule.look(text, hit.range(), out);
            }
        }
    }
}

/// Every secret of a text.
pub(super) fn find(text: &Text<'_>) -> Findings {
    static WORDS: LazyLock<Words> = LazyLock::new(|| Words::of(ALL));
    let mut findings = Findings::default();
    if text.kind == Kind::PgPass {
        command::pgpass(text, &mut findings);
    }
    WORDS.look(text, &mut findings);
    findings
}

/// Secrets that show by their form in memory.
pub(super) fn find_in_memory(bytes: &[u8]) -> Findings {
    static WORDS: LazyLock<Words> = LazyLock::new(|| Words::of(SURE));
    let mut findings = Findings::default();
    let text = Text { bytes, kind: Kind::Text, sniffer: false };
    WORDS.look(&text, &mut findings);
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_has_a_name_and_words_that_the_machine_takes() {
        let names: std::collections::BTreeSet<&str> = ALL.iter().map(|rule| rule.name()).collect();
        assert_eq!(names.len(), ALL.len());
        assert!(Words::of(ALL).machine.is_some());
    }
}
