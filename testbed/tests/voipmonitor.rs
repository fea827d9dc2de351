//! What is asked of a VoIPmonitor sniffer, and what not: against a stand-in with the real one's
//! framing, dispatch and moods, and its recorded answers.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::fs;
use std::net::TcpListener;
use std::path::Path;

use serde_json::Value;
use testbed::sniffer::{Evidence, Setting, Sniffer, fixtures};

/// Every command that may ever run, as the sniffer is to see it; `#` stands for a number.
const ALLOWED: &[&str] = &[
    "getverbuild",
    "totalcalls",
    "sniffer_stat",
    "sniffer_stat plain",
    "totalregisters",
    "disk_io_calibration",
    "sniffer_threads all uid=#",
    "sniffer_threads all uid=#",
    "packetbuffer_log",
    "pcapstat",
    "memory_stat",
    "tcmalloc_stats",
    "hashtable_stats",
    "get_sensor_information configuration_active",
    "listcalls",
];
/// Those of them that a manager with a key answers only encrypted.
const ENCRYPTED: &[&str] = &[
    "totalregisters",
    "pcapstat",
    "hashtable_stats",
    "get_sensor_information configuration_active",
    "listcalls",
];

const KEY: (&str, &str) = ("30313233343536373839616263646566", "66656463626139383736353433323130");
/// The same in base64.
const KEY_LINES: &str =
    "manager_aes_key = MDEyMzQ1Njc4OWFiY2RlZg==\nmanager_aes_iv = ZmVkY2JhOTg3NjU0MzIxMA==\n";

#[track_caller]
fn start(setting: Setting<'_>) -> Sniffer {
    Sniffer::start(Path::new(env!("CARGO_BIN_EXE_sniffer-stand-in")), setting)
}

/// The commands that ran, numbers as `#`, in order.
fn ran(sniffer: &Sniffer) -> Vec<String> {
    let lines = sniffer.log().into_iter();
    let texts =
        lines.filter_map(|line| Some(line.strip_prefix("ran ")?.split_once(": ")?.1.to_owned()));
    let numberless = |text: String| match text.split_once("uid=") {
        Some((head, number)) if number.parse::<u32>().is_ok_and(|number| number > 0) => {
            format!("{head}uid=#")
        }
        _ => text,
    };
    texts.map(numberless).collect()
}

fn connections(sniffer: &Sniffer, kind: &str) -> usize {
    let line = format!("connection {kind}");
    sniffer.log().iter().filter(|one| **one == line).count()
}

/// Each answer is the recorded one, byte for byte.
#[track_caller]
fn assert_answers(evidence: &Evidence, folder: &str, names: &[&str]) {
    for name in names {
        let recorded = fs::read(fixtures().join(folder).join(format!("{name}.txt"))).unwrap();
        let member = evidence.member(&format!("voipmonitor/manager/{name}.txt"));
        assert!(member.as_ref() == Some(&recorded), "{name}: {member:?}");
    }
}

const NAMES: &[&str] = &[
    "getverbuild",
    "totalcalls",
    "sniffer_stat",
    "sniffer_stat_plain",
    "totalregisters",
    "disk_io_calibration",
    "sniffer_threads",
    "packetbuffer_log",
    "pcapstat",
    "memory_stat",
    "tcmalloc_stats",
    "hashtable_stats",
    "configuration_active",
    "listcalls",
];

fn outcomes(record: &Value) -> Vec<&Value> {
    record["exchanges"].as_array().unwrap().iter().map(|one| &one["outcome"]).collect()
}

#[test]
fn over_tcp_every_answer_is_in_the_bundle_as_it_was_given() {
    let sniffer = start(Setting::default());
    let evidence = sniffer.collect(&[], &[0]);
    assert_answers(&evidence, "healthy", NAMES);
    assert_eq!(ran(&sniffer), ALLOWED);
    assert_eq!(connections(&sniffer, "tcp"), ALLOWED.len());
    let record = evidence.json("voipmonitor/manager.json");
    assert_eq!(record["transport"]["kind"], "tcp");
    assert_eq!(record["transport"]["address"], format!("127.0.0.1:{}", sniffer.port));
    let gap = record["threads_gap_ms"].as_u64().unwrap();
    assert!((2000..5000).contains(&gap), "{gap} ms");
    // Half a second a command would tell that the end mark was missing.
    let micros = |one: &Value| one["micros"].as_u64().unwrap();
    assert!(record["exchanges"].as_array().unwrap().iter().map(micros).min() < Some(400_000));
}

