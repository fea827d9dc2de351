//! `collect-evidence --post-mortem` after a real Kamailio has died: what `forensics` says of the
//! bundle against what it says of the bare core, for cores as the kernel, gcore and systemd leave
//! them, in a system that is mounted elsewhere.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test stops at the first surprise"
)]

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use nix::sys::signal::Signal;
use serde_json::Value;
use testbed::kamailio::{Instance, Options};
use testbed::tools::Finished;
use testbed::unpacked::Unpacked;
use testbed::{gdb, kernel, proc, tools};

/// A worker of an instance that follows a null pointer; its core lies where the kernel put it.
#[track_caller]
fn crash(instance: &Instance) -> (u32, PathBuf) {
    let worker = instance.pids()[1];
    let commands = gdb::call("parse_headers", &[("rdi", 0), ("rsi", u64::MAX), ("rdx", 0)]);
    let commands: Vec<&str> = commands.iter().map(String::as_str).collect();
    let said = gdb::attached(worker, &commands);
    proc::until(&format!("worker {worker} has died: {said}"), || !proc::is_alive(worker));
    (worker, kernel::written(worker, instance.directory()))
}

#[track_caller]
fn post_mortem(output: &Path, arguments: &[&str], code: i32) -> Finished {
    let mut command = tools::collect_evidence();
    command.args(["--post-mortem", "--quiet", "-o"]).arg(output).args(arguments);
    tools::run(&mut command, tools::PATIENCE).expect(&[code])
}

/// The report of `forensics COMMAND --json`.
#[track_caller]
fn forensics(command: &str, input: &Path) -> Value {
    let mut forensics = tools::forensics();
    forensics.args([command, "--json"]).arg(input);
    tools::run(&mut forensics, tools::PATIENCE).expect(&[0, 1]).json()
}

fn report(bundle: &Path) -> Value {
    json(bundle, "post-mortem.json")
}

fn json(bundle: &Path, member: &str) -> Value {
    serde_json::from_slice(&fs::read(Unpacked::open(bundle).path(member)).unwrap()).unwrap()
}

/// Whether the bundle has the whole core as it is.
fn holds(bundle: &Path, pid: u32, core: &Path) -> bool {
    let unpacked = Unpacked::open(bundle);
    fs::read(unpacked.path(&bundle::member::core(pid))).unwrap() == fs::read(core).unwrap()
}

/// What is told of a crash must not depend on the way that its core took.
#[track_caller]
fn same_crash(bundle: &Path, core: &Path) {
    let (bundled, bare) = (forensics("threads", bundle), forensics("threads", core));
    let crashes = |report: &Value| report["crashes"].as_array().unwrap().clone();
    assert_eq!(crashes(&bundled).len(), 1, "{bundled:#}");
    for key in ["signal_name", "function", "fault", "standing", "role", "pid"] {
        assert_eq!(crashes(&bundled)[0][key], crashes(&bare)[0][key], "{key}");
    }
    let (first, bare_first) = (&bundled["findings"][0], &bare["findings"][0]);
    assert_eq!(first["rule"], "crashed", "{first:#}");
    for key in ["rule", "severity", "summary"] {
        assert_eq!(first[key], bare_first[key], "{first:#}\n{bare_first:#}");
    }
    let (heap, bare) = (forensics("heap", bundle), forensics("heap", core));
    let walked = |heap: &Value| {
        let pools = heap["pools"].as_array().unwrap().iter();
        pools.map(|pool| (pool["kind"].clone(), pool["walked"].clone())).collect::<Vec<_>>()
    };
    assert_eq!(walked(&heap).len(), 2, "{heap:#}");
    assert!(walked(&heap).iter().all(|(_, walked)| walked["complete"] == true), "{heap:#}");
    assert_eq!(walked(&heap), walked(&bare));
}

