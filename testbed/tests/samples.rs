//! Our own leaking program against the figures that it kept itself while it ran: what it inherits,
//! what is left out, how its pools are found.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test stops at the first surprise"
)]

use std::path::{Path, PathBuf};

use serde_json::Value;
use testbed::elf::Core;
use testbed::gdb;
use testbed::sample::{Leaky, analyse, analyse_as_text, owners, programs, same};
use testbed::tools::{self, forensics, run};

/// Dumps every process of an edition and compares the analysis with the truth.
fn check(test: &str, edition: &str) -> (Leaky, PathBuf, Value) {
    let scratch = tools::scratch(&format!("samples-{test}-{edition}"));
    let leaky = Leaky::start(edition, &[], &scratch);
    let cores = leaky.gcore(&scratch);
    let report = analyse(&cores, &[]);
    leaky.assert_told(&report, "inferred");
    (leaky, cores, report)
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

/// A program that is gone from the disk, so that only the cores know it: pools are found by the
/// shape of their blocks.
fn check_gone(test: &str, edition: &str) -> (Leaky, PathBuf) {
    let scratch = tools::scratch(&format!("samples-no-module-{test}-{edition}"));
    // Tests run side by side: each has a program of its own to remove.
    let gone = format!("{edition}-gone-{test}");
    std::fs::copy(programs().join(edition), programs().join(&gone)).unwrap();
    let leaky = Leaky::start(&gone, &["-r", "800"], &scratch);
    let cores = leaky.gcore(&scratch);
    std::fs::remove_file(&leaky.program).unwrap();
    let report = analyse(&cores, &[]);
    assert_eq!(report["pools"].as_array().unwrap().len(), leaky.pools().len(), "{report}");
    for truth in leaky.pools() {
        let found = same(&report, truth);
        assert_eq!(found["found"]["by"], "block-shape", "{found}");
        assert_eq!(found["manager"], leaky.truth["manager"]);
        assert_eq!(found["walked"]["used_bytes"], truth["counters"]["used"]);
        assert_eq!(found["owners"][0]["function"], Value::Null);
    }
    let gaps = report["gaps"].as_array().unwrap();
    let said = gaps.iter().any(|gap| gap["what"].as_str().unwrap().contains(&gone));
    assert!(said, "the missing program is a gap: {gaps:?}");
    (leaky, cores)
}

#[test]
fn pools_are_found_without_any_module_file() {
    for edition in ["leaky-16", "leaky-fm-48", "leaky-fm-72", "leaky-fm-80"] {
        check_gone("shape", edition);
    }
    for edition in ["leaky-tlsf-32", "leaky-tlsf-64"] {
        check_gone("shape", edition);
    }
}

#[test]
fn a_module_file_at_hand_gives_the_owners_their_names() {
    let (leaky, cores) = check_gone("module", "leaky-64");
    let copy = programs().join("leaky-64");
    let named = analyse(&cores, &["--module", copy.to_str().unwrap()]);
    for truth in leaky.pools() {
        assert_eq!(owners(same(&named, truth)), owners(truth));
    }

    // A program of another build is refused by its build ID, and said.
    let other = leaky.program.clone();
    std::fs::copy(programs().join("leaky-56"), &other).unwrap();
    let refused = analyse(&cores, &["--module", other.to_str().unwrap()]);
    let gaps = refused["gaps"].to_string();
    assert!(gaps.contains("has another build ID"), "{gaps}");
    assert_eq!(same(&refused, &leaky.pools()[0])["owners"][0]["function"], Value::Null);
}

/// Asserts that the cores of `leaky`, turned into an aarch64 machine's, give its pools and say what
/// of them is not read.
fn check_aarch64(leaky: &Leaky, cores: &std::path::Path, found_by: &str) {
    for entry in std::fs::read_dir(cores).unwrap() {
        let core = entry.unwrap().path();
        let foreign = Core::open(&core).as_aarch64();
        std::fs::write(core, foreign).unwrap();
    }
    let report = analyse(cores, &[]);
    leaky.assert_walked(&report);
    for pool in report["pools"].as_array().unwrap() {
        assert_eq!(pool["found"]["by"], found_by, "{pool}");
    }
    let gaps = report["gaps"].as_array().unwrap();
    let registers: Vec<&Value> = gaps
        .iter()
        .filter(|gap| gap["what"] == "registers and stacks of aarch64 threads")
        .collect();
    assert_eq!(registers.len(), 1, "said once for all cores: {gaps:?}");
    assert_eq!(
        registers[0]["why"],
        "not supported yet: of aarch64 cores only memory and heaps are read"
    );
}

#[test]
fn heaps_of_aarch64_cores_are_found_by_symbols() {
    for edition in ["leaky-64", "leaky-fm-80", "leaky-tlsf-64"] {
        let scratch = tools::scratch(&format!("samples-aarch64-{edition}"));
        let leaky = Leaky::start(edition, &["-r", "800"], &scratch);
        let cores = leaky.gcore(&scratch);
        check_aarch64(&leaky, &cores, "symbol");
    }
}

#[test]
fn heaps_of_aarch64_cores_are_found_by_their_shape() {
    for edition in ["leaky-56", "leaky-fm-72", "leaky-tlsf-64"] {
        let (leaky, cores) = check_gone("aarch64", edition);
        check_aarch64(&leaky, &cores, "block-shape");
    }
}

#[test]
fn private_memory_in_the_c_library_is_unused_not_empty() {
    for edition in ["leaky-64-sys", "leaky-fm-80-sys", "leaky-tlsf-64-sys"] {
        let scratch = tools::scratch(&format!("samples-{edition}"));
        let leaky = Leaky::start(edition, &[], &scratch);
        let cores = leaky.gcore(&scratch);
        let report = analyse(&cores, &[]);
        leaky.assert_told(&report, "inferred");
        for pool in report["pools"].as_array().unwrap() {
            assert_eq!(pool["unused"], pool["kind"] == "pkg", "{pool}");
        }
        let gaps = report["gaps"].as_array().unwrap();
        assert_eq!(gaps.len(), 1, "{gaps:?}");
        assert_eq!(gaps[0]["what"], "private memory");

        let text = analyse_as_text(&cores, &[]);
        let said = "PKG unused: this build keeps private memory in the C library's heap";
        assert_eq!(text.matches(said).count(), 1, "{text}");
        assert!(text.contains("PKG pools (4)"), "{text}");
        // The one free fragment says nothing of private memory.
        assert_eq!(text.matches(" free; largest free ").count(), 1, "only SHM: {text}");
    }
    let (_leaky, _, report) = check("unused", "leaky-64");
    for pool in report["pools"].as_array().unwrap() {
        assert_eq!(pool["unused"], false, "{pool}");
    }
}

#[test]
fn without_owners_sizes_and_contents_are_told() {
    for edition in ["leaky-16", "leaky-fm-48", "leaky-tlsf-32"] {
        let (leaky, cores, report) = check("by-size", edition);
        for pool in report["pools"].as_array().unwrap() {
            let sizes = pool["payload_sizes"].as_array().unwrap();
            let sum = |field: &str| -> u64 {
                sizes.iter().map(|size| size[field].as_u64().unwrap()).sum()
            };
            assert_eq!(Value::from(sum("fragments")), pool["walked"]["used_fragments"]);
            assert_eq!(Value::from(sum("bytes")), pool["walked"]["used_bytes"]);
            assert_eq!(Value::from(sum("inherited_fragments")), pool["inherited_fragments"]);
            assert_eq!(sum("own_fragments") + sum("inherited_fragments"), sum("fragments"));
        }
        // Transactions point at code of the program.
        let shm = report["pools"][0]["payload_sizes"].to_string();
        assert!(shm.contains(&format!("pointers into {edition}")), "{shm}");
        // What worker 2 leaks: texts that begin with "acc-", which are shown only if asked for.
        let leaking = Value::from(leaky.pids()[2]);
        assert!(!report.to_string().contains("acc-"), "{report}");
        let shown = analyse(&cores, &["--show-content"]);
        let pools = shown["pools"].as_array().unwrap();
        let pool = pools.iter().find(|pool| pool["pid"] == leaking).unwrap();
        let leaks = |size: &Value| {
            let contents = size["content"].as_array().unwrap();
            contents.iter().any(|content| {
                let example = content["example"].as_str().unwrap_or_default();
                content["what"] == "text" && example.starts_with("\"acc-")
            })
        };
        let leaked: Vec<&Value> =
            pool["payload_sizes"].as_array().unwrap().iter().filter(|size| leaks(size)).collect();
        assert!(leaked.len() > 3, "{edition}: {pool}");

        let pid = leaking.to_string();
        let text = analyse_as_text(&cores, &["--pid", &pid, "--top", "100", "--show-content"]);
        assert!(text.contains("not recorded by this build"), "{text}");
        assert!(text.contains("text: \"acc-") || text.contains("): \"acc-"), "{text}");
        assert!(!text.contains("(owner not recorded)"), "{text}");
    }
    let (_leaky, _, report) = check("by-owner", "leaky-64");
    assert_eq!(report["pools"][0]["payload_sizes"], Value::Null);
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

/// What the program allocates by `take`, called by `start_up`, perhaps through another function.
#[test]
fn recorded_calls_are_those_that_gdb_finds_in_the_header() {
    let scratch = tools::scratch("samples-backtrace-leaky-128-debug");
    let leaky = Leaky::start("leaky-128-debug", &[], &scratch);
    let cores = leaky.gcore(&scratch);
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
        assert_eq!(functions[0], "take", "{functions:?}");
        assert!(functions.contains(&"start_up"), "{functions:?}");
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