#[test]
fn a_unix_socket_comes_first_and_needs_no_key() {
    let sniffer = start(Setting { unix: true, key: Some(KEY), ..Setting::default() });
    let evidence = sniffer.collect(&[], &[0]);
    assert_answers(&evidence, "healthy", NAMES);
    assert_eq!((connections(&sniffer, "unix"), connections(&sniffer, "tcp")), (ALLOWED.len(), 0));
    assert_eq!(evidence.json("voipmonitor/manager.json")["transport"]["kind"], "unix");
}

#[test]
fn a_socket_that_a_crash_left_behind_is_passed_over() {
    let sniffer = start(Setting { unix: true, ..Setting::default() });
    // As if another one had been there before: the file is there, and nobody listens.
    let path = sniffer.path("manager.sock");
    fs::remove_file(&path).unwrap();
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let evidence = sniffer.collect(&[], &[0]);
    assert_answers(&evidence, "healthy", NAMES);
    let record = evidence.json("voipmonitor/manager.json");
    assert_eq!(record["transport"]["kind"], "tcp");
    assert_eq!(record["no_way"][0]["address"], path.display().to_string());
    assert!(record["no_way"][0]["why"].as_str().unwrap().contains("refused"), "{record}");
    assert_eq!(connections(&sniffer, "unix"), 0);
}

#[test]
fn one_that_never_answers_is_asked_exactly_once() {
    let sniffer = start(Setting { mood: "silent", ..Setting::default() });
    let evidence = sniffer.collect(&[], &[1]);
    assert_eq!(sniffer.log(), ["connection tcp"]);
    let record = evidence.json("voipmonitor/manager.json");
    assert_eq!(outcomes(&record), ["timed_out"]);
    assert_eq!(record["not_asked"].as_array().unwrap().len(), ALLOWED.len() - 1);
    let micros = record["exchanges"][0]["micros"].as_u64().unwrap();
    assert!((2_000_000..5_000_000).contains(&micros), "{micros} us");
    assert!(evidence.gaps().iter().any(|gap| gap.contains("nothing more was sent")));
}

#[test]
fn one_that_has_not_come_to_its_main_loop_answers_nothing() {
    let sniffer = start(Setting { mood: "empty", ..Setting::default() });
    let evidence = sniffer.collect(&[], &[1]);
    let record = evidence.json("voipmonitor/manager.json");
    assert!(outcomes(&record).iter().all(|outcome| **outcome == "empty"), "{record}");
    assert!(evidence.member("voipmonitor/manager/totalcalls.txt").is_none());
    assert!(evidence.gaps().iter().any(|gap| gap.contains("main loop")), "{:?}", evidence.gaps());
}

#[test]
fn slow_answers_are_waited_for() {
    let sniffer = start(Setting { mood: "slow", ..Setting::default() });
    let evidence = sniffer.collect(&[], &[0]);
    assert_answers(&evidence, "healthy", NAMES);
}

#[test]
fn with_the_key_of_the_configuration_every_answer_is_decrypted() {
    let sniffer = start(Setting { key: Some(KEY), lines: KEY_LINES, ..Setting::default() });
    let evidence = sniffer.collect(&[], &[0]);
    assert_answers(&evidence, "healthy", NAMES);
    assert_eq!(ran(&sniffer), ALLOWED);
    let record = evidence.json("voipmonitor/manager.json");
    assert!(record["exchanges"].as_array().unwrap().iter().all(|one| one["encrypted"] == true));
}

#[test]
fn without_the_key_what_is_exempt_is_answered_and_the_rest_is_said() {
    let sniffer = start(Setting { key: Some(KEY), ..Setting::default() });
    let evidence = sniffer.collect(&[], &[1]);
    assert_answers(&evidence, "healthy", &["getverbuild", "sniffer_threads", "memory_stat"]);
    let record = evidence.json("voipmonitor/manager.json");
    let refused = record["exchanges"].as_array().unwrap().iter();
    let refused: Vec<&str> = refused
        .filter(|one| one["outcome"] == "needs_aes")
        .map(|one| one["command"].as_str().unwrap())
        .collect();
    assert_eq!(refused, ENCRYPTED);
    assert!(evidence.gaps().iter().any(|gap| gap.contains("only encrypted")));
}

