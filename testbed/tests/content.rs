//! What lost fragments hold: planted ones with texts that gdb wrote, and the cells of a hash table
//! whose entries gdb has cut off.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test stops at the first surprise"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use serde_json::Value;
use testbed::analysis;
use testbed::gdb;
use testbed::kamailio::{Instance, Options};
use testbed::load::{self, Kind};
use testbed::memlog::hex;
use testbed::plant::{Into, Kind as Pool, Place, Plan, Wanted};
use testbed::tools::{self, forensics, run};

/// Lines of planted fragments: no function of Kamailio's has so many.
const MESSAGE: u32 = 70_201;
const EMPTY: u32 = 70_202;
const POINTING: u32 = 70_203;
const PRIVATE: u32 = 70_204;

const MESSAGES: u32 = 20;
const EMPTIES: u32 = 5;
const FEW: u64 = 4;
const CALLS: u32 = 200;
const SLOTS: u64 = 256;

const CALL_ID: &str = "planted-7d1f0c2a9e4b@pbx.example.net";

fn message() -> String {
    format!(
        "BYE sip:secretuser@192.0.2.99:5070 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK7\r\n\
         From: \"Ann Smith\" <sip:ann.smith@example.net>;tag=77\r\nCall-ID: {CALL_ID}\r\n\
         CSeq: 2 BYE\r\nContent-Length: 0\r\n\r\n"
    )
}

/// The slots of the only hash table: 32 bytes each, the first cell's address at 8.
fn slots(bundle: &Path) -> u64 {
    let mut command = forensics();
    command.args(["heap", "--json", "--list", "--pool", "shm"]).arg(bundle);
    let heap: analysis::Heap = run(&mut command, tools::PATIENCE).expect(&[0, 1]).json();
    let fragments = &heap.shared().fragments;
    let mut tables = fragments.iter().filter(|fragment| {
        let owner = fragment.function.as_deref() == Some("ht_init_tables");
        owner && fragment.state == "used" && fragment.size == SLOTS * 32
    });
    let table = tables.next().expect("the table's slots");
    assert!(tables.next().is_none(), "one table");
    hex(&table.address)
}

fn plan(table: u64) -> Plan {
    let mut plan = Plan::default();
    let inside = |index, offset| Place::Fragment { index, offset };
    let wanted = |pool, size, line| Wanted { pool, size, owner: 0, line };
    for _ in 0..MESSAGES {
        let message_at = plan.allocate(wanted(Pool::Shm, 400, MESSAGE));
        plan.write(inside(message_at, 16), message().as_bytes());
    }
    for _ in 0..EMPTIES {
        plan.allocate(wanted(Pool::Shm, 96, EMPTY));
    }
    let chunk = plan.chunk(64);
    for _ in 0..FEW {
        let pointing = plan.allocate(wanted(Pool::Shm, 64, POINTING));
        plan.write_address(inside(pointing, 0), Place::Symbol { name: "_shm_root" });
        plan.point(inside(pointing, 8), pointing, Into::Plus(32));
        plan.write_address(inside(pointing, 16), Place::Chunk { index: chunk, offset: 0 });
        let private = plan.allocate(wanted(Pool::Pkg, 80, PRIVATE));
        plan.write(inside(private, 0), b"sip:carol@192.0.2.44");
    }
    // The table's slots forget their cells, which point at one another and at their own texts.
    for slot in 0..SLOTS {
        plan.write(Place::Address { address: table + slot * 32 + 8 }, &[0; 8]);
    }
    plan
}

/// A running group with lost fragments, and a bundle of it.
struct Scene {
    instance: Instance,
    worker: u32,
    bundle: PathBuf,
    scratch: PathBuf,
}

fn scene() -> Scene {
    let scratch = tools::scratch("content");
    let instance = Instance::start(Options::default());
    load::send_with_call_ids(&instance, Kind::Keep, CALLS, 500, "%u-%p@%s");
    let worker = *instance.pids().get(1).unwrap();
    let before = scratch.join("before.tar.zst");
    tools::collect(instance.main_pid(), &before);
    plan(slots(&before)).carry_out(worker, Path::new("/"), &scratch);
    let bundle = scratch.join("lost.tar.zst");
    tools::collect(instance.main_pid(), &bundle);
    Scene { instance, worker, bundle, scratch }
}

impl Scene {
    fn run(&self, words: &[&str]) -> tools::Finished {
        let mut command = forensics();
        command.arg("leaks").args(words).arg(&self.bundle);
        run(&mut command, tools::PATIENCE)
    }
}

fn by_line(report: &Value) -> BTreeMap<u64, &Value> {
    let lost = report["unreachable"].as_array().unwrap().iter();
    lost.filter_map(|lost| Some((lost["line"].as_u64()?, lost))).collect()
}

fn groups(lost: &Value) -> &Vec<Value> {
    lost["content"].as_array().unwrap()
}

