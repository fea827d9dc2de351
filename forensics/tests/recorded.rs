//! The recorded bundles of `samples/recorded`: what `forensics` says of each, word by word, and
//! that it equals what the recorded program knew itself. `cargo xtask samples` records them again.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::path::{Path, PathBuf};

use clap::Parser as _;
use forensics::cli::Cli;
use serde_json::Value;

fn recorded() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../samples/recorded")
}

fn run(words: &[&str]) -> (u8, String) {
    let bundle = recorded().join("leaky.tar.zst");
    let mut line = vec!["forensics"];
    line.extend(words);
    let path = bundle.to_string_lossy();
    line.push(&path);
    let mut out = Vec::new();
    let code = Cli::parse_from(line).run(&mut out).unwrap();
    (code, String::from_utf8(out).unwrap())
}

/// Without the trailing blanks of table cells, and with the path that the recorder used.
fn tidy(text: &str) -> Vec<String> {
    let folder = format!("{}/", recorded().display());
    text.replace(&folder, "").lines().map(|line| line.trim_end().to_owned()).collect()
}

#[test]
fn the_report_is_what_was_recorded_with_it() {
    let (code, text) = run(&[]);
    assert_eq!(code, 1, "the sample leaks, and that is a warning");
    let agreed = std::fs::read_to_string(recorded().join("leaky.txt")).unwrap();
    assert_eq!(tidy(&text), tidy(&agreed));
}

/// A reader of the README sees what a user of the first command sees.
#[test]
fn the_readme_shows_the_real_report() {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let readme = std::fs::read_to_string(readme).unwrap();
    let after = readme.split("samples/recorded/leaky.tar.zst\n```\n").nth(1).unwrap();
    let shown = after.split("```\n").nth(1).unwrap();
    let report = tidy(&std::fs::read_to_string(recorded().join("leaky.txt")).unwrap());
    let mut rest = report.iter();
    for line in tidy(shown).iter().filter(|line| !line.is_empty() && *line != "…") {
        let line = line.replace("samples/recorded/", "");
        assert!(
            rest.any(|known| *known == line),
            "not in the report, or not in this order: {line}"
        );
    }
}

/// The program lost fragments on purpose, and says so in its own figures.
#[test]
fn what_the_program_lost_is_unreachable() {
    let (code, json) = run(&["leaks", "--json"]);
    assert_eq!(code, 1, "it has lost much");
    let report: Value = serde_json::from_str(&json).unwrap();
    let truth = std::fs::read_to_string(recorded().join("leaky.truth.json")).unwrap();
    let truth: Value = serde_json::from_str(&truth).unwrap();
    let mut expected = Vec::new();
    for pool in truth["pools"].as_array().unwrap() {
        for owner in pool["owners"].as_array().unwrap() {
            if let Some(lost) = owner["unreachable"].as_u64().filter(|lost| *lost > 0) {
                let pid = pool["pid"].as_u64().filter(|_| pool["kind"] == "pkg");
                expected.push((pid, owner["function"].clone(), lost));
            }
        }
    }
    let list = |name: &str| {
        let list = report[name].as_array().unwrap().clone();
        list.into_iter().map(|lost| {
            let fragments = lost["fragments"].as_u64().unwrap();
            (lost["pool"]["pid"].as_u64(), lost["function"].clone(), fragments)
        })
    };
    let mut found: Vec<_> = list("unreachable").chain(list("inherited")).collect();
    expected.sort_by_key(|(pid, function, _)| (*pid, function.to_string()));
    found.sort_by_key(|(pid, function, _)| (*pid, function.to_string()));
    assert_eq!(found, expected);
    assert_eq!(report["on_stacks"].as_array().unwrap().len(), 0);
    assert_eq!(report["confidence"]["level"], "high");
    let shared = list("unreachable").find(|(pid, ..)| pid.is_none()).unwrap();
    assert_eq!(shared.1, "set_dlg_variable_unsafe");
    let heads = &report["unreachable"].as_array().unwrap()[1]["heads"];
    assert_eq!(heads, 200, "pairs that point at each other");
}

#[test]
fn every_figure_is_what_the_program_counted_itself() {
    let (_, json) = run(&["heap", "--json"]);
    let report: Value = serde_json::from_str(&json).unwrap();
    let truth = std::fs::read(recorded().join("leaky.truth.json")).unwrap();
    let truth: Value = serde_json::from_slice(&truth).unwrap();
    let pools = truth["pools"].as_array().unwrap();
    assert_eq!(report["pools"].as_array().unwrap().len(), pools.len());
    for (found, said) in report["pools"].as_array().unwrap().iter().zip(pools) {
        assert_eq!(found["kind"], said["kind"]);
        let counters = &said["counters"];
        assert_eq!(found["walked"]["used_bytes"], counters["used"]);
        assert_eq!(found["walked"]["real_used_bytes"], counters["real_used"]);
        assert_eq!(found["walked"]["used_fragments"], counters["used_fragments"]);
        assert_eq!(found["walked"]["free_fragments"], counters["free_fragments"]);
        let count = |pool: &Value, function: &str| -> u64 {
            let owners = pool["owners"].as_array().unwrap().iter();
            let of = owners.filter(|owner| owner["function"] == function);
            of.map(|owner| owner["bytes"].as_u64().unwrap()).sum()
        };
        for owner in said["owners"].as_array().unwrap() {
            let function = owner["function"].as_str().unwrap();
            assert_eq!(count(found, function), count(said, function), "{function}");
        }
    }
}

#[test]
fn the_bundle_is_whole() {
    let (code, text) = run(&["verify"]);
    assert_eq!(code, 0, "{text}");
}
