//! `cargo xtask test`: everything that must hold before a commit.

use std::process::Command;
use std::time::Instant;

use crate::{Outcome, packages, root, step};

/// Runs all checks; the first that fails ends it.
pub(crate) fn run() -> Outcome {
    let started = Instant::now();
    packages::ensure()?;
    if !packages::is_root() {
        return Err("the tests freeze processes and open namespaces: run this as root".to_owned());
    }
    step::cargo("formatting", &["fmt", "--all", "--check"])?;
    step::cargo(
        "lints",
        &["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"],
    )?;
    // The end-to-end tests run the optimised programs; building them here keeps a compiler error
    // out of the tests' own output.
    step::cargo("programs", &["build", "--release", "--locked"])?;
    // Every test runs even if an early one fails: one look shows all that is broken.
    let tests = step::cargo("tests", &["test", "--workspace", "--locked", "--no-fail-fast"]);
    let scripts =
        step::run("gdb scripts", Command::new("bash").arg(root().join("gdb-scripts/tests/run.sh")));
    tests.and(scripts)?;
    println!("\nall checks passed in {} s", started.elapsed().as_secs());
    Ok(())
}
