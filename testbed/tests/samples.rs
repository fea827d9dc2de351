//! Our own leaking program against the figures that it kept itself while it ran: what it inherits,
//! what is left out, how its pools are found.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test stops at the first surprise"
)]

use std::path::PathBuf;

use serde_json::Value;
use testbed::sample::{Leaky, analyse, owners, programs, same};
use testbed::tools;

/// Dumps every process of an edition and compares the analysis with the truth.
fn check(test: &str, edition: &str) -> (Leaky, PathBuf, Value) {
    let scratch = tools::scratch(&format!("samples-{test}-{edition}"));
    let leaky = Leaky::start(edition, &[], &scratch);
    let cores = leaky.gcore(&scratch);
    let report = analyse(&cores, &[]);
    leaky.assert_told(&report, "inferred");
    (leaky, cores, report)
}

#[test]
fn what_a_worker_inherited_is_set_apart() {
    let (leaky, _, report) = check("inherited", "leaky-64");
    let main = &leaky.pids()[0];
    for pool in report["pools"].as_array().unwrap().iter().filter(|pool| pool["kind"] == "pkg") {
        let inherited = pool["inherited_fragments"].as_u64().unwrap();
        if pool["pid"].as_u64() == Some(u64::from(*main)) {
            assert_eq!(inherited, 0);
            continue;
        }
        // Start-up allocations are the main process's; the workers free none of them.
        let main_pool = same(&report, &leaky.pools()[1]);
        assert_eq!(inherited, main_pool["walked"]["used_fragments"].as_u64().unwrap());
        let own: Vec<&str> = pool["owners"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|owner| owner["own_fragments"] != 0)
            .map(|owner| owner["function"].as_str().unwrap())
            .collect();
        assert!(!own.contains(&"register_module"), "{own:?}");
    }
}

#[test]
fn the_first_fragments_can_be_left_out() {
    let (_leaky, cores, report) = check("skip-first", "leaky-56");
    let without = analyse(&cores, &["--skip-first", "100", "--pool", "shm"]);
    let (all, rest) = (&report["pools"][0], &without["pools"][0]);
    let sum = |pool: &Value| -> u64 {
        let owners = pool["owners"].as_array().unwrap();
        owners.iter().map(|owner| owner["fragments"].as_u64().unwrap()).sum()
    };
    assert_eq!(sum(all) - sum(rest), 100);
    assert_eq!(all["walked"]["used_bytes"], rest["walked"]["used_bytes"]);
}

/// A program that is gone from the disk, so that only the cores know it: pools are found by the
/// shape of their blocks.
fn check_gone(edition: &str) -> (Leaky, PathBuf) {
    let scratch = tools::scratch(&format!("samples-no-module-{edition}"));
    let gone = format!("{edition}-gone");
    std::fs::copy(programs().join(edition), programs().join(&gone)).unwrap();
    let leaky = Leaky::start(&gone, &["-r", "800"], &scratch);
    let cores = leaky.gcore(&scratch);
    std::fs::remove_file(&leaky.program).unwrap();
    let report = analyse(&cores, &[]);
    assert_eq!(report["pools"].as_array().unwrap().len(), leaky.pools().len(), "{report}");
    for truth in leaky.pools() {
        let found = same(&report, truth);
        assert_eq!(found["found"]["by"], "block-shape", "{found}");
        assert_eq!(found["manager"], leaky.truth["manager"]);
        assert_eq!(found["walked"]["used_bytes"], truth["counters"]["used"]);
        assert_eq!(found["owners"][0]["function"], Value::Null);
    }
    let gaps = report["gaps"].as_array().unwrap();
    let said = gaps.iter().any(|gap| gap["what"].as_str().unwrap().contains(&gone));
    assert!(said, "the missing program is a gap: {gaps:?}");
    (leaky, cores)
}

#[test]
fn pools_are_found_without_any_module_file() {
    for edition in ["leaky-16", "leaky-fm-48", "leaky-fm-72", "leaky-fm-80"] {
        check_gone(edition);
    }
    for edition in ["leaky-tlsf-32", "leaky-tlsf-64"] {
        check_gone(edition);
    }
}

#[test]
fn a_module_file_at_hand_gives_the_owners_their_names() {
    let (leaky, cores) = check_gone("leaky-64");
    let copy = programs().join("leaky-64");
    let named = analyse(&cores, &["--module", copy.to_str().unwrap()]);
    for truth in leaky.pools() {
        assert_eq!(owners(same(&named, truth)), owners(truth));
    }

    // A program of another build is refused by its build ID, and said.
    let other = leaky.program.clone();
    std::fs::copy(programs().join("leaky-56"), &other).unwrap();
    let refused = analyse(&cores, &["--module", other.to_str().unwrap()]);
    let gaps = refused["gaps"].to_string();
    assert!(gaps.contains("another build is at hand"), "{gaps}");
    assert_eq!(same(&refused, &leaky.pools()[0])["owners"][0]["function"], Value::Null);
}
