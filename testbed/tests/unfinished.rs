//! A process that is dumped in the middle of an allocation: what is half changed then is possible
//! damage, in any other process it is certain.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::path::{Path, PathBuf};

use testbed::analysis::{Finding, Report};
use testbed::gdb;
use testbed::kamailio::{Instance, Options};
use testbed::oracle;
use testbed::patch::Patient;
use testbed::tools::{self, forensics, run};

/// Dumps a worker: as it waits for requests, or stopped at the first instruction of `qm_malloc`,
/// which gdb calls through `_pkg_root`.
fn dump(instance: &Instance, directory: &Path, allocating: bool) -> PathBuf {
    let core = directory.join(if allocating { "allocating.core" } else { "waiting.core" });
    let gcore = format!("gcore {}", core.display());
    let call = "call ((long(*)(long,long,long,long,int,long))*(long*)((long)&_pkg_root+24))\
                (*(long*)((long)&_pkg_root+16), 64, *(long*)&_pkg_root, *(long*)&_pkg_root, 1, \
                *(long*)&_pkg_root)";
    let commands: &[&str] = match allocating {
        true => &["break qm_malloc", call, &gcore],
        false => &[&gcore],
    };
    gdb::attached(*instance.pids().get(1).unwrap(), commands);
    assert!(core.is_file(), "gdb wrote {}", core.display());
    core
}

/// The findings of one rule after some bytes of a core were changed.
fn findings(patient: &Patient, place: u64, bytes: &[u8], rule: &str) -> Vec<Finding> {
    let _wound = patient.hurt(&[(place, bytes.to_vec())]);
    let mut command = forensics();
    command.arg("--json").arg(patient.path());
    let report: Report = run(&mut command, tools::PATIENCE).expect(&[0, 1]).json();
    report.findings.into_iter().filter(|found| found.rule == rule).collect()
}

fn number(text: &str) -> u64 {
    u64::from_str_radix(text.trim_start_matches("0x"), 16).unwrap()
}

/// `used` in the block of the private pool is wrong by one fragment's payload.
fn one_step_behind(core: &Path) -> Finding {
    let heap = oracle::heap(&[core]);
    let block = number(heap.private().next().unwrap().block.as_deref().unwrap());
    let patient = Patient::open(core);
    let wrong = patient.word(block + 16) + 848;
    let found = findings(&patient, block + 16, &wrong.to_le_bytes(), "heap-counters-disagree");
    let [found] = &found[..] else { panic!("one finding is expected: {found:?}") };
    found.clone()
}

#[test]
fn an_unfinished_call_is_possible_damage_only() {
    let scratch = tools::scratch("unfinished");
    let instance = Instance::start(Options::default());
    let waiting = dump(&instance, &scratch, false);
    let allocating = dump(&instance, &scratch, true);
    let found = one_step_behind(&waiting);
    assert_eq!(found.severity, "error", "{found:?}");
    let found = one_step_behind(&allocating);
    assert_eq!(found.severity, "note", "{found:?}");
    assert!(found.summary.contains("a process stands inside its allocator"), "{found:?}");

    // Text over a header was written by no allocator.
    let heap = oracle::fragments(&[&allocating]);
    let fragments = &heap.shared().fragments;
    let victim = number(&fragments.get(fragments.len() / 2).unwrap().header);
    let text = b"Via: SIP/2.0/UDP 192.0.2.7:5060;branch=z9hG4bK77ef4c2312983.1;rport";
    let found = findings(&Patient::open(&allocating), victim, text, "heap-chain-broken");
    let [found] = &found[..] else { panic!("one finding is expected: {found:?}") };
    assert_eq!(found.severity, "critical", "{found:?}");
}
