//! Our own leaking program in every known layout, with and without debug information, against the
//! figures that it kept itself while it ran.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test stops at the first surprise"
)]

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use testbed::gdb;
use testbed::tools::{self, forensics, run};

/// The programs, built once.
fn programs() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let folder = tools::scratch("samples-built");
        let mut make = Command::new("make");
        make.arg("-s").arg("-C").arg(tools::workspace().join("samples/qm"));
        make.arg(format!("OUT={}", folder.display()));
        run(&mut make, Duration::from_secs(120)).expect(&[0]);
        folder
    })
}

/// A running sample; ended by its own PID.
struct Leaky {
    child: Child,
    truth: Value,
}

impl Leaky {
    fn start(edition: &str, truth: &Path) -> Self {
        let mut command = Command::new(programs().join(edition));
        command.args(["--small", "--truth"]).arg(truth).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n", "{edition}");
        let truth = serde_json::from_slice(&std::fs::read(truth).unwrap()).unwrap();
        Self { child, truth }
    }

    fn pools(&self) -> &[Value] {
        self.truth["pools"].as_array().unwrap()
    }

    fn pids(&self) -> Vec<u32> {
        let private = self.pools().iter().filter(|pool| pool["kind"] == "pkg");
        private.map(|pool| u32::try_from(pool["pid"].as_u64().unwrap()).unwrap()).collect()
    }
}

impl Drop for Leaky {
    fn drop(&mut self) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        let _ = kill(pid, Signal::SIGTERM);
        let _ = tools::wait(&mut self.child, Duration::from_secs(10));
    }
}

/// (module, file, function, line) → (fragments, bytes); the truth's file has the module before it.
type Owners = BTreeMap<(String, String, String, u64), (u64, u64)>;

fn owners(pool: &Value) -> Owners {
    let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    pool["owners"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|owner| owner["fragments"] != 0)
        .map(|owner| {
            let module = text(&owner["module"]);
            let file = text(&owner["file"]);
            let file = file.strip_prefix(&format!("{module}: ")).unwrap_or(&file).to_owned();
            let line = owner["line"].as_u64().unwrap();
            let key = (module, file, text(&owner["function"]), line);
            (key, (owner["fragments"].as_u64().unwrap(), owner["bytes"].as_u64().unwrap()))
        })
        .collect()
}

fn analyse(cores: &Path, arguments: &[&str]) -> Value {
    let mut command = forensics();
    command.args(["heap", "--json"]).args(arguments).arg(cores);
    run(&mut command, tools::PATIENCE).expect(&[0, 1]).json()
}

/// The analysed pool that a pool of the truth is.
fn same<'a>(report: &'a Value, pool: &Value) -> &'a Value {
    let pools = report["pools"].as_array().unwrap();
    let fits = |candidate: &&Value| {
        candidate["kind"] == pool["kind"]
            && (pool["kind"] == "shm" || candidate["pid"] == pool["pid"])
    };
    pools.iter().find(fits).unwrap_or_else(|| panic!("no pool for {pool} in {report}"))
}

/// Dumps every process of an edition and compares the analysis with the truth.
fn check(test: &str, edition: &str) -> (Leaky, PathBuf, Value) {
    let scratch = tools::scratch(&format!("samples-{test}-{edition}"));
    let cores = scratch.join("cores");
    std::fs::create_dir(&cores).unwrap();
    let leaky = Leaky::start(edition, &scratch.join("truth.json"));
    for pid in leaky.pids() {
        gdb::gcore(pid, &cores.join(format!("core.{pid}")));
    }
    let report = analyse(&cores, &[]);
    assert_eq!(report["pools"].as_array().unwrap().len(), leaky.pools().len(), "{edition}");
    for truth in leaky.pools() {
        let found = same(&report, truth);
        let (walked, said) = (&found["walked"], &truth["counters"]);
        assert_eq!(walked["complete"], true, "{edition}: {found}");
        assert_eq!(walked["used_bytes"], said["used"], "{edition}: {found}");
        assert_eq!(walked["real_used_bytes"], said["real_used"], "{edition}: {found}");
        assert_eq!(walked["used_fragments"], said["used_fragments"], "{edition}: {found}");
        assert_eq!(walked["free_fragments"], said["free_fragments"], "{edition}: {found}");
        for counter in ["size", "used", "real_used", "free_fragments"] {
            assert_eq!(found["counters"][counter], said[counter], "{edition}: {counter}");
        }
        if leaky.truth["owners_in_fragments"] == true {
            assert_eq!(owners(found), owners(truth), "{edition}");
        } else {
            let all = &found["owners"][0];
            assert_eq!(all["module"], Value::Null, "{edition}");
            assert_eq!(all["fragments"], said["used_fragments"], "{edition}");
        }
        let source = if edition.ends_with("-debug") { "dwarf" } else { "inferred" };
        assert_eq!(found["layout"]["source"], source, "{edition}: {found}");
    }
    (leaky, cores, report)
}

