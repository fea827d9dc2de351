//! The processes that died.

use serde::Serialize;

use crate::addr::{Addr, AddrRange};
use crate::case::{Case, CrashView, Nearby};
use crate::crash::{Access, Meaning, Standing};

/// One process that died of a signal.
#[derive(Clone, Debug, Serialize)]
pub struct CrashReport {
    /// PID on the host.
    pub pid: Option<u32>,
    /// What it does, from Kamailio's process table.
    pub role: Option<String>,
    /// The thread that died.
    pub tid: u32,
    /// The signal's number.
    pub signal: u16,
    /// Its name.
    pub signal_name: String,
    /// `si_code`; null where the core has no note of it.
    pub code: Option<i32>,
    /// What that means, for a person.
    pub cause: Option<&'static str>,
    /// Who sent it, by the PID in the process's own namespace; null for a fault.
    pub sender: Option<u32>,
    /// Whether this is the failure itself.
    pub standing: Standing,
    /// What makes it so, for a person.
    pub why: Option<String>,
    /// Whether damage of a heap explains it.
    pub heap_damage: bool,
    /// The access that failed; null for other deaths.
    pub fault: Option<FaultReport>,
    /// The instruction at the program counter.
    pub instruction: Option<InstructionReport>,
    /// Why that is not known; null if it is.
    pub no_instruction: Option<String>,
    /// The innermost function, or module and offset.
    pub function: Option<String>,
    /// The innermost function of the program's own.
    pub own_function: Option<String>,
    /// What the alarm of a shutdown interrupted, innermost first.
    pub interrupted: Option<Vec<String>>,
    /// The lock that the interrupted shutdown waited for.
    pub lock: Option<Addr>,
    /// Headers of damaged fragments that registers or words of the stack point at.
    pub damaged_fragments: Vec<Addr>,
    /// Memory near the fault and the registers that the instruction uses.
    pub nearby: Vec<NearbyReport>,
}

/// An access that failed.
#[derive(Clone, Debug, Serialize)]
pub struct FaultReport {
    /// The address.
    pub address: Addr,
    /// Whether the kernel names it, or only the registers do.
    pub from_kernel: bool,
    /// `read`, `write` or `jump`; null where the instruction does not tell.
    pub access: Option<Access>,
    /// Length of the access in bytes.
    pub length: Option<u64>,
    /// What the address is, for scripts.
    pub kind: &'static str,
    /// The same for a person.
    pub meaning: String,
    /// All of it in one phrase.
    pub words: String,
}

/// An instruction.
#[derive(Clone, Debug, Serialize)]
pub struct InstructionReport {
    /// Where.
    pub address: Addr,
    /// Its bytes in hex.
    pub bytes: String,
    /// In the syntax of gdb.
    pub text: String,
}

/// Memory around an address.
#[derive(Clone, Debug, Serialize)]
pub struct NearbyReport {
    /// `fault`, or the register that holds the address.
    pub what: &'static str,
    /// The address.
    pub address: Addr,
    /// What it is, for a person; null for what is no pointer.
    pub place: Option<String>,
    /// The words around it that are known.
    pub words: Vec<WordReport>,
    /// Of a fault where nothing is mapped: what is next below and above.
    pub neighbours: Vec<NeighbourReport>,
}

/// One word of memory.
#[derive(Clone, Debug, Serialize)]
pub struct WordReport {
    /// Where.
    pub address: Addr,
    /// What it holds.
    pub value: Addr,
    /// What that points at.
    pub place: Option<String>,
}

/// A mapping.
#[derive(Clone, Debug, Serialize)]
pub struct NeighbourReport {
    /// Its addresses.
    pub range: AddrRange,
    /// What it is.
    pub place: String,
}

/// Of every process that died, the likely first failure first.
pub(super) fn crashes(case: &Case) -> Vec<CrashReport> {
    case.crashes.iter().filter_map(|view| crash(case, view)).collect()
}

fn crash(case: &Case, view: &CrashView) -> Option<CrashReport> {
    let crash = &view.crash;
    let thread = case.threads.get(crash.thread)?;
    let member = case.members.get(thread.member)?;
    let first = thread.frames.first();
    let instruction = crash.instruction.as_ref().ok().zip(first);
    Some(CrashReport {
        pid: member.process.pid,
        role: member.role().map(str::to_owned),
        tid: thread.tid,
        signal: crash.signal,
        signal_name: crash.signal_name(),
        code: crash.info.map(|info| info.code),
        cause: crash.cause(),
        sender: crash.info.and_then(|info| info.sender()),
        standing: crash.standing,
        why: crash.why.clone(),
        heap_damage: crash.is_heap_damage,
        fault: crash.fault.as_ref().map(|fault| FaultReport {
            address: fault.address,
            from_kernel: fault.is_from_kernel,
            access: fault.access,
            length: fault.length,
            kind: kind(&fault.meaning),
            meaning: fault.meaning.to_string(),
            words: fault.words(),
        }),
        instruction: instruction.map(|(found, frame)| InstructionReport {
            address: frame.frame.pc,
            bytes: crate::modules::hex(&found.bytes),
            text: found.text.clone(),
        }),
        no_instruction: crash.instruction.as_ref().err().cloned(),
        function: first.map(|frame| frame.words()),
        own_function: thread.own_frame().map(|frame| frame.words()),
        interrupted: crash.interrupted.as_ref().map(|found| found.functions.clone()),
        lock: view.lock.as_ref().map(|(at, _)| *at),
        damaged_fragments: view.damaged.iter().map(|(at, _)| *at).collect(),
        nearby: view.nearby.iter().map(nearby).collect(),
    })
}

fn kind(meaning: &Meaning) -> &'static str {
    match meaning {
        Meaning::Null { .. } => "null",
        Meaning::BelowNull { .. } => "below-null",
        Meaning::Pattern { .. } => "pattern",
        Meaning::Text(_) => "text",
        Meaning::NonCanonical => "non-canonical",
        Meaning::StackOverflow { .. } => "stack-overflow",
        Meaning::Mapped(_) => "mapped",
        Meaning::Unmapped => "unmapped",
        Meaning::Unknown => "unknown",
    }
}

fn nearby(nearby: &Nearby) -> NearbyReport {
    let word = |(address, value, place): &(Addr, u64, Option<String>)| WordReport {
        address: *address,
        value: Addr(*value),
        place: place.clone(),
    };
    let neighbour = |(range, place): &(AddrRange, String)| NeighbourReport {
        range: *range,
        place: place.clone(),
    };
    NearbyReport {
        what: nearby.what,
        address: nearby.at,
        place: nearby.place.clone(),
        words: nearby.words.iter().map(word).collect(),
        neighbours: nearby.neighbours.iter().map(neighbour).collect(),
    }
}
