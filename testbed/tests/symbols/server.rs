//! A real debuginfod server.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use testbed::tools::{self, PATIENCE, run};

use crate::program::program;

/// A debuginfod server, alone with its own loopback interface.
pub(crate) struct Server {
    child: Child,
}

/// Any port: no other program is in the namespace.
const PORT: &str = "8002";

impl Server {
    pub(crate) fn start(files: &Path) -> Self {
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
    pub(crate) fn beside(&self, program: &str) -> Command {
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

pub(crate) fn environment(cache: &Path) -> [(&'static str, String); 2] {
    [
        ("DEBUGINFOD_URLS", format!("http://127.0.0.1:{PORT}")),
        ("DEBUGINFOD_CACHE_PATH", cache.display().to_string()),
    ]
}
