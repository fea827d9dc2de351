//! gdb, the second opinion on cores.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::tools::run;

const PATIENCE: Duration = Duration::from_secs(120);

/// Before each answer.
const MARK: &str = "@@@@";

/// Dumps a process with gdb's own `gcore` to `core`.
#[track_caller]
pub fn gcore(pid: u32, core: &Path) {
    let mut command = gdb();
    command.arg("-p").arg(pid.to_string());
    command.arg("-ex").arg(format!("gcore {}", core.display()));
    let finished = run(&mut command, PATIENCE).expect(&[0]);
    assert!(core.is_file(), "gdb wrote no core: {finished:?}");
}

/// What gdb prints for `commands` about a core of `executable`.
#[track_caller]
pub fn ask(executable: &Path, core: &Path, commands: &[&str]) -> String {
    let mut command = gdb();
    for text in commands {
        command.args(["-ex", text]);
    }
    command.arg(executable).arg(core);
    run(&mut command, PATIENCE).expect(&[0]).text()
}

/// Gives commands about a live process; an error in one, such as a call that stops at a breakpoint,
/// does not end the others.
#[track_caller]
pub fn attached(pid: u32, commands: &[&str]) -> String {
    let mut command = gdb();
    command.arg("-p").arg(pid.to_string());
    for text in commands {
        command.args(["-ex", text]);
    }
    run(&mut command, PATIENCE).text()
}

/// Commands for [`attached`]: gives a process that waits in a system call another function to run, as if it were called there
/// with these arguments.
pub fn call(function: &str, arguments: &[(&str, u64)]) -> Vec<String> {
    let mut commands: Vec<String> = [
        "set var $back = $pc",
        "set var $orig_rax = -1",
        "set var $rsp = ($rsp & ~0xf) - 264",
        "set var {unsigned long} $rsp = $back",
    ]
    .map(str::to_owned)
    .to_vec();
    commands.push(format!("set var $rip = (unsigned long) &{function}"));
    commands.extend(arguments.iter().map(|(name, value)| format!("set var ${name} = {value}")));
    commands
}

/// The same where the program's files lie below `sysroot`; the program is Kamailio.
#[track_caller]
pub fn attached_below(sysroot: &Path, pid: u32, commands: &[String]) -> String {
    let mut command = gdb();
    command.arg("-iex").arg(format!("set sysroot {}", sysroot.display()));
    for text in commands {
        command.args(["-ex", text]);
    }
    command.arg(sysroot.join("usr/sbin/kamailio")).arg("-p").arg(pid.to_string());
    let finished = run(&mut command, PATIENCE);
    format!("{}{}", finished.text(), finished.errors())
}

/// The command that makes [`answers`]: gdb about a core of `executable`, with the program's files
/// below `sysroot` and none of this host's.
pub fn questions(sysroot: &Path, executable: &Path, core: &Path, commands: &[&str]) -> Command {
    let mut command = gdb();
    command.arg("-iex").arg(format!("set sysroot {}", sysroot.display()));
    for text in commands {
        command.args(["-ex", &format!("echo \\n{MARK}\\n"), "-ex", text]);
    }
    command.arg(executable).arg(core);
    command
}

/// What gdb printed for each of the questions, in their order.
pub fn answers(text: &str) -> impl Iterator<Item = &str> {
    text.split(MARK).skip(1)
}

/// gdb with a Python script about a core, and without the debug files of this host.
pub fn with_script(script: &Path, executable: &Path, core: &Path) -> Command {
    let mut command = gdb();
    command.args(["-iex", "set debug-file-directory /nonexistent"]);
    command.arg("-x").arg(script).arg(executable).arg(core);
    command
}

fn gdb() -> Command {
    let mut command = Command::new("gdb");
    // Nothing of the user's or the network's: no init files, no debuginfod.
    command.env_remove("DEBUGINFOD_URLS").args(["-nx", "-batch"]);
    command.args(["-iex", "set debuginfod enabled off"]);
    command
}
