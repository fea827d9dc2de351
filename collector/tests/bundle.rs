//! Whole collections of small real groups: what is in the bundle, and that the group is unharmed.

mod common;

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::{Collected, Victim, assert_untouched, collector, statuses, wait_until};
use nix::sys::signal::Signal;

#[test]
fn a_group_is_collected_whole_and_its_pool_once() {
    let victim = Victim::start(&["group", "3"]);
    assert_eq!(victim.pool_bytes(), 3 * 4096);
    assert_eq!(victim.shared_private_bytes(), 3 * 4096);
    let collected = Collected::of(&victim, &[]);
    assert_eq!(collected.output.status.code(), Some(0), "{:?}", collected.output);
    assert!(collected.text().contains("safe to restart now"));
    assert_eq!(victim.pool_bytes(), 3 * 4096, "reading must not allocate");
    assert_eq!(victim.shared_private_bytes(), 3 * 4096, "reading must not break copy-on-write");
    assert_untouched(victim.pid(), 'S');

    let manifest = collected.manifest();
    assert_eq!(manifest.processes.len(), 4);
    let [pool] = manifest.shared.as_slice() else { panic!("{:?}", manifest.shared) };
    assert_eq!((pool.mapped_bytes, pool.saved_bytes), (64 << 20, 3 * 4096));
    let pages = fs::read(collected.path(&pool.member)).unwrap();
    let expected: Vec<u8> = b"abc".iter().flat_map(|byte| [*byte; 4096]).collect();
    assert!(pages == expected);

    for process in &manifest.processes {
        assert_eq!(process.bytes["shared"], 3 * 4096);
        assert!(process.pause_micros.unwrap() > 0);
        let private = victim.said("private");
        let read = [
            format!("x/2bx {private:#x}"),
            format!("x/bx {:#x}", private + (32 << 20)),
            format!("x/bx {:#x}", private + (64 << 20) - 1),
            format!("x/bx {:#x}", private + 8192),
        ];
        let commands: Vec<&str> =
            std::iter::once("info threads").chain(read.iter().map(String::as_str)).collect();
        let text = collected.gdb(process.pid, &commands);
        assert_eq!(text.matches("LWP").count(), 2, "announced and listed: {text}");
        assert!(text.contains("pause ()"), "{text}");
        for value in ["0x41\t0x41", "0x42", "0x43", "0x00"] {
            assert!(text.contains(&format!("\t{value}")), "{value} in {text}");
        }
    }
    let all = manifest.members.iter();
    let elf = all.filter(|member| member.path.starts_with("modules/")).count();
    assert_eq!(elf, 1, "--modules own leaves libc out");
    assert!(manifest.gaps.iter().any(|gap| gap.what.contains("libc.so.6 (build ID ")));
}

#[test]
fn gdb_sees_every_thread() {
    let victim = Victim::start(&["threads", "7"]);
    let collected = Collected::of(&victim, &["--modules", "none"]);
    let text = collected.gdb(victim.pid(), &["thread apply all bt 1"]);
    assert_eq!(text.matches("\nThread ").count(), 8, "{text}");
    assert_eq!(text.matches("\n#0 ").count(), 9, "eight, and the first one's greeting: {text}");
    assert_eq!(collected.manifest().processes[0].threads, 8);
}

#[test]
fn the_snapshot_passes_through_the_spool_file_unchanged() {
    let victim = Victim::start(&["group", "1"]);
    let collected = Collected::of(&victim, &["--memory", "8K"]);
    assert_eq!(collected.output.status.code(), Some(0), "{:?}", collected.output);
    let private = format!("x/bx {:#x}", victim.said("private") + (32 << 20));
    assert!(collected.gdb(victim.pid(), &[&private]).contains("\t0x42"));
}

#[test]
fn a_stopped_process_is_collected_and_stays_stopped() {
    let victim = Victim::start(&["threads", "0"]);
    victim.signal(Signal::SIGSTOP);
    wait_until("it is stopped", || statuses(victim.pid(), "State")[0].starts_with('T'));
    let collected = Collected::of(&victim, &[]);
    assert!(collected.manifest().processes[0].was_stopped);
    assert!(collected.text().contains("was stopped before, and still is"));
    assert_untouched(victim.pid(), 'T');
}

