//! What owners hold in snapshots taken one after another, and who of them leaks.
//!
//! Reads: the used fragments of one pool at several moments, the earliest first. Promises: totals
//! at each moment, and between two moments of one run how many fragments stayed, went and came.
//! A fragment survived if one of the same address, size and owner is there again. That may be memory
//! that was given back and taken once more by the same owner: a busy cache is served from the places
//! that it has just given back. So it is told, too, how many of the survivors hold what they held.
//!
//! # Who comes first
//!
//! A leak keeps everything it took and takes more; a cache gives back and takes again, and may well
//! have grown by more between the two moments. So growth counts by how much of it looks lasting:
//!
//! ```text
//! score = growth in bytes × kept × lasting × steps
//! kept    (unchanged survivors + 1) / (held + 2), of what was held at the start of each step
//! lasting  net growth in fragments / new fragments
//! steps    steps in which the bytes grew / all steps
//! ```
//!
//! The 1 and the 2 are the rule of succession: of an owner that held little or nothing before, it is
//! not known whether it gives anything back, and it counts half. Between two runs no fragment can be
//! told from another; then `kept` and `lasting` are left out.

#[cfg(test)]
mod tests;

use std::cmp::Ordering;

use rustc_hash::FxHashMap;

use super::Identity;
use crate::addr::Addr;
use crate::kamailio::OwnerName;
use crate::num::{narrow, ratio, wide};

/// An owner as two snapshots know it: pointers to texts differ between runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Who {
    /// Its name.
    pub name: OwnerName,
    /// Address of the file's text, where a part of the name could not be read.
    pub file_address: Option<Addr>,
    /// Payload of the fragments, in bytes, in builds that do not record owners.
    pub payload: Option<u64>,
}

/// The used fragments of one pool at one moment.
#[derive(Clone, Debug, Default)]
pub struct Content {
    /// The owners; one may stand here several times.
    pub owners: Vec<Who>,
    /// The fragments, with indices into `owners`.
    pub fragments: Vec<Identity>,
}

/// What an owner holds at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Used fragments.
    pub fragments: u64,
    /// Their payload, in bytes.
    pub bytes: u64,
}

/// What became of an owner's fragments between two moments of one run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turnover {
    /// They are there at both.
    pub survived: u64,
    /// Of these: those that hold what they held.
    pub unchanged: u64,
    /// They are there at the first only.
    pub vanished: u64,
    /// They are there at the second only.
    pub new: u64,
}

/// One owner through all moments.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnerGrowth {
    /// Who.
    pub who: Who,
    /// What it holds at each moment.
    pub held: Vec<Held>,
    /// What became of its fragments in each step; empty between two runs.
    pub steps: Vec<Turnover>,
    /// Fragments of the first moment that are there at every later one.
    pub survived_throughout: u64,
    /// Of these: those that always hold the same.
    pub unchanged_throughout: u64,
}

/// One pool through all moments.
#[derive(Clone, Debug)]
pub struct PoolGrowth {
    /// Whether the moments are of one run, so that fragments can be told apart by their address.
    same_run: bool,
    moments: u16,
    owners: Vec<OwnerGrowth>,
    index: FxHashMap<Who, u32>,
    /// The fragments of the last moment, by rising address.
    last: Vec<Identity>,
}

impl PoolGrowth {
    /// Nothing yet.
    pub fn new(same_run: bool) -> Self {
        let (owners, last) = (Vec::new(), Vec::new());
        Self { same_run, moments: 0, owners, index: FxHashMap::default(), last }
    }

