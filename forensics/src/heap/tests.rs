//! What holds for every manager and layout, on random pools with random damage.

use proptest::prelude::*;

use super::model::{BASE, EVERY, Kind, Model, Piece, Truth, pieces, pieces_used_again, steps};
use super::{Fragment, Step};
use crate::addr::Addr;
use crate::leak::{SummaryOptions, summarise};
use crate::memory::SegmentMap;

const FM: [Kind; 3] = [Kind::Fm(72), Kind::Fm(80), Kind::Fm(48)];

fn pools(kinds: &'static [Kind]) -> impl Strategy<Value = (Kind, Model)> {
    proptest::sample::select(kinds).prop_flat_map(|kind| {
        pieces(kind, 40).prop_map(move |made| (kind, Model::new(kind, &made)))
    })
}

/// Old headers of the other managers chain into no true ones.
fn used_again() -> impl Strategy<Value = (Kind, Model)> {
    proptest::sample::select(&FM[..]).prop_flat_map(|kind| {
        pieces_used_again(kind, 40).prop_map(move |made| (kind, Model::new(kind, &made)))
    })
}

/// Where bytes are overwritten, as a share of the pool, and with what.
fn hits(most: usize) -> impl Strategy<Value = Vec<(proptest::sample::Index, Vec<u8>)>> {
    let bytes = prop_oneof![
        proptest::collection::vec(any::<u8>(), 1..300),
        (1_usize..300, any::<u8>()).prop_map(|(length, byte)| vec![byte; length]),
    ];
    proptest::collection::vec((any::<proptest::sample::Index>(), bytes), 1..=most)
}

/// Overwrites the places; where.
fn damage(
    model: &mut Model,
    hits: &[(proptest::sample::Index, Vec<u8>)],
) -> Vec<std::ops::Range<usize>> {
    let place = model.fragments();
    let mut ranges = Vec::new();
    for (at, bytes) in hits {
        let start = place.start + at.index(place.len());
        let bytes = &bytes[..bytes.len().min(place.end - start)];
        model.overwrite(start, bytes);
        ranges.push(start..start + bytes.len());
    }
    ranges
}

fn fragments(steps: &[Step]) -> Vec<&Fragment> {
    steps
        .iter()
        .filter_map(|step| match step {
            Step::Fragment(fragment) => Some(fragment),
            Step::Break(_) => None,
        })
        .collect()
}

const WITH_CHECKS: &[Kind] =
    &[Kind::Qm(56), Kind::Qm(64), Kind::Qm(128), Kind::Fm(72), Kind::Fm(80), Kind::Fm(48)];

proptest! {
    /// A sound pool: every fragment, no damage, every list, counters that agree, each header read
    /// once by the walk and once more by a list.
    #[test]
    fn a_sound_pool_is_read_as_it_is((kind, model) in pools(&EVERY)) {
        let memory = model.memory();
        let arena = kind.arena(&memory).unwrap();
        let summary = summarise(&*arena, SummaryOptions { keep_fragments: true, ..Default::default() });
        prop_assert!(summary.complete, "{kind:?}");
        prop_assert_eq!(&summary.list_faults.kept, &[]);
        prop_assert_eq!(&summary.damaged.kept, &[]);
        let seen: Vec<_> = summary
            .fragments
            .iter()
            .map(|f| (f.header.0 - BASE, f.payload.length(), f.used))
            .collect();
        let truth: Vec<_> = model.truth.iter().map(|t| (t.header, t.size, t.used)).collect();
        prop_assert_eq!(seen, truth);
        prop_assert_eq!(summary.used_bytes, arena.counters().used);
        prop_assert_eq!(summary.real_used_bytes, arena.counters().real_used);
        prop_assert_eq!(summary.free_fragments, arena.counters().free_fragments);
        let all = summary.used_fragments + summary.free_fragments;
        prop_assert_eq!(summary.expected_fragments, Some(all));
        prop_assert_eq!(summary.header_visits, all + summary.free_fragments);
    }

    /// Whatever is overwritten: no panic, an end, work that grows with the pool.
    #[test]
    fn no_damage_makes_a_walk_long((kind, mut model) in pools(&EVERY), hits in hits(6)) {
        let written: usize = damage(&mut model, &hits).iter().map(std::ops::Range::len).sum();
        let memory = model.memory();
        if let Some(arena) = kind.arena(&memory) {
            let summary = summarise(&*arena, SummaryOptions::default());
            let places = model.truth.len() + model.stale;
            // Without check words anything may look like a header: once for each word at most.
            let words = if kind.has_checks() { 0 } else { model.fragments().len() / 8 };
            // Whatever is written may look like headers, too.
            let most = u64::try_from(3 * places + words + written / 8).unwrap();
            prop_assert!(summary.header_visits <= most, "{} of {most}", summary.header_visits);
        }
    }

    /// One run of bytes is overwritten: every fragment that it does not touch is reported as it
    /// is, and none that never was.
    #[test]
    fn one_hit_costs_only_what_it_touches(
        (kind, mut model) in pools(WITH_CHECKS), hits in hits(1),
    ) {
        let ranges = damage(&mut model, &hits);
        check(kind, &model, &ranges)?;
    }

    /// So it is where old headers lie inside fragments in use, and the program points at those.
    #[test]
    fn pointers_tell_old_headers_inside_used_fragments(
        (kind, mut model) in used_again(), hits in hits(1),
    ) {
        let ranges = damage(&mut model, &hits);
        let used = model.truth.clone().into_iter().filter(|truth| truth.used);
        check_in(kind, &model, &model.memory_with_pointers(used), &ranges)?;
    }

    /// Several are: so it is outside the region from the first to the last.
    #[test]
    fn several_hits_cost_at_most_what_lies_between_them(
        (kind, mut model) in pools(WITH_CHECKS), hits in hits(4),
    ) {
        let ranges = damage(&mut model, &hits);
        check(kind, &model, &ranges)?;
    }

    /// TLSF has no check words; owners and links serve as well.
    #[test]
    fn owners_and_links_serve_tlsf_as_check_words(
        (kind, mut model) in pools(&[Kind::Tlsf(64)]), hits in hits(3),
    ) {
        let ranges = damage(&mut model, &hits);
        check(kind, &model, &ranges)?;
    }
}

