//! Allocations that a test plants into a running process, through the process's own allocator: a
//! plan of fragments, and of words that point at them, which `config/plant.py` carries out in gdb.
//!
//! The owners are texts of the program's own, those of fragments that it allocated itself, with
//! lines of the test's choice. [`crate::plant`] does less, by hand.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{gdb, tools};

/// Around the answer of `plant.py`.
const MARK: &str = "@@@@";

/// Which pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Private memory.
    Pkg,
    /// Shared memory.
    Shm,
}

/// A fragment to be allocated.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Wanted {
    /// From which pool.
    pub pool: Kind,
    /// Bytes to ask for.
    pub size: u32,
    /// Of the owner; its texts are those of the owner with this number, modulo how many there are.
    pub owner: u64,
    /// Of the owner.
    pub line: u32,
}

/// A word of the process that can point at a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "in", rename_all = "lowercase")]
pub enum Place {
    /// In the payload of a planted fragment.
    Fragment {
        /// Which one.
        index: usize,
        /// In bytes.
        offset: u32,
    },
    /// In a chunk of the C library's heap, which is taken for it.
    Chunk {
        /// Which one.
        index: usize,
        /// In bytes.
        offset: u32,
    },
    /// A variable of the program or of a module.
    Symbol {
        /// As exported.
        name: &'static str,
    },
    /// The C library's value of a key of the thread, in thread-local storage.
    Thread,
    /// In the environment of the process, at the upper end of its stack; one place only.
    Environment,
}

/// Where in a fragment a pointer points.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Into {
    /// So many bytes behind its start.
    Plus(u32),
    /// At its last byte, which is known when it is allocated.
    Last,
}

/// One pointer.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Word {
    /// Where it stands.
    pub at: Place,
    /// The fragment that it points at.
    pub into: usize,
    #[serde(rename = "plus")]
    plus: Option<u32>,
}

/// What is planted.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Plan {
    /// In the order of their allocation.
    pub fragments: Vec<Wanted>,
    /// Sizes of chunks of the C library's heap, in bytes.
    pub chunks: Vec<u32>,
    /// Written when all is allocated.
    pub words: Vec<Word>,
}

/// What became of a plan.
#[derive(Clone, Debug, Deserialize)]
pub struct Planted {
    /// As in [`Plan::fragments`].
    pub fragments: Vec<Fragment>,
    /// As in [`Plan::words`].
    pub words: Vec<Pointer>,
}

/// A planted fragment, as `kamailio.py` finds it in its pool.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Fragment {
    /// Address of the payload.
    pub payload: u64,
    /// Address of the header.
    pub header: u64,
    /// Payload, in bytes; an allocator may give more than was asked for.
    pub bytes: u64,
    /// `core` or a module.
    pub module: String,
    /// Source file.
    pub file: String,
    /// Function.
    pub function: String,
}

/// A planted word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Pointer {
    /// Its address.
    pub at: u64,
    /// What was written there.
    pub value: u64,
}

impl Plan {
    /// Plans a fragment; its number.
    pub fn allocate(&mut self, wanted: Wanted) -> usize {
        self.fragments.push(wanted);
        self.fragments.len() - 1
    }

    /// Plans a chunk of the C library's heap; its number.
    pub fn chunk(&mut self, size: u32) -> usize {
        self.chunks.push(size);
        self.chunks.len() - 1
    }

    /// Plans a pointer; its number.
    pub fn point(&mut self, at: Place, into: usize, plus: Into) -> usize {
        let plus = match plus {
            Into::Plus(bytes) => Some(bytes),
            Into::Last => None,
        };
        self.words.push(Word { at, into, plus });
        self.words.len() - 1
    }

    /// Does it all in a process whose program lies below `sysroot`; the process goes on afterwards.
    #[track_caller]
    pub fn carry_out(&self, pid: u32, sysroot: &Path, scratch: &Path) -> Planted {
        let plan = scratch.join("plan.json");
        fs::write(&plan, serde_json::to_vec(self).unwrap()).expect("the plan is written");
        let own = tools::workspace();
        let source = |script: &str| format!("source {}", own.join(script).display());
        let commands = [
            source("gdb-scripts/kamailio.py"),
            format!("python plan_path = {:?}", plan.display().to_string()),
            source("testbed/config/plant.py"),
        ];
        let said = gdb::attached_below(sysroot, pid, &commands);
        let Some(answer) = said.split(MARK).nth(1) else { panic!("gdb said:\n{said}") };
        let mut planted: Planted = serde_json::from_str(answer)
            .unwrap_or_else(|error| panic!("not the JSON expected: {error}: {answer}"));
        for fragment in &mut planted.fragments {
            // The core's own files have their module before them.
            let prefix = format!("{}: ", fragment.module);
            if let Some(file) = fragment.file.strip_prefix(&prefix) {
                fragment.file = file.to_owned();
            }
        }
        planted
    }
}