    /// Adds the next moment.
    pub fn add(&mut self, content: Content) {
        let known: Vec<u32> = content.owners.into_iter().map(|who| self.owner(who)).collect();
        let now = self.moments;
        self.moments = now.saturating_add(1);
        for owner in &mut self.owners {
            owner.held.resize(narrow(u64::from(self.moments)), Held::default());
            if self.same_run {
                owner.steps.resize(narrow(u64::from(now)), Turnover::default());
            }
            (owner.survived_throughout, owner.unchanged_throughout) = (0, 0);
        }
        let mut fragments = content.fragments;
        for fragment in &mut fragments {
            fragment.owner = known.get(narrow(fragment.owner.into())).copied().unwrap_or(u32::MAX);
            (fragment.since, fragment.unchanged_since) = (now, now);
        }
        // A walk gives them so; the merge below must not depend on it.
        if !fragments.is_sorted_by_key(|fragment| fragment.payload) {
            fragments.sort_unstable_by_key(|fragment| fragment.payload);
        }
        if self.same_run && now > 0 {
            self.follow(&mut fragments);
        }
        for fragment in &fragments {
            let Some(owner) = self.owners.get_mut(narrow(fragment.owner.into())) else { continue };
            let Some(held) = owner.held.last_mut() else { continue };
            add(&mut held.fragments, 1);
            add(&mut held.bytes, fragment.bytes);
            if self.same_run {
                let (survived, unchanged) = (fragment.since == 0, fragment.unchanged_since == 0);
                add(&mut owner.survived_throughout, survived.into());
                add(&mut owner.unchanged_throughout, unchanged.into());
            }
        }
        self.last = if self.same_run { fragments } else { Vec::new() };
    }

    /// Finds the last moment's fragments among those of the next one.
    fn follow(&mut self, fragments: &mut [Identity]) {
        let mut before = self.last.iter().peekable();
        for fragment in fragments {
            while let Some(gone) = before.next_if(|old| old.payload < fragment.payload) {
                count(&mut self.owners, gone, |step| &mut step.vanished);
            }
            let old = before.next_if(|old| old.payload == fragment.payload);
            let same = |old: &&Identity| (old.bytes, old.owner) == (fragment.bytes, fragment.owner);
            match old {
                Some(old) if same(&old) => {
                    fragment.since = old.since;
                    count(&mut self.owners, fragment, |step| &mut step.survived);
                    if fragment.content == old.content && fragment.content != 0 {
                        fragment.unchanged_since = old.unchanged_since;
                        count(&mut self.owners, fragment, |step| &mut step.unchanged);
                    }
                }
                other => {
                    if let Some(gone) = other {
                        count(&mut self.owners, gone, |step| &mut step.vanished);
                    }
                    count(&mut self.owners, fragment, |step| &mut step.new);
                }
            }
        }
        before.for_each(|gone| count(&mut self.owners, gone, |step| &mut step.vanished));
    }

    fn owner(&mut self, who: Who) -> u32 {
        if let Some(index) = self.index.get(&who) {
            return *index;
        }
        let index = u32::try_from(self.owners.len()).unwrap_or(u32::MAX);
        self.owners.push(OwnerGrowth { who: who.clone(), ..OwnerGrowth::default() });
        self.index.insert(who, index);
        index
    }

    /// The owners, in no order.
    pub fn owners(&self) -> &[OwnerGrowth] {
        &self.owners
    }

    /// All of them together.
    pub fn total(&self) -> OwnerGrowth {
        let mut sum = OwnerGrowth::default();
        self.owners.iter().for_each(|owner| sum.add(owner));
        sum
    }

    /// The next moment is of another run: no fragment can be told from another any more.
    pub fn forget_fragments(&mut self) {
        self.same_run = false;
        self.last = Vec::new();
        for owner in &mut self.owners {
            owner.steps = Vec::new();
            (owner.survived_throughout, owner.unchanged_throughout) = (0, 0);
        }
    }
}

/// Counts a fragment in the last step of its owner.
fn count(owners: &mut [OwnerGrowth], fragment: &Identity, field: fn(&mut Turnover) -> &mut u64) {
    let owner = owners.get_mut(narrow(fragment.owner.into()));
    if let Some(step) = owner.and_then(|owner| owner.steps.last_mut()) {
        add(field(step), 1);
    }
}

