//! Running programs with a deadline, and finding the two programs under test.

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;

/// How long our own programs may take on anything in these tests.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// A program that ran to its end.
pub struct Finished {
    /// The command line, for messages.
    pub command: String,
    /// How it ended.
    pub status: ExitStatus,
    /// All that it wrote to standard output.
    pub stdout: Vec<u8>,
    /// All that it wrote to standard error.
    pub stderr: Vec<u8>,
    /// From start to end.
    pub elapsed: Duration,
}

impl fmt::Debug for Finished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "`{}` ended with {} after {:?}", self.command, self.status, self.elapsed)?;
        writeln!(f, "--- stdout\n{}", shorten(&self.text()))?;
        write!(f, "--- stderr\n{}", shorten(&self.errors()))
    }
}

impl Finished {
    /// Standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard error as text.
    pub fn errors(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// Panics, with all that the program wrote, unless it ended with one of `codes`.
    #[track_caller]
    pub fn expect(self, codes: &[i32]) -> Self {
        let fits = self.status.code().is_some_and(|code| codes.contains(&code));
        assert!(fits, "expected exit code {codes:?}: {self:?}");
        self
    }

    /// Standard output as JSON.
    #[track_caller]
    pub fn json<T: DeserializeOwned>(&self) -> T {
        match serde_json::from_slice(&self.stdout) {
            Ok(value) => value,
            Err(error) => panic!("not the JSON that was promised: {error}\n{self:?}"),
        }
    }
}

/// The first and the last 3,000 characters of a long text.
fn shorten(text: &str) -> String {
    const KEEP: usize = 3000;
    let count = text.chars().count();
    if count <= 2 * KEEP {
        return text.to_owned();
    }
    let head: String = text.chars().take(KEEP).collect();
    let tail: String = text.chars().skip(count - KEEP).collect();
    format!("{head}\n[…]\n{tail}")
}

/// Runs `command` to its end; kills it and panics when `deadline` passes.
#[track_caller]
pub fn run(command: &mut Command, deadline: Duration) -> Finished {
    let name = describe(command);
    let started = Instant::now();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => panic!("cannot start `{name}`: {error}"),
    };
    let stdout = drain(child.stdout.take().unwrap());
    let stderr = drain(child.stderr.take().unwrap());
    let status = wait(&mut child, deadline);
    let elapsed = started.elapsed();
    // A grandchild may hold the pipe open; what the program itself wrote is there at once.
    let grace = Duration::from_secs(5);
    let stdout = stdout.recv_timeout(grace).unwrap_or_default();
    let stderr = stderr.recv_timeout(grace).unwrap_or_default();
    match status {
        Some(status) => Finished { command: name, status, stdout, stderr, elapsed },
        None => panic!(
            "`{name}` did not end within {deadline:?}\n--- stdout\n{}\n--- stderr\n{}",
            shorten(&String::from_utf8_lossy(&stdout)),
            shorten(&String::from_utf8_lossy(&stderr))
        ),
    }
}

/// The command line as a person would type it.
pub fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// Waits for `child`; kills it when `deadline` passes, and then returns `None`.
pub fn wait(child: &mut Child, deadline: Duration) -> Option<ExitStatus> {
    let end = Instant::now() + deadline;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        if Instant::now() > end {
            child.kill().unwrap();
            child.wait().unwrap();
            return None;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Reads a pipe to its end on a thread of its own.
fn drain(mut pipe: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        let _ = sender.send(bytes);
    });
    receiver
}

/// Where our two programs are.
#[derive(Debug)]
pub struct Programs {
    collect_evidence: PathBuf,
    forensics: PathBuf,
}

impl Programs {
    /// The programs that `COLLECT_EVIDENCE` and `FORENSICS` name; else they are built from this
    /// workspace, optimised (walking and compressing without optimisation takes minutes).
    fn find() -> Self {
        let named = |variable: &str| std::env::var_os(variable).map(PathBuf::from);
        if let (Some(collect_evidence), Some(forensics)) =
            (named("COLLECT_EVIDENCE"), named("FORENSICS"))
        {
            return Self { collect_evidence, forensics };
        }
        let built = build(&["-p", "collector", "-p", "forensics", "--bins"], &[]);
        let program = |name: &str| match built.iter().find(|path| path.ends_with(name)) {
            Some(path) => path.clone(),
            None => panic!("the build made no `{name}`, only {built:?}"),
        };
        Self {
            collect_evidence: named("COLLECT_EVIDENCE")
                .unwrap_or_else(|| program("collect-evidence")),
            forensics: named("FORENSICS").unwrap_or_else(|| program("forensics")),
        }
    }

    fn get() -> &'static Self {
        static PROGRAMS: OnceLock<Programs> = OnceLock::new();
        PROGRAMS.get_or_init(Self::find)
    }
}

/// `cargo build --release` with `arguments` and `variables`; the executables that it made.
#[track_caller]
pub fn build(arguments: &[&str], variables: &[(&str, &str)]) -> Vec<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--release", "--message-format=json-render-diagnostics"]);
    command.args(arguments).envs(variables.iter().copied()).current_dir(workspace());
    let finished = run(&mut command, Duration::from_secs(20 * 60)).expect(&[0]);
    finished
        .text()
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter_map(|message| message.get("executable")?.as_str().map(PathBuf::from))
        .collect()
}

/// The workspace's root directory.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// `collect-evidence`, ready for arguments.
pub fn collect_evidence() -> Command {
    Command::new(&Programs::get().collect_evidence)
}

/// `forensics`, ready for arguments.
pub fn forensics() -> Command {
    let mut command = Command::new(&Programs::get().forensics);
    command.env("NO_COLOR", "1");
    command
}

/// Collects from the group of `pid` into `output`, which must become complete.
#[track_caller]
pub fn collect(pid: u32, output: &Path) -> Finished {
    let mut command = collect_evidence();
    command.arg("--pid").arg(pid.to_string()).arg("-o").arg(output);
    let finished = run(&mut command, PATIENCE).expect(&[0]);
    assert!(output.is_file(), "no bundle at {}: {finished:?}", output.display());
    finished
}

/// An empty directory below the build directory, where large files of `name`'s tests may lie
/// until the next run.
pub fn scratch(name: &str) -> PathBuf {
    let directory = build_directory().join(name);
    if directory.exists() {
        std::fs::remove_dir_all(&directory).unwrap();
    }
    std::fs::create_dir_all(&directory).unwrap();
    directory
}

/// Where the tests of this build keep large files.
pub fn build_directory() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.ancestors().nth(2).unwrap().join("testbed")
}
