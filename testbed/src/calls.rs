//! Calls and registrations that fill the tables of an instance with the configuration
//! `config/tables.cfg`, through sipp on loopback.

use std::net::UdpSocket;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::kamailio::{Instance, free_port};
use crate::tools::run;

const INVITE: &str = include_str!("../config/invite.xml");
const UNANSWERED: &str = include_str!("../config/unanswered.xml");
const ANSWER: &str = include_str!("../config/answer.xml");
const CONTACT: &str = include_str!("../config/contact.xml");
const OPTIONS: &str = include_str!("../config/options.xml");

/// Answers every call; ends with its value.
#[derive(Debug)]
pub struct Callee {
    child: Child,
    port: u16,
    _directory: TempDir,
}

impl Callee {
    /// Starts answering on a port of its own.
    #[track_caller]
    pub fn start() -> Self {
        let directory = TempDir::new().unwrap();
        let port = free_port();
        let mut command = sipp(ANSWER, directory.path());
        command.args(["-p", &port.to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("sipp starts");
        let end = Instant::now() + Duration::from_secs(10);
        while UdpSocket::bind(("127.0.0.1", port)).is_ok() {
            assert!(Instant::now() < end, "sipp does not listen on port {port}");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { child, port, _directory: directory }
    }
}

impl Drop for Callee {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Calls that are answered, and whose dialogs go on: a second `brief` call's dialog ends by itself.
#[track_caller]
pub fn answered(instance: &Instance, callee: &Callee, brief: bool, count: u32) {
    let user = if brief { "brief" } else { "long" };
    send(instance, INVITE, user, ("callee", &callee.port.to_string()), count);
}

/// Calls to a port that is taken and silent: the transactions wait for an answer.
#[track_caller]
pub fn unanswered(instance: &Instance, silent: &UdpSocket, count: u32) {
    let port = silent.local_addr().unwrap().port().to_string();
    send(instance, UNANSWERED, "nobody", ("callee", &port), count);
}

/// One contact for each of `count` users; contacts with another `name` are added to them.
#[track_caller]
pub fn register(instance: &Instance, name: &str, seconds: u32, count: u32) {
    send(instance, CONTACT, name, ("lifetime", &seconds.to_string()), count);
}

/// Requests that leave entries in the hash table `table`.
#[track_caller]
pub fn store(instance: &Instance, table: &str, count: u32) {
    send(instance, OPTIONS, table, ("unused", "0"), count);
}

#[track_caller]
fn send(instance: &Instance, scenario: &str, user: &str, key: (&str, &str), count: u32) {
    let directory = TempDir::new().unwrap();
    let mut command = sipp(scenario, directory.path());
    command.arg(format!("127.0.0.1:{}", instance.port()));
    command.args(["-p", &free_port().to_string(), "-s", user, "-key", key.0, key.1]);
    command.args(["-m", &count.to_string(), "-r", "200", "-recv_timeout", "10000"]);
    // Call-IDs of their own, so that no two scenarios speak of one call.
    command.args(["-cid_str", &format!("{user}-{}-%u", key.1)]);
    run(&mut command, Duration::from_secs(60)).expect(&[0]);
}

fn sipp(scenario: &str, directory: &std::path::Path) -> Command {
    let file = directory.join("scenario.xml");
    std::fs::write(&file, scenario).unwrap();
    let mut command = Command::new("sipp");
    command.current_dir(directory).arg("-sf").arg(file);
    command.args(["-i", "127.0.0.1", "-nostdin", "-nd"]);
    command
}
