//! What `forensics --json` promises, as far as the tests use it.

use serde::Deserialize;

/// `forensics heap --json`
#[derive(Clone, Debug, Deserialize)]
pub struct Heap {
    /// Version string of the program.
    pub program: Option<String>,
    /// What the rules found.
    pub findings: Vec<Finding>,
    /// Every pool that was found.
    pub pools: Vec<Pool>,
    /// What could not be seen.
    pub gaps: Vec<Gap>,
}

/// One pool.
#[derive(Clone, Debug, Deserialize)]
pub struct Pool {
    /// `pkg` or `shm`.
    pub kind: String,
    /// The process; `None` for the shared pool.
    pub pid: Option<u32>,
    /// The memory manager.
    pub manager: String,
    /// Address of its own block, `0x…`.
    pub block: Option<String>,
    /// How it was found.
    pub found: Found,
    /// Where its layout comes from.
    pub layout: Option<Layout>,
    /// Why it was not walked.
    pub error: Option<String>,
    counters: Option<Counters>,
    walked: Option<Walked>,
    /// By owner.
    pub owners: Vec<Owner>,
    /// With `--list`: every fragment.
    #[serde(default)]
    pub fragments: Vec<Fragment>,
}

/// How a pool was found.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Found {
    /// `symbol` or `block-shape`.
    pub by: String,
}

/// Where a pool's layout comes from.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Layout {
    /// `dwarf` or `inferred`.
    pub source: String,
    /// Which of the known ones, if inferred.
    pub layout: Option<String>,
}

/// The pool's own counters, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Counters {
    /// Length of the pool.
    pub size: u64,
    /// Payload in use.
    pub used: u64,
    /// With overhead.
    pub real_used: u64,
    /// Free fragments.
    pub free_fragments: u64,
}

/// What the walk found, in bytes and fragments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Walked {
    /// Fragments in use.
    pub used_fragments: u64,
    /// Their payload.
    pub used_bytes: u64,
    /// With overhead.
    pub real_used_bytes: u64,
    /// Fragments not in use.
    pub free_fragments: u64,
    /// Their payload.
    pub free_bytes: u64,
    /// The walk met the pool's own end.
    pub complete: bool,
    /// Used and free, as the pool's own counters imply.
    pub expected_fragments: Option<u64>,
    /// Of the pool, in what the walk saw.
    pub seen_bytes: u64,
    /// Of the pool.
    pub expected_bytes: u64,
    /// In no fragment that was seen, in bytes.
    pub lost_bytes: u64,
    /// Fragment headers that were read for all this.
    pub header_visits: u64,
}

/// One owner's share.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Owner {
    /// `core` or a module.
    pub module: Option<String>,
    /// Source file.
    pub file: Option<String>,
    /// Function.
    pub function: Option<String>,
    /// Line.
    pub line: Option<u32>,
    /// Fragments in use.
    pub fragments: u64,
    /// Their payload, in bytes.
    pub bytes: u64,
}

/// One fragment.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Fragment {
    /// Address of the payload, `0x…`.
    pub address: String,
    /// Address of the header, `0x…`.
    pub header: String,
    /// Payload, in bytes.
    pub size: u64,
    /// `used` or `free`.
    pub state: String,
    /// `core` or a module.
    pub module: Option<String>,
    /// Source file.
    pub file: Option<String>,
    /// Function.
    pub function: Option<String>,
    /// Line.
    pub line: Option<u32>,
}

/// Something that could not be seen.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Gap {
    /// What.
    pub what: String,
    /// Why.
    pub why: String,
}

/// `forensics --json`
#[derive(Clone, Debug, Deserialize)]
pub struct Report {
    /// What the rules found.
    pub findings: Vec<Finding>,
}

/// One finding.
#[derive(Clone, Debug, Deserialize)]
pub struct Finding {
    /// Its stable name.
    pub rule: String,
    /// `note`, `warning`, `error` or `critical`.
    pub severity: String,
    /// For a person.
    pub summary: String,
    /// What it rests on.
    pub facts: Vec<Fact>,
}

/// One thing that a finding rests on.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Fact {
    /// For a person.
    pub text: String,
    /// Where it can be seen, `0x…`.
    pub address: Option<String>,
}

impl Pool {
    /// What the block itself counts.
    #[track_caller]
    pub fn counters(&self) -> Counters {
        self.counters.unwrap_or_else(|| panic!("a pool without counters: {:?}", self.error))
    }

    /// Whether anything of it could be read.
    pub fn is_walked(&self) -> bool {
        self.walked.is_some()
    }

    /// What a walk found.
    #[track_caller]
    pub fn walked(&self) -> Walked {
        self.walked.unwrap_or_else(|| panic!("a pool that was not walked: {:?}", self.error))
    }
}

impl Heap {
    /// The shared pool, which is shown once.
    #[track_caller]
    pub fn shared(&self) -> &Pool {
        let pools: Vec<&Pool> = self.pools.iter().filter(|pool| pool.kind == "shm").collect();
        let [pool] = pools[..] else {
            panic!("expected one shared pool, not {}; gaps: {:?}", pools.len(), self.gaps)
        };
        assert_eq!(pool.pid, None, "the shared pool belongs to no process");
        pool
    }

    /// The private pool of one process.
    #[track_caller]
    pub fn private_of(&self, pid: u32) -> &Pool {
        let pools: Vec<&Pool> = self.private().filter(|pool| pool.pid == Some(pid)).collect();
        let [pool] = pools[..] else {
            panic!("{} private pools of {pid}; gaps: {:?}", pools.len(), self.gaps)
        };
        pool
    }

    /// The private pools.
    pub fn private(&self) -> impl Iterator<Item = &Pool> {
        self.pools.iter().filter(|pool| pool.kind == "pkg")
    }
}
