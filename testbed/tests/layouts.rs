//! Every known layout of every manager, with debug information and stripped, from gdb's cores and
//! from a bundle, against the program's own figures and against the gdb scripts on the same core.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test stops at the first surprise"
)]

use std::path::Path;

use serde_json::Value;
use testbed::sample::{Leaky, Owners, analyse, owners};
use testbed::{gdb, tools};

fn check(edition: &str) {
    for (program, source) in
        [(edition.to_owned(), "inferred"), (format!("{edition}-debug"), "dwarf")]
    {
        let scratch = tools::scratch(&format!("layouts-{program}"));
        let leaky = Leaky::start(&program, &["-n", "2", "-r", "800", "--join"], &scratch);
        let cores = leaky.gcore(&scratch);
        let report = analyse(&cores, &[]);
        leaky.assert_told(&report, source);

        let leaking = leaky.pids()[2];
        let core = cores.join(format!("core.{leaking}"));
        scripts_agree(&leaky, &core, &analyse(&core, &[]));

        let bundle = scratch.join("bundle.tar.zst");
        tools::collect(leaky.pids()[0], &bundle);
        leaky.assert_told(&analyse(&bundle, &[]), source);
    }
}

/// The gdb scripts read the same core, and say the same of both pools.
fn scripts_agree(leaky: &Leaky, core: &Path, report: &Value) {
    let source = format!("source {}", tools::workspace().join("gdb-scripts/kamailio.py").display());
    let questions = ["pools", "owners shm", "owners pkg"].map(|what| format!("kam {what} --json"));
    let mut commands = vec![source.as_str()];
    for question in &questions {
        commands.extend(["echo @@\n", question.as_str()]);
    }
    let said = gdb::ask(&leaky.program, core, &commands);
    let answers: Vec<Value> =
        said.split("@@\n").skip(1).map(|answer| serde_json::from_str(answer).unwrap()).collect();
    let [pools, shm, pkg] = answers.as_slice() else { panic!("three answers: {said}") };

    for (kind, all) in [("shm", shm), ("pkg", pkg)] {
        let of_kind = |list: &Value| {
            let list = list["pools"].as_array().unwrap();
            list.iter().find(|pool| pool["kind"] == kind).unwrap().clone()
        };
        let (ours, theirs) = (of_kind(report), of_kind(pools));
        assert_eq!(ours["manager"], theirs["manager"], "{theirs}");
        assert_eq!(ours["block"], theirs["block"], "{theirs}");
        assert_eq!(ours["layout"]["source"], theirs["layout"]["source"], "{theirs}");
        assert_eq!(ours["counters"], theirs["counters"], "{theirs}");
        for (own, other) in [
            ("used_fragments", "used_fragments"),
            ("used_bytes", "used"),
            ("real_used_bytes", "real_used"),
            ("free_fragments", "free_fragments"),
            ("free_bytes", "free"),
        ] {
            assert_eq!(ours["walked"][own], theirs["walk"][other], "{own}: {theirs}");
        }
        assert_eq!(theirs["layout"]["header"], leaky.truth["header_bytes"], "{theirs}");
        assert_eq!(theirs["layout"]["trailer"], leaky.truth["trailer_bytes"], "{theirs}");
        assert_eq!(all["owners_in_fragments"], leaky.truth["owners_in_fragments"]);
        if all["owners_in_fragments"] == true {
            assert_eq!(owners(&ours), owners(all), "{kind}");
        } else {
            assert_eq!(owners(all), Owners::new(), "{kind}");
        }
    }
}

#[test]
fn q_malloc_without_owners() {
    check("leaky-16");
}

#[test]
fn q_malloc_of_5_2() {
    check("leaky-56");
}

#[test]
fn q_malloc_of_5_8() {
    check("leaky-64");
}

#[test]
fn q_malloc_with_backtraces() {
    check("leaky-128");
}

#[test]
fn f_malloc_without_owners() {
    check("leaky-fm-48");
}

#[test]
fn f_malloc_of_5_2() {
    check("leaky-fm-72");
}

#[test]
fn f_malloc_of_5_8() {
    check("leaky-fm-80");
}

#[test]
fn tlsf_without_owners() {
    check("leaky-tlsf-32");
}

#[test]
fn tlsf_with_owners() {
    check("leaky-tlsf-64");
}
