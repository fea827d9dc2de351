//! Folded stacks: a line `PROCESS;THREAD;OUTER;…;INNER WEIGHT` for each stack, as flame graph
//! programs read them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::{Profile, ProfileSample};

impl Profile {
    /// The folded stacks, equal ones added up, by name.
    pub fn folded(&self) -> String {
        let mut stacks: BTreeMap<String, u64> = BTreeMap::new();
        for sample in &self.samples {
            let weight = stacks.entry(folded(sample)).or_default();
            *weight = weight.saturating_add(sample.weight);
        }
        let mut text = String::new();
        for (stack, weight) in stacks {
            let _ = writeln!(text, "{stack} {weight}");
        }
        text
    }
}

fn folded(sample: &ProfileSample) -> String {
    let functions = sample.frames.iter().map(|frame| frame.function.as_str());
    let names = [sample.process.as_str(), sample.thread.as_str()].into_iter().chain(functions);
    names.map(plain).collect::<Vec<_>>().join(";")
}

/// A name without the character that separates frames, and on one line. Readers take the last space
/// for the one before the weight, so that spaces may stay.
fn plain(name: &str) -> String {
    name.chars()
        .map(|character| match character {
            ';' => ':',
            character if character.is_control() => ' ',
            character => character,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{profile, sample};
    use super::*;

    #[test]
    fn equal_stacks_are_added_up() {
        assert_eq!(
            profile().folded(),
            "11 udp receiver;11 kamailio;main;loop;spin 2\n\
             11 udp receiver;11 kamailio;main;loop;spin;spin 1\n\
             12 udp receiver;12 kamailio;main;recvfrom 2\n"
        );
    }

    #[test]
    fn a_name_cannot_look_like_two_frames_or_two_lines() {
        let mut odd = sample("p", "a;b", &["<[u8; 4] as T>::f", "x\ny 9\n"]);
        odd.weight = u64::MAX;
        let samples = vec![odd.clone(), odd];
        let profile = Profile { samples, ..Profile::default() };
        assert_eq!(profile.folded(), format!("p;a:b;<[u8: 4] as T>::f;x y 9  {}\n", u64::MAX));
    }
}
