//! Cores that the kernel writes of dying processes: what `forensics` says of them, against the
//! kernel's own words as gdb shows them, for a C program that dies in many ways and for Kamailio.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test stops at the first surprise"
)]

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use testbed::kamailio::{Instance, Options};
use testbed::{gdb, kernel, proc, tools};

const KAMAILIO: &str = "/usr/sbin/kamailio";

/// A program of `samples/crashes`, and a directory for its cores.
struct Sample {
    program: PathBuf,
    directory: PathBuf,
}

impl Sample {
    fn build(test: &str) -> Self {
        let directory = tools::scratch(test);
        let program = directory.join("crashes");
        let mut compiler = Command::new("gcc");
        compiler.args(["-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror"]);
        compiler.args(["-fno-optimize-sibling-calls", "-fcf-protection=none", "-pthread", "-o"]);
        compiler.arg(&program).arg(tools::workspace().join("samples/crashes/crashes.c"));
        tools::run(&mut compiler, Duration::from_secs(60)).expect(&[0]);
        Self { program, directory }
    }

    #[track_caller]
    fn start(&self, way: &str) -> Child {
        let mut command = Command::new("prlimit");
        command.args(["--core=unlimited:unlimited"]).arg(&self.program).arg(way);
        command.arg(self.directory.join("map")).current_dir(&self.directory);
        command.stdout(Stdio::piped()).spawn().unwrap()
    }

    /// Lets it die, and returns its core.
    #[track_caller]
    fn die(&self, way: &str) -> PathBuf {
        let mut child = self.start(way);
        self.core_of(&mut child, way)
    }

    #[track_caller]
    fn core_of(&self, child: &mut Child, way: &str) -> PathBuf {
        let status = tools::wait(child, Duration::from_secs(60)).unwrap();
        assert_eq!(status.code(), None, "{way} ends by a signal: {status}");
        let core = self.directory.join(format!("{way}.saved"));
        kernel::take_core(child.id(), &self.directory, &core);
        core
    }
}

/// The report of `forensics threads` about a core on the host that it comes from.
#[track_caller]
fn report(core: &Path) -> Value {
    let mut command = tools::forensics();
    command.args(["threads", "--json"]).arg(core);
    tools::run(&mut command, Duration::from_secs(120)).expect(&[0, 1]).json()
}

/// The only crash of a core.
#[track_caller]
fn crash(core: &Path) -> Value {
    let report = report(core);
    let crashes = report["crashes"].as_array().unwrap();
    assert_eq!(crashes.len(), 1, "{crashes:?}");
    let findings = report["findings"].as_array().unwrap();
    assert_eq!(findings[0]["rule"], "crashed", "{findings:?}");
    let crashing = threads(&report).filter(|thread| thread["doing"] == "crashing").count();
    assert_eq!(crashing, 1, "one thread dies");
    crashes[0].clone()
}

fn threads(report: &Value) -> impl Iterator<Item = &Value> {
    let processes = report["processes"].as_array().unwrap().iter();
    processes.flat_map(|process| process["threads"].as_array().unwrap())
}

/// What gdb answers to a question about a core.
#[track_caller]
fn asked(program: &Path, core: &Path, question: &str) -> String {
    let text = gdb::ask(program, core, &["echo @@@@", question]);
    text.rsplit("@@@@").next().unwrap().to_owned()
}

#[track_caller]
fn number(program: &Path, core: &Path, expression: &str) -> u64 {
    let text = gdb::ask(program, core, &[&format!("printf \"@@@@%lu\\n\", {expression}")]);
    let number = text.rsplit("@@@@").next().unwrap().trim();
    number.parse().unwrap_or_else(|_| panic!("{expression}: {text}"))
}

/// Signal, cause and address are the kernel's; the instruction is gdb's; the standing is primary.
#[track_caller]
fn agrees_with_gdb(program: &Path, core: &Path, crash: &Value) {
    let ask = |expression: &str| number(program, core, expression);
    assert_eq!(crash["signal"], ask("$_siginfo.si_signo"), "{crash}");
    let code = ask("(unsigned long) (unsigned int) $_siginfo.si_code");
    let said = i32::try_from(crash["code"].as_i64().unwrap()).unwrap();
    assert_eq!(u64::from(u32::from_le_bytes(said.to_le_bytes())), code, "{crash}");
    let memory_fault = crash["fault"]["from_kernel"] == true;
    if memory_fault {
        let address = ask("(unsigned long) $_siginfo._sifields._sigfault.si_addr");
        assert_eq!(crash["fault"]["address"], format!("{address:#x}"), "{crash}");
    }
    if let Some(text) = crash["instruction"]["text"].as_str() {
        let pc = ask("(unsigned long) $pc");
        assert_eq!(crash["instruction"]["address"], format!("{pc:#x}"));
        // `=> 0x401136 <null_field+4>:\tmov    0x28(%rdi),%rax`
        let shown = asked(program, core, "x/i $pc");
        let shown = shown.rsplit(":\t").next().unwrap();
        let shown = shown.split([';', '#', '<']).next().unwrap();
        assert_eq!(squeezed(text), squeezed(shown), "{crash}");
    }
}

