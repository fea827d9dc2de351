//! The cores that `forensics extract` writes, against gdb's own `gcore` of the same stopped
//! processes: threads, registers, memory, and every page that the kernel says exists.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test stops at the first surprise"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use bundle::PAGE_SIZE;
use bundle::notes::OWNER;
use tempfile::TempDir;
use testbed::elf::{Content, Core};
use testbed::kamailio::{Instance, Options};
use testbed::load::{self, Kind};
use testbed::proc::{self, Mapping};
use testbed::{gdb, kernel, oracle, tools};

/// What differs and nobody can help: clock data that the kernel changes all the time, and a page
/// outside every process's own memory.
const ALLOWED: &[&str] = &["[vvar]", "[vvar_vclock]", "[vsyscall]"];

/// What the kernel showed of a stopped process before any core was written.
struct Shown {
    mappings: Vec<Mapping>,
    /// Every writable page that exists.
    pages: BTreeSet<u64>,
}

impl Shown {
    fn of(pid: u32) -> Self {
        Self { mappings: proc::mappings(pid), pages: proc::writable_pages(pid) }
    }

    fn name(&self, address: u64) -> &str {
        let mapping = self.mappings.iter().find(|mapping| mapping.range.contains(&address));
        mapping.map_or("(not mapped)", |mapping| &mapping.name)
    }
}

/// Collects the stopped processes, and asserts that this neither created nor dropped a page.
#[track_caller]
fn collect(pids: &[u32], bundle: &Path) -> Vec<Shown> {
    let shown: Vec<Shown> = pids.iter().map(|pid| Shown::of(*pid)).collect();
    tools::collect(pids[0], bundle);
    for (&pid, shown) in pids.iter().zip(&shown) {
        let now = proc::writable_pages(pid);
        let changed: Vec<_> = now.symmetric_difference(&shown.pages).collect();
        assert!(
            changed.is_empty(),
            "the collection created or dropped pages of {pid}: {changed:x?}"
        );
    }
    shown
}

/// Compares everything of one stopped process.
#[track_caller]
fn check(pid: u32, executable: &Path, shown: &Shown, bundle: &Path, directory: &Path) {
    let (own, theirs) = (directory.join("own.core"), directory.join("gdb.core"));
    oracle::extract(bundle, pid, &own);
    let core = Core::open(&own);

    // First against the kernel: gcore reads untouched shared pages, and so creates them.
    let mut missing = BTreeMap::<&str, u64>::new();
    for &page in &shown.pages {
        let live = proc::read_memory(pid, page, PAGE_SIZE);
        if !core.at(page, PAGE_SIZE).equals(&live) {
            *missing.entry(shown.name(page)).or_default() += 1;
        }
    }
    assert!(missing.is_empty(), "writable pages of {pid} not in our core: {missing:?}");

    gdb::gcore(pid, &theirs);
    let reference = Core::open(&theirs);
    let mut differences = BTreeMap::<&str, (u64, u64)>::new();
    for segment in reference.segments() {
        for page in (segment.start..segment.start + segment.memory)
            .step_by(usize::try_from(PAGE_SIZE).unwrap())
        {
            let expected = match reference.at(page, PAGE_SIZE) {
                Content::Bytes(bytes) => bytes.to_vec(),
                Content::Zero | Content::Absent => continue,
            };
            let found = core.at(page, PAGE_SIZE);
            if !found.equals(&expected) {
                let name = shown.name(page);
                let entry = differences.entry(name).or_default();
                if found == Content::Absent { entry.0 += 1 } else { entry.1 += 1 }
            }
        }
    }
    differences.retain(|name, _| !ALLOWED.contains(name));
    assert!(
        differences.is_empty(),
        "pages of {pid} that gdb saved, by mapping: (not in our core, other bytes): \
         {differences:?}"
    );

    assert_eq!(core.threads(), reference.threads(), "threads of {pid}");
    for question in ["info threads", "info auxv", "thread apply all backtrace"] {
        let ours = gdb::ask(executable, &own, &[question]);
        let gdbs = gdb::ask(executable, &theirs, &[question]);
        assert_eq!(without_greeting(&ours), without_greeting(&gdbs), "`{question}` of {pid}");
    }
    check_registers(pid, executable, &own, &theirs);
}

/// Every register that gdb reads from our core equals the one in its own.
///
/// gdb 13 knows one layout of the extended state (`NT_X86_XSTATE`), Intel's. On other processors
/// it rejects the note as the kernel gives it, ours or the kernel's own, and calls the registers
/// above SSE unavailable, while its own gcore holds them from the wrong places. There
/// [`check_against_kernel`] compares the note itself.
#[track_caller]
fn check_registers(pid: u32, executable: &Path, own: &Path, theirs: &Path) {
    let ask = |core: &Path| {
        without_greeting(&gdb::ask(executable, core, &["thread apply all info all-registers"]))
    };
    let (ours, gdbs) = (ask(own), ask(theirs));
    assert_eq!(ours.lines().count(), gdbs.lines().count(), "registers of {pid}:\n{ours}\n{gdbs}");
    for (ours, gdbs) in ours.lines().zip(gdbs.lines()) {
        let name = ours.split_whitespace().next().unwrap_or_default();
        let extended = ["k", "ymm", "zmm", "pkru"].iter().any(|start| name.starts_with(start));
        if !(extended && ours.contains("<unavailable>")) {
            assert_eq!(ours, gdbs, "a register of {pid}: ours (left) and gdb's (right)");
        }
    }
}

