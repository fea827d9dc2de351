//! Words that no test planted and that yet point at planted fragments: in roots, or at the end of
//! fragments, where an allocator gave more than was asked for and cleared only that. `forensics
//! why` and `refs` must show them, and the cores must have them.

use std::collections::BTreeMap;
use std::path::Path;

use testbed::oracle;
use testbed::patch::Patient;
use testbed::plant::{Plan, Planted};

use crate::answers::{Input, Step, Why};
use crate::expected::{Held, Stale, pool};

/// Looks for such words behind some fragments.
#[derive(Debug)]
pub(crate) struct Search<'a> {
    pub(crate) input: Input<'a>,
    pub(crate) plan: &'a Plan,
    pub(crate) planted: &'a Planted,
    pub(crate) worker: u32,
    pub(crate) scratch: &'a Path,
    /// Of the processes that were asked about.
    pub(crate) cores: BTreeMap<u32, Patient>,
}

impl Search<'_> {
    /// What holds the suspects, or points at them, besides the words of the plan.
    #[track_caller]
    pub(crate) fn stale(mut self, suspects: &[(usize, Held)]) -> Stale {
        let mut stale = Stale::default();
        for &(index, planned) in suspects {
            let payload = self.planted.fragments[index].payload;
            let own = pool(self.plan.fragments[index].pool, self.worker);
            let why = self.input.why(payload, Some(self.worker));
            let alive = why.fragments.iter().find(|alive| alive.pool == own);
            let held = match &alive.expect("a planted fragment is found").held[..] {
                "nothing" => Held::Nothing,
                "stack" => Held::Stack,
                _ => Held::Data,
            };
            if held == planned {
                self.edges(index, payload, &mut stale);
            } else {
                self.assert_held(&why);
                stale.held.push((index, held));
            }
        }
        stale
    }

    /// Words of other fragments.
    #[track_caller]
    fn edges(&mut self, index: usize, payload: u64, stale: &mut Stale) {
        let refs = self.input.refs(payload, self.worker);
        for step in refs.fragments.iter().flat_map(|found| &found.references) {
            let at = number(step.at.as_deref().expect("a word of a fragment has an address"));
            if self.planted.words.iter().any(|word| word.at == at) {
                continue;
            }
            self.assert_word(step, self.worker);
            let around = |from: &usize| {
                let fragment = &self.planted.fragments[*from];
                (fragment.payload..fragment.payload + fragment.bytes).contains(&at)
            };
            match (0..self.planted.fragments.len()).find(around) {
                Some(from) => stale.edges.push((from, index)),
                None => stale.under.push(index),
            }
        }
    }

    /// Asserts that the words of the shortest path are in the cores; a register has no address.
    #[track_caller]
    fn assert_held(&mut self, why: &Why) {
        let path = why.fragments.iter().flat_map(|alive| &alive.paths).next();
        let path = path.unwrap_or_else(|| panic!("what holds it? {why:#?}"));
        let process = path.root.pid.expect("a root is a process's");
        if let Some(at) = &path.root.at {
            assert_eq!(self.word(process, number(at)), number(&path.root.value), "{why:#?}");
        }
        path.steps.iter().for_each(|step| self.assert_word(step, process));
    }

    #[track_caller]
    fn assert_word(&mut self, step: &Step, process: u32) {
        if let (Some(at), Some(value)) = (&step.at, &step.value) {
            let word = self.word(step.pool.pid.unwrap_or(process), number(at));
            assert_eq!(word, number(value), "{step:?}");
        }
    }

    fn word(&mut self, pid: u32, at: u64) -> u64 {
        let (input, scratch) = (self.input, self.scratch);
        let core = self.cores.entry(pid).or_insert_with(|| {
            let path = scratch.join(format!("stale.{pid}"));
            if input.is_bundle {
                oracle::extract(input.path, pid, &path);
            } else {
                std::fs::copy(input.path, &path).unwrap();
            }
            Patient::open(&path)
        });
        core.word(at)
    }
}

fn number(text: &str) -> u64 {
    u64::from_str_radix(text.trim_start_matches("0x"), 16).unwrap()
}
