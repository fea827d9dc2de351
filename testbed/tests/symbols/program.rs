//! The program, its debug file and its core, and what gdb and we say of them.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use object::Object as _;
use serde::Deserialize;
use serde_json::Value;
use testbed::gdb;
use testbed::tools::{self, PATIENCE, run};

/// The program, its parts, and what gdb says of its core.
pub(crate) struct Program {
    pub(crate) folder: PathBuf,
    /// With everything, as the compiler made it.
    pub(crate) whole: PathBuf,
    /// What ran: stripped, with the name of its debug file.
    pub(crate) stripped: PathBuf,
    pub(crate) debug_file: PathBuf,
    pub(crate) build_id: String,
    pub(crate) core: PathBuf,
    /// Its stack by gdb, innermost first, without the C library's frames.
    pub(crate) stack: Vec<Frame>,
}

/// What is compared of a frame: the function without parameters, the file's name, the line, and
/// whether it was inlined.
pub(crate) type Frame = (Option<String>, Option<String>, Option<u64>, bool);

/// Made once for all tests of this file.
#[track_caller]
pub(crate) fn program() -> &'static Program {
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

    let build_id = build_id(&whole);
    let stack = stack_by_gdb(&whole, &core);
    let debug_file = elsewhere.join("names.debug");
    Program { folder, whole, stripped, debug_file, build_id, core, stack }
}

pub(crate) fn tool(name: &str, options: &[&str], files: &[&Path]) {
    run(Command::new(name).args(options).args(files), PATIENCE).expect(&[0]);
}

/// A file's build ID in hex.
pub(crate) fn build_id(path: &Path) -> String {
    let bytes = fs::read(path).unwrap();
    let build_id = object::File::parse(&*bytes).unwrap().build_id().unwrap().unwrap().to_vec();
    build_id.iter().map(|byte| format!("{byte:02x}")).collect()
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
pub(crate) fn ask_gdb<T: for<'a> Deserialize<'a>>(files: &[&Path]) -> T {
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
pub(crate) fn plain(name: &str) -> String {
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
pub(crate) fn threads(arguments: &[&str], environment: &[(&str, &str)]) -> Command {
    let mut command = tools::forensics();
    for variable in ["DEBUGINFOD_URLS", "DEBUGINFOD_CACHE_PATH", "XDG_CACHE_HOME"] {
        command.env_remove(variable);
    }
    command.env("HOME", program().folder.join("no-home")).envs(environment.iter().copied());
    command.args(["threads", "--json"]).args(arguments).arg(&program().core);
    command
}

/// Our frames of the program, and the report.
pub(crate) fn ours(command: &mut Command) -> (Vec<Frame>, Value) {
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
pub(crate) fn has_gap(report: &Value, words: &[&str]) -> bool {
    let gaps = report["gaps"].as_array().unwrap();
    gaps.iter().any(|gap| words.iter().all(|word| gap.to_string().contains(word)))
}
