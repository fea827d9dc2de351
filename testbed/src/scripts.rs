//! The pools of a core as `gdb-scripts/kamailio.py` walks them: written for gdb in another language,
//! it shares with `forensics` nothing but the subject.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::analysis::{self, Counters, Walked};
use crate::memlog::{self, Owner, Share};
use crate::{gdb, oracle, tools};

/// Asked in one run of gdb.
const QUESTIONS: [&str; 3] = ["kam pools --json", "kam owners pkg --json", "kam owners shm --json"];

/// What the script says about one core.
#[derive(Debug)]
pub struct Answers {
    /// The process's own pool.
    pub private: Pool,
    /// The pool of the group as this process sees it.
    pub shared: Pool,
}

/// One pool.
#[derive(Debug)]
pub struct Pool {
    row: Row,
    owners: BTreeMap<Owner, Share>,
}

#[derive(Debug, Deserialize)]
struct Pools {
    pools: Vec<Row>,
}

#[derive(Debug, Deserialize)]
struct Row {
    kind: String,
    manager: String,
    block: String,
    counters: Counters,
    walk: Walk,
    agrees: bool,
    damage: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Walk {
    used: u64,
    real_used: u64,
    free: u64,
    used_fragments: u64,
    free_fragments: u64,
    complete: bool,
}

#[derive(Debug, Deserialize)]
struct Owners {
    kind: String,
    owners: Vec<Entry>,
    complete: bool,
}

#[derive(Debug, Deserialize)]
struct Entry {
    module: String,
    file: String,
    function: String,
    line: u32,
    fragments: u64,
    bytes: u64,
}

/// One fragment.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Fragment {
    /// Address of the header, `0x…`.
    pub header: String,
    /// Address of the payload, `0x…`.
    pub payload: String,
    /// Payload, in bytes.
    pub size: u64,
    /// `used` or `free`.
    pub state: String,
    /// `core` or a module.
    pub module: String,
    /// Source file.
    pub file: String,
    /// Function.
    pub function: String,
    /// Line.
    pub line: u64,
}

/// One pool of a sound core, fragment by fragment.
#[derive(Debug)]
pub struct Listing {
    /// `pkg` or `shm`.
    pub kind: String,
    /// Address of its own block.
    pub block: u64,
    /// By rising address.
    pub fragments: Vec<Fragment>,
}

/// Both pools of a sound core of a program of this host, the private one first.
#[track_caller]
pub fn listings(executable: &Path, core: &Path) -> [Listing; 2] {
    let lists = ["pkg", "shm"].map(|kind| format!("kam list {kind} --json --all --max 0"));
    let script = tools::workspace().join("gdb-scripts/kamailio.py");
    let load = format!("source {}", script.display());
    let commands = [load.as_str(), "kam pools --json", lists[0].as_str(), lists[1].as_str()];
    let mut command = gdb::questions(Path::new("/"), executable, core, &commands);
    let text = tools::run(&mut command, tools::PATIENCE).expect(&[0]).text();
    let answers: Vec<&str> = gdb::answers(&text).skip(1).collect();
    let [pools, private, shared] = answers[..] else {
        panic!("{} answers in {text}", answers.len())
    };
    let Pools { pools } = json(pools);
    let [private_row, shared_row] = &pools[..] else { panic!("the pools: {pools:?}") };
    [(private_row, private), (shared_row, shared)].map(|(row, list)| {
        let List { kind, fragments, more, complete, damage } = json(list);
        assert_eq!(kind, row.kind);
        assert!(
            row.agrees,
            "the counters of the {kind} pool agree with the script's walk: {row:?}"
        );
        assert!(complete && more == 0 && damage.is_empty(), "the {kind} pool is sound: {damage:?}");
        Listing { kind, block: memlog::hex(&row.block), fragments }
    })
}

#[derive(Debug, Deserialize)]
struct List {
    kind: String,
    fragments: Vec<Fragment>,
    more: u64,
    complete: bool,
    damage: Vec<String>,
}

/// The run of gdb that makes [`read`]'s text; the program's files are those below `sysroot`.
pub fn questions(sysroot: &Path, executable: &Path, core: &Path) -> Command {
    let script = tools::workspace().join("gdb-scripts/kamailio.py");
    let load = format!("source {}", script.display());
    let commands: Vec<&str> = std::iter::once(load.as_str()).chain(QUESTIONS).collect();
    gdb::questions(sysroot, executable, core, &commands)
}

/// What gdb answered.
#[track_caller]
pub fn read(text: &str) -> Answers {
    let answers: Vec<&str> = gdb::answers(text).skip(1).collect();
    let [pools, private, shared] = answers[..] else {
        panic!("{} answers in {text}", answers.len())
    };
    let Pools { pools } = json(pools);
    let kinds: Vec<&str> = pools.iter().map(|row| row.kind.as_str()).collect();
    assert_eq!(kinds, ["pkg", "shm"], "the pools that kamailio.py found");
    let mut pools = pools.into_iter().zip([private, shared]).map(|(row, owners)| {
        let owners: Owners = json(owners);
        assert_eq!(owners.kind, row.kind);
        assert!(owners.complete, "kamailio.py walked the {} pool to its end", row.kind);
        Pool { row, owners: by_owner(owners.owners) }
    });
    Answers { private: pools.next().unwrap(), shared: pools.next().unwrap() }
}

#[track_caller]
fn json<T: DeserializeOwned>(text: &str) -> T {
    serde_json::from_str(text)
        .unwrap_or_else(|error| panic!("not the JSON expected: {error}: {text}"))
}

#[track_caller]
fn by_owner(entries: Vec<Entry>) -> BTreeMap<Owner, Share> {
    let mut owners = BTreeMap::new();
    for Entry { module, file, function, line, fragments, bytes } in entries {
        // As in the fragment: the core's own files have their module before them.
        let file = file.strip_prefix(&format!("{module}: ")).unwrap_or(&file).to_owned();
        let owner = Owner { module, file, function, line };
        let known = owners.insert(owner, Share { fragments, bytes });
        assert_eq!(known, None, "an owner stands twice in kamailio.py's answer");
    }
    owners
}

impl Pool {
    /// Asserts that `forensics` says the same of the same pool: manager, address, the block's
    /// counters, used and free fragments and bytes, and every owner's share.
    #[track_caller]
    pub fn assert_same(&self, ours: &analysis::Pool) {
        let Row { kind, manager, block, counters, walk, agrees, damage } = &self.row;
        let case = format!("{kind} pool, process {:?}: forensics (left), kamailio.py", ours.pid);
        assert_eq!((&ours.kind, &ours.manager), (kind, manager), "{case}");
        assert_eq!(ours.block.as_ref(), Some(block), "{case}");
        assert_eq!(ours.counters(), *counters, "{case}");
        let theirs = Walked {
            used_fragments: walk.used_fragments,
            used_bytes: walk.used,
            real_used_bytes: walk.real_used,
            free_fragments: walk.free_fragments,
            free_bytes: walk.free,
            complete: walk.complete,
            // The scripts do not count what they did not see.
            ..ours.walked()
        };
        assert_eq!(ours.walked(), theirs, "{case}");
        assert_eq!(oracle::by_owner(ours), self.owners, "{case}");
        assert!(*agrees && damage.is_empty(), "{case}: {damage:?}");
    }
}
