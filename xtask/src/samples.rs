//! `cargo xtask samples`: records the bundles below `samples/recorded` again, after a change of the
//! format or of the sample programs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Outcome, packages, root, step};

/// What is recorded: the bundle's name, and the program that is collected.
const RECORDED: &[(&str, &str)] = &[("leaky", "leaky-56")];

const RECORD: &str = include_str!("record.sh");

/// Builds the programs and records each.
pub(crate) fn run() -> Outcome {
    packages::ensure()?;
    if !packages::is_root() {
        return Err("the collector freezes processes: run this as root".to_owned());
    }
    // Their path is in the bundle: one that says nothing about this machine.
    let built = Path::new("/tmp/samples-qm");
    let mut make = Command::new("make");
    make.arg("-C").arg(root().join("samples/pools")).arg(format!("OUT={}", built.display()));
    step::run("sample programs", &mut make)?;
    step::cargo(
        "programs",
        &["build", "--release", "--locked", "-p", "collector", "-p", "forensics"],
    )?;
    let recorded = root().join("samples/recorded");
    fs::create_dir_all(&recorded).map_err(|error| format!("{}: {error}", recorded.display()))?;
    for (name, edition) in RECORDED {
        let output = recorded.join(format!("{name}.tar.zst"));
        let mut record = Command::new("unshare");
        record.args(["--uts", "--net", "--ipc", "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"]);
        record.args(["sh", "-c", RECORD, "record.sh"]);
        record.arg(built.join(edition)).arg(program("collect-evidence")).arg(&output);
        step::run(&format!("recording {name}"), &mut record)?;
        let said = report(&recorded, name)?;
        let text = recorded.join(format!("{name}.txt"));
        fs::write(&text, said).map_err(|error| format!("{}: {error}", text.display()))?;
    }
    fs::remove_dir_all(built).map_err(|error| format!("{}: {error}", built.display()))
}

/// What `forensics` says of a recorded bundle, in the words that a user sees.
fn report(recorded: &Path, name: &str) -> Result<Vec<u8>, String> {
    let mut forensics = Command::new(program("forensics"));
    let said = forensics.arg(format!("{name}.tar.zst")).current_dir(recorded).output();
    said.map(|said| said.stdout).map_err(|error| format!("forensics: {error}"))
}

/// Where cargo puts an optimised program.
fn program(name: &str) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR");
    target.map_or_else(|| root().join("target"), Into::into).join("release").join(name)
}
