//! `forensics why` and `refs` about planted fragments.

use testbed::plant::{Plan, Planted};

use crate::answers::{Alive, Input, Referenced, Root, Route, Step, hex};
use crate::expected::pool;
use crate::shapes::Sample;

/// Asserts that one of the shortest paths to a sample is the planted one, word by word.
#[track_caller]
pub(crate) fn assert_path(
    input: Input<'_>,
    plan: &Plan,
    planted: &Planted,
    sample: &Sample,
    worker: u32,
) {
    let target = plan.words[*sample.words.last().unwrap()].into;
    let fragment = &planted.fragments[target];
    let mut why = input.why(fragment.payload, Some(worker));
    let case = format!("{}: {why:#?}", sample.name);
    let own = pool(plan.fragments[target].pool, worker);
    why.fragments.retain(|alive| alive.pool == own);
    let [alive] = &why.fragments[..] else { panic!("one fragment is expected: {case}") };
    let Alive { payload, bytes, module, file, function, line, held, .. } = alive;
    assert_eq!(payload, &hex(fragment.payload), "{case}");
    assert_eq!((*bytes, *line), (fragment.bytes, plan.fragments[target].line), "{case}");
    let owner = (&fragment.module, &fragment.file, &fragment.function);
    assert_eq!((module, file, function), owner, "{case}");
    let hold = if sample.root == "stack" { "stack" } else { "data" };
    assert_eq!(held, hold, "{case}");
    let wanted = path(plan, planted, sample, worker);
    let found: Vec<_> = alive.paths.iter().map(told).collect();
    assert!(found.contains(&wanted), "{}: {wanted:#?} is not in {found:#?}", sample.name);
    assert!(alive.paths.iter().all(|route| !route.root.place.is_empty()), "{case}");
}

/// Asserts that the word that points at a sample is among its references.
#[track_caller]
pub(crate) fn assert_reference(
    input: Input<'_>,
    plan: &Plan,
    planted: &Planted,
    sample: &Sample,
    worker: u32,
) {
    let (&last, before) = sample.words.split_last().unwrap();
    let word = planted.words[last];
    let own = planted.fragments[plan.words[last].into].payload;
    let refs = input.refs(own, worker);
    let ours = |found: &&Referenced| found.payload == hex(own);
    let found = refs.fragments.iter().find(ours).expect("the fragment is found");
    let here = |at: &Option<String>, value: &str| {
        at.as_deref() == Some(&hex(word.at)) && value == hex(word.value)
    };
    let in_root = |root: &Root| root.kind == sample.root && here(&root.at, &root.value);
    let in_fragment = |step: &Step| here(&step.at, step.value.as_deref().unwrap_or_default());
    let fits = match before {
        [] => found.roots.iter().any(in_root),
        _ => found.references.iter().any(in_fragment),
    };
    assert!(fits, "{}: {word:x?} is not in {refs:#?}", sample.name);
}

/// Root, and steps: word that points on, its value, payload, line.
type Path = (
    (String, Option<u32>, Option<String>, String),
    Vec<(Option<String>, Option<String>, String, u64, u32, Option<u32>)>,
);

fn path(plan: &Plan, planted: &Planted, sample: &Sample, worker: u32) -> Path {
    let first = planted.words[sample.words[0]];
    let root = (sample.root.to_owned(), Some(worker), Some(hex(first.at)), hex(first.value));
    let steps = sample.words.iter().enumerate().map(|(place, word)| {
        let into = plan.words[*word].into;
        let next = sample.words.get(place + 1).map(|next| planted.words[*next]);
        let fragment = &planted.fragments[into];
        (
            next.map(|word| hex(word.at)),
            next.map(|word| hex(word.value)),
            hex(fragment.payload),
            fragment.bytes,
            plan.fragments[into].line,
            pool(plan.fragments[into].pool, worker).pid,
        )
    });
    (root, steps.collect())
}

fn told(route: &Route) -> Path {
    let Root { kind, pid, at, value, .. } = &route.root;
    let steps = route.steps.iter().map(|step| {
        let (at, value) = (step.at.clone(), step.value.clone());
        (at, value, step.payload.clone(), step.bytes, step.line, step.pool.pid)
    });
    ((kind.clone(), *pid, at.clone(), value.clone()), steps.collect())
}
