//! All processes of a bundle, with their threads, descriptors and sockets.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bundle::member::{self, Place};
use serde::Deserialize;

use super::cpu::{Counters, Cpu};
use super::descriptor::{self, DescriptorKind, Descriptors};
use super::socket::{self, Socket};
use super::thread::ThreadActivity;
use super::thread_files::{self as files, whole_lines};
use crate::input::Evidence;

/// Of a longer table the rest is not read; one of 400,000 connections fits.
const LARGEST_TABLE: u64 = 64 << 20;

/// What a bundle says of its processes; empty for cores.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Activity {
    /// By PID, as the collector's namespace counts them.
    pub processes: BTreeMap<u32, ProcessActivity>,
    /// From the first sample to the second; `None` without two samples.
    pub between: Option<Duration>,
}

/// What a bundle says of one process.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProcessActivity {
    /// Its PID.
    pub pid: u32,
    /// Its threads by ID.
    pub threads: BTreeMap<u32, ThreadActivity>,
    /// CPU time of all of them.
    pub cpu: Cpu,
    /// What the CPU time is measured against: the time between the samples without the freeze.
    pub measured: Option<Duration>,
    /// Its open files by number.
    pub descriptors: Descriptors,
    /// Its network namespace as the kernel names it, `net:[INODE]`.
    pub network: Option<String>,
}

/// A socket and who holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldSocket {
    /// The socket.
    pub socket: Socket,
    /// (PID, descriptor) of each process that has it open.
    pub holders: Vec<(u32, i32)>,
}

/// `processes/samples.json`
#[derive(Debug, Deserialize)]
struct SampleTime {
    sample: u32,
    monotonic_ns: u64,
}

impl Activity {
    /// Reads what there is.
    pub fn read(evidence: &Evidence) -> Self {
        let mut threads: BTreeMap<u32, BTreeSet<u32>> = BTreeMap::new();
        for path in evidence.texts.keys() {
            match Place::of(path) {
                Place::Process { pid, .. } => {
                    threads.entry(pid).or_default();
                }
                Place::Thread { pid, tid, .. } => {
                    threads.entry(pid).or_default().insert(tid);
                }
                _ => {}
            }
        }
        let between = between(evidence);
        let process = |(pid, tids)| (pid, ProcessActivity::read(evidence, pid, tids, between));
        let mut activity = Self { processes: threads.into_iter().map(process).collect(), between };
        activity.find_sockets(evidence);
        activity
    }

    /// Looks the descriptors' sockets up in the tables of their namespaces.
    fn find_sockets(&mut self, evidence: &Evidence) {
        let mut wanted: BTreeMap<Option<String>, BTreeSet<u64>> = BTreeMap::new();
        for process in self.processes.values() {
            let targets = process.descriptors.values().map(|descriptor| &descriptor.target);
            let inodes = targets.filter_map(|target| descriptor::socket_inode(target));
            wanted.entry(process.network.clone()).or_default().extend(inodes);
        }
        for (network, wanted) in wanted {
            let of_network = |process: &&ProcessActivity| process.network == network;
            let mut sockets = BTreeMap::new();
            // The tables are with the first process of each namespace.
            for process in self.processes.values().filter(of_network) {
                for (name, parse) in socket::TABLES {
                    let path = member::process_file(process.pid, &format!("net/{name}"));
                    if let Some(table) = evidence.text_up_to(&path, LARGEST_TABLE) {
                        socket::add_wanted(&mut sockets, &table, parse, &wanted);
                    }
                }
            }
            for process in self.processes.values_mut().filter(|process| process.network == network)
            {
                for descriptor in process.descriptors.values_mut() {
                    if let DescriptorKind::Socket(found) = &mut descriptor.kind {
                        let inode = descriptor::socket_inode(&descriptor.target);
                        *found = inode.and_then(|inode| sockets.get(&inode)).cloned();
                    }
                }
            }
        }
    }

    /// Every known socket of the group once, with its holders, those with most bytes to be read
    /// first.
    pub fn sockets(&self) -> Vec<HeldSocket> {
        let mut held: BTreeMap<(&Option<String>, u64), HeldSocket> = BTreeMap::new();
        for process in self.processes.values() {
            for descriptor in process.descriptors.values() {
                let DescriptorKind::Socket(Some(socket)) = &descriptor.kind else { continue };
                held.entry((&process.network, socket.inode))
                    .or_insert_with(|| HeldSocket { socket: socket.clone(), holders: Vec::new() })
                    .holders
                    .push((process.pid, descriptor.number));
            }
        }
        let mut sockets: Vec<HeldSocket> = held.into_values().collect();
        sockets.sort_by_key(|held| std::cmp::Reverse(held.socket.receive_queue.unwrap_or(0)));
        sockets
    }

    /// A thread of a process.
    pub fn thread(&self, pid: u32, tid: u32) -> Option<&ThreadActivity> {
        self.processes.get(&pid)?.threads.get(&tid)
    }
}

