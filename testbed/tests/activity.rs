//! What `/proc` says of threads, against a program that says itself what each of its threads does and
//! keeps their CPU clocks (`samples/activity/activity.c`), and against `ss`.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test stops at the first surprise"
)]

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use forensics::activity::{Activity, ThreadActivity};
use forensics::case::{Case, CaseOptions};
use forensics::input::{Evidence, OpenOptions};
use forensics::modules::LibraryOptions;
use serde_json::Value;
use testbed::tools::{self, run};

/// A running program; ended with the test.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What the program said of itself, and what was made of it.
struct Captured {
    said: Value,
    clocks: Vec<[u64; 3]>,
    /// Bytes that `ss` counts in the receive queue of the socket that nobody reads.
    queue: u64,
    case: Case,
    activity: Activity,
    pid: u32,
}

/// Made once for all tests of this file.
#[track_caller]
fn captured() -> &'static Captured {
    static CAPTURED: OnceLock<Option<Captured>> = OnceLock::new();
    let captured = CAPTURED.get_or_init(|| std::panic::catch_unwind(capture).ok());
    captured.as_ref().expect("the program could be captured; the first test says why not")
}

fn build(scratch: &Path) -> PathBuf {
    let program = scratch.join("activity");
    let mut compiler = Command::new("gcc");
    compiler.args(["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread", "-o"]);
    compiler.arg(&program).arg(tools::workspace().join("samples/activity/activity.c"));
    run(&mut compiler, Duration::from_secs(60)).expect(&[0]);
    program
}

fn capture() -> Captured {
    let scratch = tools::scratch("activity");
    let (clocks, bundle) = (scratch.join("clocks"), scratch.join("activity.tar.zst"));
    let mut command = Command::new(build(&scratch));
    let mut program = Program(command.arg(&clocks).stdout(Stdio::piped()).spawn().unwrap());
    let pid = program.0.id();
    let mut line = String::new();
    BufReader::new(program.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let said: Value = serde_json::from_str(&line).unwrap();
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
    let evidence = Evidence::open(&[bundle], OpenOptions { memory: 2 << 30 }).unwrap();
    let options = CaseOptions { without_pools: true, ..CaseOptions::default() };
    let case = Case::build(evidence, &LibraryOptions::default(), options);
    let activity = Activity::read(&case.evidence);
    Captured { said, clocks, queue, case, activity, pid }
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
    assert!(burns > third && third > 1.0, "{burns} {third}");
    // On a busy machine it does not get a whole CPU, but it wants one all the time.
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
