//! Damaged and hostile inputs: whatever the bytes, `forensics` says something and ends.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::io::Write as _;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use bundle::corefile::{Machine, Notes, Segment, plan};
use bundle::frames::FrameWriter;
use bundle::notes::{Content, OWNER, RANGES, Range, Ranges};
use clap::Parser as _;
use forensics::cli::Cli;
use proptest::prelude::*;

/// A core of one page of data and one of zeroes.
fn core() -> Vec<u8> {
    let mut notes = Notes::default();
    notes.push("CORE", 1, &[0; 336]);
    notes.push("CORE", 3, &[0; 136]);
    let data = Range { start: 0x10000, length: 4096, content: Content::Data };
    let zero = Range { start: 0x11000, length: 4096, content: Content::Zero };
    notes.push(OWNER, RANGES, &Ranges(vec![data, zero]).encode());
    let segment = Segment { start: 0x10000, memory: 8192, file: 4096, flags: 6 };
    let plan = plan(Machine::X86_64, &notes, &[segment]).unwrap();
    let mut core = plan.prefix;
    core.resize(core.len() + 4096, 0x5a);
    core
}

fn header() -> Vec<u8> {
    let header = bundle::Header {
        format: 1,
        tool: "test".into(),
        created: "2026-01-02T03:04:05+00:00[UTC]".into(),
        host: "host".into(),
        boot_id: String::new(),
        kernel: String::new(),
        machine: "x86_64".into(),
        case_id: String::new(),
        profile: "generic".into(),
        reason: String::new(),
        scope: Vec::new(),
        holds: bundle::Holds::Whole,
        mode: bundle::Mode::default(),
        series: None,
    };
    serde_json::to_vec(&header).unwrap()
}

fn tar(members: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, content) in members {
        let mut entry = tar::Header::new_ustar();
        entry.set_size(content.len().try_into().unwrap());
        entry.set_mode(0o600);
        archive.append_data(&mut entry, path, content.as_slice()).unwrap();
    }
    archive.into_inner().unwrap()
}

fn bundle() -> Vec<u8> {
    let manifest = bundle::Manifest { format: 1, ..bundle::Manifest::default() };
    tar(&[
        ("header.json", header()),
        ("processes/7/core", core()),
        ("processes/7/status.1", b"NSpid:\t7\t1\n".to_vec()),
        ("processes/7/maps", b"10000-12000 rw-p 00000000 00:00 0     [stack]\n".to_vec()),
        ("shared/00.01-5", vec![1; 4096]),
        ("manifest.json", serde_json::to_vec(&manifest).unwrap()),
    ])
}

fn compressed(content: &[u8]) -> Vec<u8> {
    let mut writer = FrameWriter::new(Vec::new(), 1, NonZeroUsize::MIN);
    writer.write_all(content).unwrap();
    writer.finish().unwrap()
}

/// Runs the program as a user would: its exit code, or its complaint.
fn run(words: &[&str], input: &Path) -> Result<(u8, String), String> {
    let mut line = vec!["forensics"];
    line.extend(words);
    let input = input.to_string_lossy();
    line.push(&input);
    let mut out = Vec::new();
    let code = Cli::parse_from(line).run(&mut out).map_err(|error| format!("{error:#}"))?;
    Ok((code, String::from_utf8(out).unwrap()))
}

fn file(folder: &tempfile::TempDir, content: &[u8]) -> PathBuf {
    let path = folder.path().join("input");
    std::fs::write(&path, content).unwrap();
    path
}

fn try_everything(content: &[u8]) {
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder, content);
    for words in [
        &[][..],
        &["--json"],
        &["heap", "--list"],
        &["leaks", "--show-content"],
        &["info", "--registers"],
        &["verify"],
    ] {
        let _ = run(words, &path);
    }
    let output = folder.path().join("core");
    let _ = run(&["extract", "--pid", "7", "-o", &output.to_string_lossy()], &path);
}

#[test]
fn the_bundle_that_is_damaged_below_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder, &compressed(&bundle()));
    let (code, text) = run(&[], &path).unwrap();
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("Processes (1)"), "{text}");
    let output = folder.path().join("core");
    let words = ["extract", "--pid", "7", "-o", &output.to_string_lossy()];
    let (code, text) = run(&words, &path).unwrap();
    assert_eq!(code, 0, "{text}");
    let (code, text) = run(&["info"], &output).unwrap();
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("4.0 KiB (4,096 bytes) never existed"), "{text}");
}

