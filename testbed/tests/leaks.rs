//! Leaks that were planted into real processes, and those that every healthy instance has.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::path::Path;

use serde::Deserialize;
use testbed::kamailio::{Instance, Manager, Options};
use testbed::load;
use testbed::plant::{Into, Plan};
use testbed::tools::{self, forensics, run};

/// `forensics leaks --json`
#[derive(Debug, Deserialize)]
struct Leaks {
    unreachable: Vec<Lost>,
    inherited: Vec<Lost>,
    on_stacks: Vec<Lost>,
    confidence: Confidence,
}

#[derive(Debug, Deserialize)]
struct Confidence {
    level: String,
    missing: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct Lost {
    pool: Pool,
    line: u32,
    function: String,
    fragments: u64,
    bytes: u64,
    heads: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct Pool {
    kind: String,
    pid: Option<u32>,
}

#[track_caller]
fn leaks(input: &Path) -> Leaks {
    let mut command = forensics();
    command.args(["leaks", "--json"]).arg(input);
    run(&mut command, tools::PATIENCE).expect(&[0]).json()
}

/// Lines of planted fragments: no function of Kamailio's has so many.
const FORGOTTEN_SHM: u32 = 70_001;
const FORGOTTEN_PKG: u32 = 70_002;
const CHAIN: u32 = 70_003;
const CYCLE: u32 = 70_004;
const HELD_INSIDE: u32 = 70_005;
const HELD_THROUGH: u32 = 70_006;
const HELD_BY_PKG: u32 = 70_007;
const PLANTED: std::ops::Range<u32> = 70_000..70_100;

fn plan() -> Plan {
    let mut plan = Plan::default();
    plan.forget(Into::Shm, 150, 200, FORGOTTEN_SHM);
    plan.forget(Into::Pkg, 150, 120, FORGOTTEN_PKG);
    for (name, next) in [("a", None), ("b", Some("$a")), ("c", Some("$b+8"))] {
        plan.take(name, Into::Pkg, 64, CHAIN);
        if let Some(next) = next {
            plan.link(&format!("${name}"), next);
        }
    }
    plan.take("d", Into::Shm, 64, CYCLE);
    plan.take("e", Into::Shm, 64, CYCLE);
    plan.link("$d", "$e");
    plan.link("$e", "$d");
    plan.chunk("chunk");
    // Into the inside of a fragment; from there through another; from PKG into SHM.
    plan.take("f", Into::Pkg, 64, HELD_INSIDE);
    plan.take("g", Into::Pkg, 64, HELD_THROUGH);
    plan.take("h", Into::Shm, 64, HELD_BY_PKG);
    plan.link("$chunk", "$f+24");
    plan.link("$f+8", "$g");
    plan.link("$g+16", "$h+1");
    plan
}

/// (line, PID or shared, fragments, bytes, heads) of what was planted.
fn planted(leaks: &Leaks) -> Vec<(u32, Option<u32>, u64, u64, u64)> {
    let planted = leaks.unreachable.iter().filter(|lost| PLANTED.contains(&lost.line));
    let mut found: Vec<_> = planted
        .map(|lost| (lost.line, lost.pool.pid, lost.fragments, lost.bytes, lost.heads))
        .collect();
    found.sort_unstable();
    found
}

fn others(leaks: &Leaks) -> Vec<Lost> {
    leaks.unreachable.iter().filter(|lost| !PLANTED.contains(&lost.line)).cloned().collect()
}

#[track_caller]
fn check(manager: Manager, name: &str) {
    let scratch = tools::scratch(&format!("leaks-{name}"));
    let instance = Instance::start(Options { manager, ..Options::default() });
    load::answered(&instance, 200);
    let before = scratch.join("before.tar.zst");
    tools::collect(instance.main_pid(), &before);
    let before = leaks(&before);
    assert_eq!(before.confidence.level, "high", "{:?}", before.confidence.missing);
    assert_eq!(planted(&before), []);
    assert!(before.inherited.iter().any(|lost| lost.function == "addstr"), "{before:?}");
    assert!(before.on_stacks.iter().all(|lost| lost.pool.kind == "pkg"), "{before:?}");

    let worker = *instance.pids().get(1).unwrap();
    plan().carry_out(worker, &scratch);
    let after = scratch.join("after.tar.zst");
    tools::collect(instance.main_pid(), &after);
    let after = leaks(&after);
    let size = |asked: u64| asked.next_multiple_of(8);
    assert_eq!(
        planted(&after),
        [
            (FORGOTTEN_SHM, None, 150, 150 * size(200), 150),
            (FORGOTTEN_PKG, Some(worker), 150, 150 * size(120), 150),
            (CHAIN, Some(worker), 3, 3 * size(64), 1),
            (CYCLE, None, 2, 2 * size(64), 1),
        ]
    );
    assert_eq!(others(&after), others(&before), "what was unreachable before");
    assert!(after.on_stacks.iter().all(|lost| !PLANTED.contains(&lost.line)), "{after:?}");
}

#[test]
fn q_malloc() {
    check(Manager::Qm, "qm");
}

#[test]
fn f_malloc() {
    check(Manager::Fm, "fm");
}

#[test]
fn tlsf_malloc() {
    check(Manager::Tlsf, "tlsf");
}