#[test]
fn a_vfork_parent_is_read_without_being_stopped() {
    let victim = Victim::start(&["vfork"]);
    let collected = Collected::of(&victim, &[]);
    let manifest = collected.manifest();
    let parent = manifest.processes.iter().find(|process| process.pid == victim.pid()).unwrap();
    assert_eq!(parent.unstopped[0].why, "uninterruptible sleep (state D)");
    let private = format!("x/bx {:#x}", victim.said("private") + (32 << 20));
    assert!(collected.gdb(victim.pid(), &[&private]).contains("\t0x42"));
    assert_untouched(victim.pid(), 'D');
    common::end(u32::try_from(victim.said("child")).unwrap());
}

#[test]
fn a_process_whose_first_thread_has_ended_is_read_through_another() {
    let victim = Victim::start(&["leaderless"]);
    wait_until("it is a zombie", || {
        let status = fs::read_to_string(format!("/proc/{}/status", victim.pid())).unwrap();
        status.contains("State:\tZ")
    });
    let collected = Collected::of(&victim, &[]);
    assert_eq!(collected.output.status.code(), Some(0), "{:?}", collected.output);
    assert_eq!(collected.manifest().processes[0].threads, 1);
    assert_eq!(collected.manifest().shared[0].saved_bytes, 3 * 4096);
    let private = format!("x/bx {:#x}", victim.said("private") + (32 << 20));
    assert!(collected.gdb(victim.pid(), &[&private]).contains("\t0x42"));
}

#[test]
fn a_child_that_became_another_program_is_left_alone() {
    let victim = Victim::start(&["exec"]);
    let collected = Collected::of(&victim, &[]);
    let pids: Vec<u32> = collected.manifest().processes.iter().map(|process| process.pid).collect();
    assert_eq!(pids, [victim.pid()]);
}

#[test]
fn two_instances_side_by_side_are_listed_and_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let program = common::another_program(folder.path());
    let one = Victim::start_from(&program, &["group", "2"]);
    let two = Victim::start_from(&program, &["group", "1"]);
    let output = collector().args(["--name", "victim-copy"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains(&format!("--pid {}  3 processes", one.pid())), "{text}");
    assert!(text.contains(&format!("--pid {}  2 processes", two.pid())), "{text}");
    let collected = Collected::of(&two, &[]);
    assert_eq!(collected.manifest().processes.len(), 2);
    // The binary is replaced under the running process, as a package upgrade does.
    fs::remove_file(&program).unwrap();
    let collected = Collected::of(&one, &[]);
    let manifest = collected.manifest();
    assert_eq!(manifest.processes.len(), 3);
    assert!(manifest.processes[0].executable.ends_with(" (deleted)"));
    let mut modules = manifest.members.iter().filter(|one| one.path.starts_with("modules/"));
    assert!(modules.any(|module| module.path.ends_with("/victim-copy")), "{:?}", manifest.gaps);
}

#[test]
fn the_pause_limit_costs_memory_but_not_the_bundle() {
    let victim = Victim::start(&["group", "2"]);
    let collected = Collected::of(&victim, &["--max-pause", "0.0001"]);
    assert_eq!(collected.output.status.code(), Some(1), "{:?}", collected.output);
    let manifest = collected.manifest();
    assert!(manifest.gaps.iter().any(|gap| gap.why == "pause limit reached"), "{manifest:?}");
    assert_untouched(victim.pid(), 'S');
    let text = collected.gdb(victim.pid(), &["info threads"]);
    assert!(text.contains("LWP"), "the registers are there: {text}");
}

#[test]
fn a_collector_that_is_killed_leaves_the_group_running_and_a_readable_part() {
    let victim = Victim::start(&["group", "3"]);
    for delay in 0..12_u64 {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("b.tar.zst");
        let pid = victim.pid().to_string();
        let mut running = collector()
            .args(["--pid", &pid, "--max-pause", "10", "-o"])
            .arg(&file)
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = std::io::BufReader::new(running.stderr.take().unwrap());
        let mut line = String::new();
        while !line.starts_with("freezing") {
            line.clear();
            assert!(std::io::BufRead::read_line(&mut lines, &mut line).unwrap() > 0);
        }
        std::thread::sleep(Duration::from_micros(delay * delay * 150));
        running.kill().unwrap();
        running.wait().unwrap();
        wait_until("nothing is traced", || {
            statuses(victim.pid(), "TracerPid").iter().all(|tracer| tracer == "0")
        });
        assert_untouched(victim.pid(), 'S');
        let partial = folder.path().join("b.tar.zst.partial");
        if file.exists() {
            continue;
        }
        let part = fs::read(&partial).unwrap();
        let index = bundle::frames::FrameIndex::read(&part).unwrap();
        let first = bundle::frames::decompress(&part, &index.frames[0]).unwrap();
        assert!(first.starts_with(b"header.json\0"));
        let listed = Command::new("sh")
            .args(["-c", "zstd -dc \"$0\" 2>/dev/null | tar -tf - 2>/dev/null"])
            .arg(&partial)
            .output()
            .unwrap();
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        assert!(listed.contains(&format!("processes/{pid}/stat.1")), "{listed}");
    }
}

