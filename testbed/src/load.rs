//! SIP traffic on loopback, through sipp.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::kamailio::{Instance, free_port};
use crate::tools::run;

/// What a request makes the instance do; the names are those in its configuration.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// OPTIONS; leaves an entry in the hash table.
    Keep,
    /// The same with more than a kilobyte each.
    Big,
    /// OPTIONS; takes shared memory and gives it back.
    Pass,
    /// OPTIONS; answered, then the worker waits a minute for `sleep`.
    Sleep,
    /// REGISTER; leaves a contact.
    Register,
}

impl Kind {
    fn user(self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::Big => "big",
            Self::Pass => "pass",
            Self::Sleep => "sleep",
            Self::Register => "register",
        }
    }

    fn scenario(self) -> &'static str {
        match self {
            Self::Register => include_str!("../config/register.xml"),
            Self::Keep | Self::Big | Self::Pass | Self::Sleep => {
                include_str!("../config/options.xml")
            }
        }
    }
}

/// Call-IDs that a test can name: k1, k2, …
const NAMED: &str = "k%u";

/// sipp with `count` requests at `rate` a second; its files go to `directory`.
fn sipp(
    instance: &Instance,
    kind: Kind,
    count: u32,
    rate: u32,
    call_ids: &str,
    directory: &Path,
) -> Command {
    let scenario = directory.join("scenario.xml");
    std::fs::write(&scenario, kind.scenario()).unwrap();
    let mut command = Command::new("sipp");
    command.current_dir(directory).arg("-sf").arg(scenario);
    command.arg(format!("127.0.0.1:{}", instance.port()));
    command.args(["-i", "127.0.0.1", "-p", &free_port().to_string()]);
    command.args(["-s", kind.user(), "-m", &count.to_string(), "-r", &rate.to_string()]);
    command.args(["-cid_str", call_ids, "-nostdin", "-nd", "-recv_timeout", "20000"]);
    command
}

/// Sends `count` requests; each must be answered with 200.
#[track_caller]
pub fn send(instance: &Instance, kind: Kind, count: u32, rate: u32) {
    send_with_call_ids(instance, kind, count, rate, NAMED);
}

/// The same with other Call-IDs, in sipp's form (`%u-%p@%s`: number, PID, host).
#[track_caller]
pub fn send_with_call_ids(instance: &Instance, kind: Kind, count: u32, rate: u32, call_ids: &str) {
    let directory = TempDir::new().unwrap();
    let patience = Duration::from_secs(u64::from(count / rate) + 60);
    let mut sipp = sipp(instance, kind, count, rate, call_ids, directory.path());
    run(&mut sipp, patience).expect(&[0]);
}

/// Asserts that `count` of `count` requests are answered with 200.
#[track_caller]
pub fn answered(instance: &Instance, count: u32) {
    send(instance, Kind::Pass, count, 1000);
}

/// Traffic that goes on until its value is dropped.
#[derive(Debug)]
pub struct Traffic {
    child: Child,
    _directory: TempDir,
}

impl Traffic {
    /// Starts sending `rate` requests a second.
    pub fn start(instance: &Instance, kind: Kind, rate: u32) -> Self {
        let directory = TempDir::new().unwrap();
        let mut command = sipp(instance, kind, 100_000_000, rate, NAMED, directory.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self { child: command.spawn().expect("sipp starts"), _directory: directory }
    }

    /// Panics if the traffic has ended: then the test would no longer test anything.
    #[track_caller]
    pub fn assert_running(&mut self) {
        let ended = self.child.try_wait().unwrap();
        assert!(ended.is_none(), "the SIP load has ended by itself: {ended:?}");
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
