//! Damage in a real core: a core is taken out of the recorded bundle, a fragment of its SHM pool
//! is overwritten in one of the ways that real overruns have, and everything else must still be
//! told as before.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test stops at the first surprise"
)]

use std::path::{Path, PathBuf};

use clap::Parser as _;
use forensics::bytes::map_path;
use forensics::cli::Cli;
use forensics::core::CoreFile;
use serde_json::Value;

fn run(words: &[&str]) -> (u8, String) {
    let mut out = Vec::new();
    let line = ["forensics"].iter().chain(words);
    let code = Cli::parse_from(line).run(&mut out).unwrap();
    (code, String::from_utf8(out).unwrap())
}

/// The sound core, and where its SHM fragments are.
struct Case {
    folder: tempfile::TempDir,
    core: Vec<u8>,
    fragments: Vec<Fragment>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Fragment {
    header: u64,
    size: u64,
    state: String,
    function: Option<String>,
}

impl Case {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let bundle =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../samples/recorded/leaky.tar.zst");
        let bundle = bundle.to_string_lossy();
        let (_, info) = run(&["info", "--json", &bundle]);
        let info: Value = serde_json::from_str(&info).unwrap();
        let main = info["processes"][0]["pid"].to_string();
        let path = folder.path().join("sound");
        run(&["extract", "--pid", &main, "-o", &path.to_string_lossy(), &bundle]);
        let core = std::fs::read(&path).unwrap();
        let (_, fragments, complete) = fragments(&path);
        assert!(complete);
        assert!(fragments.len() > 400, "{}", fragments.len());
        Self { folder, core, fragments }
    }

    /// A used fragment with used neighbours, not at the edge of the pool.
    fn victim(&self, nth: usize) -> usize {
        let used = |index: usize| self.fragments[index].state == "used";
        let inner = 50..self.fragments.len() - 50;
        inner.filter(|&i| used(i - 1) && used(i) && used(i + 1)).nth(nth).unwrap()
    }

    fn offset(&self, address: u64) -> usize {
        let path = self.folder.path().join("sound");
        let core = CoreFile::read(&map_path(&path).unwrap()).unwrap();
        let load = core.loads.iter().find(|load| {
            load.range.start.0 <= address && address < load.range.start.0 + load.saved
        });
        let load = load.unwrap();
        usize::try_from(load.offset + (address - load.range.start.0)).unwrap()
    }

    /// Overwrites bytes at addresses; the damaged core's path.
    fn damage(&self, name: &str, patches: &[(u64, &[u8])]) -> PathBuf {
        let mut core = self.core.clone();
        for (address, bytes) in patches {
            let at = self.offset(*address);
            core[at..at + bytes.len()].copy_from_slice(bytes);
        }
        let path = self.folder.path().join(name);
        std::fs::write(&path, core).unwrap();
        path
    }

    /// The fragments but for those at the given places.
    fn without(&self, lost: &[usize]) -> Vec<Fragment> {
        let kept = self.fragments.iter().enumerate().filter(|(index, _)| !lost.contains(index));
        kept.map(|(_, fragment)| fragment.clone()).collect()
    }
}

/// Exit code, SHM fragments, and whether the walk was complete.
fn fragments(core: &Path) -> (u8, Vec<Fragment>, bool) {
    let (code, json) = run(&["heap", "--json", "--list", "--pool", "shm", &core.to_string_lossy()]);
    let report: Value = serde_json::from_str(&json).unwrap();
    let pool = &report["pools"][0];
    let number = |value: &Value| {
        u64::from_str_radix(value.as_str().unwrap().trim_start_matches("0x"), 16).unwrap()
    };
    let fragment = |value: &Value| Fragment {
        header: number(&value["header"]),
        size: value["size"].as_u64().unwrap(),
        state: value["state"].as_str().unwrap().to_owned(),
        function: value["function"].as_str().map(str::to_owned),
    };
    let list = pool["fragments"].as_array().unwrap().iter().map(fragment).collect();
    (code, list, pool["walked"]["complete"] == true)
}

fn report(core: &Path) -> String {
    run(&[&core.to_string_lossy()]).1
}

/// Header 56 bytes: size at 0, file at 16, check at 48; trailer 48 bytes: checks at 0 and 8.
const HEADER: u64 = 56;

#[test]
fn an_end_check_and_the_size_of_another_fragment() {
    let case = Case::new();
    let (one, other) = (case.victim(0), case.victim(40));
    let end = case.fragments[one].header + HEADER + case.fragments[one].size;
    let size = case.fragments[other].header;
    let core =
        case.damage("two", &[(end, &0_u64.to_le_bytes()), (size, &(1_u64 << 40).to_le_bytes())]);
    let (code, found, complete) = fragments(&core);
    assert_eq!(code, 1);
    assert!(!complete);
    assert_eq!(found, case.without(&[other]));
    let text = report(&core);
    assert!(text.contains("end overwritten (0x0, 0xabcdefed)"), "{text}");
    assert!(text.contains(&format!("fragment at {size:#x}: its size field holds")), "{text}");
}