#[test]
fn a_core_that_is_named_is_judged_in_the_bundle_as_by_itself() {
    let directory = tools::scratch("post-mortem-named");
    let instance = Instance::start(Options::default());
    let alive = directory.join("alive.core");
    gdb::gcore(instance.pids()[2], &alive);

    // The instance still runs.
    let bundle = directory.join("alive.tar.zst");
    // gcore does not know the command line, and this host's unit names another configuration.
    let arguments = ["--core", alive.to_str().unwrap(), "--without", "kamailio-config"];
    let said = post_mortem(&bundle, &arguments, 0).text();
    assert!(said.contains("was alive (made by gcore)"), "{said}");
    assert!(said.contains("kamailio runs again as PID"), "{said}");
    assert_eq!(instance.survivors().len(), instance.pids().len(), "nobody was touched");
    let heap = forensics("heap", &bundle);
    assert_eq!(heap["pools"].as_array().unwrap().len(), 2, "{heap:#}");
    assert_eq!(heap["pools"][0]["walked"], forensics("heap", &alive)["pools"][0]["walked"]);

    let (worker, core) = crash(&instance);
    let bundle = directory.join("crash.tar.zst");
    let said = post_mortem(&bundle, &["--core", core.to_str().unwrap()], 0).text();
    assert!(said.contains(&format!("process {worker} (kamailio), died of SIGSEGV")), "{said}");
    same_crash(&bundle, &core);
    assert!(holds(&bundle, worker, &core));

    // Both cores together are one group.
    let bundle = directory.join("both.tar.zst");
    let arguments = ["--core", core.to_str().unwrap(), "--core", alive.to_str().unwrap()];
    let said = post_mortem(&bundle, &arguments, 0).text();
    assert_eq!(said.matches("core: process").count(), 2, "{said}");
    let both = forensics("threads", &bundle);
    assert_eq!(both["processes"].as_array().unwrap().len(), 2, "{both:#}");
    assert_eq!(both["crashes"].as_array().unwrap().len(), 1, "{both:#}");
    assert_eq!(both["crashes"][0]["pid"], worker);

    cut_cores(&directory, &core, &alive);
    fs::remove_file(core).unwrap();
}

/// Halves of cores: what is left of them is there, what is not is said.
#[track_caller]
fn cut_cores(directory: &Path, core: &Path, alive: &Path) {
    let half = |whole: &Path, name: &str| {
        let half = directory.join(name);
        fs::copy(whole, &half).unwrap();
        let file = File::options().write(true).open(&half).unwrap();
        file.set_len(fs::metadata(whole).unwrap().len() / 2).unwrap();
        half
    };
    let cut = half(core, "cut.core");
    let bundle = directory.join("cut.tar.zst");
    let said = post_mortem(&bundle, &["--core", cut.to_str().unwrap()], 1).text();
    assert!(said.contains("cut short:") && said.contains("RLIMIT_CORE"), "{said}");
    assert_eq!(forensics("threads", &bundle)["crashes"].as_array().unwrap().len(), 1);

    // gcore's notes are at the end: the program is known by its build ID only.
    let cut = half(alive, "cut-alive.core");
    let bundle = directory.join("cut-alive.tar.zst");
    let arguments = ["--core", cut.to_str().unwrap(), "--executable", "/usr/sbin/kamailio"];
    let said = post_mortem(&bundle, &arguments, 1).text();
    assert!(said.contains("process unknown"), "{said}");
    let members = Unpacked::open(&bundle).manifest().members;
    let program = |path: &str| path.starts_with("modules/") && path.ends_with("/kamailio");
    assert!(members.iter().any(|member| program(&member.path)), "{said}");
    let heap = forensics("heap", &bundle);
    assert!(heap["program"].as_str().unwrap().starts_with("kamailio "), "{heap:#}");
}

#[test]
fn a_core_of_another_program_is_said_to_be_one() {
    let directory = tools::scratch("post-mortem-other");
    let core = sleeper(&directory, Signal::SIGQUIT);
    let bundle = directory.join("other.tar.zst");
    let arguments = ["--name", "kamailio", "--core", core.to_str().unwrap()];
    let said = post_mortem(&bundle, &arguments, 1).text();
    assert!(said.contains("it is one of /usr/bin/sleep"), "{said}");
    let bundle = directory.join("sleep.tar.zst");
    post_mortem(&bundle, &["--core", core.to_str().unwrap()], 0);
    assert_eq!(report(&bundle)["program"], "sleep");

    // What is no core at all cannot be collected from.
    let text = directory.join("text");
    fs::write(&text, "no core, but as long as one of its headers").unwrap();
    let bundle = directory.join("none.tar.zst");
    let refused = post_mortem(&bundle, &["--core", text.to_str().unwrap()], 2);
    assert!(refused.errors().contains("is no core"), "{refused:?}");
    assert!(!bundle.exists());
}

