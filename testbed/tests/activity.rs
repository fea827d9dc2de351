//! What `/proc` says of threads, against a program that says itself what each of its threads does and
//! keeps their CPU clocks (`samples/activity/activity.c`), and against `ss`.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test stops at the first surprise"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use forensics::activity::{Activity, InKernel, Progress, SystemCall, ThreadActivity};
use forensics::case::{Case, CaseOptions};
use forensics::core::Thread;
use forensics::input::{Evidence, OpenOptions};
use forensics::modules::LibraryOptions;
use forensics::process::Process;
use forensics::symbols::SymbolOptions;
use serde_json::{Value, json};
use testbed::program::{Program, compile};
use testbed::tools::{self, run};
use testbed::{gdb, kernel};

/// What the program said of itself, and what was made of it.
struct Captured {
    said: Value,
    clocks: Vec<[u64; 3]>,
    /// Bytes that `ss` counts in the receive queue of the socket that nobody reads.
    queue: u64,
    case: Case,
    activity: Activity,
    pid: u32,
    bundle: PathBuf,
}

/// Made once for all tests of this file.
#[track_caller]
fn captured() -> &'static Captured {
    static CAPTURED: OnceLock<Option<Captured>> = OnceLock::new();
    let captured = CAPTURED.get_or_init(|| std::panic::catch_unwind(capture).ok());
    captured.as_ref().expect("the program could be captured; the first test says why not")
}

/// Builds the program and starts it; what it says of itself.
fn start(scratch: &Path, clocks: &Path) -> (Program, Value) {
    let mut command = Command::new(compile("samples/activity/activity.c", &[], scratch));
    let program = Program::start(command.arg(clocks).current_dir(scratch));
    let said = serde_json::from_str(&program.said).unwrap();
    (program, said)
}

fn capture() -> Captured {
    let scratch = tools::scratch("activity");
    let (clocks, bundle) = (scratch.join("clocks"), scratch.join("activity.tar.zst"));
    let (program, said) = start(&scratch, &clocks);
    let pid = program.pid();
    let mut ss = Command::new("ss");
    ss.args(["-Huna", "sport", "=", &format!(":{}", said["flooded_port"])]);
    let ss = run(&mut ss, Duration::from_secs(10)).expect(&[0]).text();
    let queue = ss.split_ascii_whitespace().nth(1).expect("ss shows the socket").parse().unwrap();
    tools::collect(pid, &bundle);
    // The clocks go on until after the second sample.
    drop(program);
    let clocks = std::fs::read_to_string(clocks).unwrap();
    let numbers = |line: &str| {
        let numbers: Vec<u64> = line.split(' ').filter_map(|text| text.parse().ok()).collect();
        <[u64; 3]>::try_from(numbers).ok()
    };
    let clocks = clocks.lines().filter_map(numbers).collect();
    let case = case(&bundle);
    let activity = Activity::read(&case.evidence);
    Captured { said, clocks, queue, case, activity, pid, bundle }
}

/// The case that an input is, without a walk; cores alone may use this host's files.
fn case(input: &Path) -> Case {
    let options = OpenOptions { memory: 2 << 30 };
    let evidence = Evidence::open(&[input.to_owned()], options).unwrap();
    let library = LibraryOptions { this_host: !evidence.is_bundle, ..LibraryOptions::default() };
    let options = CaseOptions { without_pools: true, ..CaseOptions::default() };
    Case::build(evidence, &library, SymbolOptions::default(), options)
}

impl Captured {
    #[track_caller]
    fn thread(&self, name: &str) -> &ThreadActivity {
        let tid = self.said["tids"][name].as_u64().unwrap();
        let thread = self.activity.thread(self.pid, u32::try_from(tid).unwrap()).unwrap();
        assert_eq!(thread.name, name);
        thread
    }

    /// The call in which both samples found it, in words.
    #[track_caller]
    fn waits(&self, name: &str) -> String {
        let thread = self.thread(name);
        let call = thread.waits_in().unwrap_or_else(|| panic!("{thread:?}"));
        let process = &self.activity.processes[&self.pid];
        call.describe(&process.descriptors, &self.case.members[0].process.memory)
    }

