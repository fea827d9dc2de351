//! Planted fragments that no planted word holds, and yet something does: a stale word in a live
//! root, which `forensics why` must show.

use std::path::Path;

use testbed::oracle;
use testbed::patch::Patient;
use testbed::plant::{Plan, Planted};

use crate::answers::{Input, Root};
use crate::expected::{Held, pool};

/// The fragments of the plan that should be lost, and that `why` says something else holds.
///
/// Each word that it names is looked up in the core of its process.
#[track_caller]
pub(crate) fn held(
    input: Input<'_>,
    plan: &Plan,
    planted: &Planted,
    suspects: &[usize],
    worker: u32,
    scratch: &Path,
) -> Vec<(usize, Held)> {
    let mut held = Vec::new();
    for &index in suspects {
        let own = pool(plan.fragments[index].pool, worker);
        let why = input.why(planted.fragments[index].payload, worker);
        let alive = why.fragments.iter().find(|alive| alive.pool == own);
        let alive = alive.expect("a planted fragment is found");
        let hold = match &alive.held[..] {
            "nothing" => continue,
            "stack" => Held::Stack,
            _ => Held::Data,
        };
        let [first, ..] = &alive.paths[..] else { panic!("what holds it? {why:#?}") };
        assert_points(input, &first.root, scratch);
        println!(
            "stale: {} of process {} holds {}",
            first.root.place, first.root.pid, alive.payload
        );
        held.push((index, hold));
    }
    held
}

/// Asserts that the word of a root has its value in the core; a register has no address.
#[track_caller]
fn assert_points(input: Input<'_>, root: &Root, scratch: &Path) {
    let Some(at) = &root.at else { return };
    let number = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16).unwrap();
    let core = scratch.join("stale.core");
    oracle::extract(input.path, root.pid, &core);
    assert_eq!(Patient::open(&core).word(number(at)), number(&root.value), "{root:?}");
}
