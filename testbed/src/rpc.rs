//! Kamailio's own figures, through `kamcmd` and the ctl module.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::time::Duration;

use crate::foreign::Root;
use crate::tools::{Finished, run};

const PATIENCE: Duration = Duration::from_secs(20);

/// The ctl socket of one instance.
#[derive(Clone, Debug)]
pub struct Rpc {
    /// Where `kamcmd` is, if not in this host's root directory.
    root: Option<PathBuf>,
    /// As `kamcmd` sees it.
    socket: PathBuf,
}

/// One line of the process table (`core.psx`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its number in the table; 0 is the main process.
    pub index: u32,
    /// PID as the process itself knows it.
    pub pid: u32,
    /// What it does.
    pub description: String,
}

/// `core.shmmem`, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedMemory {
    /// Length of the pool.
    pub total: u64,
    /// `total` less `real_used`.
    pub free: u64,
    /// Payload of the used fragments.
    pub used: u64,
    /// The same with the manager's own overhead.
    pub real_used: u64,
    /// Highest `real_used` so far.
    pub max_used: u64,
    /// Number of **free** fragments.
    pub fragments: u64,
}

/// One process in `pkg.stats`, in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrivateMemory {
    /// PID as the process itself knows it.
    pub pid: u32,
    /// 0 main, above 0 a worker, below 0 a service process.
    pub rank: i32,
    /// Payload of the used fragments.
    pub used: u64,
    /// What is left.
    pub free: u64,
    /// `used` with the manager's own overhead.
    pub real_used: u64,
    /// Length of the pool.
    pub total_size: u64,
    /// Number of **free** fragments.
    pub total_frags: u64,
    /// What it does.
    pub description: String,
}

/// Where an allocation was made, as `mod.stats` knows it: no file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Site {
    /// `core` or a module's name.
    pub module: String,
    /// The function that allocated.
    pub function: String,
    /// The line in its file.
    pub line: u32,
}

/// All that an instance says about its memory at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// `core.shmmem`
    pub shared: SharedMemory,
    /// `pkg.stats`
    pub private: Vec<PrivateMemory>,
    /// `mod.stats all shm`
    pub shared_by_site: BTreeMap<Site, u64>,
}

impl Rpc {
    /// The ctl module's stream socket at `socket` below `root`, spoken to by the `kamcmd` that is
    /// there: from outside, the path of a socket may be too long.
    pub fn new(root: Option<&Root>, socket: &Path) -> Self {
        let root = root.map(|root| root.directory().to_owned());
        Self { root, socket: socket.to_owned() }
    }

    fn kamcmd(&self) -> Command {
        let mut command = match &self.root {
            None => Command::new("kamcmd"),
            Some(root) => {
                let mut command = Command::new("chroot");
                command.arg(root).arg("kamcmd");
                command
            }
        };
        command.arg("-s").arg(format!("unix:{}", self.socket.display()));
        command
    }

    /// One call, whatever comes of it.
    pub fn try_call(&self, words: &[&str]) -> Finished {
        run(self.kamcmd().args(words), PATIENCE)
    }

    /// One call that must succeed; its answer.
    #[track_caller]
    pub fn call(&self, words: &[&str]) -> String {
        let finished = self.try_call(words).expect(&[0]);
        let text = finished.text();
        assert!(!text.starts_with("error"), "{finished:?}");
        text
    }

    /// `core.version`: program, version and platform.
    pub fn version(&self) -> String {
        self.call(&["core.version"]).trim().to_owned()
    }

    /// `core.psx`
    pub fn processes(&self) -> Vec<Process> {
        parse_processes(&self.call(&["core.psx"]))
    }

    /// `core.shmmem`
    pub fn shared_memory(&self) -> SharedMemory {
        let answer = self.call(&["core.shmmem"]);
        let record = records(&answer).pop().unwrap_or_else(|| panic!("no record in {answer}"));
        SharedMemory {
            total: number(&record, "total"),
            free: number(&record, "free"),
            used: number(&record, "used"),
            real_used: number(&record, "real_used"),
            max_used: number(&record, "max_used"),
            fragments: number(&record, "fragments"),
        }
    }

    /// `pkg.stats`, one entry for each process.
    pub fn private_memory(&self) -> Vec<PrivateMemory> {
        parse_private_memory(&self.call(&["pkg.stats"]))
    }

    /// `mod.stats all shm`: bytes in use by the place that allocated them.
    pub fn shared_by_site(&self) -> BTreeMap<Site, u64> {
        parse_module_stats(&self.call(&["mod.stats", "all", "shm"]))
    }

    /// All three readings. Without traffic, two of them are equal.
    pub fn reading(&self) -> Reading {
        Reading {
            private: self.private_memory(),
            shared: self.shared_memory(),
            shared_by_site: self.shared_by_site(),
        }
    }

    /// `htable.stats`: entries of each hash table.
    pub fn hash_tables(&self) -> BTreeMap<String, u64> {
        let answer = self.call(&["htable.stats"]);
        let table = |record: &Record| (field(record, "name").to_owned(), number(record, "all"));
        records(&answer).iter().map(table).collect()
    }

    /// `ul.dump`: contacts, and how many of them it calls expired.
    pub fn contacts(&self) -> (usize, usize) {
        let answer = self.call(&["ul.dump"]);
        let lines = |start: &str| answer.lines().filter(|line| line.trim() == start).count();
        (lines("Contact: {"), lines("Expires: expired"))
    }