    /// The program's own reading of a CPU clock at a moment, in nanoseconds.
    fn clock(&self, column: usize, at: u64) -> u64 {
        self.clocks.iter().take_while(|line| line[0] <= at).last().expect("a reading")[column]
    }

    /// Share of a CPU between the samples by the program's own clock, in percent.
    fn own_percent(&self, column: usize) -> f64 {
        let text = self.case.evidence.text("processes/samples.json").unwrap();
        let times: Value = serde_json::from_str(&text).unwrap();
        let [first, second] = [0, 1].map(|index| times[index]["monotonic_ns"].as_u64().unwrap());
        let burnt = self.clock(column, second) - self.clock(column, first);
        let pause = self.case.record(Some(self.pid)).unwrap().pause_micros.unwrap();
        let measured = Duration::from_nanos(second - first) - Duration::from_micros(pause);
        Duration::from_nanos(burnt).as_secs_f64() / measured.as_secs_f64() * 100.0
    }

    #[track_caller]
    fn assert_burns(&self, name: &str, column: usize) -> f64 {
        let (told, own) = (self.thread(name).cpu.percent.unwrap(), self.own_percent(column));
        // The clocks are read every few milliseconds, and a thread's files some after the time
        // that the sample has.
        assert!((told - own).abs() < 8.0, "{name}: {told} %, by its own clock {own} %");
        told
    }
}

#[test]
fn cpu_time_is_that_of_the_threads_own_clocks() {
    let captured = captured();
    let (burns, third) = (captured.assert_burns("burns", 1), captured.assert_burns("third", 2));
    assert!(burns > 1.0 && third > 1.0, "{burns} {third}");
    // On a busy machine no thread gets a whole CPU, but this one wants one all the time.
    let cpu = captured.thread("burns").cpu;
    let wanted = cpu.wanted_percent().unwrap();
    assert!((90.0..110.0).contains(&wanted), "{cpu:?}");
    for name in ["sleeps", "receives", "connects", "polls", "selects", "epolls", "locks"] {
        assert!(captured.thread(name).cpu.percent.unwrap() < 1.0, "{name}");
    }
    let whole = captured.activity.processes[&captured.pid].cpu.percent.unwrap();
    assert!(whole >= burns + third, "{whole}");
}

#[test]
fn a_thread_that_runs_is_in_no_call() {
    let burns = captured().thread("burns");
    assert_eq!((burns.last().unwrap().state, burns.waits_in()), (Some('R'), None));
}

#[test]
fn what_is_waited_for_is_told_with_its_peer() {
    let captured = captured();
    let number = |name: &str| captured.said[name].as_u64().unwrap();
    let (talking, stuck) = (number("talking"), number("stuck"));
    assert_eq!(
        captured.waits("receives"),
        format!(
            "recvfrom({talking}): TCP 127.0.0.1:{} → 127.0.0.1:{}",
            number("talking_port"),
            number("answering_port")
        )
    );
    assert_eq!(
        captured.waits("connects"),
        format!(
            "connect({stuck}): TCP 127.0.0.1:{} → 127.0.0.1:{}, SYN_SENT",
            number("stuck_port"),
            number("full_port")
        )
    );
}

#[test]
fn many_descriptors_at_once_are_each_told() {
    let captured = captured();
    let number = |name: &str| captured.said[name].as_u64().unwrap();
    let (pipe, quiet, pair) = (number("pipe"), number("quiet"), number("pair"));
    let udp = format!("UDP 127.0.0.1:{}", number("quiet_port"));
    let polls = captured.waits("polls");
    assert!(polls.starts_with(&format!("poll({pipe}, {quiet}), at most 600 s: pipe ")), "{polls}");
    assert!(polls.ends_with(&format!("; {udp}")), "{polls}");
    let selects = captured.waits("selects");
    let expected = format!("({quiet}, {pair}), without a time limit: {udp}; unix stream socket");
    assert!(selects.ends_with(&expected), "{selects}");
    let epolls = captured.waits("epolls");
    let expected = format!("UDP 127.0.0.1:{}; eventfd", number("watched_port"));
    assert_eq!(
        epolls,
        format!("epoll_wait({}), without a time limit: {expected}", number("epoll"))
    );
}

