//! What is collected of the operating system around a real Kamailio: logs in every state that logs
//! are found in, and the host itself, against what other tools say of it.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

use std::fs::{self, File};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use testbed::kamailio::{Instance, Options};
use testbed::tools::{self, run};
use testbed::unpacked::Unpacked;

const PATIENCE: Duration = Duration::from_secs(60);

/// The time so many minutes ago as syslog daemons write it.
fn stamp(minutes: u32) -> String {
    let mut date = Command::new("date");
    date.env("LC_ALL", "C");
    date.args(["-d", &format!("-{minutes} minutes"), "+%b %e %H:%M:%S"]);
    run(&mut date, PATIENCE).expect(&[0]).text().trim().to_owned()
}

fn json(bundle: &Unpacked, member: &str) -> Value {
    serde_json::from_slice(&fs::read(bundle.path(member)).expect(member)).expect(member)
}

/// Logs, packed, rotated, endless, and what only looks like one.
fn write_logs(folder: &Path) {
    let (old, young) = (stamp(300), stamp(30));
    let at = |name: &str| folder.join(name);
    fs::write(at("proxy.log"), format!("{old} h old\n{young} h one\n more\n{young} h two\n"))
        .unwrap();
    fs::write(at("proxy.log.1"), format!("{old} h old\n{young} h before\n")).unwrap();
    fs::write(at("proxy.log.2"), format!("{old} h old\n{young} h packed\n")).unwrap();
    run(Command::new("gzip").arg(at("proxy.log.2")), PATIENCE).expect(&[0]);
    fs::write(at("proxy.log.3"), format!("{young} h far too old a file\n")).unwrap();
    run(Command::new("touch").args(["-d", "-5 hours"]).arg(at("proxy.log.3")), PATIENCE)
        .expect(&[0]);
    let mut long = File::create(at("long.log")).unwrap();
    write!(long, "{young} h a line of a gigabyte ").unwrap();
    long.seek(SeekFrom::Start(1 << 30)).unwrap();
    write!(long, "\n{young} h behind it\n").unwrap();
    run(Command::new("mkfifo").arg(at("fifo.log")), PATIENCE).expect(&[0]);
    fs::write(at("secret.log"), format!("{young} h not for us\n")).unwrap();
    run(Command::new("chmod").arg("000").arg(at("secret.log")), PATIENCE).expect(&[0]);
}

#[test]
fn logs_are_sliced_and_nothing_that_looks_like_one_holds_us() {
    let instance = Instance::start(Options::default());
    let folder = tempfile::tempdir().unwrap();
    write_logs(folder.path());
    let output = folder.path().join("bundle.tar.zst");
    // Root reads everything; without these capabilities it reads what its mode allows.
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set", "-dac_override,-dac_read_search"]);
    command.arg(tools::collect_evidence().get_program());
    command.arg("--pid").arg(instance.main_pid().to_string()).arg("-o").arg(&output);
    command.args(["--modules", "none", "--log-cap", "1M"]);
    for name in ["proxy.log", "long.log", "fifo.log", "secret.log", "missing.log"] {
        command.arg("--log").arg(folder.path().join(name));
    }
    let finished = run(&mut command, PATIENCE).expect(&[1]);
    assert!(finished.elapsed < Duration::from_secs(40), "{:?}", finished.elapsed);

    let bundle = Unpacked::open(&output);
    let log = |name: &str| {
        let member = format!("logs{}/{name}", folder.path().display());
        fs::read_to_string(bundle.path(&member)).ok()
    };
    let young = |text: &str| {
        let (_, rest) = text.split_at(15);
        rest.to_owned()
    };
    let proxy = log("proxy.log").expect("the log itself");
    assert_eq!(proxy.lines().count(), 3, "{proxy}");
    assert_eq!(young(proxy.lines().next().unwrap()), " h one");
    assert_eq!(young(&log("proxy.log.1").unwrap()), " h before\n");
    assert_eq!(young(&log("proxy.log.2").unwrap()), " h packed\n");
    assert_eq!(log("proxy.log.3"), None);
    assert_eq!(young(&log("long.log").unwrap()), " h behind it\n");
    for nothing in ["fifo.log", "secret.log", "missing.log"] {
        assert_eq!(log(nothing), None, "{nothing}");
    }

    let gaps = bundle.manifest().gaps;
    let gap = |name: &str| gaps.iter().find(|gap| gap.what.ends_with(name)).expect(name);
    assert!(!gap("/fifo.log").expected && gap("/fifo.log").why.contains("FIFO"));
    assert!(!gap("/secret.log").expected && gap("/secret.log").why.contains("denied"));
    assert!(!gap("/missing.log").expected);

    let index = json(&bundle, "logs/index.json");
    let entry = |name: &str| {
        let logs = index["logs"].as_array().unwrap();
        let entry = logs.iter().find(|log| log["path"].as_str().unwrap().ends_with(name));
        entry.expect(name).clone()
    };
    assert_eq!(entry("/proxy.log")["lines"], 3);
    assert_eq!(entry("/proxy.log")["note"], "");
    assert_eq!(entry("/long.log")["size"], (1_u64 << 30) + 1 + young_length("behind it"));
    assert!(entry("/long.log")["note"].as_str().unwrap().contains("only the last"));
    assert!(entry("/proxy.log.3")["member"].is_null());
    // What Kamailio writes to its own stderr was found without being named.
    let own = entry(&instance.directory().join("log").display().to_string());
    assert!(own["seen_through"].as_str().unwrap().starts_with("/proc/"), "{own}");
}

