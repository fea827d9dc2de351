//! What Kamailio's own tables hold: real processes with entries, contacts, dialogs and transactions,
//! some of them past their end and kept, compared with what the processes say themselves; and
//! silence where a byte does not agree.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test stops at the first surprise"
)]

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde::Deserialize;
use testbed::analysis::{Gap, Heap};
use testbed::calls::{self, Callee};
use testbed::foreign::Root;
use testbed::kamailio::{Instance, Manager, Options, TABLES};
use testbed::patch::{Patch, Patient};
use testbed::tools::{self, forensics, run};
use testbed::{oracle, proc};

/// `forensics leaks --json`
#[derive(Debug, Deserialize)]
struct Leaks {
    tables: Tables,
}

#[derive(Debug, Deserialize)]
struct Tables {
    held: Vec<Held>,
    gaps: Vec<Gap>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct Held {
    module: String,
    name: Option<String>,
    slots: u64,
    entries: u64,
    #[serde(default)]
    states: BTreeMap<String, u64>,
    past_end: Option<PastEnd>,
    oldest_seconds: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
struct PastEnd {
    entries: u64,
    longest_seconds: u64,
}

#[track_caller]
fn tables(input: &Path) -> Tables {
    let mut command = forensics();
    command.args(["leaks", "--json"]).arg(input);
    run(&mut command, tools::PATIENCE).expect(&[0]).json::<Leaks>().tables
}

impl Tables {
    #[track_caller]
    fn find(&self, module: &str, name: Option<&str>) -> &Held {
        let mut found =
            self.held.iter().filter(|h| h.module == module && h.name.as_deref() == name);
        let held = found.next().unwrap_or_else(|| panic!("no {module} {name:?}: {self:?}"));
        assert_eq!(found.next(), None, "{module} {name:?} is there once");
        held
    }

    fn modules(&self) -> Vec<&str> {
        let mut modules: Vec<&str> = self.held.iter().map(|held| held.module.as_str()).collect();
        modules.dedup();
        modules
    }
}

/// What an instance says of its tables.
#[derive(Debug, PartialEq, Eq)]
struct Said {
    hash_tables: BTreeMap<String, u64>,
    contacts: (usize, usize),
    dialogs: BTreeMap<String, u64>,
    transactions: BTreeMap<String, u64>,
}

impl Said {
    fn by(instance: &Instance) -> Self {
        let rpc = instance.rpc();
        Self {
            hash_tables: rpc.hash_tables(),
            contacts: rpc.contacts(),
            dialogs: rpc.figures("dlg.stats_active"),
            transactions: rpc.figures("tm.stats"),
        }
    }
}

/// An instance with full tables; what it talks to goes with it.
struct Full {
    instance: Instance,
    _callee: Callee,
    _silent: UdpSocket,
    /// Before the first contact, and after it.
    registered: (Instant, Instant),
}

impl Full {
    #[track_caller]
    fn start(root: Option<&Root>, manager: Manager) -> Self {
        let options = Options { manager, configuration: TABLES, ..Options::default() };
        let instance = Instance::start_in(root, options);
        let (callee, silent) = (Callee::start(), UdpSocket::bind("127.0.0.1:0").unwrap());
        let before = Instant::now();
        calls::register(&instance, "first", 3600, 40);
        let registered = (before, Instant::now());
        calls::register(&instance, "second", 1, 30);
        calls::store(&instance, "lasting", 300);
        calls::store(&instance, "hour", 100);
        calls::store(&instance, "brief", 70);
        calls::answered(&instance, &callee, false, 25);
        // Dialogs end in this process; transactions in another one.
        let processes = instance.rpc().processes();
        let slow = processes.iter().position(|process| process.description.contains("slow timer"));
        let slow = *instance.pids().get(slow.expect("a slow timer")).unwrap();
        proc::signal(slow, Signal::SIGSTOP);
        calls::answered(&instance, &callee, true, 5);
        calls::unanswered(&instance, &silent, 9);
        std::thread::sleep(Duration::from_secs(5));
        Self { instance, _callee: callee, _silent: silent, registered }
    }

    /// Collects between two equal readings.
    #[track_caller]
    fn collect(&self, bundle: &Path) -> Said {
        let before = Said::by(&self.instance);
        tools::collect(self.instance.main_pid(), bundle);
        assert_eq!(Said::by(&self.instance), before, "nothing changes meanwhile");
        before
    }
}

/// Compares the tables with what the processes say; PID of the main process.
#[track_caller]
fn check(root: Option<&Root>, manager: Manager, bundle: &Path) -> u32 {
    let full = Full::start(root, manager);
    let earliest = full.registered.1.elapsed().as_secs();
    let said = full.collect(bundle);
    let latest = full.registered.0.elapsed().as_secs() + 1;
    let tables = tables(bundle);
    assert_eq!(tables.gaps, []);
    assert_eq!(tables.modules(), ["htable", "usrloc", "dialog", "tm"]);

    for (name, entries) in &said.hash_tables {
        let held = tables.find("htable", Some(name));
        let slots = if name == "lasting" { 256 } else { 16 };
        assert_eq!((held.slots, held.entries), (slots, *entries), "{name}");
        let past = held.past_end.expect("a bundle tells the time");
        let ended = if name == "brief" { *entries } else { 0 };
        assert_eq!(past.entries, ended, "{name}");
        assert_eq!(past.longest_seconds > 0, ended > 0, "{name}: {past:?}");
    }
    let expected = [("brief", 140), ("empty", 0), ("hour", 100), ("lasting", 300)];
    assert_eq!(said.hash_tables, expected.map(|(name, all)| (name.to_owned(), all)).into());

    let contacts = tables.find("usrloc", Some("location"));
    assert_eq!(said.contacts, (70, 30), "{said:?}");
    assert_eq!((contacts.slots, contacts.entries), (1024, 70));
    assert_eq!(contacts.past_end.unwrap().entries, 30);
    let oldest = contacts.oldest_seconds.unwrap();
    assert!((earliest..=latest).contains(&oldest), "{earliest} {oldest} {latest}");

    let dialogs = tables.find("dialog", None);
    assert_eq!(dialogs.entries, said.dialogs["all"]);
    assert_eq!(dialogs.states["unconfirmed"], said.dialogs["starting"]);
    assert_eq!(dialogs.states["confirmed"], said.dialogs["ongoing"]);
    assert_eq!((said.dialogs["starting"], said.dialogs["ongoing"]), (9, 30));
    let past = dialogs.past_end.unwrap();
    assert_eq!(past.entries, 5, "{dialogs:?}");
    assert!((2..=latest).contains(&past.longest_seconds), "{dialogs:?}");

    let transactions = tables.find("tm", None);
    assert_eq!(transactions.entries, said.transactions["current"]);
    assert_eq!(transactions.states["waiting"], said.transactions["waiting"]);
    assert_eq!((said.transactions["current"], said.transactions["waiting"]), (39, 30));
    assert_eq!(transactions.past_end, Some(PastEnd { entries: 0, longest_seconds: 0 }));
    full.instance.main_pid()
}

#[test]
fn q_malloc() {
    let scratch = tools::scratch("tables-qm");
    let bundle = scratch.join("group.tar.zst");
    let main = check(None, Manager::Qm, &bundle);
    doubts(&bundle, main, &scratch.join("core"));
}

#[test]
fn f_malloc() {
    check(None, Manager::Fm, &tools::scratch("tables-fm").join("group.tar.zst"));
}

#[test]
fn tlsf_malloc() {
    check(None, Manager::Tlsf, &tools::scratch("tables-tlsf").join("group.tar.zst"));
}

#[test]
fn other_releases() {
    let scratch = tools::scratch("tables-releases");
    for release in ["bullseye", "trixie"] {
        let root = Root::of(release);
        for manager in [Manager::Qm, Manager::Tlsf] {
            let name = format!("{release}-{}.tar.zst", manager.name());
            check(Some(&root), manager, &scratch.join(name));
        }
    }
    std::fs::remove_dir_all(&scratch).unwrap();
}

/// In the core of one process, which does not tell the time, bytes are changed.
#[track_caller]
fn doubts(bundle: &Path, main: u32, core: &Path) {
    let mut command = forensics();
    command.args(["heap", "--json", "--list", "--pool", "shm"]).arg(bundle);
    let heap: Heap = run(&mut command, tools::PATIENCE).expect(&[0, 1]).json();
    oracle::extract(bundle, main, core);
    let core = Patient::open(core);

    let sound = tables(core.path());
    assert_eq!(sound.gaps, []);
    for held in &sound.held {
        // Kamailio's own counter is in the core; the wall clock is not.
        let ends = held.module == "htable" && held.name.as_deref() != Some("lasting");
        let known = !ends && held.module != "usrloc";
        assert_eq!(held.past_end.is_some(), known, "{held:?}");
        assert_eq!(held.oldest_seconds, None, "{held:?}");
    }

    let made_by = |function: &str| -> Vec<u64> {
        let fragments = &heap.shared().fragments;
        let found = fragments.iter().filter(|f| f.function.as_deref() == Some(function));
        found.map(|fragment| address(&fragment.address)).collect()
    };
    let one = |function: &str| *made_by(function).last().expect(function);
    let cell = one("ht_cell_new");
    let contact = one("new_ucontact");
    // Its address of record; a contact points at the text in it.
    let record = core.word(contact + 24) - 8;
    let (dialog, transaction) = (one("build_new_dlg"), one("build_cell"));
    let word = |at: u64, value: u64| -> Patch { (at, value.to_le_bytes().to_vec()) };
    let wounds: [(&str, &str, Patch); 13] = [
        ("htable", "an entry that follows itself", word(cell + 64, cell)),
        ("htable", "an entry in no fragment", word(cell + 64, cell + 8)),
        ("htable", "a name elsewhere", word(cell + 16, cell + 73)),
        ("htable", "another hash", (cell, vec![core.bytes(cell, 1)[0] ^ 1])),
        ("usrloc", "a contact of another address", word(contact + 24, record)),
        ("usrloc", "a contact that follows itself", word(contact + 232, contact)),
        ("usrloc", "no time of the last change", word(contact + 168, 0)),
        ("usrloc", "another slot", word(record + 40, record)),
        ("dialog", "another slot", word(dialog + 24, u64::MAX)),
        ("dialog", "no state", (dialog + 32, vec![9])),
        ("dialog", "a Call-ID elsewhere", word(dialog + 120, cell)),
        ("tm", "a timer of another one", word(transaction + 160, cell)),
        ("tm", "a transaction that follows itself", word(transaction, transaction)),
    ];
    for (module, what, patch) in wounds {
        let _wound = core.hurt(&[patch]);
        let hurt = tables(core.path());
        let [gap] = &hurt.gaps[..] else { panic!("{what}: one gap is expected: {hurt:?}") };
        assert_eq!(gap.what, format!("tables of {module}"), "{what}: {gap:?}");
        let others: Vec<_> = sound.held.iter().filter(|held| held.module != module).collect();
        assert_eq!(hurt.held.iter().collect::<Vec<_>>(), others, "{what}");
    }

    // The end of a transaction's life, or of its wait, moves into the past by ten seconds.
    let offset = if core.bytes(transaction + 177, 1)[0] & 2 == 0 { 608 } else { 152 };
    let end = core.word(transaction + offset).to_le_bytes();
    let end = u32::from_le_bytes(*end.first_chunk().unwrap());
    let minutes_ago = end.wrapping_sub(600 * 16).to_le_bytes().to_vec();
    let _wound = core.hurt(&[(transaction + offset, minutes_ago)]);
    let late = tables(core.path()).find("tm", None).past_end.unwrap();
    assert_eq!(late.entries, 1);
    assert!((400..600).contains(&late.longest_seconds), "{late:?}");
}

fn address(text: &str) -> u64 {
    u64::from_str_radix(text.trim_start_matches("0x"), 16).unwrap()
}