fn between(evidence: &Evidence) -> Option<Duration> {
    let text = evidence.text(&format!("{}/samples.json", member::PROCESSES))?;
    let times: Vec<SampleTime> = serde_json::from_str(&text).ok()?;
    let time = |number| Some(times.iter().find(|time| time.sample == number)?.monotonic_ns);
    let between = time(2)?.checked_sub(time(1)?)?;
    (between > 0).then_some(Duration::from_nanos(between))
}

impl ProcessActivity {
    fn read(evidence: &Evidence, pid: u32, tids: BTreeSet<u32>, between: Option<Duration>) -> Self {
        let manifest = evidence.manifest.iter().flat_map(|manifest| &manifest.processes);
        let pause = manifest.filter(|process| process.pid == pid).find_map(|p| p.pause_micros);
        let pause = Duration::from_micros(pause.unwrap_or(0));
        let measured = between.map(|between| between.checked_sub(pause).unwrap_or(between));
        let text = |name: &str| evidence.text(&member::process_file(pid, name));
        let table = |name| evidence.text_up_to(&member::process_file(pid, name), LARGEST_TABLE);
        // On other machines the numbers of system calls mean other calls.
        let header = evidence.header.as_ref();
        let calls_known = header.is_none_or(|header| header.machine == "x86_64");
        let thread = |tid| {
            let read = |name: &str, sample| {
                if name == "syscall" && !calls_known {
                    return None;
                }
                evidence.text(&member::thread_file(pid, tid, &format!("{name}.{sample}")))
            };
            (tid, ThreadActivity::read(tid, measured, read))
        };
        let threads: BTreeMap<u32, ThreadActivity> = tids.into_iter().map(thread).collect();
        let counters = |number: u32| {
            let stat = files::stat(&text(&format!("stat.{number}"))?)?;
            Some(Counters::of(Some(&stat), None))
        };
        let whole = Cpu::between(counters(1), counters(2), measured, threads.len());
        let of_threads: Vec<Cpu> = threads.values().map(|thread| thread.cpu).collect();
        let descriptors = match table("fd") {
            Some(fd) => descriptor::parse(&fd, table("fdinfo").as_deref()),
            None => Descriptors::new(),
        };
        let links = text("links").unwrap_or_default();
        let network = whole_lines(&links).find_map(|line| line.strip_prefix("ns/net -> "));
        Self {
            pid,
            cpu: Cpu::of_process(&of_threads, whole),
            threads,
            measured,
            descriptors,
            network: network.map(str::to_owned),
        }
    }
}

#[cfg(test)]
mod tests {
    use bundle::{Manifest, ProcessRecord};

    use super::*;
    use crate::bytes::Blob;

    fn evidence(texts: &[(&str, &str)]) -> Evidence {
        let blob = |text: &str| Blob::from_bytes(text.as_bytes().to_vec());
        let texts = texts.iter().map(|(path, text)| ((*path).to_owned(), blob(text))).collect();
        let record =
            |pid| ProcessRecord { pid, pause_micros: Some(250_000), ..ProcessRecord::default() };
        let processes = vec![record(12), record(13)];
        let manifest = Some(Manifest { processes, ..Manifest::default() });
        Evidence { texts, manifest, ..Evidence::default() }
    }

