//! Leaks that were planted into real processes: a thousand allocations in a SIP worker of each of
//! three Debian releases, with each of the three memory managers; then SIP traffic, and everything
//! that nothing points to must be told, and nothing that something points to. `TEST_SEED=…` repeats
//! a run.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test stops at the first surprise; rows and seed are for a person"
)]

mod answers;
mod expected;
mod others;
mod paths;
mod row;
mod shapes;
mod stale;

use testbed::foreign::Root;
use testbed::kamailio::Manager;
use testbed::seed::{self, Seed};
use testbed::tools;

use row::{Bench, Row};

const MANAGERS: [Manager; 3] = [Manager::Qm, Manager::Fm, Manager::Tlsf];

/// Of all that nothing points to by the plan, how many may be held by a stale word, in percent.
const STALE_PERCENT: usize = 3;

#[test]
fn a_thousand_planted_fragments() {
    let number = Seed::choose();
    println!("{}={number}", seed::VARIABLE);
    let bench = Bench { scratch: tools::scratch("leaks"), number };
    let make = |release: &'static str| std::thread::spawn(move || Root::of(release));
    let (bullseye, trixie) = (make("bullseye"), make("trixie"));

    // The host's own release, while the other two are fetched.
    let mut rows: Vec<Row> = MANAGERS.map(|manager| bench.row("5.6.3", None, manager)).into();
    let bullseye = bullseye.join().expect("the release can be fetched");
    rows.extend(MANAGERS.map(|manager| bench.row("5.4.4", Some(&bullseye), manager)));
    let trixie = trixie.join().expect("the release can be fetched");
    rows.extend(MANAGERS.map(|manager| bench.row("6.0.1", Some(&trixie), manager)));

    assert_eq!(rows.len(), 9, "releases × managers");
    let sum = |count: fn(&Row) -> usize| rows.iter().map(count).sum::<usize>();
    let (lost, stale, moved) = (sum(|row| row.lost), sum(|row| row.stale), sum(|row| row.moved));
    println!(
        "held by stale words: {stale} of {lost} planted ones, and {moved} of the program's own"
    );
    assert!((stale + moved) * 100 < lost * STALE_PERCENT, "{stale} and {moved} of {lost}");
    std::fs::remove_dir_all(&bench.scratch).unwrap();
}