#[test]
fn headers_of_16_bytes() {
    check("layouts", "leaky-16");
    check("layouts", "leaky-16-debug");
}

#[test]
fn headers_of_56_bytes() {
    check("layouts", "leaky-56");
    check("layouts", "leaky-56-debug");
}

#[test]
fn headers_of_64_bytes() {
    check("layouts", "leaky-64");
    check("layouts", "leaky-64-debug");
}

#[test]
fn headers_of_128_bytes() {
    check("layouts", "leaky-128");
    check("layouts", "leaky-128-debug");
}

#[test]
fn what_a_worker_inherited_is_set_apart() {
    let (leaky, _, report) = check("inherited", "leaky-64");
    let main = &leaky.pids()[0];
    for pool in report["pools"].as_array().unwrap().iter().filter(|pool| pool["kind"] == "pkg") {
        let inherited = pool["inherited_fragments"].as_u64().unwrap();
        if pool["pid"].as_u64() == Some(u64::from(*main)) {
            assert_eq!(inherited, 0);
            continue;
        }
        // Start-up allocations are the main process's; the workers free none of them.
        let main_pool = same(&report, &leaky.pools()[1]);
        assert_eq!(inherited, main_pool["walked"]["used_fragments"].as_u64().unwrap());
        let own: Vec<&str> = pool["owners"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|owner| owner["own_fragments"] != 0)
            .map(|owner| owner["function"].as_str().unwrap())
            .collect();
        assert!(!own.contains(&"register_module"), "{own:?}");
    }
}

#[test]
fn the_first_fragments_can_be_left_out() {
    let (_leaky, cores, report) = check("skip-first", "leaky-56");
    let without = analyse(&cores, &["--skip-first", "100", "--pool", "shm"]);
    let (all, rest) = (&report["pools"][0], &without["pools"][0]);
    let sum = |pool: &Value| -> u64 {
        let owners = pool["owners"].as_array().unwrap();
        owners.iter().map(|owner| owner["fragments"].as_u64().unwrap()).sum()
    };
    assert_eq!(sum(all) - sum(rest), 100);
    assert_eq!(all["walked"]["used_bytes"], rest["walked"]["used_bytes"]);
}

#[test]
fn pools_are_found_without_any_module_file() {
    let scratch = tools::scratch("samples-no-module");
    let cores = scratch.join("cores");
    std::fs::create_dir(&cores).unwrap();
    // A program that is gone from the disk: only the core knows it.
    let program = programs().join("leaky-64-gone");
    std::fs::copy(programs().join("leaky-64"), &program).unwrap();
    let leaky = Leaky::start("leaky-64-gone", &scratch.join("truth.json"));
    for pid in leaky.pids() {
        gdb::gcore(pid, &cores.join(format!("core.{pid}")));
    }
    std::fs::remove_file(&program).unwrap();
    let report = analyse(&cores, &[]);
    for truth in leaky.pools() {
        let found = same(&report, truth);
        assert_eq!(found["found"]["by"], "block-shape", "{found}");
        assert_eq!(found["walked"]["used_bytes"], truth["counters"]["used"]);
        assert_eq!(found["owners"][0]["function"], Value::Null);
    }
    let gaps = report["gaps"].as_array().unwrap();
    let said = gaps.iter().any(|gap| gap["what"].as_str().unwrap().contains("leaky-64-gone"));
    assert!(said, "the missing program is a gap: {gaps:?}");

    // With the file at hand the owners' names are back.
    let copy = programs().join("leaky-64");
    let named = analyse(&cores, &["--module", copy.to_str().unwrap()]);
    for truth in leaky.pools() {
        assert_eq!(owners(same(&named, truth)), owners(truth));
    }

    // A program of another build is refused by its build ID, and said.
    let other = programs().join("leaky-64-gone");
    std::fs::copy(programs().join("leaky-56"), &other).unwrap();
    let refused = analyse(&cores, &["--module", other.to_str().unwrap()]);
    let gaps = refused["gaps"].to_string();
    assert!(gaps.contains("another build is at hand"), "{gaps}");
    assert_eq!(same(&refused, &leaky.pools()[0])["owners"][0]["function"], Value::Null);
}