fn check(
    kind: Kind,
    model: &Model,
    ranges: &[std::ops::Range<usize>],
) -> Result<(), TestCaseError> {
    check_in(kind, model, &model.memory(), ranges)
}

fn check_in(
    kind: Kind,
    model: &Model,
    memory: &SegmentMap,
    ranges: &[std::ops::Range<usize>],
) -> Result<(), TestCaseError> {
    let steps = steps(kind, memory);
    let fragments = fragments(&steps);
    let first = ranges.iter().map(|range| range.start).min().unwrap_or(0);
    let last = ranges.iter().map(|range| range.end).max().unwrap_or(0);
    let overlaps = |place: std::ops::Range<usize>| place.start < last && first < place.end;
    let breaks = steps.iter().filter(|step| matches!(step, Step::Break(_)));
    let breaks: Vec<_> = breaks.collect();
    let context = |what: &str| format!("{kind:?}, overwritten {ranges:?}: {what}; {breaks:x?}");
    for fragment in &fragments {
        let Some(truth) = model.at(fragment.header) else {
            return Err(TestCaseError::fail(context(&format!("invented {fragment:?}"))));
        };
        let place = truth.place();
        let touched = ranges.iter().any(|range| range.start < place.end && place.start < range.end);
        if !touched {
            prop_assert_eq!(fragment.payload.length(), truth.size, "{}", context("size"));
            prop_assert_eq!(fragment.used, truth.used, "{}", context("state"));
        }
    }
    // With every fragment hit nothing tells the layout.
    let untouched: Vec<_> = model.truth.iter().filter(|truth| !overlaps(truth.place())).collect();
    for truth in untouched {
        let at = Addr(BASE + truth.header);
        // Without check words a size that was hit can lead to a later header.
        let swallowed = |fragment: &Fragment| !kind.has_checks() && fragment.payload.contains(at);
        let reported = fragments.iter().any(|f| f.header == at || swallowed(f));
        prop_assert!(reported, "{}", context(&format!("missing {truth:?}")));
    }
    Ok(())
}

/// Used fragments of these sizes; those of several were merged from them before.
fn used(kind: Kind, sizes: &[&[u64]]) -> Model {
    let piece = |sizes: &&[u64]| Piece { used: true, sizes: sizes.to_vec(), fill: 0 };
    Model::new(kind, &sizes.iter().map(piece).collect::<Vec<_>>())
}

/// The headers that a walk finds, as places in the truth; the program points at those that
/// `points_at` holds. What was never a fragment is not in the truth, and fails.
fn found(kind: Kind, model: &Model, points_at: impl Fn(usize) -> bool) -> Vec<usize> {
    let truth = model.truth.iter().enumerate();
    let to = truth.filter(|(index, _)| points_at(*index)).map(|(_, truth): (_, &Truth)| *truth);
    let memory = model.memory_with_pointers(to);
    let steps = steps(kind, &memory);
    let headers = fragments(&steps).into_iter().map(|fragment| fragment.header.0 - BASE);
    let place = |header| model.truth.iter().position(|truth| truth.header == header);
    headers.map(|header| place(header).expect("a header that is none")).collect()
}

/// Six fragments, of which the third holds an old header that leads to its end, and bytes over its
/// own header.
fn with_a_lost_header(kind: Kind) -> Model {
    let mut model = used(kind, &[&[48], &[64], &[480, 16], &[32], &[96], &[32]]);
    let third = model.truth[2].place().start;
    model.overwrite(third, &[b'x'; 100]);
    model
}

#[test]
fn an_old_header_inside_a_lost_fragment_does_not_cost_the_one_before() {
    for kind in FM {
        let model = with_a_lost_header(kind);
        assert_eq!(found(kind, &model, |_| true), [0, 1, 3, 4, 5], "{kind:?}");
    }
}

#[test]
fn where_pointers_do_not_tell_either_no_old_header_counts() {
    for kind in FM {
        let model = with_a_lost_header(kind);
        let points_at = |index| index != 2;
        assert_eq!(found(kind, &model, points_at), [0, 3, 4, 5], "{kind:?}");
    }
}

#[test]
fn a_fragment_with_too_small_a_size_is_told_from_one_before_a_lost_header() {
    for kind in FM {
        let mut model = used(kind, &[&[48], &[64], &[480], &[32], &[96], &[32]]);
        let third = model.truth[2].place().start;
        model.overwrite(third, &64_u64.to_le_bytes());
        assert_eq!(found(kind, &model, |_| true), [0, 1, 3, 4, 5], "{kind:?}");
    }
}

#[test]
fn an_old_header_behind_two_lost_ones_is_none() {
    for kind in FM {
        let mut model = used(kind, &[&[48], &[64], &[64], &[480, 16], &[32], &[96], &[32]]);
        let third = model.truth[2].place().start;
        model.overwrite(third, &[b'x'; 240]);
        assert_eq!(found(kind, &model, |_| true), [0, 1, 4, 5, 6], "{kind:?}");
    }
}
