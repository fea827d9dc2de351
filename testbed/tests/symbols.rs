//! Names, files, lines and inlined calls of a C++ program (`config/names.cpp`) against gdb's: from
//! debug files by build ID, by link, in a cache and from a real debuginfod server, and what is left
//! without any. Servers listen where only a network namespace of their own sees them.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test stops at the first surprise"
)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use forensics::bytes::Blob;
use forensics::modules::{Module, ModuleFile};
use forensics::symbols::{NameSource, SymbolOptions, Symbols};
use forensics::{Addr, AddrRange};
use object::Object as _;
use serde::Deserialize;
use serde_json::Value;
use testbed::gdb;
use testbed::tools::{self, PATIENCE, run};

/// The program, its parts, and what gdb says of its core.
struct Program {
    folder: PathBuf,
    /// With everything, as the compiler made it.
    whole: PathBuf,
    /// What ran: stripped, with the name of its debug file.
    stripped: PathBuf,
    debug_file: PathBuf,
    build_id: String,
    core: PathBuf,
    /// Its stack by gdb, innermost first, without the C library's frames.
    stack: Vec<Frame>,
}

/// What is compared of a frame: the function without parameters, the file's name, the line, and
/// whether it was inlined.
type Frame = (Option<String>, Option<String>, Option<u64>, bool);

/// Made once for all tests of this file.
#[track_caller]
fn program() -> &'static Program {
    static PROGRAM: OnceLock<Option<Program>> = OnceLock::new();
    let program = PROGRAM.get_or_init(|| std::panic::catch_unwind(make).ok());
    program.as_ref().expect("the program could be made; the first test says why not")
}

