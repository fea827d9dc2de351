//! A Kamailio of our own: Debian's build, on loopback, in a directory and on a port that no other
//! instance has. It ends with its value, by its own PIDs.

use std::fs::{self, File};
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::foreign::Root;
use crate::proc;
use crate::rpc::Rpc;

/// What Kamailio manages its memory with (`-x`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manager {
    /// `q_malloc`, the default: the only one whose own figures can be checked in full.
    Qm,
    /// `f_malloc`
    Fm,
    /// `tlsf_malloc`
    Tlsf,
}

impl Manager {
    /// The word after `-x`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Qm => "qm",
            Self::Fm => "fm",
            Self::Tlsf => "tlsf",
        }
    }
}

/// How an instance is started.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The memory manager: of the shared pool only (`-x`) if `private_manager` names another.
    pub manager: Manager,
    /// Another one for the private pools (`-X`).
    pub private_manager: Option<Manager>,
    /// Length of the shared pool (`-m`), in MiB.
    pub shared_mib: u32,
    /// Length of each process's private pool (`-M`), in MiB.
    pub private_mib: u32,
    /// In a PID and mount namespace of its own, as a container would.
    pub namespace: bool,
    /// Its configuration, of [`PROCESSES`] processes.
    pub configuration: &'static str,
}

/// A configuration whose tables keep what they are given.
pub const TABLES: &str = include_str!("../config/tables.cfg");

impl Default for Options {
    fn default() -> Self {
        Self {
            manager: Manager::Qm,
            private_manager: None,
            shared_mib: 64,
            private_mib: 8,
            namespace: false,
            configuration: include_str!("../config/kamailio.cfg"),
        }
    }
}

/// A running instance.
#[derive(Debug)]
pub struct Instance {
    directory: TempDir,
    /// The same directory as its processes see it.
    inner_directory: PathBuf,
    port: u16,
    child: Child,
    pids: Vec<u32>,
    rpc: Rpc,
}

/// A variable in the environment of an instance, and so at the upper end of its stacks; nobody
/// reads it, and its text has room for a pointer.
const ROOM: (&str, &str) = ("ROOM_FOR_POINTERS", "--------------------------------");

/// Processes of an instance with the configuration of these tests.
pub const PROCESSES: usize = 12;

impl Instance {
    /// Starts an instance and waits until all its processes are ready.
    #[track_caller]
    pub fn start(options: Options) -> Self {
        Self::start_in(None, options)
    }

    /// The same with the Kamailio of another root directory.
    #[track_caller]
    pub fn start_in(root: Option<&Root>, options: Options) -> Self {
        // Another program may take the port between the choice and the start.
        for _ in 0..3 {
            if let Some(instance) = Self::try_start(root, options) {
                return instance;
            }
        }
        panic!("Kamailio did not start three times in a row; is the package `kamailio` installed?");
    }

    fn try_start(root: Option<&Root>, options: Options) -> Option<Self> {
        let mut builder = tempfile::Builder::new();
        builder.prefix("kamailio-test-");
        let directory = match root {
            None => builder.tempdir().unwrap(),
            Some(root) => builder.tempdir_in(root.directory().join("tmp")).unwrap(),
        };
        let outer = directory.path().to_owned();
        let run = root.map_or_else(|| outer.clone(), |root| root.inner(&outer));
        let port = free_port();
        let text = options
            .configuration
            .replace("@RUN@", &run.display().to_string())
            .replace("@PORT@", &port.to_string());
        fs::write(outer.join("kamailio.cfg"), text).unwrap();
        let log = File::create(outer.join("log")).unwrap();

        let mut command = Command::new("prlimit");
        command.arg("--core=unlimited:unlimited");
        if options.namespace {
            command.args(["unshare", "--pid", "--mount", "--fork", "--mount-proc"]);
            command.arg("--kill-child");
        }
        if let Some(root) = root {
            command.args(root.entrance());
        }
        command.args(["kamailio", "-DD", "-E"]);
        command.arg("-f").arg(run.join("kamailio.cfg"));
        command.arg("-P").arg(run.join("pid"));
        command.arg("-w").arg(&run).arg("-Y").arg(&run);
        command.arg("-m").arg(options.shared_mib.to_string());
        command.arg("-M").arg(options.private_mib.to_string());
        command.arg("-x").arg(options.manager.name());
        if let Some(private) = options.private_manager {
            command.arg("-X").arg(private.name());
        }
        command.env(ROOM.0, ROOM.1);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let child = match command.spawn() {
            Ok(child) => child,
            Err(error) => panic!("cannot start Kamailio through prlimit or unshare: {error}"),
        };
        let rpc = Rpc::new(root, &run.join("ctl.sock"));
        let (inner_directory, pids) = (run, Vec::new());
        let mut instance = Self { directory, inner_directory, port, child, pids, rpc };
        if !instance.wait_until_ready() {
            assert!(!instance.log().contains("unknown option"), "{}", instance.log());
            return None;
        }
        instance.pids = instance.find_pids();
        assert_eq!(instance.pids.len(), PROCESSES, "processes of the instance");
        Some(instance)
    }

