//! Which part of the case is shown.

use crate::case::{Member, Pool};
use crate::content::Shown;
use crate::kamailio::PoolKind;

/// How owners are sorted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum SortKey {
    /// Most bytes first; what was inherited at fork counts last.
    #[default]
    Bytes,
    /// Most fragments first.
    Count,
    /// Largest single fragment first.
    Largest,
    /// By module, file, function, line.
    Owner,
}

/// Which pools and owners are shown. Totals are always of the whole pool.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Only pools of this kind.
    pub kind: Option<PoolKind>,
    /// Only the private pools of this process; SHM only if `kind` asks for it.
    pub pid: Option<u32>,
    /// How owners are sorted.
    pub sort: SortKey,
    /// Leave out owners with fewer bytes.
    pub min_bytes: u64,
    /// Show at most so many owners of a pool.
    pub top: Option<usize>,
    /// Show fragments by size.
    pub sizes: bool,
    /// List single fragments.
    pub list: bool,
    /// Show the registers of every thread.
    pub registers: bool,
    /// How payloads are shown in the list.
    pub shown: Shown,
}

impl Selection {
    /// Whether a pool is shown.
    pub fn wants(&self, pool: &Pool, member: &Member) -> bool {
        let kind = self.kind.is_none_or(|kind| kind == pool.kind);
        let process = match pool.kind {
            PoolKind::Shm => self.pid.is_none() || self.kind == Some(PoolKind::Shm),
            PoolKind::Pkg => self.pid.is_none_or(|pid| is_process(member, pid)),
        };
        kind && process
    }
}

/// Whether a process has this PID, on the host or in its own namespace.
pub fn is_process(member: &Member, pid: u32) -> bool {
    member.process.pid == Some(pid) || member.process.inner_pid == Some(pid)
}
