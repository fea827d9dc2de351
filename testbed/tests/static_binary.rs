//! The collector as one static file, run where there is nothing else: an empty root directory
//! with `/proc` in it.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use testbed::kamailio::{Instance, Options};
use testbed::{oracle, tools};

/// The triple of this machine, as `rustc` names it.
fn host() -> String {
    let mut rustc = Command::new("rustc");
    let text = tools::run(rustc.arg("-vV"), Duration::from_secs(60)).expect(&[0]).text();
    text.lines().find_map(|line| line.strip_prefix("host: ")).unwrap().to_owned()
}

#[test]
fn a_static_collector_needs_nothing_from_the_host() {
    // The triple keeps the flag away from build scripts and the result apart from other builds.
    let arguments = ["-p", "collector", "--bins", "--target", &host()];
    let built = tools::build(&arguments, &[("RUSTFLAGS", "-C target-feature=+crt-static")]);
    let collector = built.iter().find(|path| path.ends_with("collect-evidence")).unwrap();
    assert!(!asks_for_an_interpreter(collector), "{} is not static", collector.display());

    let instance = Instance::start(Options::default());
    oracle::exercise(&instance, 2000);
    let root = instance.directory().join("root");
    fs::create_dir_all(root.join("proc")).unwrap();
    fs::copy(collector, root.join("collect-evidence")).unwrap();
    let before = instance.rpc().reading();
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-euc"]);
    command.arg("mount -t proc proc \"$1/proc\" && exec chroot \"$1\" /collect-evidence --pid \"$2\" -o /group.tar.zst");
    command.arg("sh").arg(&root).arg(instance.main_pid().to_string());
    tools::run(&mut command, tools::PATIENCE).expect(&[0, 1]);
    assert_eq!(instance.rpc().reading(), before);

    let bundle = root.join("group.tar.zst");
    let shared = before.shared;
    let heap = oracle::heap(&[&bundle]);
    let walked = heap.shared().walked();
    assert!(walked.complete);
    assert_eq!(
        [walked.used_bytes, walked.real_used_bytes, walked.free_fragments],
        [shared.used, shared.real_used, shared.fragments]
    );
    assert_eq!(heap.shared().manager, "q_malloc");
    assert_eq!(heap.private().count(), instance.pids().len());
}

/// Whether the file has a PT_INTERP segment: then it needs a dynamic linker.
fn asks_for_an_interpreter(program: &Path) -> bool {
    use object::read::elf::{FileHeader, ProgramHeader};
    let bytes = fs::read(program).unwrap();
    let data = bytes.as_slice();
    let header = object::elf::FileHeader64::<object::Endianness>::parse(data).unwrap();
    let endian = header.endian().unwrap();
    let mut programs = header.program_headers(endian, data).unwrap().iter();
    programs.any(|program| program.p_type(endian) == object::elf::PT_INTERP)
}