#[test]
fn one_check_word() {
    let case = Case::new();
    let one = case.victim(3);
    let check = case.fragments[one].header + 48;
    let core = case.damage("check", &[(check, &[0x41; 8])]);
    let (code, found, complete) = fragments(&core);
    assert_eq!(code, 1);
    assert!(complete);
    assert_eq!(found, case.fragments);
    let text = report(&core);
    assert!(text.contains("beginning overwritten (0x4141414141414141)"), "{text}");
    assert!(text.contains("before it: "), "{text}");
}

#[test]
fn sizes_that_lead_a_naive_loop_astray() {
    let case = Case::new();
    let one = case.victim(7);
    let true_size = case.fragments[one].size;
    let back = 0_u64.wrapping_sub(HEADER + 48);
    for size in [true_size - 8, true_size + 8, 0, back, u64::MAX, true_size + 104] {
        let core = case.damage("size", &[(case.fragments[one].header, &size.to_le_bytes())]);
        let (code, found, complete) = fragments(&core);
        assert_eq!(code, 1, "size {size:#x}");
        assert!(!complete, "size {size:#x}");
        assert_eq!(found, case.without(&[one]), "size {size:#x}");
    }
}

#[test]
fn a_message_written_past_a_fragment_into_the_next_header() {
    let case = Case::new();
    let one = case.victim(11);
    let end = case.fragments[one].header + HEADER + case.fragments[one].size;
    let message = b"Via: SIP/2.0/UDP 192.0.2.7:5060;branch=z9hG4bK77ef4c2312983.1;rport\r\nTo:";
    let core = case.damage("overrun", &[(end, &message[..72])]);
    let (code, found, complete) = fragments(&core);
    assert_eq!(code, 1);
    assert!(!complete);
    assert_eq!(found, case.without(&[one + 1]));
    let text = report(&core);
    let owner = case.fragments[one].function.as_deref().unwrap();
    assert!(text.contains("part of a SIP message"), "{text}");
    assert!(text.contains(&format!("{owner}(")), "{text}");
}

/// What a JSON report calls a hex number.
fn address(value: &Value) -> u64 {
    u64::from_str_radix(value.as_str().unwrap().trim_start_matches("0x"), 16).unwrap()
}

#[test]
fn pointers_written_over_a_header_are_told_by_what_they_point_at() {
    let case = Case::new();
    let sound = case.folder.path().join("sound");
    let sound = sound.to_string_lossy();
    let json = |words: &[&str]| -> Value { serde_json::from_str(&run(words).1).unwrap() };
    let info = json(&["info", "--json", "--registers", &sound]);
    let values = info["processes"][0]["registers"][0]["values"].as_array().unwrap();
    let stack = values.iter().find(|register| register["name"] == "rsp").unwrap();
    assert_eq!(stack["place"], format!("stack of thread {}", info["processes"][0]["pid"]));
    let heap = json(&["heap", "--json", "--pool", "pkg", &sound]);
    let private = address(&heap["pools"][0]["block"]) + 0x100;
    let one = case.victim(9);
    let header = case.fragments[one].header;
    let target = &case.fragments[one + 3];
    assert_eq!(target.state, "used");
    let shared = target.header + HEADER + 8;
    let target =
        format!("inside the fragment at {:#x} ({} bytes, of ", target.header + HEADER, target.size);
    // The size leads out of the pool; then a number, and pointers to three places.
    let words =
        [1 << 40, 148, shared, private, address(&stack["value"]), 0xc0c0_c0c0, 0x1234_5678_0000];
    let bytes: Vec<u8> = words.iter().flat_map(|word: &u64| word.to_le_bytes()).collect();
    let core = case.damage("pointers", &[(header, &bytes)]);
    // In one line whatever its width: a fact is wrapped.
    let text = report(&core).split_whitespace().collect::<Vec<_>>().join(" ");
    for wanted in [
        format!("at {header:#x}: word at +16 ({shared:#x}) points into SHM, {target}"),
        format!("at {header:#x}: word at +24 ({private:#x}) points into PKG of one of"),
        format!("word at +32 ({}) points into stack of one of", stack["value"].as_str().unwrap()),
        "word at +40 (0xc0c0c0c0) is the allocator's first end check".to_owned(),
    ] {
        assert!(text.contains(&wanted), "{wanted} is not in:\n{text}");
    }
    assert!(!text.contains("word at +8 "), "a number is no pointer:\n{text}");
    assert!(!text.contains("word at +48 "), "nothing is mapped there:\n{text}");
}

#[test]
fn a_pointer_in_place_of_a_check_word_is_told() {
    let case = Case::new();
    let one = case.victim(4);
    let end = case.fragments[one].header + HEADER + case.fragments[one].size;
    let shared = case.fragments[one + 3].header;
    let core = case.damage("end", &[(end, &shared.to_le_bytes())]);
    let text = report(&core).split_whitespace().collect::<Vec<_>>().join(" ");
    let wanted = format!("word at +0 behind its end ({shared:#x}) points into SHM");
    assert!(text.contains(&wanted), "{wanted} is not in:\n{text}");
    assert!(!text.contains("word at +8 behind"), "that check word is whole:\n{text}");
}

#[test]
fn a_wild_pointer_to_the_file_name() {
    let case = Case::new();
    let one = case.victim(5);
    let file = case.fragments[one].header + 16;
    let core = case.damage("file", &[(file, &0xdead_beef_0000_u64.to_le_bytes())]);
    let (_, found, complete) = fragments(&core);
    assert!(complete);
    assert_eq!(found, case.fragments);
}