    /// An answer that is one record of numbers, for instance that of `tm.stats`.
    #[track_caller]
    pub fn figures(&self, method: &str) -> BTreeMap<String, u64> {
        let answer = self.call(&[method]);
        let record = records(&answer).pop().unwrap_or_else(|| panic!("no record in {answer}"));
        record.keys().map(|key| (key.clone(), number(&record, key))).collect()
    }

    /// Deletes keys of the hash table `calls`, over one connection.
    pub fn delete_calls(&self, keys: impl Iterator<Item = String>) {
        let calls: Vec<String> = keys.map(|key| format!("htable.delete calls {key}")).collect();
        let wanted = calls.len();
        let text = self.script(calls.into_iter());
        // Kamailio 5.4 says nothing of a deleted key, later ones do; a failure is an error in all.
        let deleted = text.matches("Key deleted").count();
        assert!([0, wanted].contains(&deleted) && !text.contains("error"), "{text}");
    }

    /// Deletes registered users with all their contacts, over one connection.
    pub fn delete_contacts(&self, users: impl Iterator<Item = String>) {
        let text = self.script(users.map(|user| format!("ul.rm location {user}")));
        assert!(!text.contains("error"), "{text}");
    }

    /// Many calls over one connection; all that is answered.
    fn script(&self, calls: impl Iterator<Item = String>) -> String {
        let script: String = calls.map(|call| format!("{call}\n")).collect();
        let mut command = self.kamcmd();
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("kamcmd starts");
        // kamcmd answers while it reads: a second thread feeds it, or both pipes fill up.
        let mut input = child.stdin.take().unwrap();
        let feeder = std::thread::spawn(move || input.write_all(script.as_bytes()));
        let output = child.wait_with_output().expect("kamcmd ends");
        feeder.join().unwrap().expect("kamcmd reads its input");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

type Record = BTreeMap<String, String>;

/// The `{ key: value … }` blocks of an answer.
fn records(answer: &str) -> Vec<Record> {
    let mut records = Vec::new();
    for line in answer.lines().map(str::trim) {
        if line == "{" {
            records.push(Record::new());
        } else if let (Some(record), Some((key, value))) =
            (records.last_mut(), line.split_once(": "))
        {
            record.insert(key.to_owned(), value.to_owned());
        }
    }
    records
}

#[track_caller]
fn field<'a>(record: &'a Record, key: &str) -> &'a str {
    match record.get(key) {
        Some(value) => value,
        None => panic!("no `{key}` in {record:?}"),
    }
}

#[track_caller]
fn number<T: FromStr>(record: &Record, key: &str) -> T {
    match field(record, key).parse() {
        Ok(number) => number,
        Err(_) => panic!("`{key}` is not a number in {record:?}"),
    }
}

fn parse_processes(answer: &str) -> Vec<Process> {
    let process = |record: &Record| Process {
        index: number(record, "IDX"),
        pid: number(record, "PID"),
        description: field(record, "DSC").to_owned(),
    };
    records(answer).iter().map(process).collect()
}

fn parse_private_memory(answer: &str) -> Vec<PrivateMemory> {
    let entry = |record: &Record| PrivateMemory {
        pid: number(record, "pid"),
        rank: number(record, "rank"),
        used: number(record, "used"),
        free: number(record, "free"),
        real_used: number(record, "real_used"),
        total_size: number(record, "total_size"),
        total_frags: number(record, "total_frags"),
        description: field(record, "desc").to_owned(),
    };
    records(answer).iter().map(entry).collect()
}

fn parse_module_stats(answer: &str) -> BTreeMap<Site, u64> {
    let mut sites = BTreeMap::new();
    let mut module = String::new();
    for line in answer.lines().map(str::trim) {
        let Some((name, value)) = line.split_once(": ") else { continue };
        if name == "Module" {
            value.clone_into(&mut module);
            continue;
        }
        let Some((function, line_number)) = name.strip_suffix(')').and_then(|n| n.split_once('('))
        else {
            continue; // "Total"
        };
        let site = Site {
            module: module.clone(),
            function: function.to_owned(),
            line: line_number.parse().unwrap(),
        };
        *sites.entry(site).or_default() += value.parse::<u64>().unwrap();
    }
    sites
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_table_is_read() {
        let answer = "{\n\tIDX: 0\n\tPID: 17\n\tDSC: main process - attendant\n}\n\
                      {\n\tIDX: 1\n\tPID: 18\n\tDSC: udp receiver child=0 sock=127.0.0.1:5060\n}\n";
        let table = parse_processes(answer);
        assert_eq!(table.len(), 2);
        assert_eq!(table[1].pid, 18);
        assert_eq!(table[1].description, "udp receiver child=0 sock=127.0.0.1:5060");
    }

    #[test]
    fn sums_by_site_leave_out_the_totals() {
        let answer = "Module: core\n{\n\tinit_pt(107): 8\n\tinit_pt(106): 8\n\tTotal: 16\n}\n\n\
                      Module: xlog\n{\n\tTotal: 0\n}\n";
        let site = |line| Site { module: "core".into(), function: "init_pt".into(), line };
        assert_eq!(parse_module_stats(answer), BTreeMap::from([(site(107), 8), (site(106), 8)]));
    }
}
