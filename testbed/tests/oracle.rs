//! One instance under a real load, dumped in three ways; each dump must say to the byte what the
//! instance said about itself. Then the same with the pools' own counters erased.
#![expect(clippy::expect_used, reason = "a test stops at the first surprise")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use testbed::analysis::Report;
use testbed::elf::Core;
use testbed::kamailio::{Instance, Options};
use testbed::oracle::{self, Oracle};
use testbed::{gdb, kernel, proc, tools};

/// The instance's figures and its dumps; the instance itself has died for the kernel's cores.
struct Case {
    oracle: Oracle,
    scratch: PathBuf,
    bundle: PathBuf,
    /// By gdb's `gcore`, in the order of the process table.
    gdb_cores: Vec<PathBuf>,
    /// By the kernel, in the same order.
    kernel_cores: Vec<PathBuf>,
}

/// Made once for all tests of this file.
#[track_caller]
fn case() -> &'static Case {
    static CASE: OnceLock<Option<Case>> = OnceLock::new();
    let case = CASE.get_or_init(|| std::panic::catch_unwind(make_case).ok());
    case.as_ref().expect("the case could be made; the first test that needed it says why not")
}

fn make_case() -> Case {
    let scratch = tools::scratch("oracle");
    let bundle = scratch.join("group.tar.zst");
    let instance = Instance::start(Options::default());
    oracle::exercise(&instance, 20_000);
    let oracle = oracle::collect_between_readings(&instance, &bundle);
    assert!(oracle.reading.shared.fragments > 500, "the deletions left holes");
    let in_table: u64 = (oracle.summary.iter())
        .filter(|(owner, _)| owner.function == "ht_cell_new")
        .map(|(_, share)| share.fragments)
        .sum();
    assert!(in_table > 18_000, "the load left {in_table} entries");

    let core = |kind: &str, pid: &u32| scratch.join(format!("{kind}.{pid}"));
    let gdb_cores: Vec<PathBuf> = instance.pids().iter().map(|pid| core("gdb", pid)).collect();
    for (pid, core) in instance.pids().iter().zip(&gdb_cores) {
        gdb::gcore(*pid, core);
    }
    assert_eq!(instance.rpc().reading(), oracle.reading, "gcore left the figures as they were");

    let kernel_cores: Vec<PathBuf> =
        instance.pids().iter().map(|pid| core("kernel", pid)).collect();
    let mut pairs: Vec<_> = instance.pids().iter().zip(&kernel_cores).collect();
    proc::stop_all(instance.pids());
    // The main process last: it would end the others when it learns of a child's death.
    pairs.rotate_left(1);
    for (pid, core) in pairs {
        kernel::dump(*pid, instance.directory(), core);
    }
    Case { oracle, scratch, bundle, gdb_cores, kernel_cores }
}

#[test]
fn the_bundle_says_what_kamailio_said() {
    let case = case();
    case.oracle.assert_group(&oracle::heap(&[&case.bundle]));
}

#[test]
fn the_bundle_lists_the_fragments_that_kamailio_listed() {
    let case = case();
    case.oracle.assert_fragments(oracle::fragments(&[&case.bundle]).shared());
}

#[test]
fn cores_by_gdb_say_what_kamailio_said() {
    let case = case();
    case.oracle.assert_group(&oracle::heap(&case.gdb_cores));
    case.oracle.assert_fragments(oracle::fragments(&case.gdb_cores[..1]).shared());
}

#[test]
fn cores_by_the_kernel_say_what_kamailio_said() {
    let case = case();
    case.oracle.assert_group(&oracle::heap(&case.kernel_cores));
    case.oracle.assert_fragments(oracle::fragments(&case.kernel_cores[..1]).shared());
}

#[test]
fn without_the_pools_own_counters_the_walk_still_knows() {
    let case = case();
    let said = case.oracle.reading.private.iter().find(|entry| entry.rank == 1).unwrap();
    let pid = case.oracle.outer_pid[&said.pid];
    let path = case.scratch.join("extracted");
    oracle::extract(&case.bundle, pid, &path);
    let core = Core::open(&path);
    // In the block: size, used, real_used, max_real_used, free fragments; 8 bytes each. Found by
    // what the instance said, not by our own analysis.
    let shared = &case.oracle.reading.shared;
    let mut changes = Vec::new();
    for words in [
        [shared.total, shared.used, shared.real_used],
        [said.total_size, said.used, said.real_used],
    ] {
        let places = core.find(&words);
        let [size] = places[..] else { panic!("the block {words:?} stands at {places:x?}") };
        changes.extend([(size + 8, 0), (size + 16, 0), (size + 32, 0)]);
    }
    let erased = case.scratch.join("erased");
    fs::write(&erased, core.patched(&changes)).unwrap();

    let heap = oracle::heap(&[&erased]);
    let private = heap.private().next().expect("the private pool");
    for counters in [heap.shared().counters(), private.counters()] {
        assert_eq!([counters.used, counters.real_used, counters.free_fragments], [0; 3]);
    }
    case.oracle.assert_shared_walk(heap.shared());
    case.oracle.assert_private_walk(private, said);

    let disagreements = |input: &Path| {
        let mut command = tools::forensics();
        command.arg("--json").arg(input);
        let finished = tools::run(&mut command, tools::PATIENCE).expect(&[0, 1]);
        let report: Report = finished.json();
        let found = report.findings.iter().filter(|found| found.rule == "heap-counters-disagree");
        (found.count(), finished.status.code())
    };
    assert_eq!(disagreements(&path).0, 0, "in the untouched core counters and walk agree");
    let (found, code) = disagreements(&erased);
    assert!(found >= 1, "the disagreement is a finding");
    assert_eq!(code, Some(1), "a disagreement is worth a warning");
}

#[test]
fn plain_tar_and_zstd_read_the_bundle() {
    let case = case();
    let minute = Duration::from_secs(60);
    let mut list = Command::new("tar");
    list.args(["--zstd", "-tvf"]).arg(&case.bundle);
    let names = tools::run(&mut list, minute).expect(&[0]).text();
    let lines: Vec<&str> = names.lines().collect();
    assert!(lines[0].ends_with(" header.json"), "the first member: {}", lines[0]);
    assert!(lines[lines.len() - 1].ends_with(" manifest.json"), "the last member");
    let mut test = Command::new("zstd");
    test.arg("-t").arg(&case.bundle);
    tools::run(&mut test, minute).expect(&[0]);
}

#[test]
fn the_bundle_is_sealed_and_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt;

    let case = case();
    let mode = fs::metadata(&case.bundle).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600, "the bundle holds memory: nobody else may read it");
    let mut verify = tools::forensics();
    tools::run(verify.arg("verify").arg(&case.bundle), tools::PATIENCE).expect(&[0]);
    let mut info = tools::forensics();
    let info = tools::run(info.arg("info").arg(&case.bundle), tools::PATIENCE).expect(&[0]);
    for pid in case.oracle.outer_pid.values() {
        assert!(info.text().contains(&pid.to_string()), "process {pid} in {info:?}");
    }
}
