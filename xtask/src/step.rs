//! One command of a chore: announced before it starts, timed when it ends.

use std::process::Command;
use std::time::Instant;

use crate::{Outcome, root};

/// Runs `command` in the workspace's root; its output goes where ours goes.
pub(crate) fn run(what: &str, command: &mut Command) -> Outcome {
    let words: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .filter(|word| !word.contains('\n')) // a whole script
        .collect();
    let line = words.join(" ");
    println!("\n=== {what}: {line}");
    let started = Instant::now();
    let status = command
        .current_dir(root())
        .status()
        .map_err(|error| format!("{what}: cannot start `{line}`: {error}"))?;
    println!("=== {what}: {} s", started.elapsed().as_secs());
    if status.success() { Ok(()) } else { Err(format!("{what}: `{line}` ended with {status}")) }
}

/// `cargo` with these arguments, the one that runs us.
pub(crate) fn cargo(what: &str, arguments: &[&str]) -> Outcome {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    run(what, Command::new(cargo).args(arguments))
}