    /// Whether it came up within 20 seconds: every process has reported its private memory.
    fn wait_until_ready(&mut self) -> bool {
        let end = Instant::now() + Duration::from_secs(20);
        while Instant::now() < end {
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            if self.directory.path().join("ctl.sock").exists()
                && self.rpc.try_call(&["core.psx"]).status.success()
                && self.rpc.processes().len() == PROCESSES
                && self.rpc.private_memory().iter().filter(|entry| entry.used > 0).count()
                    == PROCESSES
            {
                return true;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    }

    /// The instance's processes in the order of its table; PIDs as this process counts them.
    fn find_pids(&self) -> Vec<u32> {
        let mut ours = proc::descendants(self.child.id());
        ours.push(self.child.id());
        let place = |inner: u32| {
            let found = ours.iter().find(|pid| proc::inner_pid(**pid) == Some(inner));
            found.copied().unwrap_or_else(|| panic!("no process {inner} below the instance"))
        };
        self.rpc.processes().iter().map(|process| place(process.pid)).collect()
    }

    /// PID of the main process, as this process counts it.
    pub fn main_pid(&self) -> u32 {
        self.pids[0]
    }

    /// All processes, main first, as this process counts them.
    pub fn pids(&self) -> &[u32] {
        &self.pids
    }

    /// The SIP port on 127.0.0.1, UDP and TCP.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its run directory, which is also the working directory of its processes, as we see it.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Its RPC.
    pub fn rpc(&self) -> &Rpc {
        &self.rpc
    }

    /// All that it has logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap()
    }

    /// What it logs while `action` runs.
    pub fn log_of(&self, action: impl FnOnce(&Rpc)) -> String {
        let before = fs::metadata(self.log_path()).unwrap().len();
        action(&self.rpc);
        self.log().split_off(usize::try_from(before).unwrap())
    }

    fn log_path(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    /// Reaps the main process if it has ended.
    pub fn reap(&mut self) {
        self.child.try_wait().unwrap();
    }

    /// Its processes that still run; a PID that another program has by now does not count.
    pub fn survivors(&self) -> Vec<u32> {
        let directory = self.inner_directory.display().to_string();
        let ours =
            |pid: &u32| proc::is_alive(*pid) && proc::command_line(*pid).contains(&directory);
        self.pids.iter().copied().filter(ours).collect()
    }

    fn wait_for_survivors(&mut self, patience: Duration) -> Vec<u32> {
        let end = Instant::now() + patience;
        loop {
            self.reap();
            let survivors = self.survivors();
            if survivors.is_empty() || Instant::now() > end {
                return survivors;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if self.pids.is_empty() {
            let _ = self.child.kill(); // it never came up
        }
        for &pid in &self.survivors() {
            proc::signal(pid, Signal::SIGCONT);
        }
        // Kamailio forgets a signal that comes while it handles another, for instance the SIGCHLD
        // of a child that was just stopped or continued.
        for _ in 0..10 {
            let alive = self.survivors();
            let Some(&main) = self.pids.first().filter(|main| alive.contains(main)) else { break };
            proc::signal(main, Signal::SIGTERM);
            self.wait_for_survivors(Duration::from_millis(500));
        }
        for pid in self.survivors() {
            proc::signal(pid, Signal::SIGKILL);
        }
        self.wait_for_survivors(Duration::from_secs(5));
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that is free on 127.0.0.1 for both UDP and TCP.
pub fn free_port() -> u16 {
    for _ in 0..100 {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = udp.local_addr().unwrap().port();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port on 127.0.0.1");
}
