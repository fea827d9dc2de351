//! The process table: `pt` points to an array in shared memory, `*process_count` entries of 148
//! bytes, the same in every build from 5.2 to 6.2. Every process sees all entries, so one core
//! names the whole group; `process_no` says which one the core itself is.

use crate::addr::Addr;
use crate::memory::{Absent, Known, Memory};
use crate::process::Process;

/// `struct process_table`: `pid` at 0, `rank` at 16, `desc[128]` at 20.
const ENTRY: u64 = 148;
const RANK: u64 = 16;
const DESCRIPTION: u64 = 20;
const DESCRIPTION_LENGTH: usize = 128;
/// More processes than any configuration starts: a damaged count must not be believed.
const MOST: i32 = 4096;

/// One process as Kamailio knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessEntry {
    /// Its index in the table.
    pub index: u32,
    /// Its PID in its own namespace.
    pub pid: i32,
    /// 0 main, above 0 SIP workers, -1 timer, -2 RPC, -4 TCP main.
    pub rank: i32,
    /// What it does, for instance `udp receiver child=0 sock=127.0.0.1:5060`.
    pub description: String,
}

/// The whole table, as one process sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessTable {
    /// Its entries, by index.
    pub entries: Vec<ProcessEntry>,
    /// The index of the process it was read from.
    pub own: Option<u32>,
}

impl ProcessTable {
    /// Reads the table; `None` for a program that has none.
    pub fn read(process: &Process) -> Option<Known<Self>> {
        let (_, table) = process.modules.symbol("pt")?;
        let (_, count) = process.modules.symbol("process_count")?;
        let own = process.modules.symbol("process_no").and_then(|(_, at)| {
            process.memory.int(at).ok().and_then(|number| u32::try_from(number).ok())
        });
        Some(read(&process.memory, table, count).map(|entries| Self { entries, own }))
    }

    /// The entry of the process it was read from.
    pub fn own(&self) -> Option<&ProcessEntry> {
        self.entries.iter().find(|entry| Some(entry.index) == self.own)
    }
}

fn read(memory: &dyn Memory, table: Addr, count: Addr) -> Known<Vec<ProcessEntry>> {
    let table = memory.pointer(table)?;
    let count = memory.int(memory.pointer(count)?)?;
    if !(0..=MOST).contains(&count) {
        let why = crate::memory::Why::Damaged(format!("process_count is {count}"));
        return Err(Absent { at: table, why });
    }
    let mut entries = Vec::new();
    for index in 0..u32::try_from(count).unwrap_or(0) {
        let at = Addr(table.0.saturating_add(u64::from(index).saturating_mul(ENTRY)));
        entries.push(ProcessEntry {
            index,
            pid: memory.int(at)?,
            rank: memory.int(Addr(at.0.saturating_add(RANK)))?,
            description: memory.text(Addr(at.0.saturating_add(DESCRIPTION)), DESCRIPTION_LENGTH)?,
        });
    }
    Ok(entries)
}
