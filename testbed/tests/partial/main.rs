//! Cores that lack something: cut short, without shared memory, without module files, with another
//! build of the binary, by the kernel and by gdb. Each gives all that is still true and no more.
//!
//! What a core must still give is computed from the whole core of the same stopped process and the
//! place of each fragment in the file, by a reader of cores that is not the one under test.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test stops at the first surprise"
)]

mod case;
mod whole;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use object::Object as _;
use testbed::kamailio::{Instance, Manager, Options};
use testbed::load::{self, Kind};
use testbed::{gdb, kernel, oracle, proc, tools};

use case::Seen::{BeforeEnd, Nothing, Unknown};
use case::{Case, EXECUTABLE, Host, Names, Seen, analyse, modules, short};
use whole::{End, Whole};

/// A worker of a stopped instance, dumped by gdb and then by the kernel.
fn dump(instance: &Instance, pid: u32, directory: &Path) -> [Whole; 2] {
    let [gdbs, kernels] = ["gdb", "kernel"].map(|writer| directory.join(writer));
    gdb::gcore(pid, &gdbs);
    kernel::dump(pid, instance.directory(), &kernels);
    [Whole::of("gdb", &gdbs), Whole::of("kernel", &kernels)]
}

/// The executable and the modules below a root of their own; the executable as if built otherwise;
/// and what a distribution would split off it.
fn copies(directory: &Path) -> [PathBuf; 3] {
    let (root, other) = (directory.join("root"), directory.join("other"));
    let mut command = Command::new("cp");
    command.args(["-r", "--parents", EXECUTABLE]).arg(modules()).arg(&root);
    fs::create_dir(&root).unwrap();
    tools::run(&mut command, Duration::from_secs(60)).expect(&[0]);
    let mut bytes = fs::read(EXECUTABLE).unwrap();
    let build_id = object::File::parse(&*bytes).unwrap().build_id().unwrap().unwrap().to_vec();
    let at = bytes.windows(build_id.len()).position(|run| run == build_id).unwrap();
    bytes[at..at + build_id.len()].reverse();
    fs::create_dir(&other).unwrap();
    let other = other.join("kamailio");
    fs::write(&other, bytes).unwrap();
    let debug = directory.join("kamailio.debug");
    let mut command = Command::new("objcopy");
    command.args(["--only-keep-debug", EXECUTABLE]).arg(&debug);
    tools::run(&mut command, Duration::from_secs(60)).expect(&[0]);
    [root, other, debug]
}

const SEEN: (Seen, Seen, Names) = (BeforeEnd, BeforeEnd, Names::All);
const OWN: (Host, &[&str]) = (Host::OwnFiles, &[]);
const NONE: (Host, &[&str]) = (Host::NoFiles, &[]);
const NOT_DUMPED: &str = "shared memory was not dumped (coredump_filter)";

/// Cores that end early, with all files, with none, and with those that the user names.
fn cut(gdbs: &Whole, kernels: &Whole, [root, other, debug]: [&str; 3]) -> Vec<String> {
    let mut rows = Vec::new();
    for whole in [kernels, gdbs] {
        let lost = if whole.writer == "gdb" { "notes of the core" } else { "bytes of the core" };
        let of_core = Names::OfCore;
        let mut row = |end, from, seen, told: &[&str]| rows.push(whole.row(end, from, seen, told));
        row(End::Whole, OWN, SEEN, &[]);
        row(End::Percent(95), OWN, SEEN, &[lost]);
        row(End::Percent(60), OWN, (Nothing, BeforeEnd, of_core), &[lost, "file cut short"]);
        row(End::Percent(30), OWN, (Nothing, BeforeEnd, of_core), &[lost, "file cut short"]);
        row(End::Percent(5), OWN, (Nothing, Nothing, of_core), &[lost, "file cut short"]);
        row(End::Among("pkg"), OWN, (BeforeEnd, BeforeEnd, Names::All), &[lost]);
        row(End::Among("shm"), OWN, (Nothing, BeforeEnd, of_core), &[lost]);
        row(End::InBlock("shm"), OWN, (Nothing, Nothing, of_core), &["file cut short"]);

        let nobody = (BeforeEnd, BeforeEnd, Names::No);
        row(End::Whole, NONE, nobody, &["no file with build ID"]);
        row(End::Percent(95), NONE, nobody, &[lost, "no file with build ID"]);
        row(End::Among("pkg"), NONE, nobody, &[lost]);
        row(End::Among("shm"), NONE, (Nothing, BeforeEnd, Names::No), &[lost]);
        let at_all = if whole.writer == "gdb" { Unknown } else { Nothing };
        row(End::Percent(5), NONE, (at_all, at_all, Names::No), &[lost]);

        let given = (Host::NoFiles, &["--module", root][..]);
        row(End::Percent(95), given, SEEN, &[lost]);
        row(End::Among("pkg"), given, SEEN, &[lost]);
        // Without the build ID behind the cut: by the path in the kernel's notes, or by the loader's
        // own list on the heap.
        let by_name = (Nothing, BeforeEnd, Names::All);
        row(End::Among("shm"), given, by_name, &["taken by its name"]);
        let sysroot = (Host::NoFiles, &["--sysroot", root][..]);
        row(End::Percent(95), sysroot, SEEN, &[lost]);
        row(End::Among("shm"), sysroot, by_name, &["taken by its name"]);
        let split = (Host::NoFiles, &["--module", debug][..]);
        row(End::Whole, split, nobody, &["only its debug information is at hand"]);
        let both = (Host::NoFiles, &["--module", debug, "--module", root][..]);
        row(End::Whole, both, SEEN, &[]);

        let wrong = (Host::NoFiles, &["--module", other][..]);
        row(End::Whole, wrong, nobody, &["has another build ID: the core says"]);
        let unused = if whole.writer == "gdb" { "not used: no module" } else { "another build ID" };
        row(End::Among("shm"), wrong, (Nothing, BeforeEnd, Names::No), &[unused]);
        row(End::Whole, (Host::OtherBuild, &[]), nobody, &["has another build ID: the core says"]);
    }
    rows
}

