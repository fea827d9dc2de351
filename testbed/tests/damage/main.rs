//! Damage in real cores, row by row: fragments are overwritten in the core of a worker that had
//! traffic, at places that chance chooses, and all else must still be told as gdb's script told it
//! of the sound core. A run that fails prints how to have it again from what it keeps.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test stops at the first surprise; the seed is for a person"
)]

mod keep;
mod layout;
mod pool;
mod rows;
mod verdict;

use std::path::Path;

use testbed::kamailio::{Instance, Options};
use testbed::patch::Patient;
use testbed::seed::{self, Seed};
use testbed::{oracle, scripts, tools};

use keep::Keep;
use layout::Layout;
use pool::Pool;
use rows::{Damage, ROWS};

/// Victims of each row in each pool.
const VICTIMS: usize = 5;

#[test]
fn q_malloc() {
    every_row(&layout::QM);
}

#[test]
fn f_malloc() {
    every_row(&layout::FM);
}

#[test]
fn tlsf_malloc() {
    every_row(&layout::TLSF);
}

#[track_caller]
fn every_row(layout: &'static Layout) {
    let name = layout.manager.name();
    let core = core_of_a_worker(layout);
    let listings = scripts::listings(Path::new("/usr/sbin/kamailio"), core.path());
    let pools = listings.map(|listing| Pool::new(&core, layout, listing));
    let sound = verdict::analyse(&pools[0], &[0, 1]);
    for pool in &pools {
        let wrong = verdict::fragments(pool, &Damage::default(), &sound);
        assert!(wrong.is_empty(), "{name}, the sound core: {wrong:#?}");
    }

    let number = Seed::choose();
    println!("{name}: {}={number}", seed::VARIABLE);
    let mut keep = Keep::new(name, number);
    let mut failures = Vec::new();
    let [private, shared] = &pools;
    for row in ROWS.iter().filter(|row| row.managers.contains(&layout.manager)) {
        let mut made = 0;
        for pair in [(private, shared), (shared, private)] {
            let kind = &pair.0.kind;
            let mut seed = Seed::of(number, &format!("{name} {kind} {}", row.name));
            for victim in 0..VICTIMS {
                let Some(damage) = (row.make)(pair.0, &mut seed) else { continue };
                made += 1;
                let _wound = core.hurt(&damage.patches);
                let heap = verdict::analyse(pair.0, &[1]);
                let complaints = verdict::complaints(pair, &damage, &heap, &sound);
                if complaints.is_empty() {
                    continue;
                }
                let case = format!("{kind}, {}, victim {victim}", row.name);
                keep.case(pair.0, &case, &damage, &complaints);
                failures.extend(complaints.into_iter().map(|wrong| format!("{case}: {wrong}\n")));
            }
        }
        assert!(made >= VICTIMS, "{name}, {}: {made} victims", row.name);
    }
    assert!(
        failures.is_empty(),
        "{}: {name}: {} failures\n{}",
        keep.how_to_repeat(&core, number),
        failures.len(),
        failures.concat()
    );
}

/// The core of a SIP worker whose pools have free fragments between used ones.
#[track_caller]
fn core_of_a_worker(layout: &Layout) -> Patient {
    let scratch = tools::scratch(&format!("damage-{}", layout.manager.name()));
    if let Some(core) = keep::earlier_core(&scratch) {
        return core;
    }
    let options =
        Options { manager: layout.manager, shared_mib: 16, private_mib: 4, ..Options::default() };
    let instance = Instance::start(options);
    oracle::exercise(&instance, 4000);
    let bundle = scratch.join("group.tar.zst");
    tools::collect(instance.main_pid(), &bundle);
    let core = scratch.join("core");
    oracle::extract(&bundle, instance.pids()[1], &core);
    Patient::open(&core)
}
