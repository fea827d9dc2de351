//! What a real Kamailio is asked over its RPC, on every way that it offers; and what it is not asked
//! when its locks or the process that answers are stuck.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test stops at the first surprise"
)]

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;
use testbed::hang::slot::{self, Busy};
use testbed::hang::{self, pool};
use testbed::kamailio::{Instance, Manager, Options, free_port};
use testbed::proc;
use testbed::rpc::Rpc;
use testbed::tools;
use testbed::unpacked::Unpacked;

/// The members of one bundle, and what was said at the end.
struct Asked(Unpacked, String);

impl Asked {
    /// Collects, without memory, from the group of `pid`.
    #[track_caller]
    fn of(pid: u32, name: &str, options: &[&str]) -> Self {
        Self::ending(0, pid, name, options)
    }

    /// The same with another exit code.
    #[track_caller]
    fn ending(code: i32, pid: u32, name: &str, options: &[&str]) -> Self {
        let bundle = tools::scratch(&format!("rpc-{name}")).join("bundle.tar.zst");
        let mut command = tools::collect_evidence();
        command.args(["--no-memory", "--modules", "none"]).args(options);
        command.arg("--pid").arg(pid.to_string()).arg("-o").arg(&bundle);
        let said = tools::run(&mut command, tools::PATIENCE).expect(&[code]).text();
        Self(Unpacked::open(&bundle), said)
    }

    #[track_caller]
    fn json(&self, member: &str) -> Value {
        let text = fs::read(self.0.path(&format!("kamailio/{member}.json")));
        serde_json::from_slice(&text.unwrap_or_else(|error| panic!("{member}: {error}"))).unwrap()
    }

    #[track_caller]
    fn transport(&self) -> String {
        let talk = self.json("rpc");
        talk["transport"].as_str().unwrap_or_else(|| panic!("{talk:#}")).to_owned()
    }

    #[track_caller]
    fn calls(&self) -> Vec<Value> {
        self.json("rpc")["calls"].as_array().unwrap().clone()
    }

    /// The methods whose calls came out like this, in their order.
    #[track_caller]
    fn methods(&self, outcome: &str) -> Vec<String> {
        let calls = self.calls().into_iter().filter(|call| call["outcome"] == outcome);
        calls.map(|call| call["method"].as_str().unwrap().to_owned()).collect()
    }

    #[track_caller]
    fn answer(&self, method: &str) -> Value {
        self.json(&format!("rpc/{method}"))
    }
}

/// Methods that take no lock, and that the configuration of these tests has.
const LOCK_FREE: [&str; 12] = [
    "core.version",
    "system.listMethods",
    "core.flags",
    "core.info",
    "core.uptime",
    "core.psx",
    "core.tcp_info",
    "core.modules",
    "pkg.stats",
    "tm.stats",
    "sl.stats",
    "stats.get_statistics",
];

/// An answer as `kamcmd` prints it.
fn as_kamcmd_prints(answer: &Value) -> String {
    let values = match answer {
        Value::Array(values) => values.as_slice(),
        other => std::slice::from_ref(other),
    };
    let plain = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let mut text = String::new();
    for value in values {
        match value.as_object() {
            None => text += &format!("{}\n", plain(value)),
            Some(members) => {
                let lines =
                    members.iter().map(|(name, value)| format!("\t{name}: {}\n", plain(value)));
                text += &format!("{{\n{}}}\n", lines.collect::<String>());
            }
        }
    }
    text
}

/// Lines in an order that does not depend on the writer: JSON objects are read back sorted.
fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
    lines.sort_unstable();
    lines
}