#[test]
fn a_lock_and_a_sleep_are_told_with_address_and_time() {
    let captured = captured();
    let lock = captured.said["lock"].as_str().unwrap();
    let expected = format!("futex({lock}, while it holds 2), without a time limit");
    assert_eq!(captured.waits("locks"), expected);
    // The freeze made the kernel start this one again.
    assert_eq!(captured.waits("sleeps"), "clock_nanosleep, at most 3000.5 s");
    assert_eq!(captured.waits("a) R (b"), "pause");
}

#[test]
fn datagrams_that_nobody_reads_are_counted_as_ss_counts_them() {
    let captured = captured();
    let sockets = captured.activity.sockets();
    let fullest = &sockets[0];
    let port = captured.said["flooded_port"].as_u64().unwrap();
    assert_eq!(fullest.socket.to_string(), format!("UDP 127.0.0.1:{port}"));
    assert_eq!(fullest.socket.receive_queue, Some(captured.queue));
    assert!(captured.queue >= 20 * 500);
    assert_eq!(fullest.holders.iter().map(|(pid, _)| *pid).collect::<Vec<_>>(), [captured.pid]);
}

/// What the registers of a core say of each thread that waits: its call's name, arguments, stack
/// pointer and program counter. A call that an earlier stop made the kernel begin again is named by
/// the code that made it.
fn calls_in(process: &Process) -> BTreeMap<u32, Told> {
    let call = |thread: &Thread| {
        let call = SystemCall::of_thread(thread, process.core.machine)?;
        let waits = !matches!(call.progress, Progress::Returned(_));
        waits.then(|| (thread.tid, told(&call.as_made(&process.memory))))
    };
    process.core.notes.threads.iter().filter_map(call).collect()
}

type Told = (Option<&'static str>, [u64; 6], u64, u64);

fn told(call: &SystemCall) -> Told {
    (call.name, call.arguments, call.stack_pointer.0, call.program_counter.0)
}

#[test]
fn registers_tell_the_same_calls_as_proc_whoever_wrote_the_core() {
    let scratch = tools::scratch("activity-cores");
    let (program, said) = start(&scratch, &scratch.join("clocks"));
    let pid = program.pid();
    // Those whose call never ends; the others may be anywhere.
    let names =
        ["sleeps", "receives", "connects", "polls", "selects", "epolls", "locks", "a) R (b"];
    let tid = |name: &str| u32::try_from(said["tids"][name].as_u64().unwrap()).unwrap();
    let (tids, burns) = (names.map(tid), tid("burns"));
    let by_proc = |tid: u32| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/task/{tid}/syscall")).unwrap();
        let Some(InKernel::Call(call)) = InKernel::parse(&text) else { panic!("{text}") };
        (tid, told(&call))
    };
    let expected: BTreeMap<u32, Told> = tids.into_iter().map(by_proc).collect();
    let (bundle, gcore) = (scratch.join("activity.tar.zst"), scratch.join("gcore"));
    tools::collect(pid, &bundle);
    gdb::gcore(pid, &gcore);
    let kernel = scratch.join("kernel.core");
    kernel::dump(pid, &scratch, &kernel);
    for input in [bundle, gcore, kernel] {
        let name = input.display().to_string();
        let case = case(&input);
        let calls = calls_in(&case.members[0].process);
        for (tid, expected) in &expected {
            assert_eq!(calls.get(tid), Some(expected), "{name}: {tid}");
        }
        assert!(!calls.contains_key(&burns), "{name}");
    }
}

