//! What an operator can know before anything is done, and what can be kept from those who read the
//! bundle: `--list`, `--dry-run`, `--pseudonymize`.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use common::{Victim, assert_untouched, collector};

/// Collects the victim into `folder`.
fn collect(victim: &Victim, folder: &Path, arguments: &[&str]) -> Output {
    let mut command = collector();
    command.args(["--pid", &victim.pid().to_string(), "-o"]).arg(folder.join("b.tar.zst"));
    command.args(arguments).output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn member(folder: &Path, name: &str) -> String {
    let mut tar = Command::new("tar");
    let output = tar.args(["--zstd", "-xOf"]).arg(folder.join("b.tar.zst")).arg(name).output();
    String::from_utf8(output.unwrap().stdout).unwrap()
}

fn files(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn a_list_says_what_would_be_taken_and_takes_nothing() {
    let victim = Victim::start(&["threads", "3"]);
    let folder = tempfile::tempdir().unwrap();
    let output = collect(&victim, folder.path(), &["--list", "--without", "cgroup"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = text(&output);
    for part in [
        "Before the freeze\n  proc-first-sample ",
        "Frozen\n  memory               registers of 4 threads",
        "After the thaw\n  proc-second-sample ",
        "Not taken\n  environment ",
        "\n  cgroup               left out as wanted (--without)\n",
        "\nThe bundle needs at most about ",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(files(folder.path()), Vec::<String>::new());
    assert_untouched(victim.pid(), 'S');
}

#[test]
fn a_dry_run_asks_everything_and_neither_freezes_nor_writes() {
    let victim = Victim::start(&["threads", "1"]);
    let folder = tempfile::tempdir().unwrap();
    let output = collect(&victim, folder.path(), &["--dry-run"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = text(&output);
    assert!(text.contains("pause: none; "), "{text}");
    assert!(text.contains("\ndry run: nothing was frozen and nothing written; "), "{text}");
    assert!(text.ends_with("\nnot safe to restart yet: the evidence is still to be taken\n"));
    let progress = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(progress.contains("\nmodules: ") && !progress.contains("freezing"), "{progress}");
    assert_eq!(files(folder.path()), Vec::<String>::new());
    assert_untouched(victim.pid(), 'S');
}

#[test]
fn pseudonyms_stand_in_every_text_and_their_map_only_beside_the_bundle() {
    const NAMES: [&str; 3] = ["203.0.113.77", "4917012345", "voip.example.org"];
    let victim = Victim::start(&["threads", "0"]);
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("calls.log");
    let now = jiff::Timestamp::now();
    let line = format!("{now} INVITE sip:+4917012345@voip.example.org from 203.0.113.77:5060\n");
    fs::write(&log, line.repeat(20)).unwrap();

    let refused = collect(&victim, folder.path(), &["--pseudonymize"]);
    assert_eq!(refused.status.code(), Some(2), "memory is full of names: {refused:?}");
    let reason = "calls of +4917012345 from 203.0.113.77 break off";
    let arguments = ["--no-memory", "--pseudonymize", "--reason", reason, "--log"];
    let arguments = [&arguments[..], &[log.to_str().unwrap()]].concat();
    let output = collect(&victim, folder.path(), &arguments);
    assert_eq!(output.status.code(), Some(0), "{output:?}");

    let map = folder.path().join("b.tar.zst.map.json");
    assert_eq!(fs::metadata(&map).unwrap().permissions().mode() & 0o777, 0o600);
    let map: BTreeMap<String, String> = serde_json::from_slice(&fs::read(map).unwrap()).unwrap();
    let copied = member(folder.path(), &format!("logs{}", log.display()));
    assert_eq!(copied.len(), line.len() * 20);
    assert_eq!(copied.matches(&map["203.0.113.77"]).count(), 20, "{copied}");
    let mut tar = Command::new("tar");
    let listed = tar.args(["--zstd", "-tf"]).arg(folder.path().join("b.tar.zst")).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(!listed.contains("map.json"), "{listed}");
    for name in listed.lines().filter(|name| !name.starts_with("modules/")) {
        let text = member(folder.path(), name);
        for original in NAMES {
            assert!(!text.contains(original), "{original} in {name}");
        }
    }
    assert!(member(folder.path(), "header.json").contains(&map["4917012345"]));
    assert!(member(folder.path(), "redactions.json").contains("pseudonym-of-address"));
}