/// What all fragments of an owner hold; a request may have got a fragment of another size.
fn held_by_all(lost: &Value) -> BTreeSet<String> {
    let fragments: u64 =
        groups(lost).iter().map(|group| group["fragments"].as_u64().unwrap()).sum();
    assert_eq!(Value::from(fragments), lost["fragments"], "{lost}");
    let mut numbers: BTreeMap<String, u64> = BTreeMap::new();
    for group in groups(lost) {
        assert_eq!(group["looked_at"], group["fragments"]);
        for content in group["holds"].as_array().unwrap() {
            let what = content["what"].as_str().unwrap().to_owned();
            *numbers.entry(what).or_default() += content["fragments"].as_u64().unwrap();
        }
    }
    numbers.into_iter().filter(|(_, number)| *number == fragments).map(|(what, _)| what).collect()
}

/// The first example of a kind.
fn example(lost: &Value, kind: &str) -> String {
    let holds = groups(lost)[0]["holds"].as_array().unwrap();
    let found = holds.iter().find(|content| content["kind"] == kind);
    found.unwrap_or_else(|| panic!("{kind} is not in {lost}"))["example"]
        .as_str()
        .unwrap()
        .to_owned()
}

fn words(list: &[&str]) -> BTreeSet<String> {
    list.iter().map(|word| (*word).to_owned()).collect()
}

#[test]
fn lost_fragments_are_told_by_what_they_hold() {
    let scene = scene();
    groups_and_masks(&scene);
    dumped_files(&scene);
    refusals(&scene);
}

fn groups_and_masks(scene: &Scene) {
    let masked = scene.run(&["--json"]).expect(&[0, 1]);
    let report: Value = masked.json();
    let lines = by_line(&report);
    let planted = |line: u32, number: u64, all: &[&str]| {
        let lost = lines[&u64::from(line)];
        assert_eq!(held_by_all(lost), words(all));
        // A stale word on a stack may still hold one.
        let found = lost["fragments"].as_u64().unwrap();
        assert!((number - 1..=number).contains(&found), "{lost}");
    };
    planted(MESSAGE, MESSAGES.into(), &["SIP request BYE", "Call-ID header"]);
    planted(EMPTY, EMPTIES.into(), &["zeroes"]);
    let targets =
        ["pointers into itself", "pointers into the C heap", "pointers into kamailio (_shm_root)"];
    planted(POINTING, FEW, &targets);
    planted(PRIVATE, FEW, &["sip URI"]);

    // Every cell holds a Call-ID as its key, and a value that begins with a URI.
    let cells = cells(&report);
    let total: u64 = cells.iter().map(|group| group["fragments"].as_u64().unwrap()).sum();
    // A cell that was used last may still be on a worker's stack.
    assert!((u64::from(CALLS) - 10..=u64::from(CALLS)).contains(&total), "{total} cells");
    for group in cells {
        let held = |kind: &str| {
            let holds = group["holds"].as_array().unwrap();
            let found = holds.iter().find(|content| content["kind"] == kind);
            found.map(|content| content["fragments"].clone())
        };
        for kind in ["call-id-shape", "uri", "pointers"] {
            assert_eq!(held(kind).as_ref(), Some(&group["fragments"]), "{kind}: {group}");
        }
    }

    let text = scene.run(&[]).expect(&[0, 1]).text();
    assert!(
        text.contains(" bytes: SIP request BYE in all, Call-ID header in all; such as "),
        "{text}"
    );
    for said in [&masked.text(), &text] {
        for secret in [
            "secretuser",
            "192.0.2",
            "@127.0.0.1",
            "ann.smith",
            "Smith",
            "planted-",
            "carol",
            "z9hG4",
        ] {
            assert!(!said.contains(secret), "{secret} in\n{said}");
        }
    }

    let shown: Value = scene.run(&["--json", "--show-content"]).expect(&[0, 1]).json();
    let lines = by_line(&shown);
    let start = example(lines[&u64::from(MESSAGE)], "sip-request");
    assert!(start.contains("BYE sip:secretuser@192.0.2.99:5070 SIP/2.0"), "{start}");
    assert!(start.contains(&format!("{} bytes", message().len())), "{start}");
    assert_eq!(example(lines[&u64::from(MESSAGE)], "call-id-header"), format!("{CALL_ID:?}"));
    assert_eq!(example(lines[&u64::from(PRIVATE)], "uri"), "\"sip:carol@192.0.2.44\"");
    for group in self::cells(&shown) {
        let example = group["holds"].as_array().unwrap().iter();
        let mut example = example.filter(|content| content["kind"] == "call-id-shape");
        let example = example.next().unwrap()["example"].as_str().unwrap();
        assert!(example.ends_with("@127.0.0.1\""), "{example}");
    }
}

/// The groups of lost hash-table cells.
fn cells(report: &Value) -> Vec<&Value> {
    let lost = report["unreachable"].as_array().unwrap().iter();
    let cells = lost.filter(|lost| lost["function"] == "ht_cell_new");
    cells.flat_map(|lost| lost["content"].as_array().unwrap()).collect()
}