/// Cores that were written without some memory, each of a process of its own.
fn filtered(instance: &Instance, pids: &[u32], directory: &Path, root: &str) -> Vec<String> {
    let given: &[&str] = &["--module", root];
    let nobody = (BeforeEnd, BeforeEnd, Names::No);
    type Expected<'a> = (u32, &'a [&'a str], (Seen, Seen, Names), &'a [&'a str]);
    let expected: [Expected<'_>; 8] = [
        (0x31, &[], (BeforeEnd, Nothing, Names::All), &[NOT_DUMPED, "process table"]),
        (0x23, &[], nobody, &["its build ID is not in the core"]),
        (0x23, given, SEEN, &["taken by its name"]),
        (0x32, &[], (Nothing, BeforeEnd, Names::All), &["PKG pool of process"]),
        (0x7f, &[], SEEN, &[]),
        (0x01, &[], (BeforeEnd, Nothing, Names::No), &[NOT_DUMPED]),
        (0x01, given, (BeforeEnd, Nothing, Names::All), &[NOT_DUMPED, "taken by its name"]),
        (0x00, &[], (Nothing, Nothing, Names::No), &[NOT_DUMPED, "PKG pool of process"]),
    ];
    let mut rows = Vec::new();
    for ((filter, words, (private, shared, names), told), &pid) in expected.iter().zip(pids) {
        let path = |name: &str| directory.join(format!("{name}-{pid}"));
        gdb::gcore(pid, &path("whole"));
        fs::write(format!("/proc/{pid}/coredump_filter"), format!("{filter:#x}")).unwrap();
        gdb::gcore(pid, &path("gdb"));
        kernel::dump(pid, instance.directory(), &path("kernel"));
        let whole = &Whole::of("gdb", &path("whole"));
        for writer in ["gdb", "kernel"] {
            let name = &format!("{writer}, filter {filter:#04x} {}", short(words));
            let (host, core) = (Host::OwnFiles, &path(writer));
            let (private, shared, names) = (*private, *shared, *names);
            let case = Case { name, core, whole, host, words, private, shared, names, told };
            rows.push(case.check());
        }
        if *shared == Nothing {
            let text = tools::run(tools::forensics().arg(path("kernel")), tools::PATIENCE).text();
            let joined = text.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(joined.contains(NOT_DUMPED), "{text}");
            assert!(!text.contains(" 0 used, 0 free"), "nothing is not zero: {text}");
        }
    }
    rows
}

/// Two managers whose fragments have no trailers, each with its own pool.
fn other_managers(directory: &Path) -> Vec<String> {
    let instance = Instance::start(Options {
        manager: Manager::Tlsf,
        private_manager: Some(Manager::Fm),
        shared_mib: 8,
        private_mib: 4,
        ..Options::default()
    });
    load::send(&instance, Kind::Keep, 4000, 2500);
    proc::stop_all(instance.pids());
    let wholes = dump(&instance, instance.pids()[1], directory);
    let mut rows = Vec::new();
    for whole in &wholes {
        assert_eq!(whole.pool("shm").manager, "tlsf_malloc");
        assert_eq!(whole.pool("pkg").manager, "f_malloc");
        let mut row = |end, from, seen| rows.push(whole.row(end, from, seen, &[]));
        row(End::Percent(95), OWN, SEEN);
        row(End::Among("pkg"), OWN, SEEN);
        row(End::Among("pkg"), NONE, (BeforeEnd, BeforeEnd, Names::No));
        row(End::Among("shm"), OWN, (Nothing, BeforeEnd, Names::OfCore));
        row(End::Among("shm"), NONE, (Nothing, BeforeEnd, Names::No));
        row(End::InBlock("pkg"), OWN, (Nothing, BeforeEnd, Names::OfCore));
    }
    rows
}

#[test]
fn every_partial_core_gives_all_that_is_still_true() {
    let scratch = tools::scratch("partial");
    let instance =
        Instance::start(Options { shared_mib: 16, private_mib: 4, ..Options::default() });
    oracle::exercise(&instance, 3000);
    load::send(&instance, Kind::Big, 6000, 2500);
    proc::stop_all(instance.pids());
    let copies = copies(&scratch);
    let [root, other, debug] = copies.each_ref().map(|path| path.to_str().unwrap());

    let [gdbs, kernels] = dump(&instance, instance.pids()[1], &scratch);
    let mut rows = cut(&gdbs, &kernels, [root, other, debug]);
    rows.extend(filtered(&instance, &instance.pids()[2..], &scratch, root));
    let folder = scratch.join("other-managers");
    fs::create_dir(&folder).unwrap();
    rows.extend(other_managers(&folder));

    // Of so little nothing can be read at all.
    let path = scratch.join("header.cut");
    fs::write(&path, &fs::read(&kernels.path).unwrap()[..100]).unwrap();
    let finished = analyse(&path, Host::OwnFiles, &[]).expect(&[2]);
    assert!(finished.stdout.is_empty() && finished.errors().contains("header.cut"));
    rows.push("kernel, 100 bytes: exit 2".to_owned());

    println!("{}", rows.join("\n"));
    assert_eq!(rows.len(), 2 * 23 + 2 * 8 + 2 * 6 + 1, "cases");
    fs::remove_dir_all(&scratch).unwrap();
}
