//! A process that is dumped in the middle of an allocation: what is half changed then is possible
//! damage, in any other process it is certain.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::path::{Path, PathBuf};

use testbed::analysis::Finding;
use testbed::gdb;
use testbed::kamailio::{Instance, Options};
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

/// The findings of rule `heap-counters-disagree` after the block's `used` was changed.
fn findings(core: &Path) -> Vec<Finding> {
    let heap = testbed::oracle::heap(&[core]);
    let pool = heap.private().next().unwrap();
    let block = pool.block.as_deref().unwrap().trim_start_matches("0x");
    let block = u64::from_str_radix(block, 16).unwrap();
    let patient = Patient::open(core);
    let used = block + 16;
    let wrong = patient.word(used) + 848;
    let _wound = patient.hurt(&[(used, wrong.to_le_bytes().to_vec())]);
    let mut command = forensics();
    command.arg("--json").arg(core);
    let report: testbed::analysis::Report = run(&mut command, tools::PATIENCE).expect(&[1]).json();
    report.findings.into_iter().filter(|found| found.rule == "heap-counters-disagree").collect()
}

#[test]
fn an_unfinished_call_is_possible_damage_only() {
    let scratch = tools::scratch("unfinished");
    let instance = Instance::start(Options::default());
    let waiting = dump(&instance, &scratch, false);
    let allocating = dump(&instance, &scratch, true);
    let [found] = &findings(&waiting)[..] else { panic!("one finding is expected") };
    assert_eq!(found.severity, "error", "{found:?}");
    let [found] = &findings(&allocating)[..] else { panic!("one finding is expected") };
    assert_eq!(found.severity, "warning", "{found:?}");
    assert!(found.summary.contains("a process stands inside its allocator"), "{found:?}");
}