#[track_caller]
fn assert_equals_kamcmd(asked: &Asked, rpc: &Rpc) {
    for call in asked.calls().iter().filter(|call| call["outcome"] == "answered") {
        let method = call["method"].as_str().unwrap();
        let arguments =
            call["arguments"].as_array().unwrap().iter().map(|one| one.as_str().unwrap());
        let words: Vec<&str> = std::iter::once(method).chain(arguments).collect();
        let theirs = rpc.call(&words);
        let ours = as_kamcmd_prints(&asked.answer(method));
        match method {
            // It holds the time.
            "core.uptime" => assert_eq!(ours.lines().nth(2), theirs.lines().nth(2)),
            _ => assert_eq!(sorted(&ours), sorted(&theirs), "{method}"),
        }
    }
}

/// The configuration of these tests with more sockets of the ctl module.
fn with_sockets(more: &[String]) -> Options {
    let own = "modparam(\"ctl\", \"binrpc\", \"unix:@RUN@/ctl.sock\")\n";
    let more = more.iter().map(|socket| format!("modparam(\"ctl\", \"binrpc\", \"{socket}\")\n"));
    let text = Options::default()
        .configuration
        .replace(own, &(own.to_owned() + &more.collect::<String>()));
    Options { configuration: text.leak(), ..Options::default() }
}

fn unlink(instance: &Instance, name: &str) {
    fs::remove_file(instance.directory().join(name)).unwrap();
}

#[test]
fn every_socket_of_ctl_gives_the_answers_that_kamcmd_gets() {
    let port = free_port();
    let more = [format!("tcp:127.0.0.1:{port}"), "unixd:@RUN@/ctl.dgram".to_owned()];
    let instance = Instance::start(with_sockets(&more));
    let directory = instance.directory().display().to_string();
    let first = Asked::of(instance.main_pid(), "stream", &[]);
    assert_eq!(first.transport(), format!("ctl unix:{directory}/ctl.sock"));
    assert_equals_kamcmd(&first, instance.rpc());
    let mut answered = LOCK_FREE.to_vec();
    answered.extend(["htable.stats", "core.shmmem", "mod.stats"]);
    assert_eq!(first.methods("answered"), answered);
    assert_eq!(first.methods("missing"), ["dlg.stats_active"]);
    assert_eq!(first.methods("not_asked"), ["corex.shm_summary"]);
    assert!(!instance.log().contains("not found"), "no method is asked in vain");

    // Where a socket's file is gone, the next best one is taken.
    unlink(&instance, "ctl.sock");
    let second = Asked::of(instance.main_pid(), "datagram", &[]);
    assert_eq!(second.transport(), format!("ctl unixd:{directory}/ctl.dgram"));
    unlink(&instance, "ctl.dgram");
    let third = Asked::of(instance.main_pid(), "tcp", &[]);
    assert_eq!(third.transport(), format!("ctl tcp:127.0.0.1:{port}"));
    for asked in [second, third] {
        assert_eq!(asked.methods("answered"), answered);
        for method in ["core.psx", "core.flags", "system.listMethods", "htable.stats", "mod.stats"]
        {
            assert_eq!(asked.answer(method), first.answer(method), "{method}");
        }
    }
}

#[test]
fn udp_and_a_configuration_in_several_files() {
    let port = free_port();
    let options = with_sockets(&[format!("udp:127.0.0.1:{port}")]);
    let instance = Instance::start(Options { namespace: true, ..options });
    // The file that was read at the start is now split in two.
    let main = instance.directory().join("kamailio.cfg");
    fs::rename(&main, instance.directory().join("sockets.cfg")).unwrap();
    fs::write(&main, "#!import_file \"local.cfg\"\ninclude_file \"sockets.cfg\"\n").unwrap();
    unlink(&instance, "ctl.sock");
    let asked = Asked::of(instance.main_pid(), "udp", &[]);
    assert_eq!(asked.transport(), format!("ctl udp:127.0.0.1:{port}"));
    assert_eq!(asked.answer("core.psx").as_array().map(Vec::len), Some(12));
    for name in ["kamailio.cfg", "sockets.cfg"] {
        let path = instance.directory().join(name);
        let member = asked.0.path(&format!("config{}", path.display()));
        assert_eq!(fs::read(member).unwrap(), fs::read(path).unwrap());
    }
    let version = fs::read_to_string(asked.0.path("kamailio/version.txt")).unwrap();
    assert!(version.starts_with("version: kamailio "), "{version}");
    let internals = fs::read_to_string(asked.0.path("kamailio/internals.txt")).unwrap();
    assert!(internals.contains("DBG_SR_MEMORY"), "{internals}");
}