#[test]
fn an_interrupt_thaws_and_keeps_what_there_is() {
    let victim = Victim::start(&["group", "1"]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("b.tar.zst");
    let mut running = collector()
        .args(["--sample-gap", "30000", "--pid", &victim.pid().to_string(), "-o"])
        .arg(&file)
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufReader::new(running.stderr.take().unwrap());
    let mut line = String::new();
    while !line.starts_with("thawed") {
        line.clear();
        assert!(std::io::BufRead::read_line(&mut lines, &mut line).unwrap() > 0);
    }
    let pid = nix::unistd::Pid::from_raw(running.id().try_into().unwrap());
    nix::sys::signal::kill(pid, Signal::SIGTERM).unwrap();
    assert_eq!(running.wait().unwrap().code(), Some(2));
    assert!(!file.exists());
    let partial = folder.path().join("b.tar.zst.partial");
    let tested = Command::new("zstd").arg("-tq").arg(&partial).status().unwrap();
    assert!(tested.success());
    assert_untouched(victim.pid(), 'S');
}

#[test]
fn without_privilege_it_says_what_is_missing_and_collects_the_rest() {
    use std::os::unix::fs::PermissionsExt;
    let victim = Victim::start(&["threads", "1"]);
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o1777)).unwrap();
    let program = folder.path().join("collect-evidence");
    fs::copy(env!("CARGO_BIN_EXE_collect-evidence"), &program).unwrap();
    let file = folder.path().join("b.tar.zst");
    let output = Command::new("setpriv")
        .args(["--reuid", "65534", "--clear-groups"])
        .arg(&program)
        .args(["--sample-gap", "10", "--pid", &victim.pid().to_string(), "-o"])
        .arg(&file)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(text.contains("CAP_SYS_PTRACE is missing (user 65534)"), "{text}");
    assert!(text.contains("sudo"), "{text}");
    let listed = Command::new("tar").arg("--zstd").arg("-tf").arg(&file).output().unwrap();
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    for member in ["stat.1", "status.2", "cmdline"] {
        assert!(listed.contains(&format!("processes/{}/{member}", victim.pid())), "{listed}");
    }
    assert!(listed.contains("system/meminfo"));
}

#[test]
fn nothing_is_overwritten() {
    let victim = Victim::start(&["threads", "0"]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("b.tar.zst");
    fs::write(&file, b"mine").unwrap();
    let pid = victim.pid().to_string();
    let output = collector().args(["--pid", &pid, "-o"]).arg(&file).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(fs::read(&file).unwrap(), b"mine");
}

/// Were we stopped while the group stands still, it would stand still with us.
#[test]
fn a_terminal_that_wants_to_stop_us_is_passed_over() {
    let victim = Victim::start(&["threads", "1"]);
    let folder = tempfile::tempdir().unwrap();
    let mut command = collector();
    command.args(["--pid", &victim.pid().to_string(), "--sample-gap", "1500", "-o"]);
    command.arg(folder.path().join("b.tar.zst")).stdout(Stdio::null()).stderr(Stdio::null());
    let mut running = command.spawn().unwrap();
    let ignored = || {
        let mask = statuses(running.id(), "SigIgn").pop().unwrap_or_default();
        u64::from_str_radix(mask.trim(), 16).unwrap_or(0)
    };
    // SIGTSTP, SIGTTIN, SIGTTOU and SIGXFSZ, whose bits begin with that of signal 1.
    let wanted: u64 = [20, 21, 22, 25].iter().map(|signal| 1 << (signal - 1)).sum();
    wait_until("the collector ignores what would stop it", || ignored() & wanted == wanted);
    let pid = nix::unistd::Pid::from_raw(i32::try_from(running.id()).unwrap());
    nix::sys::signal::kill(pid, Signal::SIGTSTP).unwrap();
    assert_eq!(running.wait().unwrap().code(), Some(0));
    assert_untouched(victim.pid(), 'S');
}
