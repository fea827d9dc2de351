//! Our own leaking program (`samples/pools/leaky.c`) in every known layout, and the figures that it
//! kept itself while it ran.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::gdb;
use crate::tools::{self, forensics, run};

/// The folder of the programs, built once for each test program.
pub fn programs() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        // Test programs may run side by side: each has its own, named without cargo's hash.
        let test = std::env::current_exe().unwrap();
        let test = test.file_stem().unwrap().to_string_lossy().into_owned();
        let name = test.rsplit_once('-').map_or(test.as_str(), |(name, _)| name);
        let folder = tools::scratch(&format!("samples-built-for-{name}"));
        let mut make = Command::new("make");
        make.arg("-s").arg("-C").arg(tools::workspace().join("samples/pools"));
        make.arg(format!("OUT={}", folder.display()));
        run(&mut make, Duration::from_secs(120)).expect(&[0]);
        folder
    })
}

/// A running sample; ended by its own PID.
pub struct Leaky {
    child: Child,
    /// The file that runs.
    pub program: PathBuf,
    /// What it wrote of its pools.
    pub truth: Value,
}

impl std::fmt::Debug for Leaky {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Leaky").field("program", &self.program).finish_non_exhaustive()
    }
}

impl Leaky {
    /// Starts an edition with small pools, which writes its truth into `folder`.
    #[track_caller]
    pub fn start(edition: &str, arguments: &[&str], folder: &Path) -> Self {
        let program = programs().join(edition);
        let truth = folder.join("truth.json");
        let mut command = Command::new(&program);
        command.arg("--small").args(arguments).arg("--truth").arg(&truth).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n", "{edition}");
        let truth = serde_json::from_slice(&std::fs::read(truth).unwrap()).unwrap();
        Self { child, program, truth }
    }

    /// The truth of each pool: the shared one, then the private ones, main first.
    pub fn pools(&self) -> &[Value] {
        self.truth["pools"].as_array().unwrap()
    }

    /// Its processes, main first.
    pub fn pids(&self) -> Vec<u32> {
        let private = self.pools().iter().filter(|pool| pool["kind"] == "pkg");
        private.map(|pool| u32::try_from(pool["pid"].as_u64().unwrap()).unwrap()).collect()
    }

    /// Dumps every process with gdb into a folder of cores below `folder`.
    #[track_caller]
    pub fn gcore(&self, folder: &Path) -> PathBuf {
        let cores = folder.join("cores");
        std::fs::create_dir(&cores).unwrap();
        for pid in self.pids() {
            gdb::gcore(pid, &cores.join(format!("core.{pid}")));
        }
        cores
    }

    /// Asserts that a report of `forensics heap --json` has exactly this program's pools, with the
    /// program's own figures and owners, and layouts from this source.
    #[track_caller]
    pub fn assert_told(&self, report: &Value, source: &str) {
        self.assert_walked(report);
        let name = self.program.display();
        for truth in self.pools() {
            let (found, said) = (same(report, truth), &truth["counters"]);
            assert_eq!(found["layout"]["source"], source, "{name}: {found}");
            if self.truth["owners_in_fragments"] == true {
                assert_eq!(owners(found), owners(truth), "{name}");
            } else if said["used_fragments"] != 0 {
                let all = &found["owners"][0];
                assert_eq!(all["module"], Value::Null, "{name}");
                assert_eq!(all["fragments"], said["used_fragments"], "{name}");
            }
        }
    }

    /// The same without names and layouts.
    #[track_caller]
    pub fn assert_walked(&self, report: &Value) {
        let name = self.program.display();
        assert_eq!(report["pools"].as_array().unwrap().len(), self.pools().len(), "{name}");
        for truth in self.pools() {
            let found = same(report, truth);
            let (walked, said) = (&found["walked"], &truth["counters"]);
            assert_eq!(found["manager"], self.truth["manager"], "{name}");
            assert_eq!(walked["complete"], true, "{name}: {found}");
            assert_eq!(walked["damaged_fragments"], 0, "{name}: {found}");
            assert_eq!(walked["used_bytes"], said["used"], "{name}: {found}");
            assert_eq!(walked["real_used_bytes"], said["real_used"], "{name}: {found}");
            assert_eq!(walked["used_fragments"], said["used_fragments"], "{name}: {found}");
            assert_eq!(walked["free_fragments"], said["free_fragments"], "{name}: {found}");
            for counter in ["size", "used", "real_used", "free_fragments"] {
                assert_eq!(found["counters"][counter], said[counter], "{name}: {counter}");
            }
        }
    }
}

impl Drop for Leaky {
    fn drop(&mut self) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        let _ = kill(pid, Signal::SIGTERM);
        let _ = tools::wait(&mut self.child, Duration::from_secs(10));
    }
}

/// (module, file, function, line) → (fragments, bytes).
pub type Owners = BTreeMap<(String, String, String, u64), (u64, u64)>;

/// The owners of a pool, of the truth, of `forensics` or of the gdb scripts; the module before the
/// file is left out.
pub fn owners(pool: &Value) -> Owners {
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

/// What `forensics heap --json` says.
#[track_caller]
pub fn analyse(input: &Path, arguments: &[&str]) -> Value {
    let mut command = forensics();
    command.args(["heap", "--json"]).args(arguments).arg(input);
    run(&mut command, tools::PATIENCE).expect(&[0, 1]).json()
}

/// What `forensics heap` says as text.
#[track_caller]
pub fn analyse_as_text(input: &Path, arguments: &[&str]) -> String {
    let mut command = forensics();
    command.arg("heap").args(arguments).arg(input);
    run(&mut command, tools::PATIENCE).expect(&[0, 1]).text()
}

/// The analysed pool that a pool of the truth is.
#[track_caller]
pub fn same<'a>(report: &'a Value, pool: &Value) -> &'a Value {
    let pools = report["pools"].as_array().unwrap();
    let fits = |candidate: &&Value| {
        candidate["kind"] == pool["kind"]
            && (pool["kind"] == "shm" || candidate["pid"] == pool["pid"])
    };
    pools.iter().find(fits).unwrap_or_else(|| panic!("no pool for {pool} in {report}"))
}
