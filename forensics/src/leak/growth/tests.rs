//! Moments put together by hand: a leak, a cache, owners that come and go.

use super::*;

const LEAK: u32 = 0;
const CACHE: u32 = 1;

fn who(line: u64) -> Who {
    let name = OwnerName { line: Some(line), ..OwnerName::default() };
    Who { name, ..Who::default() }
}

fn identity(at: u64, bytes: u64, owner: u32) -> Identity {
    Identity { payload: Addr(at), bytes, owner, content: 7, ..Identity::default() }
}

/// Fragments as (owner, places, bytes each); a place is an address.
fn content(groups: &[(u32, std::ops::Range<u64>, u64)]) -> Content {
    let of = |(owner, places, bytes): &(u32, std::ops::Range<u64>, u64)| {
        let (owner, bytes) = (*owner, *bytes);
        let fragment = move |place| identity(place * 0x1000, bytes, owner);
        places.clone().map(fragment).collect::<Vec<_>>()
    };
    let mut fragments: Vec<Identity> = groups.iter().flat_map(of).collect();
    fragments.sort_by_key(|fragment| fragment.payload);
    Content { owners: vec![who(10), who(20)], fragments }
}

fn growth(same_run: bool, moments: &[Content]) -> Vec<OwnerGrowth> {
    let mut pool = PoolGrowth::new(same_run);
    moments.iter().for_each(|content| pool.add(content.clone()));
    let mut owners = pool.owners().to_vec();
    owners.sort_by(OwnerGrowth::rank);
    owners
}

fn lines(owners: &[OwnerGrowth]) -> Vec<u64> {
    owners.iter().filter_map(|owner| owner.who.name.line).collect()
}

#[test]
fn a_steady_leak_of_small_fragments_stands_above_a_busy_cache_that_grew_by_more() {
    // The cache holds 20,000 fragments of a kilobyte, of which 1,000 stay, and then 22,000.
    let before = content(&[(LEAK, 0..5000, 64), (CACHE, 100_000..120_000, 1024)]);
    let after = content(&[(LEAK, 0..6000, 64), (CACHE, 119_000..141_000, 1024)]);
    let owners = growth(true, &[before.clone(), after.clone()]);
    let turnover =
        |survived, vanished, new| Some(Turnover { survived, unchanged: survived, vanished, new });
    assert_eq!(lines(&owners), [10, 20]);
    assert_eq!(owners[0].turnover(), turnover(5000, 0, 1000));
    assert_eq!(owners[1].turnover(), turnover(1000, 19_000, 21_000));
    assert_eq!(owners[1].last().bytes - owners[1].first().bytes, 2_048_000);
    assert!(owners[0].score() > 60_000.0, "{}", owners[0].score());
    assert!(owners[1].score() < 15_000.0, "{}", owners[1].score());
    // Between two runs nothing tells them apart but the bytes.
    let owners = growth(false, &[before, after]);
    assert_eq!(lines(&owners), [20, 10]);
    assert_eq!(owners[0].turnover(), None);
}

#[test]
fn a_cache_in_the_places_that_it_has_just_given_back_does_not_look_like_a_leak() {
    let before = content(&[(LEAK, 0..5000, 64), (CACHE, 100_000..120_000, 1024)]);
    let taken_again = |number| {
        let mut after = content(&[(LEAK, 0..6000, 64), (CACHE, 100_000..122_000, 1024)]);
        let of_cache = |fragment: &&mut Identity| fragment.owner == CACHE;
        after.fragments.iter_mut().filter(of_cache).for_each(|f| f.content = number);
        after
    };
    let owners = growth(true, &[before, taken_again(8), taken_again(9)]);
    assert_eq!(lines(&owners), [10, 20]);
    let step = Turnover { survived: 20_000, unchanged: 0, vanished: 0, new: 2000 };
    assert_eq!(owners[1].steps[0], step);
    assert_eq!(owners[1].survived_throughout, 20_000);
    assert_eq!(owners[1].unchanged_throughout, 0);
    assert_eq!(owners[0].unchanged_throughout, 5000);
}

