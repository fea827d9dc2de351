//! The project's chores. `cargo xtask` without a word lists them.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a chore talks to a developer")]

mod packages;
mod samples;
mod step;
mod test;

use std::path::Path;
use std::process::{Command, ExitCode};

const USAGE: &str = "\
usage: cargo xtask CHORE

  test     everything that must hold before a commit: installs what the tests need, checks
           formatting and lints, runs all tests
  samples  records the bundles below samples/recorded again
  bench    runs the benchmarks (benches/run.sh); further words are passed on
";

/// What became of a chore; the text says why.
type Outcome = Result<(), String>;

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let chore = words.next();
    let rest: Vec<String> = words.collect();
    let outcome = match chore.as_deref() {
        Some("test") if rest.is_empty() => test::run(),
        Some("samples") if rest.is_empty() => samples::run(),
        Some("bench") => bench(&rest),
        Some("help" | "--help" | "-h") => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("\nxtask: {why}");
            ExitCode::FAILURE
        }
    }
}

fn bench(arguments: &[String]) -> Outcome {
    let script = root().join("benches/run.sh");
    step::run("benchmarks", Command::new("bash").arg(script).args(arguments))
}

/// The workspace's root directory.
fn root() -> &'static Path {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own)
}
