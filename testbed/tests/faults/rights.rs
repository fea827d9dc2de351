//! Rights that are missing: a container with `--cap-add SYS_PTRACE`, and none at all.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use bundle::Outcome;
use testbed::program::Program;
use testbed::tools;

use crate::attempt::{Attempt, DEADLINE, OPTIONS, assert_untouched, family, start, target_program};
use crate::files::replace_with_fifo;

const NOBODY: [&str; 4] = ["--reuid", "65534", "--regid", "65534"];

/// A folder that everybody may write to, as `/tmp`, with the collector in it.
fn open_folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o1777)).unwrap();
    let program = folder.path().join("collect-evidence");
    fs::copy(tools::collect_evidence().get_program(), &program).unwrap();
    (folder, program)
}

/// `command`, then the collector on `pid`.
#[track_caller]
fn attempt(mut command: Command, program: &Path, pid: u32, output: &Path) -> Attempt {
    command.arg(program).args(OPTIONS).args(["--pid", &pid.to_string(), "-o"]).arg(output);
    Attempt::examine(tools::run(&mut command, DEADLINE).expect(&[1]), output)
}

/// The target as the first process of a PID namespace, and its PID out here.
fn start_container(arguments: &[&str]) -> (Program, u32) {
    let mut unshare = Command::new("unshare");
    unshare.args(["--pid", "--fork", "--mount-proc", "--kill-child"]);
    let container = Program::start(unshare.arg(target_program()).args(arguments));
    let first = testbed::proc::descendants(container.pid()).remove(0);
    (container, first)
}

/// What runs inside of it: with its `/proc`, its PIDs, and one capability.
fn inside(first: u32) -> Command {
    let mut enter = Command::new("nsenter");
    enter.args(["--target", &first.to_string(), "--pid", "--mount", "setpriv"]);
    enter.args(["--bounding-set", "-all,+sys_ptrace", "--inh-caps", "-all"]);
    enter
}

#[test]
fn a_container_with_sys_ptrace_only() {
    let (folder, program) = open_folder();
    let (_container, first) = start_container(&["group", "2"]);
    let output = folder.path().join("b.tar.zst");
    let attempt = attempt(inside(first), &program, 1, &output);
    let pids: Vec<u32> = attempt.manifest.processes.iter().map(|process| process.pid).collect();
    assert_eq!(pids, [1, 2, 3]);
    for process in &attempt.manifest.processes {
        assert!(process.unstopped.is_empty() && process.bytes["data"] > 0, "{process:?}");
    }
    assert!(attempt.has_gap("shared memory", "CAP_CHECKPOINT_RESTORE"), "{attempt:?}");
    assert!(attempt.finished.text().contains("CAP_CHECKPOINT_RESTORE"), "{attempt:?}");
    for pid in family(first) {
        assert_untouched(pid, 'S');
    }
}

#[test]
fn a_fifo_where_a_library_was_is_not_waited_for_where_only_its_path_leads_there() {
    let (folder, program) = open_folder();
    let library = folder.path().join("library.so");
    fs::copy(target_program(), &library).unwrap();
    let (_container, first) = start_container(&["maps", library.to_str().unwrap()]);
    replace_with_fifo(&library);
    let output = folder.path().join("b.tar.zst");
    let attempt = attempt(inside(first), &program, 1, &output);
    assert!(attempt.finished.elapsed < Duration::from_secs(10), "{attempt:?}");
    assert!(attempt.has_gap("library.so (deleted)", "cannot be read"), "{attempt:?}");
    assert_untouched(first, 'S');
}

#[test]
fn nobody_collects_what_root_runs_without_memory_and_says_why() {
    let (folder, program) = open_folder();
    let target = start(&["group", "1"]);
    let mut setpriv = Command::new("setpriv");
    setpriv.args(NOBODY).arg("--clear-groups");
    let attempt = attempt(setpriv, &program, target.pid(), &folder.path().join("b.tar.zst"));
    let words = "CAP_SYS_PTRACE is missing (user 65534)";
    assert!(attempt.has_gap("memory and registers", words), "{attempt:?}");
    let memory = attempt.manifest.sources.iter().find(|source| source.name == "memory").unwrap();
    assert!(matches!(memory.outcome, Outcome::Failed { .. }), "{memory:?}");
    assert!(attempt.finished.text().contains(words), "{attempt:?}");
    assert!(!attempt.finished.text().contains("pause: at most"), "nobody was frozen: {attempt:?}");
    for pid in family(target.pid()) {
        assert_untouched(pid, 'S');
    }
}

#[test]
fn nobody_collects_what_nobody_runs() {
    let (folder, program) = open_folder();
    let copy = folder.path().join("target");
    fs::copy(target_program(), &copy).unwrap();
    let mut setpriv = Command::new("setpriv");
    setpriv.args(NOBODY).arg("--clear-groups").arg(&copy).args(["group", "1"]);
    let target = Program::start(&mut setpriv);
    let mut setpriv = Command::new("setpriv");
    setpriv.args(NOBODY).arg("--clear-groups");
    let attempt = attempt(setpriv, &program, target.pid(), &folder.path().join("b.tar.zst"));
    assert_eq!(attempt.manifest.processes.len(), 2);
    for process in &attempt.manifest.processes {
        assert!(process.unstopped.is_empty() && process.bytes["data"] > 0, "{process:?}");
    }
    assert!(attempt.has_gap("shared memory", "CAP_CHECKPOINT_RESTORE"), "{attempt:?}");
    for pid in family(target.pid()) {
        assert_untouched(pid, 'S');
    }
}