/// The core of a `sleep` that a signal ended.
#[track_caller]
fn sleeper(directory: &Path, signal: Signal) -> PathBuf {
    let mut command = Command::new("prlimit");
    command.args(["--core=unlimited:unlimited", "sleep", "1000"]).current_dir(directory);
    let mut child = command.spawn().unwrap();
    proc::until("sleep runs", || proc::command_line(child.id()).starts_with("sleep"));
    proc::signal(child.id(), signal);
    tools::wait(&mut child, Duration::from_secs(20)).unwrap();
    kernel::written(child.id(), directory)
}

/// The tree of a system that is mounted somewhere: this host's programs, and files of its own.
struct System {
    root: PathBuf,
}

impl System {
    fn new(directory: &Path) -> Self {
        let root = directory.join("system");
        for folder in ["usr", "run", "etc/systemd/system", "var/log"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        for name in ["bin", "sbin", "lib", "lib64"] {
            symlink(Path::new("usr").join(name), root.join(name)).unwrap();
        }
        let system = Self { root };
        system.put("etc/hostname", "pbx.example\n");
        system.put("etc/kamailio/kamailio.cfg", "#!KAMAILIO\n");
        system.put(
            "etc/systemd/system/kamailio.service",
            "[Service]\nExecStart=/usr/sbin/kamailio -f /etc/kamailio/kamailio.cfg -w /srv/kam\n",
        );
        system
    }

    fn put(&self, path: &str, text: &str) {
        let path = self.root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Copies a core to where this system would have it, so many seconds old.
    fn keep(&self, core: &Path, path: &str, age: u64) -> PathBuf {
        let to = self.root.join(path);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(core, &to).unwrap();
        let file = File::options().write(true).open(&to).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(age)).unwrap();
        to
    }

    /// Collects with this host's `/usr` mounted in the tree, in a mount namespace of its own.
    #[track_caller]
    fn post_mortem(&self, output: &Path, arguments: &[&str], code: i32) -> Finished {
        let collector = tools::collect_evidence();
        let mut command = Command::new("unshare");
        command.args([
            "--mount",
            "sh",
            "-euc",
            "mount --rbind /usr \"$1\"; shift; exec \"$@\"",
            "sh",
        ]);
        command.arg(self.root.join("usr")).arg(collector.get_program());
        command.args(["--post-mortem", "--quiet", "--root"]).arg(&self.root);
        command.arg("-o").arg(output).args(arguments);
        tools::run(&mut command, tools::PATIENCE).expect(&[code])
    }
}

#[test]
fn a_mounted_system_is_searched_where_its_cores_are_kept() {
    let directory = tools::scratch("post-mortem-root");
    let system = System::new(&directory);
    let instance = Instance::start(Options::default());
    let (worker, core) = crash(&instance);
    let configuration = instance.directory().join("kamailio.cfg");
    let text = fs::read_to_string(&configuration).unwrap();
    system.put(configuration.to_str().unwrap().trim_start_matches('/'), &text);
    let kept = directory.join("worker.core");
    fs::copy(core, &kept).unwrap();
    let core = kept;
    drop(instance);

    // As the kernel leaves it, in the unit's working directory.
    let kept = system.keep(&core, "srv/kam/core", 3600);
    let other = sleeper(&directory, Signal::SIGQUIT);
    system.keep(&other, "srv/kam/core.4711", 10);
    let bundle = directory.join("kernel.tar.zst");
    let said = system.post_mortem(&bundle, &["--unit", "kamailio"], 0).text();
    assert!(said.contains("/srv/kam/core (-w on its command line)"), "{said}");
    assert!(said.contains("another program's: /srv/kam/core.4711: /usr/bin/sleep"), "{said}");
    assert!(!said.contains("runs again"), "{said}");
    same_crash(&bundle, &core);
    let header = json(&bundle, "header.json");
    assert_eq!((&header["mode"], &header["host"]), (&"post-mortem".into(), &"pbx.example".into()));
    assert_eq!(header["kernel"], "");
    fs::remove_file(kept).unwrap();

    // As systemd-coredump keeps it, packed; and an older one of another crash.
    let boot = "0123456789abcdef0123456789abcdef";
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_micros();
    let name = |pid: u32, age: u128| {
        let time = now - age * 1_000_000;
        format!("var/lib/systemd/coredump/core.kamailio.108.{boot}.{pid}.{time}")
    };
    let packed = system.keep(&core, &name(worker, 60), 0);
    let mut zstd = Command::new("zstd");
    zstd.args(["-q", "--rm", "-1"]).arg(&packed);
    tools::run(&mut zstd, tools::PATIENCE).expect(&[0]);
    system.keep(&core, &name(worker + 1, 7200), 0);
    let bundle = directory.join("systemd.tar.zst");
    let said = system.post_mortem(&bundle, &["--name", "kamailio"], 0).text();
    assert!(said.contains("(systemd-coredump)") && said.contains("earlier: process"), "{said}");
    same_crash(&bundle, &core);
    assert!(holds(&bundle, worker, &core));
    let time = forensics("info", &bundle);
    assert_eq!(time["bundle"]["mode"], "post-mortem", "{time:#}");
    fs::remove_dir_all(directory).unwrap();
}

#[test]
fn without_a_core_the_bundle_says_why_there_is_none() {
    let directory = tools::scratch("post-mortem-none");
    let system = System::new(&directory);
    system.put(
        "etc/sysctl.d/50-core.conf",
        "kernel.core_pattern = |/usr/lib/systemd/systemd-coredump %P\n",
    );
    system.put("etc/systemd/coredump.conf", "[Coredump]\nStorage=none\n");
    system.put("etc/systemd/system/kamailio.service.d/limit.conf", "[Service]\nLimitCORE=0\n");
    system.put("etc/kamailio/kamailio.cfg", "disable_core_dump=yes\n");
    // As recorded, but for the times: it was killed ten minutes ago.
    let now = jiff::Zoned::now();
    let ago = |seconds: i64| {
        let then = &now - jiff::SignedDuration::from_secs(seconds);
        then.strftime("%b %e %H:%M:%S").to_string()
    };
    let log = include_str!("../fixtures/oom-syslog.txt")
        .replace("Nov 23 05:59:58", &ago(603))
        .replace("Nov 23 06:00:01", &ago(600))
        .replace("Nov 23 06:18:30", &ago(5));
    system.put("var/log/syslog", &log);
    let bundle = directory.join("none.tar.zst");
    let said = system.post_mortem(&bundle, &["--unit", "kamailio.service"], 1).text();
    for words in ["Storage=none", "LimitCORE=0", "disable_core_dump=yes", "systemd-coredump"] {
        assert!(said.contains(words), "{words}: {said}");
    }
    assert!(said.contains("no core: "), "{said}");
    let killed = "kernel: it killed process 25779 (kamailio) for want of memory";
    let killed = format!("{killed} ({}", ago(600));
    assert!(said.contains(&killed) && !said.contains("process 23298"), "{said}");
    let members = Unpacked::open(&bundle).manifest().members;
    let has = |path: &str| members.iter().any(|member| member.path == path);
    for path in [
        "logs/var/log/syslog",
        "config/etc/kamailio/kamailio.cfg",
        "config/etc/systemd/system/kamailio.service.d/limit.conf",
    ] {
        assert!(has(path), "{path}");
    }
    assert!(!has("system/meminfo"), "that is this host's, not the mounted system's");
    let looked = report(&bundle)["looked"].as_array().unwrap().clone();
    assert!(looked.iter().any(|one| one["folder"] == "/var/lib/systemd/coredump"), "{looked:?}");
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let directory = tools::scratch("post-mortem-refused");
    let output = directory.join("x.tar.zst");
    let refused = |arguments: &[&str], words: &str| {
        let said = post_mortem(&output, arguments, 2).errors();
        assert!(said.contains(words), "{arguments:?}: {said}");
        assert!(!output.exists());
    };
    refused(&["--core", "/nonexistent/core"], "No such file");
    refused(&["--root", "/nonexistent"], "No such file");
    refused(&["--executable", "/etc/passwd"], "is no ELF file");
    refused(&["--pid", "1"], "cannot be used with");
    let empty = directory.join("empty");
    fs::create_dir(&empty).unwrap();
    refused(&["--root", empty.to_str().unwrap()], "which program died?");
}
