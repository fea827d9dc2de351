//! A stand-in for a VoIPmonitor sniffer (`src/bin/sniffer-stand-in.rs`), with its own folder,
//! configuration and port, ended with its value.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;
use tempfile::TempDir;

use crate::program::Program;
use crate::tools::{self, Finished, PATIENCE, run};
use crate::unpacked::Unpacked;

/// How a stand-in is started.
#[derive(Clone, Copy, Debug)]
pub struct Setting<'a> {
    /// How it behaves: `well`, `silent`, `empty`, `slow`.
    pub mood: &'a str,
    /// Folders of recorded answers below `fixtures/voipmonitor`, the first one first.
    pub answers: &'a [&'a str],
    /// With a unix socket.
    pub unix: bool,
    /// Key and vector that it demands, in hexadecimal.
    pub key: Option<(&'a str, &'a str)>,
    /// More lines of its configuration.
    pub lines: &'a str,
    /// Its port, if not one of its own.
    pub port: Option<u16>,
    /// In a network namespace of its own.
    pub own_network: bool,
}

impl Default for Setting<'_> {
    fn default() -> Self {
        Self {
            mood: "well",
            answers: &["healthy"],
            unix: false,
            key: None,
            lines: "",
            port: None,
            own_network: false,
        }
    }
}

/// A running stand-in.
#[derive(Debug)]
pub struct Sniffer {
    program: Program,
    folder: TempDir,
    /// Its TCP port.
    pub port: u16,
}

impl Sniffer {
    /// Starts `stand_in` and waits until it listens.
    #[track_caller]
    pub fn start(stand_in: &Path, setting: Setting<'_>) -> Self {
        let folder = TempDir::new().unwrap();
        let at = |name: &str| folder.path().join(name);
        let program = at("voipmonitor");
        fs::hard_link(copied(stand_in), &program).unwrap();
        fs::create_dir_all(at("spool")).unwrap();
        let port = setting.port.unwrap_or_else(free_port);
        let (spool, socket) = (at("spool"), at("manager.sock"));
        let socket = format!("managersocket = {}\n", socket.display());
        let config = format!(
            "[general]\nmanagerip = 127.0.0.1\nmanagerport = {port}\nspooldir = {}\nrrd = no\n{}{}",
            spool.display(),
            if setting.unix { &socket } else { "" },
            setting.lines,
        );
        fs::write(at("voipmonitor.conf"), config).unwrap();
        let fixtures = fixtures();
        let answers: Vec<String> =
            setting.answers.iter().map(|name| fixtures.join(name).display().to_string()).collect();
        let mut command = if setting.own_network {
            let mut command = Command::new("unshare");
            let become_it = "ip link set lo up; exec \"$@\"";
            command.args(["--net", "sh", "-euc", become_it, "sh"]).arg(&program);
            command
        } else {
            Command::new(&program)
        };
        command.arg("--config-file").arg(at("voipmonitor.conf"));
        command.env("STAND_IN_ANSWERS", answers.join(":")).env("STAND_IN_LOG", at("log"));
        command.env("STAND_IN_MOOD", setting.mood).env("TMPDIR", at(""));
        if let Some((key, vector)) = setting.key {
            command.env("STAND_IN_KEY", key).env("STAND_IN_VECTOR", vector);
        }
        let program = Program::start(&mut command);
        assert_eq!(program.said, "ready\n");
        Self { program, folder, port }
    }

    /// Its PID.
    pub fn pid(&self) -> u32 {
        self.program.pid()
    }

    /// A file in its folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Every connection that it had and every command that it ran, one a line.
    pub fn log(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path("log")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Collects from it, which must end with one of `codes`.
    #[track_caller]
    pub fn collect(&self, options: &[&str], codes: &[i32]) -> Evidence {
        let bundle = self.path("evidence.tar.zst");
        let mut command = tools::collect_evidence();
        command.arg("--pid").arg(self.pid().to_string()).arg("-o").arg(&bundle);
        command.args(["--sample-gap", "10", "--modules", "none", "--level", "1"]).args(options);
        let finished = run(&mut command, PATIENCE).expect(codes);
        Evidence { finished, unpacked: Unpacked::open(&bundle) }
    }
}

/// What was collected.
#[derive(Debug)]
pub struct Evidence {
    /// The collector's run.
    pub finished: Finished,
    /// Its bundle.
    pub unpacked: Unpacked,
}

impl Evidence {
    /// A member's bytes, if it is there.
    pub fn member(&self, path: &str) -> Option<Vec<u8>> {
        fs::read(self.unpacked.path(path)).ok()
    }

    /// A member as JSON.
    #[track_caller]
    pub fn json(&self, path: &str) -> Value {
        let content = self.member(path).unwrap_or_else(|| panic!("{path} is in the bundle"));
        serde_json::from_slice(&content).unwrap()
    }

    /// The gaps of the manifest, `what: why`.
    pub fn gaps(&self) -> Vec<String> {
        let gaps = self.unpacked.manifest().gaps;
        gaps.into_iter().map(|gap| format!("{}: {}", gap.what, gap.why)).collect()
    }
}

/// Where recorded answers are.
pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/voipmonitor")
}

/// The stand-in where temporary files are, copied once: a program that is just being written, and so
/// open in a test's forked child, cannot be started.
fn copied(stand_in: &Path) -> PathBuf {
    static COPY: OnceLock<TempDir> = OnceLock::new();
    let folder = COPY.get_or_init(|| {
        let folder = TempDir::new().unwrap();
        fs::copy(stand_in, folder.path().join("stand-in")).unwrap();
        folder
    });
    folder.path().join("stand-in")
}

/// A port that nobody has.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