#[test]
fn a_bundle_cut_anywhere_says_so() {
    let whole = compressed(&bundle());
    let folder = tempfile::tempdir().unwrap();
    // The whole content is one frame here: a cut leaves nothing of it, which is an error.
    let path = file(&folder, &whole[..whole.len() / 2]);
    let complaint = run(&[], &path).unwrap_err();
    assert!(complaint.contains("input"), "{complaint}");
    let plain = bundle();
    for cut in [512, 1600, 3000, plain.len() - 3000] {
        let path = file(&folder, &plain[..cut]);
        match run(&[], &path) {
            Ok((code, text)) => {
                assert_eq!(code, 1, "cut at {cut}: {text}");
                assert!(text.starts_with("INCOMPLETE"), "cut at {cut}: {text}");
            }
            Err(complaint) => assert!(complaint.contains("input"), "cut at {cut}: {complaint}"),
        }
    }
}

#[test]
fn a_member_cannot_leave_its_place() {
    let folder = tempfile::tempdir().unwrap();
    // The tar crate refuses to write such a path, so it is put in by hand.
    let mut archive = tar(&[("header.json", header()), ("xx/escaped-from-the-bundle", vec![1])]);
    let at = archive.windows(10).position(|bytes| bytes == b"xx/escaped").unwrap();
    archive[at..at + 2].copy_from_slice(b"..");
    let path = file(&folder, &archive);
    let _ = run(&[], &path);
    assert!(!folder.path().parent().unwrap().join("escaped-from-the-bundle").exists());
}

#[test]
fn other_machines_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    for (byte, value, word) in [(4, 1, "32-bit"), (5, 2, "big-endian"), (18, 8, "machine number")] {
        let mut core = core();
        core[byte] = value;
        let complaint = run(&[], &file(&folder, &core)).unwrap_err();
        assert!(complaint.contains(word), "{complaint}");
        assert!(complaint.contains("not supported"), "{complaint}");
    }
}

/// The file header of an ELF core of some machine, and nothing behind it.
fn foreign(bits: u8, big_endian: bool, machine: u16) -> Vec<u8> {
    let half = |number: u16| if big_endian { number.to_be_bytes() } else { number.to_le_bytes() };
    let order = if big_endian { 2 } else { 1 };
    let mut core = vec![0x7f, b'E', b'L', b'F', bits / 32, order, 1, 0];
    core.resize(16, 0);
    core.extend(half(4)); // ET_CORE
    core.extend(half(machine));
    core.extend([if big_endian { [0, 0, 0, 1] } else { [1, 0, 0, 0] }].concat());
    core.resize(if bits == 32 { 52 } else { 64 }, 0);
    core
}

#[test]
fn cores_of_foreign_machines_end_with_exit_code_2() {
    let folder = tempfile::tempdir().unwrap();
    for (name, core, why) in [
        ("i386", foreign(32, false, 3), "a 32-bit core"),
        ("arm", foreign(32, false, 40), "a 32-bit core"),
        ("mips", foreign(32, true, 8), "a 32-bit core"),
        ("s390x", foreign(64, true, 22), "a big-endian core"),
        ("riscv64", foreign(64, false, 243), "machine number 243"),
    ] {
        let path = file(&folder, &core);
        for words in [&[][..], &["--json"], &["heap"], &["info"], &["extract", "--pid", "7"]] {
            let mut program = std::process::Command::new(env!("CARGO_BIN_EXE_forensics"));
            let ended = program.args(words).arg(&path).current_dir(&folder).output().unwrap();
            let said = String::from_utf8(ended.stderr).unwrap();
            assert_eq!(ended.status.code(), Some(2), "{name} {words:?}: {said}");
            assert!(ended.stdout.is_empty(), "{name} {words:?}");
            let whole = format!(
                "not supported: {why}; only 64-bit little-endian cores of x86-64 and aarch64 are \
                 read\n"
            );
            assert!(said.ends_with(&whole), "{name} {words:?}: {said}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn damaged_cores_never_panic(places in proptest::collection::vec((0_usize..5000, any::<u8>()), 1..8)) {
        let mut core = core();
        for (place, value) in places {
            let length = core.len();
            core[place % length] = value;
        }
        try_everything(&core);
    }

    #[test]
    fn damaged_archives_never_panic(places in proptest::collection::vec((0_usize..20000, any::<u8>()), 1..8)) {
        let mut archive = bundle();
        for (place, value) in places {
            let length = archive.len();
            archive[place % length] = value;
        }
        try_everything(&archive);
    }

    #[test]
    fn damaged_compression_never_panics(places in proptest::collection::vec((0_usize..5000, any::<u8>()), 1..4)) {
        let mut file = compressed(&bundle());
        for (place, value) in places {
            let length = file.len();
            file[place % length] = value;
        }
        try_everything(&file);
    }
}