#[test]
fn content_that_is_not_known_is_not_called_unchanged() {
    let mut moment = content(&[(LEAK, 0..10, 64)]);
    moment.fragments.iter_mut().for_each(|fragment| fragment.content = 0);
    let owners = growth(true, &[moment.clone(), moment]);
    let leak = owners.iter().find(|owner| owner.who == who(10)).unwrap();
    let turnover = Turnover { survived: 10, unchanged: 0, vanished: 0, new: 0 };
    assert_eq!(leak.turnover(), Some(turnover));
}

#[test]
fn growth_in_every_step_counts_more_than_growth_in_some() {
    let moments = [
        content(&[(LEAK, 0..100, 64), (CACHE, 5000..5100, 64)]),
        content(&[(LEAK, 0..200, 64), (CACHE, 5000..5400, 64)]),
        content(&[(LEAK, 0..300, 64), (CACHE, 5000..5300, 64)]),
        content(&[(LEAK, 0..400, 64), (CACHE, 5000..5420, 64)]),
    ];
    let owners = growth(true, &moments);
    assert_eq!(lines(&owners), [10, 20], "though the second has grown by more");
    assert_eq!(owners[0].growing_steps(), (3, 3));
    assert_eq!(owners[1].growing_steps(), (2, 3));
    assert_eq!(owners[0].survived_throughout, 100);
    // Larger by 20 in all, and still below without its turnover.
    assert_eq!(lines(&growth(false, &moments)), [10, 20]);
}

#[test]
fn a_fragment_is_the_same_one_only_with_address_size_and_owner() {
    let before = content(&[(LEAK, 0..4, 64)]);
    let after = content(&[(LEAK, 0..1, 64), (LEAK, 1..2, 72), (CACHE, 2..3, 64)]);
    let owners = growth(true, &[before, after]);
    let of = |line| owners.iter().find(|owner| owner.who == who(line)).unwrap();
    assert_eq!(
        of(10).turnover(),
        Some(Turnover { survived: 1, unchanged: 1, vanished: 3, new: 1 })
    );
    assert_eq!(
        of(20).turnover(),
        Some(Turnover { survived: 0, unchanged: 0, vanished: 0, new: 1 })
    );
}

#[test]
fn only_what_stays_through_every_moment_survives_throughout() {
    let owners = growth(
        true,
        &[
            content(&[(LEAK, 0..10, 64)]),
            content(&[(LEAK, 5..20, 64)]),
            content(&[(LEAK, 0..20, 64)]),
        ],
    );
    assert_eq!(owners[0].survived_throughout, 5, "what came back is not what went");
    assert_eq!(owners[0].steps[1], Turnover { survived: 15, unchanged: 15, vanished: 0, new: 5 });
}

#[test]
fn owners_may_come_and_go() {
    let mut pool = PoolGrowth::new(true);
    let only = |line| Content { owners: vec![who(line)], fragments: vec![identity(8, 16, 0)] };
    pool.add(only(1));
    pool.add(only(2));
    let held = |fragments, bytes| Held { fragments, bytes };
    assert_eq!(pool.owners()[0].held, [held(1, 16), held(0, 0)]);
    assert_eq!(pool.owners()[1].held, [held(0, 0), held(1, 16)]);
    assert_eq!(pool.total().held, [held(1, 16), held(1, 16)]);
}

#[test]
fn two_pointers_to_one_name_are_one_owner() {
    let mut pool = PoolGrowth::new(true);
    let fragment = |at, owner| identity(at, 8, owner);
    pool.add(Content {
        owners: vec![who(1), who(1)],
        fragments: vec![fragment(8, 0), fragment(16, 1)],
    });
    assert_eq!(pool.owners().len(), 1);
    assert_eq!(pool.owners()[0].first().fragments, 2);
}

#[test]
fn a_growing_owner_with_nothing_before_counts_half() {
    let owners = growth(true, &[content(&[]), content(&[(LEAK, 0..100, 64)])]);
    let grown = owners.iter().find(|owner| owner.has_grown()).unwrap();
    assert!((grown.score() - 3200.0).abs() < 1e-9);
    let unchanged = owners.iter().find(|owner| !owner.has_grown()).unwrap();
    assert!(!unchanged.is_changed());
}
