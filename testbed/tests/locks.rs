//! Who waits for which lock, against a program whose threads wait for one of each kind for ever and
//! which says itself who is who (`samples/locks/locks.c`). Kamailio's own locks: `hangs`.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test stops at the first surprise"
)]

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use serde_json::{Value, json};
use testbed::program::{Program, compile};
use testbed::tools::{self, PATIENCE, run};

/// What the program said of itself, and what `forensics` says of its bundle.
struct Captured {
    pid: u64,
    said: Value,
    locks: Value,
    threads: Value,
}

fn captured() -> &'static Captured {
    static CAPTURED: OnceLock<Option<Captured>> = OnceLock::new();
    let captured = CAPTURED.get_or_init(|| std::panic::catch_unwind(capture).ok());
    captured.as_ref().expect("the program could be captured; the first test says why not")
}

fn capture() -> Captured {
    let scratch = tools::scratch("locks");
    let program = compile("samples/locks/locks.c", &["-rdynamic"], &scratch);
    // Its child process ends with it.
    let program = Program::start(&mut Command::new(program));
    let bundle = scratch.join("locks.tar.zst");
    tools::collect(program.pid(), &bundle);
    Captured {
        pid: program.pid().into(),
        said: serde_json::from_str(&program.said).unwrap(),
        locks: report("locks", &bundle),
        threads: report("threads", &bundle),
    }
}

fn report(command: &str, bundle: &PathBuf) -> Value {
    run(tools::forensics().args([command, "--json"]).arg(bundle), PATIENCE).expect(&[1]).json()
}

/// Which of the program's locks, its kind, and the holder's thread with how it is known.
type Wanted<'a> = (&'a str, &'a str, Option<(u64, &'a str)>);

impl Captured {
    fn tid(&self, name: &str) -> u64 {
        self.said["tids"][name].as_u64().unwrap()
    }

    /// The wait of a thread.
    fn wait(&self, tid: u64) -> Option<Wanted<'_>> {
        let waits = self.locks["waits"].as_array().unwrap();
        let wait = waits.iter().find(|wait| wait["tid"] == tid)?;
        let locks = self.said["locks"].as_object().unwrap();
        let (name, _) = locks.iter().find(|(_, at)| **at == wait["lock"]).unwrap();
        let holder = &wait["holder"];
        let by = holder["tid"].as_u64().zip(holder["how"].as_str());
        Some((name, wait["kind"].as_str().unwrap(), by))
    }

    #[track_caller]
    fn assert_waits(&self, name: &str, lock: &str, kind: &str, holder: Option<&str>) {
        let holder = holder.map(|holder| (self.tid(holder), "owner-field"));
        assert_eq!(self.wait(self.tid(name)), Some((lock, kind, holder)), "{name}");
    }

    fn findings(&self, rule: &str) -> Vec<&str> {
        let all = self.locks["findings"].as_array().unwrap().iter();
        let own = all.filter(|finding| finding["rule"] == rule);
        own.map(|finding| finding["summary"].as_str().unwrap()).collect()
    }
}

#[test]
fn every_lock_has_its_kind_and_the_holder_that_it_records() {
    let captured = captured();
    captured.assert_waits("first", "two", "pthread-mutex", Some("second"));
    captured.assert_waits("second", "one", "pthread-mutex", Some("first"));
    captured.assert_waits("again", "plain", "pthread-mutex", Some("again"));
    captured.assert_waits("reads", "written", "pthread-rwlock", Some("writer"));
    captured.assert_waits("writes", "written", "pthread-rwlock", Some("writer"));
    captured.assert_waits("wants", "read_held", "pthread-rwlock", None);
    captured.assert_waits("handshake", "openssl", "openssl-lock", Some("openssl"));
    captured.assert_waits("stack", "stack", "kamailio-lock", None);
    let child = captured.said["child"].as_u64().unwrap();
    let by_main = Some((captured.pid, "owner-field"));
    assert_eq!(captured.wait(child), Some(("shared", "pthread-mutex", by_main)));
}

#[test]
fn conditions_semaphores_and_ends_of_threads_are_no_locks() {
    let captured = captured();
    for name in ["condition", "semaphore", "join", "barrier", "writer", "reader", "openssl"] {
        let tid = captured.tid(name);
        assert_eq!(captured.wait(tid), None, "{name}");
        let processes = captured.threads["processes"].as_array().unwrap().iter();
        let mut threads = processes.flat_map(|process| process["threads"].as_array().unwrap());
        let thread = threads.find(|thread| thread["tid"] == tid).unwrap();
        assert_eq!(thread["doing"], "idle", "{name}: {thread}");
    }
}

#[test]
fn circles_are_found_and_named_by_their_threads() {
    let captured = captured();
    let circles: Vec<Vec<u64>> = captured.locks["cycles"]
        .as_array()
        .unwrap()
        .iter()
        .map(|circle| {
            circle.as_array().unwrap().iter().map(|w| w["tid"].as_u64().unwrap()).collect()
        })
        .collect();
    let [first, second, again] = ["first", "second", "again"].map(|name| captured.tid(name));
    assert_eq!(circles, [vec![first, second], vec![again]]);
    let found = captured.findings("lock-cycle");
    let names = [format!("{first} (\"first\")"), format!("{second} (\"second\")")];
    assert!(
        found.iter().any(|summary| names.iter().all(|name| summary.contains(name))),
        "{found:?}"
    );
    let own = format!("thread {again} (\"again\")");
    let itself = |summary: &&str| summary.starts_with(&own) && summary.contains("holds itself");
    assert!(found.iter().any(itself), "{found:?}");
}

#[test]
fn a_thread_at_a_spinlock_spins() {
    let captured = captured();
    captured.assert_waits("spins", "spin", "pthread-spinlock", None);
    let all = captured.threads["findings"].as_array().unwrap();
    assert!(all.iter().all(|finding| finding["rule"] != "cpu-loop"), "{all:?}");
}

/// A thread that asks again and again is caught between two asks now and then: it is told to ask
/// only if it was caught giving up its turn.
#[test]
fn a_thread_that_asks_again_and_again_spins() {
    let captured = captured();
    let tid = captured.tid("yields");
    let processes = captured.threads["processes"].as_array().unwrap().iter();
    let mut threads = processes.flat_map(|process| process["threads"].as_array().unwrap());
    let thread = threads.find(|thread| thread["tid"] == tid).unwrap();
    match captured.wait(tid) {
        Some(wait) => {
            assert_eq!(wait, ("fast", "kamailio-fast-lock", None));
            assert_eq!(thread["doing"], "spinning-on-lock", "{thread}");
        }
        None => assert_eq!(thread["doing"], "running", "{thread}"),
    }
}

#[test]
fn a_lock_on_a_stack_is_a_finding_of_its_own() {
    let captured = captured();
    let found = captured.findings("lock-on-stack");
    let [found] = found.as_slice() else { panic!("one is expected: {found:?}") };
    let at = captured.said["locks"]["stack"].as_str().unwrap();
    assert!(found.contains(at) && found.contains("on a stack"), "{found}");
    let held = captured.findings("lock-held");
    assert!(held.iter().all(|summary| !summary.contains(at)), "it is told once: {held:?}");
    let expected = json!(["pthread-rwlock", 1]);
    let locks = captured.locks["locks"].as_array().unwrap();
    let read = locks.iter().find(|lock| lock["lock"] == captured.said["locks"]["read_held"]);
    let read = read.unwrap();
    assert_eq!(json!([read["kind"], read["readers"]]), expected);
}