    const TIMES: &str = r#"[{"sample":1,"wall":"?","monotonic_ns":500000000},
                            {"sample":2,"wall":"?","monotonic_ns":1750000000}]"#;
    const TCP: &str = "sl\n 0: 0100007F:13C4 0100007F:0CEA 02 0:0 0 0 0 0 88 1\n";
    const UDP: &str = "sl\n 0: 0100007F:13C4 00000000:0000 07 0:10 0 0 0 0 99 2 0 5\n";

    #[test]
    fn the_freeze_is_no_time_in_which_a_thread_could_have_run() {
        let activity = Activity::read(&evidence(&[
            ("processes/samples.json", TIMES),
            ("processes/12/task/12/stat.2", "12 (k) R 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 7\n"),
            ("processes/12/task/12/schedstat.2", "1900000000 0 9\n"),
            ("processes/12/task/12/stat.1", "12 (k) R 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 7\n"),
            ("processes/12/task/12/schedstat.1", "900000000 0 9\n"),
        ]));
        assert_eq!(activity.between, Some(Duration::from_millis(1250)));
        let process = &activity.processes[&12];
        assert_eq!(process.measured, Some(Duration::from_secs(1)));
        assert_eq!(activity.thread(12, 12).unwrap().cpu.percent, Some(100.0));
        assert_eq!(process.cpu.percent, Some(100.0));
    }

    #[test]
    fn sockets_are_those_of_the_processs_own_network_namespace() {
        let activity = Activity::read(&evidence(&[
            ("processes/12/fd", "3 -> socket:[99]\n4 -> socket:[88]\n"),
            ("processes/12/links", "exe -> /k\nns/net -> net:[1]\n"),
            ("processes/12/net/udp", UDP),
            // Shares the namespace of 12, so that the tables are there.
            ("processes/13/fd", "7 -> socket:[99]\n"),
            ("processes/13/links", "ns/net -> net:[1]\n"),
            ("processes/14/fd", "3 -> socket:[99]\n4 -> socket:[88]\n"),
            ("processes/14/links", "ns/net -> net:[2]\n"),
            ("processes/14/net/tcp", TCP),
        ]));
        let told = |pid, number| activity.processes[&pid].descriptors[&number].to_string();
        assert_eq!(told(12, 3), "UDP 127.0.0.1:5060");
        assert_eq!(told(12, 4), "socket [88] that no table of the bundle has");
        assert_eq!(told(13, 7), "UDP 127.0.0.1:5060");
        assert_eq!(told(14, 3), "socket [99] that no table of the bundle has");
        assert_eq!(told(14, 4), "TCP 127.0.0.1:5060 → 127.0.0.1:3306, SYN_SENT");
        let sockets = activity.sockets();
        let holders: Vec<_> = sockets.iter().map(|held| held.holders.as_slice()).collect();
        assert_eq!(holders, [&[(12, 3), (13, 7)][..], &[(14, 4)]]);
        assert_eq!(sockets[0].socket.receive_queue, Some(16));
    }

    #[test]
    fn numbers_of_calls_are_read_only_for_the_machine_that_they_are_of() {
        let call = "45 0x9 0x0 0x0 0x0 0x0 0x0 0x7000 0x1000\n";
        let mut evidence = evidence(&[("processes/12/task/12/syscall.2", call)]);
        let call_of = |evidence: &Evidence| {
            let activity = Activity::read(evidence);
            Some(activity.thread(12, 12)?.last()?.call()?.name)
        };
        let header = |machine: &str| {
            let header = serde_json::json!({
                "format": 1, "tool": "", "created": "", "host": "", "boot_id": "", "kernel": "",
                "machine": machine, "case_id": "", "profile": "", "reason": "",
            });
            serde_json::from_value(header).unwrap()
        };
        evidence.header = Some(header("x86_64"));
        assert_eq!(call_of(&evidence), Some(Some("recvfrom")));
        evidence.header = Some(header("aarch64"));
        assert_eq!(call_of(&evidence), None);
    }

    #[test]
    fn without_two_samples_there_is_no_rate() {
        let times = TIMES.replace("1750000000", "400000000");
        for times in ["", "[]", "[{}]", "{", &times] {
            let activity = Activity::read(&evidence(&[("processes/samples.json", times)]));
            assert_eq!(activity, Activity::default(), "{times}");
        }
        let one = [("processes/12/task/15/stat.1", "15 (k) S 0 0\n"), ("system/x", "")];
        let activity = Activity::read(&evidence(&one));
        assert_eq!(activity.thread(12, 15).unwrap().samples, [None, None]);
        assert_eq!(activity.thread(12, 16), None);
    }

    proptest::proptest! {
        /// Whatever stands in the texts, reading them ends and gives no figure that cannot be.
        #[test]
        fn hostile_texts_are_survived(
            bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..400),
            words in proptest::collection::vec(
                proptest::sample::select(vec![
                    "12 (k) R ", "0 ", ") ", "-1 ", "0x7f ", "99999999999999999999 ", "\n", ": ",
                    "5 -> socket:[9]\n", "5:\n", "  tfd: 5 ", "  flags: 7\n", "FFFFFFFF:FFFF ",
                    "18446744073709551615 ", "running\n", "[<0>] ", "{\"sample\":1", "é",
                ]),
                0..60,
            ),
        ) {
            let text = words.concat() + &String::from_utf8_lossy(&bytes) + "\n";
            let names = ["fd", "fdinfo", "links", "stat.1", "stat.2", "net/tcp", "net/udp6",
                "net/unix", "net/netlink", "net/packet", "task/12/stat.1", "task/12/stat.2",
                "task/12/schedstat.1", "task/12/schedstat.2", "task/12/syscall.2",
                "task/12/status.1", "task/12/status.2", "task/12/comm.1", "task/12/stack.2"];
            let paths = names.map(|name| format!("processes/12/{name}"));
            let mut texts: Vec<(&str, &str)> =
                paths.iter().map(|path| (path.as_str(), text.as_str())).collect();
            texts.push(("processes/samples.json", TIMES));
            let activity = Activity::read(&evidence(&texts));
            let thread = activity.thread(12, 12).unwrap();
            proptest::prop_assert!(thread.cpu.percent.is_none_or(|percent| percent <= 111.0));
            for descriptor in activity.processes[&12].descriptors.values() {
                proptest::prop_assert!(!descriptor.to_string().contains(char::is_control));
            }
        }
    }
}