fn make() -> Program {
    let folder = tools::scratch("symbols");
    let [whole, stripped, debug_file, core] =
        ["whole", "names", "names.debug", "core"].map(|name| folder.join(name));
    let source = tools::workspace().join("testbed/config/names.cpp");
    tool("g++", &["-O2", "-g", "-rdynamic", "-Wl,--build-id=sha1", "-o"], &[&whole, &source]);
    tool("objcopy", &["--only-keep-debug"], &[&whole, &debug_file]);
    let link = format!("--add-gnu-debuglink={}", debug_file.display());
    tool("objcopy", &["--strip-all", &link], &[&whole, &stripped]);
    // Where gdb and we would find it beside the program.
    let elsewhere = folder.join("debug");
    fs::create_dir(&elsewhere).unwrap();
    fs::rename(&debug_file, elsewhere.join("names.debug")).unwrap();

    let mut running = Command::new(&stripped).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(running.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    gdb::gcore(running.id(), &core);
    running.kill().unwrap();
    running.wait().unwrap();

    let bytes = fs::read(&whole).unwrap();
    let build_id = object::File::parse(&*bytes).unwrap().build_id().unwrap().unwrap().to_vec();
    let build_id = build_id.iter().map(|byte| format!("{byte:02x}")).collect();
    let stack = stack_by_gdb(&whole, &core);
    let debug_file = elsewhere.join("names.debug");
    Program { folder, whole, stripped, debug_file, build_id, core, stack }
}

fn tool(name: &str, options: &[&str], files: &[&Path]) {
    run(Command::new(name).args(options).args(files), PATIENCE).expect(&[0]);
}

fn stack_by_gdb(whole: &Path, core: &Path) -> Vec<Frame> {
    #[derive(Deserialize)]
    struct ByGdb {
        function: Option<String>,
        file: Option<String>,
        line: u64,
        inlined: bool,
    }
    let frames: Vec<ByGdb> = ask_gdb(&[whole, core]);
    let is_own = |frame: &ByGdb| {
        frame.file.as_ref().is_some_and(|file| file.ends_with("/testbed/config/names.cpp"))
    };
    let own = frames.into_iter().filter(is_own);
    own.map(|frame| {
        let name = frame.file.as_deref().map(file_name);
        (frame.function.as_deref().map(plain), name, Some(frame.line), frame.inlined)
    })
    .collect()
}

/// What `config/names.py` prints in gdb.
fn ask_gdb<T: for<'a> Deserialize<'a>>(files: &[&Path]) -> T {
    let mut command = Command::new("gdb");
    command.env_remove("DEBUGINFOD_URLS").args(["-nx", "-batch"]);
    command.args(["-iex", "set debuginfod enabled off"]).args(files);
    command.arg("-x").arg(tools::workspace().join("testbed/config/names.py"));
    let finished = run(&mut command, PATIENCE).expect(&[0]);
    let text = finished.text();
    let line = text.lines().rfind(|line| line.starts_with(['[', '{'])).expect("gdb's answer");
    serde_json::from_str(line).unwrap()
}

/// A function without its parameters, which gdb gives for some names and we for others:
/// `(anonymous namespace)::f(int)` is `(anonymous namespace)::f`.
fn plain(name: &str) -> String {
    let mut open = 0;
    for (at, character) in name.char_indices().rev() {
        match character {
            ')' => open += 1,
            '(' => open -= 1,
            _ => {}
        }
        if open == 0 && character == '(' {
            return name[..at].to_owned();
        }
        if open == 0 {
            break;
        }
    }
    name.to_owned()
}

fn file_name(path: &str) -> String {
    path.rsplit('/').next().unwrap_or(path).to_owned()
}

/// `forensics threads` about the core, with nothing of this host's environment.
fn threads(arguments: &[&str], environment: &[(&str, &str)]) -> Command {
    let mut command = tools::forensics();
    for variable in ["DEBUGINFOD_URLS", "DEBUGINFOD_CACHE_PATH", "XDG_CACHE_HOME"] {
        command.env_remove(variable);
    }
    command.env("HOME", program().folder.join("no-home")).envs(environment.iter().copied());
    command.args(["threads", "--json"]).args(arguments).arg(&program().core);
    command
}

/// Our frames of the program, and the report.
fn ours(command: &mut Command) -> (Vec<Frame>, Value) {
    let report: Value = run(command, PATIENCE).expect(&[0, 1]).json();
    let frames = report["processes"][0]["threads"][0]["frames"].as_array().unwrap().clone();
    let own = frames.iter().filter(|frame| frame["module"] == "names");
    let frame = |frame: &Value| {
        let file = frame["file"].as_str().map(file_name);
        let inlined = frame["inlined"].as_bool().unwrap();
        (frame["function"].as_str().map(plain), file, frame["line"].as_u64(), inlined)
    };
    // Behind `main` comes `_start`, which has neither file nor line.
    let is_start = |frame: &Frame| frame.0.as_deref() == Some("_start");
    (own.map(frame).filter(|frame| !is_start(frame)).collect(), report)
}

/// Whether a gap's text holds all these words.
fn has_gap(report: &Value, words: &[&str]) -> bool {
    let gaps = report["gaps"].as_array().unwrap();
    gaps.iter().any(|gap| words.iter().all(|word| gap.to_string().contains(word)))
}

#[test]
fn names_files_lines_and_inlined_calls_are_gdbs_whatever_way_the_debug_file_is_found() {
    let program = program();
    assert_eq!(program.stack.len(), 11, "{:?}", program.stack);
    let folder = tools::scratch("symbols-found");
    let (first, rest) = program.build_id.split_at(2);
    let ways = [
        ("by build ID", format!(".build-id/{first}/{rest}.debug")),
        ("as Debian lays it out", format!("usr/lib/debug/.build-id/{first}/{rest}.debug")),
        ("by debug link", "names.debug".to_owned()),
        ("in any place", "some/where/x".to_owned()),
        ("cache", format!("{}/debuginfo", program.build_id)),
    ];
    for (number, (way, place)) in ways.iter().enumerate() {
        let folder = folder.join(number.to_string());
        let file = folder.join(place);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::copy(&program.debug_file, &file).unwrap();
        let folder = folder.to_str().unwrap();
        let mut command = match *way {
            "cache" => threads(&[], &[("DEBUGINFOD_CACHE_PATH", folder)]),
            _ => threads(&["--debug-dir", folder], &[]),
        };
        let (found, report) = ours(&mut command);
        assert_eq!(found, program.stack, "{way}: {report}");
    }
}

#[test]
fn compressed_debug_information_and_such_that_dwz_split_are_read() {
    let program = program();
    let folder = tools::scratch("symbols-forms");
    let compressed = folder.join("compressed");
    fs::create_dir(&compressed).unwrap();
    let packed = compressed.join("names.debug");
    tool("objcopy", &["--compress-debug-sections=zlib"], &[&program.debug_file, &packed]);
    let (found, report) = ours(&mut threads(&["--debug-dir", compressed.to_str().unwrap()], &[]));
    assert_eq!(found, program.stack, "{report}");

    let split = folder.join("split");
    let [first, second, common] =
        ["names.debug", "other.debug", ".dwz/common.debug"].map(|name| split.join(name));
    fs::create_dir_all(common.parent().unwrap()).unwrap();
    fs::copy(&program.debug_file, &first).unwrap();
    // Only what two files have in common is split off.
    fs::copy(&program.debug_file, &second).unwrap();
    let name = "../.dwz/common.debug";
    let mut dwz = Command::new("dwz");
    dwz.arg("-m").arg(&common).args(["-M", name]).args([&first, &second]);
    run(&mut dwz, PATIENCE).expect(&[0]);
    assert!(fs::metadata(&first).unwrap().len() < fs::metadata(&program.debug_file).unwrap().len());
    let (found, report) = ours(&mut threads(&["--debug-dir", split.to_str().unwrap()], &[]));
    assert_eq!(found, program.stack, "{report}");

    fs::remove_file(&common).unwrap();
    let (_, report) = ours(&mut threads(&["--debug-dir", split.to_str().unwrap()], &[]));
    assert!(has_gap(&report, &["common.debug", "is at hand"]), "{}", report["gaps"]);
}

#[test]
fn without_debug_files_only_exported_functions_have_names() {
    let (found, report) = ours(&mut threads(&[], &[]));
    let names: Vec<_> = found.iter().map(|(function, ..)| function.as_deref()).collect();
    let expected =
        [None, Some("calls::Ring<long>::turn"), Some("calls::route"), None, Some("main")];
    assert_eq!(names, expected, "{report}");
    assert!(
        found.iter().all(|(_, file, line, inlined)| file.is_none() && line.is_none() && !inlined)
    );
    let frames = report["processes"][0]["threads"][0]["frames"].as_array().unwrap();
    let own = frames.iter().filter(|frame| frame["module"] == "names");
    assert!(own.clone().all(|frame| frame["address_in_file"].is_string()), "{report}");
    let offsets: Vec<_> = own.map(|frame| frame["offset"].is_u64()).collect();
    assert_eq!(offsets[..5], [false, true, true, false, true]);
    assert!(!has_gap(&report, &["names.debug"]), "{}", report["gaps"]);
}

#[test]
fn a_debug_file_of_another_build_is_named_with_both_build_ids() {
    let program = program();
    let folder = tools::scratch("symbols-other");
    let other = folder.join("other");
    let source = tools::workspace().join("testbed/config/names.cpp");
    tool("g++", &["-O1", "-g", "-Wl,--build-id=sha1", "-o"], &[&other, &source]);
    let (first, rest) = program.build_id.split_at(2);
    let place = folder.join(".build-id").join(first);
    fs::create_dir_all(&place).unwrap();
    fs::copy(&other, place.join(format!("{rest}.debug"))).unwrap();
    let bytes = fs::read(&other).unwrap();
    let own = object::File::parse(&*bytes).unwrap().build_id().unwrap().unwrap().to_vec();
    let own: String = own.iter().map(|byte| format!("{byte:02x}")).collect();
    let (found, report) = ours(&mut threads(&["--debug-dir", folder.to_str().unwrap()], &[]));
    assert!(found.iter().all(|(_, file, ..)| file.is_none()), "{report}");
    assert!(has_gap(&report, &[&program.build_id, &own]), "{}", report["gaps"]);
}

/// A debuginfod server, alone with its own loopback interface.
struct Server {
    child: Child,
}

/// Any port: no other program is in the namespace.
const PORT: &str = "8002";

impl Server {
    fn start(files: &Path) -> Self {
        let mut command = Command::new("unshare");
        let script = "ip link set lo up && exec debuginfod -d :memory: -p \"$1\" -F \"$2\"";
        command.args(["--net", "sh", "-euc", script, "sh", PORT]).arg(files);
        // It takes the servers that it may ask on from its environment.
        command.env_remove("DEBUGINFOD_URLS").stdout(Stdio::null()).stderr(Stdio::null());
        let server = Self { child: command.spawn().unwrap() };
        let end = Instant::now() + Duration::from_secs(60);
        let folder = tools::scratch("symbols-server-ready");
        let ready = |number: u32| {
            // The client remembers for a while what no server had: a cache for each question.
            let cache = folder.join(number.to_string());
            let mut find = server.beside("debuginfod-find");
            find.args(["debuginfo", &program().build_id]).envs(environment(&cache));
            run(&mut find, PATIENCE).status.success()
        };
        let mut number = 0;
        while !ready(number) {
            assert!(Instant::now() < end, "the server has not found the debug file");
            std::thread::sleep(Duration::from_millis(100));
            number += 1;
        }
        server
    }

    /// A command in the server's namespace.
    fn beside(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.child.id())).arg(program);
        command
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn environment(cache: &Path) -> [(&'static str, String); 2] {
    [
        ("DEBUGINFOD_URLS", format!("http://127.0.0.1:{PORT}")),
        ("DEBUGINFOD_CACHE_PATH", cache.display().to_string()),
    ]
}

#[test]
fn a_debuginfod_server_gives_the_debug_file_if_it_may_be_asked() {
    let program = program();
    let folder = tools::scratch("symbols-server");
    let files = folder.join("files");
    fs::create_dir(&files).unwrap();
    fs::copy(&program.debug_file, files.join("names.debug")).unwrap();
    let server = Server::start(&files);
    let asked = |arguments: &[&str], cache: &str| {
        let command = threads(arguments, &[]);
        let mut beside = server.beside(command.get_program().to_str().unwrap());
        beside.args(command.get_args()).envs(environment(&folder.join(cache)));
        beside.env("HOME", folder.join("no-home")).env_remove("XDG_CACHE_HOME");
        ours(&mut beside)
    };
    let (found, report) = asked(&["--debuginfod"], "asked");
    assert_eq!(found, program.stack, "{report}");
    // The C library's debug file is unknown to this server; that is one gap, not one per module.
    let gaps = report["gaps"].as_array().unwrap();
    let unknown = gaps.iter().filter(|gap| gap.to_string().contains("no debuginfod server has it"));
    assert!(unknown.count() <= 1, "{gaps:?}");
    let (found, report) = asked(&[], "not-asked");
    assert!(found.iter().all(|(_, file, ..)| file.is_none()), "{report}");
    // What was downloaded serves later, without the network.
    let (found, report) = asked(&[], "asked");
    assert_eq!(found, program.stack, "{report}");
}

#[test]
fn without_the_option_no_server_is_asked() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let folder = tools::scratch("symbols-no-server");
    let cache = folder.join("cache");
    let environment =
        [("DEBUGINFOD_URLS", url.as_str()), ("DEBUGINFOD_CACHE_PATH", cache.to_str().unwrap())];
    let (_, report) = ours(&mut threads(&[], &environment));
    let nobody = listener.accept().map(|_| ()).unwrap_err();
    assert_eq!(nobody.kind(), std::io::ErrorKind::WouldBlock);
    assert!(!has_gap(&report, &["debuginfod"]), "{}", report["gaps"]);

    // The same with the option does ask: the listener would have noticed.
    let mut asking = threads(&["--debuginfod"], &environment);
    asking.env("DEBUGINFOD_TIMEOUT", "1").env("DEBUGINFOD_MAXTIME", "2");
    let (found, report) = ours(&mut asking);
    assert!(listener.accept().is_ok());
    assert!(found.iter().all(|(_, file, ..)| file.is_none()));
    assert!(has_gap(&report, &["debuginfod-find"]), "{}", report["gaps"]);
}

#[test]
fn servers_that_cannot_be_asked_are_one_gap() {
    let (_, report) = ours(&mut threads(&["--debuginfod"], &[]));
    assert!(has_gap(&report, &["DEBUGINFOD_URLS names no server"]), "{}", report["gaps"]);
    let nowhere = [("DEBUGINFOD_URLS", "http://127.0.0.1:1"), ("PATH", "/nowhere")];
    let (_, report) = ours(&mut threads(&["--debuginfod"], &nowhere));
    assert!(has_gap(&report, &["debuginfod-find is not installed"]), "{}", report["gaps"]);
}

/// A file at address 0.
fn module(path: &Path) -> Module {
    let blob = Blob::from_bytes(fs::read(path).unwrap());
    let file = ModuleFile::read(&blob, path.display().to_string()).unwrap();
    let range = AddrRange { start: Addr(0), end: Addr(u64::MAX) };
    Module {
        path: path.display().to_string(),
        range,
        image: range,
        segments: Vec::new(),
        bias: 0,
        build_id: file.build_id.clone(),
        file: Ok(file.into()),
    }
}

#[test]
fn every_address_of_the_program_has_gdbs_names_and_lines() {
    #[derive(Deserialize)]
    struct ByGdb {
        code: BTreeMap<u64, Place>,
        stubs: BTreeMap<u64, Option<String>>,
    }
    #[derive(Debug, PartialEq, Eq, Deserialize)]
    struct Place {
        file: Option<String>,
        line: u64,
        functions: Vec<String>,
    }
    let by_gdb: ByGdb = ask_gdb(&[&program().whole]);
    let symbols = Symbols::new(SymbolOptions::default());
    let whole = module(&program().whole);
    let (mut described, mut inlined) = (0, 0);
    for (at, place) in by_gdb.code {
        let found = symbols.locate(&whole, Addr(at));
        // What the C run-time added has no debug information.
        let (file, line) = match found.first() {
            Some(first) if first.file.is_some() => (first.file.clone(), first.line.unwrap_or(0)),
            _ => (None, 0),
        };
        assert_eq!((file, u64::from(line)), (place.file, place.line), "{at:#x}: {found:?}");
        if place.functions.is_empty() {
            continue;
        }
        let names = found.iter().map(|one| one.function.as_deref().map(plain).unwrap());
        let by_gdb: Vec<_> = place.functions.iter().map(|name| plain(name)).collect();
        assert_eq!(names.collect::<Vec<_>>(), by_gdb, "{at:#x}");
        described += 1;
        inlined += usize::from(found.len() > 1);
    }
    assert!(described > 300 && inlined > 100, "{described}, {inlined}");

    let stripped = module(&program().stripped);
    let mut named = 0;
    for (at, name) in by_gdb.stubs {
        let found = symbols.locate(&stripped, Addr(at));
        let function = found.first().and_then(|found| found.function.clone());
        assert_eq!(function, name, "{at:#x}");
        if let [found] = &found[..] {
            assert_eq!((found.source, found.offset), (NameSource::LinkageTable, Some(at % 16)));
            named += 1;
        }
    }
    assert!(named >= 16 * 4, "{named}");
}