fn young_length(text: &str) -> u64 {
    u64::try_from(format!("{} h {text}\n", stamp(30)).len()).unwrap()
}

/// Writes a message that nobody else writes to the kernel's log, and tells when.
fn say_to_the_kernel() -> (String, jiff::Timestamp) {
    let marker = format!("os_evidence: a test says {}", std::process::id());
    // Without an end of the line, the kernel keeps it back until the next message.
    fs::write("/dev/kmsg", format!("{marker}\n")).expect("root writes to the kernel's log");
    (marker, jiff::Timestamp::now())
}

#[test]
fn the_host_is_seen_as_other_tools_see_it() {
    let instance = Instance::start(Options::default());
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("bundle.tar.zst");
    let (marker, said) = say_to_the_kernel();
    tools::collect(instance.main_pid(), &output);
    let bundle = Unpacked::open(&output);

    let packages = json(&bundle, "system/packages.json");
    let version = |name: &str| {
        let mut command = Command::new("dpkg-query");
        command.args(["-W", "-f", "${Version}\n", name]);
        run(&mut command, PATIENCE).expect(&[0]).text().lines().next().unwrap().to_owned()
    };
    for name in ["kamailio", "libc6"] {
        let found = packages["packages"].as_array().unwrap();
        let found = found.iter().find(|package| package["name"] == name).expect(name);
        assert_eq!(found["version"], *version(name), "{name}");
    }

    for name in ["diskstats", "vmstat", "interrupts", "softirqs", "slabinfo", "net/udp"] {
        for sample in [1, 2] {
            let member = format!("system/{name}.{sample}");
            assert!(!fs::read(bundle.path(&member)).expect(&member).is_empty(), "{member}");
        }
    }
    let samples = json(&bundle, "system/samples.json");
    let at = |index: usize| samples[index]["monotonic_ns"].as_u64().unwrap();
    assert!(at(1) - at(0) >= 900_000_000, "{samples}");

    let cores = json(&bundle, "system/core-pattern.json");
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    assert_eq!(cores["core_pattern"], pattern.trim_end());
    let processes = cores["processes"].as_array().unwrap();
    let pids: Vec<&Value> =
        processes.iter().flat_map(|alike| alike["pids"].as_array().unwrap()).collect();
    assert_eq!(pids.len(), instance.pids().len());

    let disks = json(&bundle, "system/disks.json");
    let mut stat = Command::new("stat");
    stat.args(["-f", "-c", "%b %S", "/"]);
    let text = run(&mut stat, PATIENCE).expect(&[0]).text();
    let size: u64 = text.split_whitespace().map(|word| word.parse::<u64>().unwrap()).product();
    assert_eq!(disks["/"]["size"], size);

    let kernel = fs::read_to_string(bundle.path("system/kernel-log")).unwrap();
    let line = kernel.lines().find(|line| line.ends_with(&marker)).expect("our own message");
    let time: jiff::Timestamp = line.split(' ').next().unwrap().parse().unwrap();
    assert!((time - said).get_seconds().abs() <= 2, "{line}: said at {said}");
    let settings = fs::read_to_string(bundle.path("system/sysctl")).unwrap();
    let somaxconn = fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap();
    assert!(settings.contains(&format!("net.core.somaxconn = {somaxconn}")));
}
