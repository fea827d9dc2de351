//! What the process itself had lost before: it must be told again, but for fragments that a stale
//! word holds in one of the two snapshots.

use std::collections::BTreeSet;

use testbed::analysis::Heap;
use testbed::memlog::hex;

use crate::answers::{Input, Leaks, Lost};
use crate::shapes::FIRST_LINE;

/// Asserts it; how many fragments only one of the two snapshots tells as lost.
#[track_caller]
pub(crate) fn assert_same(case: &str, inputs: [Input<'_>; 2], said: [&Leaks; 2]) -> usize {
    let rows = said.map(all);
    let mut moved = 0;
    let differing = rows[0].iter().filter(|row| !rows[1].contains(row));
    let differing = differing.chain(rows[1].iter().filter(|row| !rows[0].contains(row)));
    let owners: BTreeSet<Lost> = differing.map(without_figures).collect();
    for owner in &owners {
        let lists = inputs.map(|input| fragments(input, owner));
        assert_eq!(lists[0], lists[1], "{case}: {owner:?} has other fragments than before");
        let lost = inputs.map(|input| {
            let held = |address: &u64| is_held(input, *address, owner);
            lists[0].iter().copied().filter(|address| !held(address)).collect::<BTreeSet<u64>>()
        });
        moved += lost[0].symmetric_difference(&lost[1]).count();
    }
    moved
}

/// How many rows there are.
pub(crate) fn all(leaks: &Leaks) -> Vec<Lost> {
    let rows = leaks.unreachable.iter().chain(&leaks.inherited);
    let mut rows: Vec<Lost> = rows.filter(|row| row.line < FIRST_LINE).cloned().collect();
    rows.sort();
    rows
}

fn without_figures(row: &Lost) -> Lost {
    Lost { fragments: 0, bytes: 0, heads: 0, ..row.clone() }
}

/// The used fragments of an owner in its pool.
#[track_caller]
fn fragments(input: Input<'_>, owner: &Lost) -> BTreeSet<u64> {
    let heap: Heap = input.ask(&["heap", "--list", "--pool", &owner.pool.kind], None);
    let pool =
        heap.pools.iter().find(|pool| pool.pid == owner.pool.pid).expect("the pool is there");
    let own = pool.fragments.iter().filter(|fragment| {
        fragment.state == "used"
            && fragment.line == Some(owner.line)
            && fragment.function.as_ref() == Some(&owner.function)
    });
    own.map(|fragment| hex(&fragment.address)).collect()
}

/// Whether anything holds a fragment; `why` must show what.
#[track_caller]
fn is_held(input: Input<'_>, address: u64, owner: &Lost) -> bool {
    let why = input.why(address, owner.pool.pid);
    let alive = why.fragments.iter().find(|alive| alive.pool == owner.pool);
    let alive = alive.expect("a used fragment is found");
    let held = alive.held != "nothing";
    assert_eq!(held, !alive.paths.is_empty(), "{why:#?}");
    held
}
