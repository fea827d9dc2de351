//! What must be said of the planted fragments, by the plan alone.

use std::collections::BTreeMap;

use testbed::plan::{Kind, Place, Plan, Planted};

use crate::answers::{Lost, Pool};

/// What holds a planted fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Held {
    Nothing,
    Stack,
    Data,
}

/// Words that are not in the plan and yet point at its fragments.
#[derive(Debug, Default)]
pub(crate) struct Stale {
    /// Fragments that are held.
    pub(crate) held: Vec<(usize, Held)>,
    /// From a planted fragment to another.
    pub(crate) edges: Vec<(usize, usize)>,
    /// Fragments that a lost one of the program's own points at.
    pub(crate) under: Vec<usize>,
}

/// What holds each fragment of a plan.
pub(crate) fn holds(plan: &Plan, stale: &Stale) -> Vec<Held> {
    let mut holds = vec![Held::Nothing; plan.fragments.len()];
    for hold in [Held::Data, Held::Stack] {
        let roots = plan.words.iter().filter(|word| root(word.at) == Some(hold));
        let mut waiting: Vec<usize> = roots.map(|word| word.into).collect();
        waiting.extend(stale.held.iter().filter(|entry| entry.1 == hold).map(|entry| entry.0));
        for index in reached(plan, stale, waiting, |index| holds[index] == Held::Nothing) {
            holds[index] = hold;
        }
    }
    holds
}

fn root(place: Place) -> Option<Held> {
    match place {
        Place::Fragment { .. } => None,
        Place::Environment => Some(Held::Stack),
        Place::Chunk { .. } | Place::Symbol { .. } | Place::Thread => Some(Held::Data),
    }
}

/// What can be reached from some fragments through such as `open` lets pass, themselves included.
fn reached(
    plan: &Plan,
    stale: &Stale,
    mut waiting: Vec<usize>,
    open: impl Fn(usize) -> bool,
) -> Vec<usize> {
    let mut found = vec![false; plan.fragments.len()];
    while let Some(index) = waiting.pop() {
        if open(index) && !std::mem::replace(&mut found[index], true) {
            waiting.extend(edges(plan, stale, index));
        }
    }
    (0..found.len()).filter(|index| found[*index]).collect()
}

fn edges(plan: &Plan, stale: &Stale, from: usize) -> impl Iterator<Item = usize> {
    let own = move |place: Place| matches!(place, Place::Fragment { index, .. } if index == from);
    let planned = plan.words.iter().filter(move |word| own(word.at)).map(|word| word.into);
    planned.chain(stale.edges.iter().filter(move |edge| edge.0 == from).map(|edge| edge.1))
}

/// Fragments that nothing holds and that no other such fragment reaches, but for those that it
/// reaches itself: of a cycle the first.
fn heads(plan: &Plan, stale: &Stale, holds: &[Held]) -> Vec<usize> {
    let lost = |index: usize| holds[index] == Held::Nothing;
    let mut into = vec![Vec::new(); holds.len()];
    for from in (0..holds.len()).filter(|from| lost(*from)) {
        for target in reached(plan, stale, vec![from], lost) {
            into[target].push(from);
        }
    }
    let is_head = |&index: &usize| {
        let above = &into[index];
        lost(index)
            && above.iter().all(|from| into[*from].contains(&index) && !stale.under.contains(from))
            && above[0] == index
    };
    (0..holds.len()).filter(is_head).collect()
}

/// The rows of `forensics leaks` for what is held in this way, sorted.
pub(crate) fn rows(
    plan: &Plan,
    planted: &Planted,
    stale: &Stale,
    hold: Held,
    worker: u32,
) -> Vec<Lost> {
    let holds = holds(plan, stale);
    let heads = heads(plan, stale, &holds);
    let mut rows: BTreeMap<(Kind, u32), Lost> = BTreeMap::new();
    for (index, fragment) in planted.fragments.iter().enumerate() {
        if holds[index] != hold {
            continue;
        }
        let wanted = plan.fragments[index];
        let row = rows.entry((wanted.pool, wanted.line)).or_insert_with(|| Lost {
            pool: pool(wanted.pool, worker),
            line: wanted.line,
            module: fragment.module.clone(),
            file: fragment.file.clone(),
            function: fragment.function.clone(),
            fragments: 0,
            bytes: 0,
            heads: 0,
        });
        row.fragments += 1;
        row.bytes += fragment.bytes;
        row.heads += u64::from(heads.contains(&index));
    }
    let mut rows: Vec<Lost> = rows.into_values().collect();
    rows.sort();
    rows
}

pub(crate) fn pool(kind: Kind, worker: u32) -> Pool {
    match kind {
        Kind::Pkg => Pool { kind: "pkg".to_owned(), pid: Some(worker) },
        Kind::Shm => Pool { kind: "shm".to_owned(), pid: None },
    }
}
