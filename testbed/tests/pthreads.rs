//! Locks of the C library, and sleeps that are no locks, in a program that is not Kamailio
//! (`testbed/config/pthreads.c`).
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test stops at the first surprise"
)]

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use testbed::program::{Program, compile};
use testbed::tools::{self, run};

const SOURCE: &str = "testbed/config/pthreads.c";

/// What `forensics locks --json` says of the program, started `command … HOW`.
fn locks(mut command: Command, bundle: &Path) -> Value {
    let program = Program::start(&mut command);
    assert_eq!(program.said, "ready\n");
    tools::collect(program.pid(), bundle);
    let mut forensics = tools::forensics();
    forensics.args(["locks", "--json"]).arg(bundle);
    run(&mut forensics, tools::PATIENCE).expect(&[0, 1]).json()
}

fn locks_when(how: &str, more: &[&str]) -> Value {
    let scratch = tools::scratch(&format!("pthreads-{how}{}", more.concat()));
    let mut command = Command::new(compile(SOURCE, more, &scratch));
    command.arg(how);
    locks(command, &scratch.join("pthreads.tar.zst"))
}

#[track_caller]
fn assert_cycle_of_two(locks: &Value) {
    assert_eq!(locks["cycles"].as_array().map(Vec::len), Some(1), "{locks:#}");
    assert_eq!(locks["cycles"][0].as_array().map(Vec::len), Some(2), "{locks:#}");
    assert_eq!(locks["findings"].as_array().map(Vec::len), Some(1), "{locks:#}");
    assert_eq!(locks["findings"][0]["rule"], "lock-cycle");
    for wait in locks["waits"].as_array().unwrap() {
        assert_eq!(wait["kind"], "pthread-mutex");
        assert_eq!(wait["holder"]["how"], "owner-field");
    }
}

#[test]
fn two_threads_that_take_two_mutexes_crosswise_wait_for_each_other() {
    for how in ["plain", "recursive", "robust", "inheriting"] {
        let locks = locks_when(how, &[]);
        assert_cycle_of_two(&locks);
        let summary = locks["findings"][0]["summary"].as_str().unwrap();
        assert!(summary.contains("\"first\"") && summary.contains("\"second\""), "{summary}");
    }
}

#[test]
fn in_a_static_program_without_symbols_too() {
    assert_cycle_of_two(&locks_when("plain", &["-static", "-s"]));
}

#[test]
fn a_mutex_of_a_thread_that_has_ended_is_held_by_nobody_any_more() {
    let locks = locks_when("ended", &[]);
    let holder = &locks["waits"][0]["holder"];
    assert_eq!(holder["presence"], "ended", "{locks:#}");
    assert_eq!(holder["pid"], locks["waits"][0]["pid"]);
    assert_ne!(holder["tid"], holder["pid"]);
}

#[test]
fn conditions_semaphores_barriers_joins_and_words_of_a_library_are_no_locks() {
    for more in [&[][..], &["-static", "-s"][..]] {
        let locks = locks_when("none", more);
        assert_eq!(locks["waits"], serde_json::json!([]), "{locks:#}");
        assert_eq!(locks["findings"], serde_json::json!([]), "{locks:#}");
    }
}

#[test]
fn the_name_of_a_thread_begins_no_line_of_the_report() {
    let scratch = tools::scratch("pthreads-name");
    let mut command = Command::new(compile(SOURCE, &[], &scratch));
    command.arg("none");
    let bundle = scratch.join("pthreads.tar.zst");
    locks(command, &bundle);
    let mut forensics = tools::forensics();
    forensics.arg("threads").arg(&bundle);
    let text = run(&mut forensics, tools::PATIENCE).expect(&[0]).text();
    assert!(text.contains("line\u{fffd}Findings"), "{text}");
}