/// A Kamailio without the ctl module, as another user; ended with the test.
struct WithoutCtl {
    directory: TempDir,
    child: Child,
}

impl WithoutCtl {
    #[track_caller]
    fn start() -> Self {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::Builder::new().prefix("kamailio-test-").tempdir().unwrap();
        let run = directory.path().to_owned();
        let mut everybody = fs::metadata(&run).unwrap().permissions();
        everybody.set_mode(0o777);
        fs::set_permissions(&run, everybody).unwrap();
        let keep = |line: &&str| !line.contains("ctl.s") && !line.contains("cfg_rpc.so");
        let text: Vec<&str> = Options::default().configuration.lines().filter(keep).collect();
        let text = text.join("\n") + "\n";
        let text = text.replace(
            "modparam(\"jsonrpcs\", \"fifo_name\"",
            "modparam(\"jsonrpcs\", \"fifo_reply_dir\", \"@RUN@/\")\nmodparam(\"jsonrpcs\", \"fifo_name\"",
        );
        let text = text.replace("@RUN@", &run.display().to_string());
        fs::write(run.join("kamailio.cfg"), text.replace("@PORT@", &free_port().to_string()))
            .unwrap();
        let log = File::create(run.join("log")).unwrap();
        let mut command = Command::new("kamailio");
        command.args(["-DD", "-E", "-m", "64", "-M", "8", "-u", "nobody", "-g", "nogroup", "-f"]);
        command.arg(run.join("kamailio.cfg")).arg("-w").arg(&run).arg("-Y").arg(&run);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let child = command.spawn().unwrap();
        let started = Self { directory, child };
        proc::until("Kamailio is ready", || {
            started.path("jsonrpc.fifo").exists()
                && proc::descendants(started.child.id()).len() == 10
                && fs::read_to_string(started.path("log")).unwrap().contains("a new child 0/")
        });
        started
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

impl Drop for WithoutCtl {
    fn drop(&mut self) {
        let processes = proc::descendants(self.child.id());
        proc::signal(self.child.id(), Signal::SIGTERM);
        let _ = tools::wait(&mut self.child, std::time::Duration::from_secs(5));
        for pid in processes.into_iter().filter(|pid| proc::is_alive(*pid)) {
            proc::signal(pid, Signal::SIGKILL);
        }
    }
}

#[test]
fn jsonrpcs_is_asked_where_ctl_is_not_loaded() {
    let instance = WithoutCtl::start();
    let datagram = Asked::of(instance.child.id(), "json", &[]);
    let socket = instance.path("jsonrpc.sock");
    assert_eq!(datagram.transport(), format!("jsonrpcs datagram socket {}", socket.display()));
    fs::remove_file(socket).unwrap();
    let fifo = Asked::of(instance.child.id(), "fifo", &[]);
    let path = instance.path("jsonrpc.fifo");
    assert_eq!(fifo.transport(), format!("jsonrpcs FIFO {}", path.display()));
    for asked in [&datagram, &fifo] {
        assert!(
            asked.calls().iter().all(|call| call["outcome"] != "failed"),
            "{:#?}",
            asked.calls()
        );
        assert!(asked.answer("core.version").as_str().unwrap().starts_with("kamailio 5"));
        assert_eq!(asked.answer("core.psx").as_array().map(Vec::len), Some(11));
        assert!(asked.answer("core.shmmem")["total"].as_u64().unwrap() >= 64 << 20);
    }
    let left = fs::read_dir(instance.directory.path()).unwrap().flatten();
    let left: Vec<_> = left.map(|entry| entry.file_name().into_string().unwrap()).collect();
    assert!(!left.iter().any(|name| name.starts_with("forensics")), "{left:?}");
}

#[test]
fn while_the_lock_of_shared_memory_is_held_nothing_is_asked_that_takes_a_lock() {
    let instance = Instance::start(hang::options());
    let hang = pool::stop_inside(&instance, Manager::Qm);
    let asked = Asked::of(instance.main_pid(), "held", &[]);
    assert_eq!(asked.methods("answered"), LOCK_FREE);
    assert_eq!(asked.methods("timed_out"), Vec::<String>::new());
    for call in asked.calls() {
        let took = call["milliseconds"].as_u64().unwrap_or(0);
        assert!(took < 1000, "{call}");
    }
    let blocking = ["htable.stats", "core.shmmem", "mod.stats", "corex.shm_summary"];
    assert_eq!(asked.methods("not_asked"), blocking);
    // The process that answers is not wedged by us.
    assert_eq!(instance.rpc().processes().len(), instance.pids().len());
    drop(hang);
    assert!(instance.rpc().shared_memory().total > 0);
}

#[test]
fn while_workers_wait_for_a_lock_nothing_is_asked_that_takes_one() {
    let instance = Instance::start(hang::options());
    let held = slot::hold(&instance, Busy::Looping);
    let asked = Asked::of(instance.main_pid(), "slot", &[]);
    assert_eq!(asked.methods("answered"), LOCK_FREE);
    let lock = format!(" waits for a lock at {:#x}", held.lock);
    let calls = asked.calls();
    for method in ["htable.stats", "core.shmmem", "mod.stats"] {
        let call = calls.iter().find(|call| call["method"] == method).unwrap();
        assert!(call["why"].as_str().unwrap().ends_with(&lock), "{call}");
    }
    assert_eq!(instance.rpc().processes().len(), instance.pids().len());
}

#[test]
fn after_one_call_without_an_answer_nothing_more_is_asked() {
    let instance = Instance::start(Options::default());
    let processes = hang::processes(&instance);
    let ctl = processes.iter().find(|process| process.role == "ctl handler").unwrap();
    proc::signal(ctl.pid, Signal::SIGSTOP);
    let asked = Asked::ending(1, instance.main_pid(), "stopped", &[]);
    proc::signal(ctl.pid, Signal::SIGCONT);
    assert!(asked.1.contains("\nmissing: RPC core.version: no answer within 2 s\n"), "{}", asked.1);
    assert!(asked.1.contains("\nincomplete: what is missing above is lost"), "{}", asked.1);
    let calls = asked.calls();
    assert_eq!(calls[0]["outcome"], "timed_out");
    let took = calls[0]["milliseconds"].as_u64().unwrap();
    assert!((2000..4000).contains(&took), "{took} ms");
    for call in &calls[1..] {
        assert_eq!(call["why"], "core.version did not answer within 2s", "{call}");
    }
    // Nor was it asked over jsonrpcs, which is there.
    assert!(asked.transport().starts_with("ctl unix:"));
    assert!(!asked.0.path("kamailio/rpc").exists());
    let silent = format!("silent: {} did not answer within 2 s", asked.transport());
    assert!(asked.1.contains(&silent), "{}", asked.1);
    assert_eq!(instance.rpc().processes().len(), instance.pids().len());
}

#[test]
fn what_holds_the_lock_while_it_logs_is_asked_only_if_allowed() {
    let instance = Instance::start(Options::default());
    let before = instance.log().len();
    Asked::of(instance.main_pid(), "allowed", &["--allow-blocking-rpc"]);
    let log = instance.log().split_off(before);
    assert!(log.contains("qm_sums") || log.contains("summarizing"), "{log}");
}