fn add(number: &mut u64, more: u64) {
    *number = number.saturating_add(more);
}

impl OwnerGrowth {
    /// Adds what the same owner holds in another pool.
    pub fn add(&mut self, other: &Self) {
        self.held.resize(self.held.len().max(other.held.len()), Held::default());
        self.steps.resize(self.steps.len().max(other.steps.len()), Turnover::default());
        for (held, more) in self.held.iter_mut().zip(&other.held) {
            add(&mut held.fragments, more.fragments);
            add(&mut held.bytes, more.bytes);
        }
        for (step, more) in self.steps.iter_mut().zip(&other.steps) {
            *step = step.plus(*more);
        }
        add(&mut self.survived_throughout, other.survived_throughout);
        add(&mut self.unchanged_throughout, other.unchanged_throughout);
    }

    /// What it holds at the first moment.
    pub fn first(&self) -> Held {
        self.held.first().copied().unwrap_or_default()
    }

    /// What it holds at the last moment.
    pub fn last(&self) -> Held {
        self.held.last().copied().unwrap_or_default()
    }

    /// What became of its fragments, all steps together; `None` between two runs.
    pub fn turnover(&self) -> Option<Turnover> {
        self.steps.iter().copied().reduce(Turnover::plus)
    }

    /// Whether anything is not as it was.
    pub fn is_changed(&self) -> bool {
        let other = |held: &Held| *held != self.first();
        let moved = |step: &Turnover| step.new > 0 || step.vanished > 0;
        self.held.iter().any(other) || self.steps.iter().any(moved)
    }

    /// Whether it has grown in bytes from the first moment to the last.
    pub fn has_grown(&self) -> bool {
        self.last().bytes > self.first().bytes
    }

    /// Steps in which its bytes grew, and all steps.
    pub fn growing_steps(&self) -> (u64, u64) {
        let pairs = || self.held.iter().zip(self.held.iter().skip(1));
        let grew = pairs().filter(|(before, after)| after.bytes > before.bytes).count();
        (wide(grew), wide(pairs().count()))
    }

    /// Its growth in bytes, by how much of it looks lasting; see the head of this module.
    pub fn score(&self) -> f64 {
        let growth = self.last().bytes.saturating_sub(self.first().bytes);
        let (grew, steps) = self.growing_steps();
        let lasting = self.turnover().map_or(1.0, Turnover::lasting);
        ratio(growth, 1) * lasting * ratio(grew, steps)
    }

    /// For sorting: who is to be looked at first comes first.
    pub fn rank(&self, other: &Self) -> Ordering {
        let growth = |owner: &Self| (owner.last().bytes, owner.first().bytes);
        let ((to, from), (other_to, other_from)) = (growth(self), growth(other));
        let by_bytes = || {
            // to - from, greatest first, without leaving the unsigned numbers.
            u128::from(other_to)
                .saturating_add(from.into())
                .cmp(&u128::from(to).saturating_add(other_from.into()))
        };
        let by_score = other.score().total_cmp(&self.score());
        by_score.then_with(by_bytes).then_with(|| self.who.cmp(&other.who))
    }
}

impl Turnover {
    /// Both together.
    pub fn plus(self, other: Self) -> Self {
        Self {
            survived: self.survived.saturating_add(other.survived),
            unchanged: self.unchanged.saturating_add(other.unchanged),
            vanished: self.vanished.saturating_add(other.vanished),
            new: self.new.saturating_add(other.new),
        }
    }

    /// What was held at the start.
    pub fn held(self) -> u64 {
        self.survived.saturating_add(self.vanished)
    }

    /// Share of growth that looks lasting, 0 to 1: `kept × lasting` at the head of this module.
    fn lasting(self) -> f64 {
        let kept = ratio(self.unchanged.saturating_add(1), self.held().saturating_add(2));
        kept * ratio(self.new.saturating_sub(self.vanished), self.new)
    }
}