fn dumped_files(scene: &Scene) {
    let folder = scene.scratch.join("payloads");
    let words = ["--json", "--dump", folder.to_str().unwrap()];
    let report: Value = scene.run(&words).expect(&[0, 1]).json();
    let fragments: u64 = sum(&report, "fragments");
    assert_eq!(report["dump"]["files"], fragments);
    assert_eq!(report["dump"]["bytes"], sum(&report, "bytes"));
    assert_eq!(report["dump"]["over_limit"], 0);
    assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
    let index: Value =
        serde_json::from_slice(&fs::read(folder.join("index.json")).unwrap()).unwrap();
    let index = index.as_array().unwrap();
    assert_eq!(index.len(), usize::try_from(fragments).unwrap());
    assert_eq!(fs::read_dir(&folder).unwrap().count(), index.len() + 1);

    // Of the planted ones, what gdb reads from the process now: nothing has touched them since.
    let planted: Vec<&Value> =
        index.iter().filter(|entry| entry["line"].as_u64().is_some_and(|l| l > 70_000)).collect();
    assert!(planted.len() > 28, "{}", planted.len());
    let (mut commands, mut pairs) = (Vec::new(), Vec::new());
    for entry in planted {
        let name = entry["name"].as_str().unwrap();
        let address = entry["address"].as_str().unwrap();
        let expected = match entry["line"].as_u64().and_then(|line| u32::try_from(line).ok()) {
            Some(PRIVATE) => format!("pkg-{}-{address}.bin", scene.worker),
            _ => format!("shm-{address}.bin"),
        };
        assert_eq!(name, expected);
        let by_gdb = scene.scratch.join(format!("gdb-{name}"));
        let path = by_gdb.display();
        commands.push(format!("dump binary memory {path} {address} {address}+{}", entry["bytes"]));
        pairs.push((folder.join(name), by_gdb));
    }
    let commands: Vec<&str> = commands.iter().map(String::as_str).collect();
    gdb::attached(scene.worker, &commands);
    for (ours, gdbs) in pairs {
        assert_eq!(fs::metadata(&ours).unwrap().mode() & 0o777, 0o600);
        assert!(fs::read(&ours).unwrap() == fs::read(gdbs).unwrap(), "{}", ours.display());
    }
    let kind =
        |line: u32| index.iter().find(|entry| entry["line"] == line).unwrap()["kind"].clone();
    assert_eq!(kind(MESSAGE), "sip-request");
    assert_eq!(kind(EMPTY), "zeroes");
    load::answered(&scene.instance, 20);
}

fn sum(report: &Value, field: &str) -> u64 {
    let lost = report["unreachable"].as_array().unwrap().iter();
    lost.map(|lost| lost[field].as_u64().unwrap()).sum()
}

fn refusals(scene: &Scene) {
    let dump = |folder: &Path, words: &[&str]| {
        let mut all = vec!["--dump", folder.to_str().unwrap()];
        all.extend(words);
        scene.run(&all)
    };
    let folder = scene.scratch.join("refused");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("mine"), "kept").unwrap();
    let said = dump(&folder, &[]).expect(&[2]).errors();
    assert!(said.contains("is not empty (--force"), "{said}");
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);

    // A link in the place of a file is replaced, never followed.
    let outside = scene.scratch.join("outside");
    fs::write(&outside, "kept").unwrap();
    std::os::unix::fs::symlink(&outside, folder.join("index.json")).unwrap();
    let said = dump(&folder, &["--force", "--dump-max", "1000"]).expect(&[0, 1]).text();
    assert!(said.contains("beyond the limit (--dump-max)"), "{said}");
    assert_eq!(fs::read_to_string(&outside).unwrap(), "kept");
    assert_eq!(fs::read_to_string(folder.join("mine")).unwrap(), "kept");
    assert!(fs::symlink_metadata(folder.join("index.json")).unwrap().is_file());

    let said = dump(Path::new("/proc/payloads"), &[]).expect(&[2]).errors();
    assert!(said.contains("cannot use /proc/payloads for payloads: "), "{said}");
    full_disk(scene);
}

/// A file system of 64 KiB.
fn full_disk(scene: &Scene) {
    let small = scene.scratch.join("small");
    fs::create_dir(&small).unwrap();
    let script = format!(
        "mount -t tmpfs -o size=64k,nr_inodes=16 none {0} && \"$@\" --dump {0}/d; code=$?; \
         find {0}/d -name '*.bin' | wc -l; exit $code",
        small.display()
    );
    let mut command = std::process::Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script, "sh"]);
    command.arg(forensics().get_program()).arg("leaks").arg(&scene.bundle);
    let finished = run(&mut command, tools::PATIENCE).expect(&[2]);
    let said = finished.errors();
    assert!(said.contains("No space left"), "{said}");
    assert!(said.contains("payloads written before stay"), "{said}");
    let kept: u32 = finished.text().trim().parse().unwrap();
    assert!(kept > 2, "{kept}");
}