/// The stacks of a folded profile: of each thread the weights of those that hold a function.
fn weight_of(folded: &str, thread: &str, function: &str) -> u64 {
    let stacks = folded.lines().filter_map(|line| line.rsplit_once(' '));
    let holds = |stack: &str| {
        let frames: Vec<&str> = stack.split(';').collect();
        frames[1].ends_with(thread) && frames[2..].contains(&function)
    };
    let weights = stacks.filter(|(stack, _)| holds(stack)).map(|(_, weight)| weight);
    weights.map(|weight| weight.parse::<u64>().unwrap()).sum()
}

#[test]
fn a_series_gives_a_profile() {
    let scratch = tools::scratch("activity-profile");
    let (program, said) = start(&scratch, &scratch.join("clocks"));
    let mut collect = tools::collect_evidence();
    collect.args(["--samples", "3", "--every", "2s", "--pid", &program.pid().to_string(), "-o"]);
    run(collect.arg(scratch.join("series.tar.zst")), tools::PATIENCE).expect(&[0]);
    drop(program);
    let profile = |arguments: &[&str]| {
        let mut command = tools::forensics();
        command.arg("profile").args(arguments);
        command.args([1, 2, 3].map(|number| scratch.join(format!("series-{number}.tar.zst"))));
        run(&mut command, tools::PATIENCE).expect(&[0])
    };
    let folded = profile(&["--format", "folded"]).text();
    for name in ["burns", "third", "sleeps", "receives", "connects", "polls", "epolls", "locks"] {
        assert_eq!(weight_of(&folded, name, name), 3, "{name}: {folded}");
    }
    assert_eq!(weight_of(&folded, "a) R (b", "odd_name"), 3, "{folded}");
    let on_cpu = profile(&["--format", "folded", "--on-cpu"]).text();
    assert_eq!(weight_of(&on_cpu, "burns", "burns"), 3, "{on_cpu}");
    assert_eq!(weight_of(&on_cpu, "sleeps", "sleeps"), 0, "{on_cpu}");
    assert_eq!(weight_of(&on_cpu, "locks", "locks"), 0, "{on_cpu}");

    let file: Value = profile(&["--format", "speedscope"]).json();
    let frames = file["shared"]["frames"].as_array().unwrap();
    let profiles = file["profiles"].as_array().unwrap();
    assert_eq!(profiles.len(), 1 + said["tids"].as_object().unwrap().len());
    let burns = profiles.iter().find(|one| one["name"].as_str().unwrap().ends_with(" burns"));
    let burns = burns.unwrap();
    assert_eq!((&burns["weights"], &burns["endValue"]), (&json!([1, 1, 1]), &json!(3)));
    for stack in burns["samples"].as_array().unwrap() {
        let innermost = stack.as_array().unwrap().last().unwrap().as_u64().unwrap();
        assert_eq!(frames[usize::try_from(innermost).unwrap()]["name"], "burns");
    }

    let text = profile(&["--on-cpu"]).text();
    let burning = text.lines().find(|line| line.starts_with("Thread ")).unwrap();
    assert!(burning.contains(" burns of "), "{text}");
}

#[test]
fn the_threads_command_shows_the_same_figures() {
    let captured = captured();
    let mut command = tools::forensics();
    command.args(["threads", "--json"]).arg(&captured.bundle);
    let report: Value = run(&mut command, tools::PATIENCE).expect(&[0, 1]).json();
    let threads = report["processes"][0]["threads"].as_array().unwrap();
    for name in ["burns", "third", "connects"] {
        let activity = captured.thread(name);
        let shown = threads.iter().find(|thread| thread["tid"] == activity.tid).unwrap();
        let percent = shown["cpu_percent"].as_f64().unwrap();
        assert!((percent - activity.cpu.percent.unwrap()).abs() <= 0.05, "{name}: {shown}");
    }
    let connects = threads.iter().find(|thread| thread["name"] == "connects").unwrap();
    let state = connects["state"].as_str().unwrap();
    assert!(state.contains(&format!(":{}", captured.said["full_port"])), "{state}");
}
