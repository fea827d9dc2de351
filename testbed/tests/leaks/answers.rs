//! What `forensics leaks`, `why` and `refs` promise as JSON, as far as the test uses it.

use std::path::Path;
use std::process::Command;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use testbed::tools::{self, forensics, run};

/// `forensics leaks --json`
#[derive(Debug, Deserialize)]
pub(crate) struct Leaks {
    pub(crate) unreachable: Vec<Lost>,
    pub(crate) inherited: Vec<Lost>,
    pub(crate) on_stacks: Vec<Lost>,
    pub(crate) confidence: Confidence,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Confidence {
    pub(crate) level: String,
    pub(crate) missing: Vec<String>,
}

/// What one owner has lost in one pool.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub(crate) struct Lost {
    pub(crate) pool: Pool,
    pub(crate) line: u32,
    pub(crate) module: String,
    pub(crate) file: String,
    pub(crate) function: String,
    pub(crate) fragments: u64,
    pub(crate) bytes: u64,
    pub(crate) heads: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub(crate) struct Pool {
    pub(crate) kind: String,
    pub(crate) pid: Option<u32>,
}

/// `forensics why ADDR --json`
#[derive(Debug, Deserialize)]
pub(crate) struct Why {
    pub(crate) fragments: Vec<Alive>,
}

/// A fragment at the address, and what holds it.
#[derive(Debug, Deserialize)]
pub(crate) struct Alive {
    pub(crate) pool: Pool,
    pub(crate) payload: String,
    pub(crate) bytes: u64,
    pub(crate) module: String,
    pub(crate) file: String,
    pub(crate) function: String,
    pub(crate) line: u32,
    /// `data`, `stack` or `nothing`.
    pub(crate) held: String,
    pub(crate) paths: Vec<Route>,
}

/// From a root to the fragment.
#[derive(Debug, Deserialize)]
pub(crate) struct Route {
    pub(crate) root: Root,
    pub(crate) steps: Vec<Step>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Root {
    /// `register`, `stack`, `data` or `heap`.
    pub(crate) kind: String,
    pub(crate) pid: Option<u32>,
    pub(crate) at: Option<String>,
    pub(crate) value: String,
    /// For a person.
    pub(crate) place: String,
}

/// A fragment on the way; the last is the one that was asked for.
#[derive(Debug, Deserialize)]
pub(crate) struct Step {
    /// The word in it that points on.
    pub(crate) at: Option<String>,
    pub(crate) value: Option<String>,
    pub(crate) pool: Pool,
    pub(crate) payload: String,
    pub(crate) bytes: u64,
    pub(crate) line: u32,
}

/// `forensics refs ADDR --json`
#[derive(Debug, Deserialize)]
pub(crate) struct Refs {
    pub(crate) fragments: Vec<Referenced>,
}

/// A fragment and every word that points at it.
#[derive(Debug, Deserialize)]
pub(crate) struct Referenced {
    pub(crate) payload: String,
    pub(crate) roots: Vec<Root>,
    /// Words of other fragments.
    pub(crate) references: Vec<Step>,
}

/// Inputs that the commands are asked about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Input<'a> {
    pub(crate) path: &'a Path,
    /// Not the core of one process.
    pub(crate) is_bundle: bool,
    /// Where the program's files are, for cores of another release's processes.
    pub(crate) sysroot: Option<&'a Path>,
}

impl Input<'_> {
    #[track_caller]
    pub(crate) fn leaks(self) -> Leaks {
        self.ask(&["leaks"], None)
    }

    /// Why the fragment at an address is still alive; of one process's, if its memory is private.
    #[track_caller]
    pub(crate) fn why(self, address: u64, pid: Option<u32>) -> Why {
        self.ask(&["why", &hex(address)], pid)
    }

    /// Who points at the fragment at an address of a process.
    #[track_caller]
    pub(crate) fn refs(self, address: u64, pid: u32) -> Refs {
        self.ask(&["refs", &hex(address)], Some(pid))
    }

    /// The answer to a command.
    #[track_caller]
    pub(crate) fn ask<T: DeserializeOwned>(self, words: &[&str], pid: Option<u32>) -> T {
        let mut command: Command = forensics();
        command.args(words).arg("--json");
        if let Some(pid) = pid {
            command.args(["--pid", &pid.to_string()]);
        }
        if let Some(sysroot) = self.sysroot {
            command.arg("--sysroot").arg(sysroot);
        }
        command.arg(self.path);
        run(&mut command, tools::PATIENCE).expect(&[0, 1]).json()
    }
}

/// As in the answers.
pub(crate) fn hex(address: u64) -> String {
    format!("{address:#x}")
}
