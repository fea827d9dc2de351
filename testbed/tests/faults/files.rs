//! Files that cannot be read, are no files, or lead elsewhere.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use nix::sys::stat::Mode;
use testbed::program::Program;
use testbed::tools;

use crate::attempt::{Attempt, DEADLINE, assert_untouched, collector, start, target_program};

/// The target, started from a file of its own in `folder`.
fn start_copy(folder: &Path, arguments: &[&str]) -> Program {
    let copy = folder.join("target");
    fs::copy(target_program(), &copy).unwrap();
    Program::start(Command::new(&copy).args(arguments))
}

/// Puts a FIFO, to which nobody writes, in the place of a file.
pub(crate) fn replace_with_fifo(path: &Path) {
    fs::remove_file(path).unwrap();
    nix::unistd::mkfifo(path, Mode::S_IRWXU).unwrap();
}

#[test]
fn pages_that_the_file_system_cannot_give_cost_only_themselves() {
    let folder = tempfile::tempdir().unwrap();
    let target = start(&["cut", folder.path().join("cut").to_str().unwrap()]);
    let attempt = Attempt::of(target.pid(), &[]);
    assert_eq!(attempt.code(), Some(0), "{attempt:?}");
    assert_untouched(target.pid(), 'S');
}

#[test]
fn a_fifo_at_the_program_path_is_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let target = start_copy(folder.path(), &["group", "1"]);
    replace_with_fifo(&folder.path().join("target"));
    let attempt = Attempt::of(target.pid(), &[]);
    // The file that is mapped is reached without its name.
    assert_eq!(attempt.code(), Some(0), "{attempt:?}");
    let modules = attempt.manifest.members.iter();
    let modules = modules.filter(|member| member.path.starts_with("modules/"));
    assert_eq!(modules.count(), 1, "{attempt:?}");
    assert!(attempt.finished.elapsed.as_secs() < 10, "{attempt:?}");
    assert_untouched(target.pid(), 'S');
}

/// A collection whose output is refused in words, before anybody is frozen.
#[track_caller]
fn assert_refused(pid: u32, output: &Path, words: &str) {
    let mut command = collector();
    command.args(["--pid", &pid.to_string(), "-o"]).arg(output);
    let refused = tools::run(&mut command, DEADLINE).expect(&[2]);
    assert!(refused.errors().contains(words), "{words}: {refused:?}");
    assert!(!refused.errors().contains("freezing"), "{refused:?}");
    assert_untouched(pid, 'S');
}

#[test]
fn links_at_the_output_are_neither_followed_nor_replaced() {
    let target = start(&["group", "0"]);
    let folder = tempfile::tempdir().unwrap();
    let precious = folder.path().join("precious");
    fs::write(&precious, "precious").unwrap();
    let output = folder.path().join("b.tar.zst");
    let partial = folder.path().join("b.tar.zst.partial");
    let nowhere = folder.path().join("nowhere");
    for name in [&output, &partial] {
        for leads_to in [&precious, &nowhere] {
            symlink(leads_to, name).unwrap();
            assert_refused(target.pid(), &output, "exists already");
            assert_eq!(fs::read_link(name).unwrap(), *leads_to);
            fs::remove_file(name).unwrap();
        }
        nix::unistd::mkfifo(name, Mode::S_IRWXU).unwrap();
        assert_refused(target.pid(), &output, "exists already");
        fs::remove_file(name).unwrap();
    }
    assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
    assert!(!nowhere.exists());
}

#[test]
fn an_output_that_cannot_be_made_is_refused_before_the_freeze() {
    let target = start(&["group", "0"]);
    assert_refused(target.pid(), Path::new("/nonexistent/b.tar.zst"), "/nonexistent");
    assert_refused(target.pid(), Path::new("/proc/b.tar.zst"), "disk has 0 bytes");
}