#[test]
fn with_another_key_what_is_exempt_is_asked_without_it() {
    let key = ("00000000000000000000000000000000", KEY.1);
    let sniffer = start(Setting { key: Some(key), lines: KEY_LINES, ..Setting::default() });
    let evidence = sniffer.collect(&[], &[1]);
    assert_answers(&evidence, "healthy", &["getverbuild", "sniffer_threads", "memory_stat"]);
    assert!(evidence.gaps().iter().any(|gap| gap.contains("another key")), "{:?}", evidence.gaps());
}

#[test]
fn nothing_is_sent_to_another_process_on_the_port() {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    other.set_nonblocking(true).unwrap();
    let port = other.local_addr().unwrap().port();
    let sniffer = start(Setting { port: Some(port), ..Setting::default() });
    let evidence = sniffer.collect(&[], &[1]);
    assert_eq!(other.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    assert_eq!(sniffer.log(), [""; 0]);
    let record = evidence.json("voipmonitor/manager.json");
    assert_eq!(record["transport"], Value::Null);
    let why = record["no_way"][0]["why"].as_str().unwrap();
    let own = std::process::id();
    assert!(why.starts_with(&format!("process {own} (voipmonitor-")), "{why}");
    let said = evidence.finished.errors() + &evidence.finished.text();
    assert!(said.contains(&format!("port: {port} belongs to voipmonitor-")), "{said}");
    let files = evidence.json("voipmonitor/files.json");
    assert_eq!(files["port"]["listeners"][0]["process"]["pid"], own);
    assert_eq!(files["port"]["listeners"][0]["own"], false);
}

#[test]
fn a_sniffer_in_another_network_is_asked_there_and_not_its_namesake_here() {
    let here = TcpListener::bind("127.0.0.1:0").unwrap();
    here.set_nonblocking(true).unwrap();
    let port = here.local_addr().unwrap().port();
    let sniffer = start(Setting { port: Some(port), own_network: true, ..Setting::default() });
    let evidence = sniffer.collect(&[], &[0]);
    assert_answers(&evidence, "healthy", NAMES);
    assert_eq!(here.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}

#[test]
fn one_that_stands_still_is_not_asked() {
    let sniffer = start(Setting::default());
    testbed::proc::stop_all(&[sniffer.pid()]);
    let evidence = sniffer.collect(&[], &[0]);
    testbed::proc::continue_all(&[sniffer.pid()]);
    assert_eq!(sniffer.log(), [""; 0]);
    let record = evidence.json("voipmonitor/manager.json");
    assert_eq!(record["not_asked"].as_array().unwrap().len(), ALLOWED.len());
}

#[test]
fn answers_of_a_hang_are_kept_with_the_second_look_at_the_threads() {
    let sniffer = start(Setting { answers: &["hang", "healthy"], ..Setting::default() });
    let evidence = sniffer.collect(&[], &[0]);
    let names = ["sniffer_stat", "sniffer_stat_plain", "sniffer_threads", "sniffer_threads.2"];
    assert_answers(&evidence, "hang", &names);
    assert_answers(&evidence, "hang", &["pcapstat", "packetbuffer_log"]);
}

#[test]
fn statistics_that_would_start_rrdtool_are_left_out() {
    let sniffer = start(Setting::default());
    let path = sniffer.path("voipmonitor.conf");
    let config = fs::read_to_string(&path).unwrap().replace("rrd = no\n", "");
    fs::write(&path, config).unwrap();
    let evidence = sniffer.collect(&[], &[0]);
    let installed = ["/usr/bin/rrdtool", "/usr/local/bin/rrdtool"];
    let installed = installed.iter().any(|path| Path::new(path).exists());
    assert_eq!(ran(&sniffer).contains(&"sniffer_stat".to_owned()), installed);
    assert_eq!(evidence.member("voipmonitor/manager/sniffer_stat.txt").is_some(), installed);
}

#[test]
fn the_stand_in_runs_whatever_name_it_finds_in_a_line() {
    use std::io::{Read as _, Write as _};
    let sniffer = start(Setting::default());
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", sniffer.port)).unwrap();
    stream.write_all(b"please do not restart\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(ran(&sniffer), ["please do not restart"]);
}

#[test]
fn files_of_the_sniffer_are_taken_and_planted_ones_are_not() {
    let sniffer = start(Setting { lines: "mysqlhost = 10.1.2.3\n", ..Setting::default() });
    let crash = fs::read(fixtures().join("crash_bt")).unwrap();
    fs::write(sniffer.path("voipmonitor_crash_bt"), &crash).unwrap();
    std::os::unix::fs::symlink("/etc/shadow", sniffer.path("planted_crash_bt")).unwrap();
    let script = "#!/bin/bash\nwhile true; do sleep 5; done\n";
    fs::write(sniffer.path("voipmonitor_watchdog_voipmonitor.conf"), script).unwrap();
    fs::write(sniffer.path("spool/qoq-1"), [b'x'; 1000]).unwrap();
    fs::write(sniffer.path("spool/qoq-2"), [b'x'; 2000]).unwrap();
    fs::write(sniffer.path("spool/core.4711"), b"core").unwrap();
    // As a sniffer's own repair leaves it.
    fs::rename(sniffer.path("voipmonitor"), sniffer.path("voipmonitor_")).unwrap();

    let evidence = sniffer.collect(&["--profile", "voipmonitor"], &[0]);
    let member = |name: &str| evidence.member(&format!("voipmonitor/{name}"));
    assert_eq!(member("crash_bt/voipmonitor_crash_bt"), Some(crash));
    assert_eq!(member("crash_bt/planted_crash_bt"), None);
    let watchdog = member("watchdog/voipmonitor_watchdog_voipmonitor.conf");
    assert_eq!(watchdog.as_deref(), Some(script.as_bytes()));
    let config = sniffer.path("voipmonitor.conf");
    let taken = evidence.member(&format!("config{}", config.display()));
    assert_eq!(taken, Some(fs::read(&config).unwrap()));

    let files = evidence.json("voipmonitor/files.json");
    assert_eq!(files["database"], "10.1.2.3");
    let queue = &files["folders"][0]["queue"];
    assert_eq!((&queue["files"], &queue["bytes"]), (&2.into(), &3000.into()));
    let core = sniffer.path("spool/core.4711").display().to_string();
    assert_eq!((&files["cores"][0]["path"], &files["cores"][0]["size"]), (&core.into(), &4.into()));
    assert_eq!(files["port"]["listeners"][0]["process"]["pid"], sniffer.pid());
    assert_eq!(files["port"]["listeners"][0]["own"], true);
    // The process runs on under the new name, which the kernel follows.
    let program = sniffer.path("voipmonitor_").display().to_string();
    assert_eq!(
        (&files["program"]["path"], &files["program"]["same"]),
        (&program.into(), &true.into())
    );
}

#[test]
fn a_program_that_was_replaced_is_told_with_what_lies_beside_it() {
    let sniffer = start(Setting::default());
    fs::rename(sniffer.path("voipmonitor"), sniffer.path("gone")).unwrap();
    fs::remove_file(sniffer.path("gone")).unwrap();
    fs::write(sniffer.path("gone_"), b"another").unwrap();
    let evidence = sniffer.collect(&["--profile", "voipmonitor"], &[0]);
    let program = &evidence.json("voipmonitor/files.json")["program"];
    assert_eq!((&program["deleted"], &program["present"]), (&true.into(), &false.into()));
    let renamed = sniffer.path("gone_").display().to_string();
    assert_eq!(program["renamed"][0]["path"], renamed);
}

#[test]
fn the_spool_is_written_to_only_when_asked_for() {
    let sniffer = start(Setting::default());
    let none = sniffer.collect(&["--without", "voipmonitor-manager"], &[0]);
    assert!(none.member("voipmonitor/spool-write.json").is_none());
    fs::remove_file(sniffer.path("evidence.tar.zst")).unwrap();
    let options = ["--without", "voipmonitor-manager", "--spool-write-test"];
    let measured = sniffer.collect(&options, &[0]).json("voipmonitor/spool-write.json");
    assert!(measured["bytes"].as_u64().unwrap() > 0, "{measured}");
    assert!(measured["megabytes_per_second"].as_f64().unwrap() > 0.0, "{measured}");
    assert_eq!(fs::read_dir(sniffer.path("spool")).unwrap().count(), 0);
    assert_eq!(sniffer.log(), [""; 0]);
}