/// Without blanks, and without the factor of 1 that gdb shows with an index.
fn squeezed(text: &str) -> String {
    let text: String = text.split_whitespace().collect();
    text.replace(",1)", ")")
}

/// How the sample dies, and what is said: signal, function, access, kind of address, part of the
/// cause.
type Way = (
    &'static str,
    &'static str,
    &'static str,
    Option<&'static str>,
    Option<&'static str>,
    &'static str,
);

const WAYS: &[Way] = &[
    ("null-field", "SIGSEGV", "null_field", Some("read"), Some("null"), "nothing is mapped"),
    ("write-constant", "SIGSEGV", "write_constant", Some("write"), Some("mapped"), "not allow"),
    ("call-null", "SIGSEGV", "", Some("jump"), Some("null"), "nothing is mapped"),
    ("call-data", "SIGSEGV", "constant", Some("jump"), Some("mapped"), "not allow"),
    ("non-canonical", "SIGSEGV", "read_word", Some("read"), Some("non-canonical"), "protection"),
    ("text", "SIGSEGV", "read_word", Some("read"), Some("text"), "nothing is mapped"),
    ("pattern", "SIGSEGV", "read_word", Some("read"), Some("pattern"), "nothing is mapped"),
    ("overflow", "SIGSEGV", "recurse", Some("write"), Some("stack-overflow"), ""),
    ("overflow-thread", "SIGSEGV", "recurse", Some("write"), Some("stack-overflow"), ""),
    ("divide", "SIGFPE", "divide", None, None, "division by zero"),
    ("illegal", "SIGILL", "main", None, None, "operands"),
    ("abort", "SIGABRT", "", None, None, "abort"),
    ("truncated", "SIGBUS", "read_word", Some("read"), Some("mapped"), "cut short"),
];

#[test]
fn each_way_to_die_is_told_as_the_kernel_saw_it() {
    let sample = Sample::build("crashes");
    for (way, signal, function, access, kind, cause) in WAYS {
        let core = sample.die(way);
        let crash = crash(&core);
        agrees_with_gdb(&sample.program, &core, &crash);
        assert_eq!(crash["signal_name"], *signal, "{way}");
        assert_eq!(crash["standing"], "primary", "{way}");
        assert_eq!(crash["fault"]["access"].as_str(), *access, "{way}: {crash:#}");
        assert_eq!(crash["fault"]["kind"].as_str(), *kind, "{way}: {crash:#}");
        assert!(crash["cause"].as_str().unwrap().contains(cause), "{way}: {crash:#}");
        if !function.is_empty() {
            assert_eq!(crash["function"], *function, "{way}: {crash:#}");
        }
        std::fs::remove_file(core).unwrap();
    }
}

#[test]
fn a_signal_from_outside_is_no_failure_of_the_program() {
    let sample = Sample::build("crashes-sent");
    let mut child = sample.start("wait");
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    proc::signal(child.id(), Signal::SIGSEGV);
    let core = sample.core_of(&mut child, "wait");
    let crash = crash(&core);
    assert_eq!((&crash["signal_name"], &crash["standing"]), (&"SIGSEGV".into(), &"sent".into()));
    assert_eq!(crash["sender"], std::process::id());
    assert_eq!(crash["fault"], Value::Null);
    agrees_with_gdb(&sample.program, &core, &crash);
}

#[test]
fn a_live_process_has_not_crashed() {
    let sample = Sample::build("crashes-live");
    let mut child = sample.start("wait");
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let (bundle, core) = (sample.directory.join("live.tar.zst"), sample.directory.join("live"));
    tools::collect(child.id(), &bundle);
    gdb::gcore(child.id(), &core);
    child.kill().unwrap();
    child.wait().unwrap();
    for input in [bundle, core] {
        let report = report(&input);
        assert_eq!(report["crashes"], Value::Array(Vec::new()), "{}", input.display());
        assert!(threads(&report).all(|thread| thread["doing"] != "crashing"));
    }
}

/// Lets a process of an instance die by what gdb does to it, and returns its core.
#[track_caller]
fn die(instance: &Instance, pid: u32, commands: &[String], core: &Path) {
    let commands: Vec<&str> = commands.iter().map(String::as_str).collect();
    let said = gdb::attached(pid, &commands);
    proc::until(&format!("process {pid} has died: {said}"), || !proc::is_alive(pid));
    kernel::take_core(pid, instance.directory(), core);
}

/// The address of the manager's block is at 16 in `_pkg_root` and `_shm_root`.
#[track_caller]
fn block(pid: u32, root: &str) -> u64 {
    let question = format!("printf \"@@@@%lu\\n\", *(unsigned long *) ((char *) &{root} + 16)");
    let text = gdb::attached(pid, &[&question]);
    let number = text.rsplit("@@@@").next().unwrap().lines().next().unwrap();
    number.parse().unwrap_or_else(|_| panic!("{text}"))
}

