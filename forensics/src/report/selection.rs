//! Which part of the case is shown.

use crate::case::{Member, Pool};
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
    /// Only pools of this process (SHM is shown all the same).
    pub pid: Option<u32>,
    /// How owners are sorted.
    pub sort: SortKey,
    /// Leave out owners with fewer bytes.
    pub min_bytes: u64,
    /// Show at most so many owners of a pool.
    pub top: Option<usize>,
    /// List single fragments.
    pub list: bool,
}

impl Selection {
    /// Whether a pool is shown.
    pub fn wants(&self, pool: &Pool, member: &Member) -> bool {
        let kind = self.kind.is_none_or(|kind| kind == pool.kind);
        let pid = self.pid.is_none_or(|pid| {
            pool.kind == PoolKind::Shm
                || member.process.pid == Some(pid)
                || member.process.inner_pid == Some(pid)
        });
        kind && pid
    }
}