/// gdb's answer without what it says on opening, which names the file or its producer.
fn without_greeting(text: &str) -> String {
    let noise = ["Core was generated by", "[New LWP", "Program terminated", "warning:"];
    let kept = text.lines().filter(|line| !noise.iter().any(|start| line.starts_with(start)));
    kept.collect::<Vec<_>>().join("\n")
}

/// The registers in our core are, byte for byte, those of the kernel's own core of the same
/// stopped process, which dies of it.
#[track_caller]
fn check_against_kernel(instance: &Instance, pid: u32, own: &Path, directory: &Path) {
    const NT_PRSTATUS: u32 = 1;
    const NT_FPREGSET: u32 = 2;
    const NT_X86_XSTATE: u32 = 0x202;
    let path = directory.join("kernel.core");
    kernel::dump(pid, instance.directory(), &path);
    let (own, kernels) = (Core::open(own), Core::open(&path));
    for kind in [NT_PRSTATUS, NT_FPREGSET, NT_X86_XSTATE] {
        let content = |core: &Core| {
            let note = core.notes().iter().find(|note| note.kind == kind && note.owner != OWNER);
            let mut content = note.map(|note| note.content.clone()).unwrap_or_default();
            if kind == NT_PRSTATUS {
                // pr_reg; before it stand the pending signals, which are not the same.
                content = content.drain(112..112 + 27 * 8).collect();
            }
            content
        };
        assert_eq!(content(&own), content(&kernels), "note {kind:#x} of {pid}: ours, the kernel's");
    }
}

#[test]
fn every_process_of_a_group() {
    let scratch = tools::scratch("gdb-cores");
    let instance = Instance::start(Options::default());
    oracle::exercise(&instance, 2000);
    proc::stop_all(instance.pids());
    let bundle = scratch.join("group.tar.zst");
    let shown = collect(instance.pids(), &bundle);
    for &pid in instance.pids() {
        let left = proc::threads(pid);
        let stopped = left.iter().all(|thread| thread.1 == 0 && thread.2 == 'T');
        assert!(stopped, "a process that was stopped before is left stopped: {left:?}");
    }
    for (pid, shown) in instance.pids().iter().zip(&shown) {
        check(*pid, Path::new("/usr/sbin/kamailio"), shown, &bundle, &scratch);
    }
    // Children first: the main process would end the others when it learns of a child's death.
    for &pid in instance.pids()[1..].iter().chain(&instance.pids()[..1]) {
        let own = scratch.join("own.core");
        oracle::extract(&bundle, pid, &own);
        check_against_kernel(&instance, pid, &own, &scratch);
    }
}

/// A program with several threads that busy themselves with different registers.
struct Threads {
    child: Child,
    _directory: TempDir,
}

impl Threads {
    fn start() -> Self {
        let directory = TempDir::new().unwrap();
        let script = directory.path().join("threads.py");
        std::fs::write(&script, include_str!("../config/threads.py")).unwrap();
        let mut command = Command::new("/usr/bin/python3");
        command.arg(script).stdin(Stdio::null());
        Self { child: command.spawn().expect("python3 starts"), _directory: directory }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_process_with_several_threads() {
    let scratch = tools::scratch("gdb-threads");
    let threads = Threads::start();
    let pid = threads.child.id();
    proc::until("all threads run", || proc::threads(pid).len() == 8);
    proc::stop_all(&[pid]);
    let bundle = scratch.join("threads.tar.zst");
    let shown = collect(&[pid], &bundle);
    check(pid, Path::new("/usr/bin/python3"), &shown[0], &bundle, &scratch);
}

#[test]
fn a_process_that_runs_is_left_running() {
    let instance = Instance::start(Options::default());
    let mut traffic = load::Traffic::start(&instance, Kind::Pass, 300);
    let bundle = instance.directory().join("group.tar.zst");
    tools::collect(instance.main_pid(), &bundle);
    traffic.assert_running();
    load::answered(&instance, 20);
    let core = instance.directory().join("worker.core");
    oracle::extract(&bundle, instance.pids()[1], &core);
    let stack = gdb::ask(Path::new("/usr/sbin/kamailio"), &core, &["backtrace"]);
    assert!(stack.contains("udp_rcv_loop"), "gdb's backtrace of a worker:\n{stack}");
}