/// gdb's answers to `info symbol` for words of a core, each as `name+0x1c`.
fn symbols(program: &Path, core: &Path, words: &[u64]) -> Vec<String> {
    let commands: Vec<String> = words
        .iter()
        .flat_map(|word| ["echo >>>".to_owned(), format!("info symbol {word:#x}")])
        .collect();
    let commands: Vec<&str> = commands.iter().map(String::as_str).collect();
    let said = gdb::ask(program, core, &commands);
    let symbol = |answer: &str| {
        let (symbol, _) = answer.split_once(" in section ").unwrap_or_default();
        let (name, offset) = symbol.split_once(" + ").unwrap_or((symbol, "0"));
        format!("{name}+{:#x}", offset.parse::<u64>().unwrap())
    };
    said.split(">>>").skip(1).map(symbol).collect()
}

/// What the program allocates by `take`, called by `start_up`, called by `main`.
#[test]
fn recorded_calls_are_those_that_gdb_finds_in_the_header() {
    let (leaky, cores, _) = check("backtrace", "leaky-128-debug");
    let main = leaky.pids()[0];
    let core = cores.join(format!("core.{main}"));
    let program = programs().join("leaky-128-debug");
    let number = |value: &Value| {
        u64::from_str_radix(value.as_str().unwrap().trim_start_matches("0x"), 16).unwrap()
    };
    let report = analyse(&core, &["--list", "--pool", "pkg"]);
    let fragments = report["pools"][0]["fragments"].as_array().unwrap();
    let used = |function: &str| {
        let fits = |f: &&Value| f["state"] == "used" && f["function"] == function;
        fragments.iter().find(fits).unwrap_or_else(|| panic!("no fragment of {function}"))
    };
    for owner in ["addstr", "register_module"] {
        let fragment = used(owner);
        let frames = fragment["backtrace"].as_array().unwrap();
        // The header's nine words at 48, as gdb sees them.
        let at = number(&fragment["header"]) + 48;
        let words: Vec<String> = (0..9)
            .map(|index| format!("printf \"word %lu\\n\", *(long*){:#x}", at + index * 8))
            .collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let said = gdb::ask(&program, &core, &words);
        let words: Vec<u64> = said
            .lines()
            .filter_map(|line| line.strip_prefix("word ")?.parse().ok())
            .take_while(|word| *word != 0)
            .collect();
        let addresses: Vec<u64> = frames.iter().map(|frame| number(&frame["address"])).collect();
        assert_eq!(addresses, words, "{fragment}");
        let symbols = symbols(&program, &core, &words);
        assert!(symbols.len() >= 3, "{symbols:?}");
        let functions: Vec<&str> =
            symbols.iter().take(3).map(|symbol| symbol.split('+').next().unwrap()).collect();
        assert_eq!(functions, ["take", "start_up", "main"]);
        for (frame, symbol) in frames.iter().zip(&symbols) {
            // Of the C library gdb may know more: its debug information is packaged.
            if frame["module"] == "leaky-128-debug" {
                let own = format!(
                    "{}+{:#x}",
                    frame["function"].as_str().unwrap(),
                    frame["offset"].as_u64().unwrap()
                );
                assert_eq!(own, *symbol, "{frame}");
            }
        }
        let mut command = forensics();
        command.args(["heap", "--frag", fragment["address"].as_str().unwrap()]).arg(&core);
        let text = run(&mut command, tools::PATIENCE).expect(&[0]).text();
        let first = format!("  called:   {:#x} leaky-128-debug: {}\n", words[0], symbols[0]);
        assert!(text.contains(&first), "{first} is not in\n{text}");
    }
    let free = fragments.iter().find(|fragment| fragment["function"] == "fragm. from qm_malloc");
    assert_eq!(free.unwrap()["backtrace"], serde_json::json!([]), "a remainder was not asked for");
    let others = analyse(&check("backtrace", "leaky-64").1, &["--list"]);
    let fragment = &others["pools"][0]["fragments"][0];
    assert!(fragment.get("backtrace").is_none(), "64-byte headers record no calls: {fragment}");
}
