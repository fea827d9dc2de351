//! Collections that are ended by the operator or by their limits, and a terminal that is stuck.

use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::Signal;
use testbed::proc;

use crate::attempt::{Attempt, Running, assert_untouched, manifest, start, verify};

#[test]
fn the_pause_limit_lets_go_and_marks_the_rest() {
    let target = start(&["memory", "600"]);
    let attempt = Attempt::of(target.pid(), &["--max-pause", "0.02"]);
    assert_eq!(attempt.code(), Some(1), "{attempt:?}");
    let memory = format!("memory of process {}", target.pid());
    assert!(attempt.has_gap(&memory, "pause limit reached"), "{attempt:?}");
    let process = &attempt.manifest.processes[0];
    assert_eq!((process.threads, process.unstopped.len()), (1, 0), "{process:?}");
    let pause = process.pause_micros.unwrap();
    assert!((10_000..500_000).contains(&pause), "{pause} µs");
    let saved = process.bytes.get("data").copied().unwrap_or(0);
    assert!(saved < 600 << 20, "{saved} bytes were saved in {pause} µs");
    assert!(attempt.finished.text().contains("pause limit reached"), "{attempt:?}");
    assert_untouched(target.pid(), 'S');
}

#[test]
fn an_interrupt_at_any_moment_lets_go_and_seals_what_there_is() {
    let target = start(&["memory", "200"]);
    let signals = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];
    let (mut interrupted, mut too_late) = (0, 0);
    for mark in ["target: ", "freezing ", "thawed: ", "memory: "] {
        for (step, signal) in (0..4).zip(signals.into_iter().cycle()) {
            let mut running = Running::start(target.pid());
            running.wait_for(mark, step * 5000);
            proc::signal(running.pid(), signal);
            let status = running.end();
            let when = format!("{signal} {} ms after `{mark}`: {status}", step * 5);
            assert_untouched(target.pid(), 'S');
            if running.output().exists() {
                assert!(status.success() && mark == "memory: ", "{when}");
                too_late += 1;
                continue;
            }
            assert_eq!(status.code(), Some(2), "{when}");
            let partial = PathBuf::from(format!("{}.partial", running.output().display()));
            verify(&partial);
            let gaps = manifest(&partial).gaps;
            assert!(gaps.iter().any(|gap| gap.why.contains("interrupted")), "{when}: {gaps:?}");
            interrupted += 1;
        }
    }
    println!("{interrupted} interrupted, {too_late} when the bundle was sealed");
}

#[test]
fn a_terminal_that_is_stuck_never_holds_the_group() {
    let target = start(&["memory", "20"]);
    // A pipe with no room left, whose reader does not read.
    let (mut reader, mut writer) = std::io::pipe().unwrap();
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    while writer.write(&[b'x'; 4096]).is_ok() {}
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::empty())).unwrap();
    let mut running = Running::start_with(target.pid(), Stdio::from(writer));
    std::thread::sleep(Duration::from_secs(1));
    assert_untouched(target.pid(), 'S');
    // As soon as somebody reads, it goes on.
    std::thread::spawn(move || reader.read_to_end(&mut Vec::new()));
    let status = running.end();
    assert!(status.success(), "{status}");
    assert!(running.output().exists());
    assert_untouched(target.pid(), 'S');
}
