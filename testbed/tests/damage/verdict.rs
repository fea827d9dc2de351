//! What `forensics` says of a damaged core, against what it must say.

use std::collections::BTreeSet;
use std::time::Duration;

use testbed::analysis::{Fact, Heap};
use testbed::memlog::hex;
use testbed::tools;

use crate::pool::{Fragment, Pool};
use crate::rows::{Damage, Expected};

/// A walk that does not end takes longer.
const PATIENCE: Duration = Duration::from_secs(30);
/// Headers that may be read for each fragment of the pool.
const VISITS: u64 = 3;

/// The analysis of the core as it is now; the exit code must be one of `codes`.
#[track_caller]
pub(crate) fn analyse(pool: &Pool<'_>, codes: &[i32]) -> Heap {
    let mut command = tools::forensics();
    command.args(["heap", "--json", "--list"]).arg(pool.core.path());
    tools::run(&mut command, PATIENCE).expect(codes).json()
}

/// All that is wrong about the analysis of a core with this damage in `pool`.
pub(crate) fn complaints(
    (pool, other): (&Pool<'_>, &Pool<'_>),
    damage: &Damage,
    heap: &Heap,
    sound: &Heap,
) -> Vec<String> {
    let mut wrong = fragments(pool, damage, heap);
    if !wrong.is_empty() && damage.leaves_doubt {
        let wider = with_doubtful(pool, damage);
        if fragments(pool, &wider, heap).is_empty() {
            wrong.clear();
        }
    }
    wrong.extend(fragments(other, &Damage::default(), heap));
    wrong.extend(damage.expected.iter().filter_map(|expected| missing(pool, expected, heap)));
    wrong.extend(surplus(damage, heap, sound));
    wrong.extend(report(pool, &damage.text));
    wrong
}

/// The same damage, and the fragments in use right behind it up to the first at which something
/// points are given up, too.
fn with_doubtful(pool: &Pool<'_>, damage: &Damage) -> Damage {
    let behind = damage.lost.iter().max().map_or(0, |last| last + 1);
    let is_doubtful =
        |index: &usize| pool.fragments[*index].used && !pool.is_pointed_at(*index, &damage.patches);
    let doubtful = (behind..pool.fragments.len()).take_while(is_doubtful);
    Damage { lost: damage.lost.iter().copied().chain(doubtful).collect(), ..Damage::default() }
}

/// Where a pool is not as the script says, but for the damage.
pub(crate) fn fragments(pool: &Pool<'_>, damage: &Damage, heap: &Heap) -> Vec<String> {
    let mut wrong = Vec::new();
    let Some(ours) = heap.pools.iter().find(|ours| ours.kind == pool.kind && ours.error.is_none())
    else {
        return vec![format!("{} was not walked: {:?}", pool.kind, heap.gaps)];
    };
    let mut expected: Vec<Fragment> = pool.fragments.clone();
    if let Some(victim) = damage.without_file {
        expected[victim].owner.file = None;
    }
    let found: Vec<Fragment> = ours.fragments.iter().map(Fragment::from).collect();
    for victim in &damage.without_owner {
        let fragment = &mut expected[*victim];
        if let Some(found) = found.iter().find(|found| found.header == fragment.header) {
            fragment.owner = found.owner.clone();
        }
    }
    let is_lost = |index: usize| damage.lost.contains(&index);
    let mut index = 0..expected.len();
    expected.retain(|_| !index.next().is_some_and(is_lost));
    if let Some(pair) = expected.iter().zip(&found).find(|(expected, found)| expected != found) {
        wrong.push(format!("{}: expected (left) and found: {pair:x?}", pool.kind));
    }
    if found.len() != expected.len() {
        let (found, expected) = (found.len(), expected.len());
        wrong.push(format!("{}: {found} fragments, expected {expected}", pool.kind));
    }

    let walked = ours.walked();
    let lost: u64 = damage.lost.iter().map(|index| pool.extent(*index)).sum();
    if (walked.lost_bytes, walked.complete) != (lost, damage.lost.is_empty()) {
        wrong.push(format!("{}: expected {lost} lost bytes: {walked:?}", pool.kind));
    }
    let most = VISITS * u64::try_from(pool.fragments.len()).unwrap();
    if walked.header_visits > most {
        wrong.push(format!("{}: {} visits, at most {most}", pool.kind, walked.header_visits));
    }
    wrong
}

/// What the findings do not say of an expected fact.
fn missing(pool: &Pool<'_>, expected: &Expected, heap: &Heap) -> Option<String> {
    let Expected { rule, at, says, before } = expected;
    let Some(finding) = heap.findings.iter().find(|finding| finding.rule == *rule) else {
        return Some(format!("no {rule} at {at:#x}, which says {says:?}; only {}", told(heap)));
    };
    let is_at = |fact: &Fact, place: u64| fact.address.as_deref().map(hex) == Some(place);
    let is_told = |fact: &Fact| is_at(fact, *at) && fact.text.contains(says.as_str());
    let Some(place) = finding.facts.iter().position(is_told) else {
        return Some(format!("no {says:?} at {at:#x} in {finding:#?}"));
    };
    let before = &pool.fragments[(*before)?];
    let text = neighbour(before);
    let is_neighbour = |fact: &Fact| {
        let right_before = fact.text.strip_prefix("right before it: ");
        is_at(fact, before.header) && right_before.is_some_and(|said| said.ends_with(&text))
    };
    let named = finding.facts[place..].iter().any(is_neighbour);
    (!named).then(|| format!("the fragment{text} is not right before {at:#x} in {finding:#?}"))
}

/// A rule that spoke of what is not so.
fn surplus(damage: &Damage, heap: &Heap, sound: &Heap) -> Option<String> {
    let rules = |heap: &Heap| -> BTreeSet<String> {
        heap.findings.iter().map(|finding| finding.rule.clone()).collect()
    };
    let allowed = |rule: &str| {
        damage.may.contains(&rule) || damage.expected.iter().any(|expected| expected.rule == rule)
    };
    let more: Vec<String> = rules(heap).difference(&rules(sound)).cloned().collect();
    let more: Vec<&String> = more.iter().filter(|rule| !allowed(rule)).collect();
    (!more.is_empty()).then(|| format!("{more:?} are too much in {}", told(heap)))
}

/// The findings that are worth a warning.
fn told(heap: &Heap) -> String {
    let real = heap.findings.iter().filter(|finding| finding.severity != "note");
    format!("{:#?}", real.collect::<Vec<_>>())
}

fn neighbour(fragment: &Fragment) -> String {
    let Fragment { payload, used, owner, .. } = fragment;
    if !used {
        return format!(" at {payload:#x}, free");
    }
    let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "?".to_owned());
    let (module, file, function) = (text(&owner.module), text(&owner.file), text(&owner.function));
    format!(" at {payload:#x} of {module}: {file}: {function}({})", owner.line.unwrap_or_default())
}

/// What the report for people does not say.
#[track_caller]
fn report(pool: &Pool<'_>, texts: &[String]) -> Vec<String> {
    if texts.is_empty() {
        return Vec::new();
    }
    let mut command = tools::forensics();
    let report = tools::run(command.arg(pool.core.path()), PATIENCE).expect(&[1]).text();
    // Its lines are wrapped.
    let words = report.split_whitespace().collect::<Vec<_>>().join(" ");
    let missing = texts.iter().filter(|text| !words.contains(text.as_str()));
    missing.map(|text| format!("no {text:?} in {report}")).collect()
}