#[test]
fn a_worker_that_follows_a_null_pointer() {
    let directory = tools::scratch("crashes-worker");
    let instance = Instance::start(Options::default());
    let worker = instance.pids()[1];
    let core = directory.join("worker.saved");
    // As if a message had been lost: parse_headers(msg = NULL, …) reads a field of it.
    let commands = gdb::call("parse_headers", &[("rdi", 0), ("rsi", u64::MAX), ("rdx", 0)]);
    die(&instance, worker, &commands, &core);
    let crash = crash(&core);
    agrees_with_gdb(Path::new(KAMAILIO), &core, &crash);
    assert_eq!(crash["function"], "parse_headers", "{crash:#}");
    assert_eq!(crash["fault"]["kind"], "null", "{crash:#}");
    assert_eq!(crash["fault"]["access"], "read", "{crash:#}");
    assert_eq!((&crash["standing"], &crash["heap_damage"]), (&"primary".into(), &false.into()));
    assert!(crash["role"].as_str().unwrap().starts_with("udp receiver"), "{crash:#}");
}

#[test]
fn a_worker_that_meets_an_overwritten_fragment() {
    const CHECK: [u8; 8] = 0xf0f0_f0f0_u64.to_le_bytes();
    let directory = tools::scratch("crashes-fragment");
    let instance = Instance::start(Options::default());
    let worker = instance.pids()[1];
    let block = block(worker, "_pkg_root");
    // `first_frag` is at 48 in `struct qm_block`; `check` ends the header of a fragment.
    let first = proc::read_memory(worker, block + 48, 8);
    let first = u64::from_le_bytes(first.try_into().unwrap());
    let header = proc::read_memory(worker, first, 128);
    let check = header.chunks(8).position(|word| word == CHECK).unwrap();
    let check = first + u64::try_from(check * 8).unwrap();
    let payload = check + 8;
    let arguments =
        [("rdi", block), ("rsi", payload), ("rdx", 0), ("rcx", 0), ("r8", 0), ("r9", 0)];
    let mut commands = gdb::call("qm_free", &arguments);
    commands.push(format!("set var {{unsigned long}} {check} = 0x41414141"));
    let core = directory.join("worker.saved");
    die(&instance, worker, &commands, &core);
    let log = instance.log();
    assert!(log.contains("BUG: qm: fragm."), "{log}");
    let crash = crash(&core);
    agrees_with_gdb(Path::new(KAMAILIO), &core, &crash);
    assert_eq!(crash["signal_name"], "SIGABRT", "{crash:#}");
    assert_eq!((&crash["standing"], &crash["heap_damage"]), (&"primary".into(), &true.into()));
    let damaged = crash["damaged_fragments"].as_array().unwrap();
    assert_eq!(damaged, &[Value::from(format!("{first:#x}"))], "{crash:#}");
}

#[test]
fn a_shutdown_that_hangs_is_secondary() {
    let directory = tools::scratch("crashes-shutdown");
    let mut instance = Instance::start(Options::default());
    let main = instance.main_pid();
    // A word of shared memory that nobody changes stands for a lock that its holder kept.
    let lock = block(main, "_shm_root") + 8;
    let word = proc::read_memory(main, lock, 4);
    let word = u64::from(u32::from_le_bytes(word.try_into().unwrap()));
    let mut commands: Vec<String> = [
        "handle SIGTERM SIGCHLD SIGALRM nostop noprint pass",
        "break *destroy_modules",
        &format!("shell kill -TERM {main}"),
        "continue",
        "set var $rsp = $rsp - 8",
        "set var {unsigned long} $rsp = (unsigned long) &destroy_modules + 4",
        "set var $rip = (unsigned long) &syscall",
    ]
    .map(str::to_owned)
    .to_vec();
    // futex(lock, FUTEX_WAIT, word, NULL)
    let arguments = [("rdi", 202), ("rsi", lock), ("rdx", 0), ("rcx", word), ("r8", 0), ("r9", 0)];
    commands.extend(arguments.map(|(name, value)| format!("set var ${name} = {value}")));
    commands.push("delete".to_owned());
    let commands: Vec<&str> = commands.iter().map(String::as_str).collect();
    let said = gdb::attached(main, &commands);
    proc::until(&format!("main waits: {said}"), || proc::awaited_futex(main) == Some(lock));
    proc::signal(main, Signal::SIGALRM);
    proc::until("main has died", || {
        instance.reap();
        !proc::is_alive(main)
    });
    let core = directory.join("main.saved");
    kernel::take_core(main, instance.directory(), &core);
    let log = instance.log();
    assert!(log.contains("shutdown timeout triggered, dying"), "{log}");
    let crash = crash(&core);
    agrees_with_gdb(Path::new(KAMAILIO), &core, &crash);
    assert_eq!(crash["signal_name"], "SIGABRT", "{crash:#}");
    assert_eq!((&crash["standing"], &crash["heap_damage"]), (&"secondary".into(), &false.into()));
    assert_eq!(crash["lock"], format!("{lock:#x}"), "{crash:#}");
    assert_eq!(crash["interrupted"][0], "destroy_modules", "{crash:#}");
}
