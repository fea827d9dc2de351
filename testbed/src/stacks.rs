//! Stacks: what `forensics threads --json` says of them, what gdb says, and how both compare.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use crate::gdb;
use crate::tools::{self, forensics, run};

/// A frame: its program counter and, unless it is the last one of a stack that goes on, its
/// address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The program counter, as a hex string.
    pub pc: String,
    /// The frame's address, as a hex string.
    pub address: Option<String>,
    /// The function, where it has a name.
    pub function: Option<String>,
    /// How we found it; `gdb` for gdb's.
    pub trust: String,
}

/// Each thread's frames, innermost first.
pub type Stacks = BTreeMap<u64, Vec<Frame>>;

/// What `forensics threads --json` says of a process.
#[track_caller]
pub fn ours(input: &Path, pid: u32) -> Stacks {
    let mut command = forensics();
    command.args(["threads", "--json", "--pid", &pid.to_string()]).arg(input);
    let report: Value = run(&mut command, tools::PATIENCE).expect(&[0, 1]).json();
    let processes = report["processes"].as_array().unwrap();
    assert_eq!(processes.len(), 1, "process {pid} in {}", input.display());
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let frame = |frame: &Value| Frame {
        pc: text(&frame["address"]).unwrap(),
        address: text(&frame["cfa"]),
        function: text(&frame["function"]),
        trust: text(&frame["trust"]).unwrap(),
    };
    let threads = processes[0]["threads"].as_array().unwrap().iter();
    let stack = |thread: &Value| {
        let frames = thread["frames"].as_array().unwrap().iter();
        let on_stack = frames.filter(|frame| frame["inlined"] == false);
        (thread["tid"].as_u64().unwrap(), on_stack.map(frame).collect())
    };
    threads.map(stack).collect()
}

#[derive(Deserialize)]
struct GdbThread {
    tid: u64,
    frames: Vec<(String, Option<String>, Option<String>)>,
}

/// What gdb says of a core, as on a machine without any debug package.
#[track_caller]
pub fn of_gdb(executable: &Path, core: &Path) -> Stacks {
    let answer = core.with_extension("stacks.json");
    let script = tools::workspace().join("testbed/config/stacks.py");
    let mut command = gdb::with_script(&script, executable, core);
    command.env("STACKS", &answer);
    run(&mut command, tools::PATIENCE).expect(&[0]);
    let threads: Vec<GdbThread> = serde_json::from_slice(&fs::read(&answer).unwrap()).unwrap();
    let frame = |(pc, address, function): (String, Option<String>, Option<String>)| Frame {
        pc,
        address,
        function,
        trust: "gdb".to_owned(),
    };
    let stack = |thread: GdbThread| (thread.tid, thread.frames.into_iter().map(frame).collect());
    threads.into_iter().map(stack).collect()
}

/// What was compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compared {
    /// Threads whose stacks are equal, as far as gdb is right.
    pub threads: usize,
    /// Frames of equal program counters and addresses.
    pub frames: usize,
}

impl std::ops::AddAssign for Compared {
    fn add_assign(&mut self, other: Self) {
        self.threads += other.threads;
        self.frames += other.frames;
    }
}

/// Compares the stacks of one process. `right`: how many frames of a thread gdb has right, where it
/// does not have all; of the next one only the program counter is compared.
#[track_caller]
pub fn compare(
    what: &str,
    ours: &Stacks,
    theirs: &Stacks,
    right: impl Fn(u64) -> Option<usize>,
) -> Compared {
    let threads: [Vec<&u64>; 2] = [ours.keys().collect(), theirs.keys().collect()];
    assert_eq!(threads[0], threads[1], "threads of {what}");
    let mut compared = Compared::default();
    let mut differences = Vec::new();
    for (tid, ours) in ours {
        let theirs = &theirs[tid];
        let count = right(*tid).unwrap_or(ours.len().max(theirs.len()));
        let place = |frame: &Frame| (frame.pc.clone(), frame.address.clone());
        let wrong =
            (0..count).find(|&index| ours.get(index).map(place) != theirs.get(index).map(place));
        let pc = |stack: &[Frame]| stack.get(count).map(|frame| frame.pc.clone());
        match wrong.or((pc(ours) != pc(theirs)).then_some(count)) {
            Some(index) => differences.push(format!(
                "thread {tid}, frame {index}: {:?}, gdb {:?} (of {} and {})",
                ours.get(index),
                theirs.get(index),
                ours.len(),
                theirs.len()
            )),
            None => compared += Compared { threads: 1, frames: count },
        }
    }
    assert!(differences.is_empty(), "{what}:\n{}", differences.join("\n"));
    compared
}
