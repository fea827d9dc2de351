//! What a Kamailio is asked, and what each method takes hold of while it answers.
//!
//! Seen on 5.6.3 with a stuck lock of shared memory: the methods of [`Takes::Nothing`] answer within
//! milliseconds, while `core.shmmem` and every form of `mod.stats` wait for that lock and wedge the
//! process that serves the RPC. So does `stats.get_statistics all`, whose group `shmem` takes it:
//! the groups that do not are asked for by name.

/// What a method needs to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Takes {
    /// No lock.
    Nothing,
    /// Locks of a module's tables, each for a moment.
    TableLocks,
    /// The lock of shared memory, for as long as it takes to walk the pool.
    PoolLock,
    /// The same while it logs, which takes seconds in a large pool.
    PoolLockWhileLogging,
}

/// A call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Method {
    pub(super) name: &'static str,
    pub(super) arguments: &'static [&'static str],
    pub(super) takes: Takes,
}

/// What the server itself says that it has; of the others there is nothing to ask.
pub(super) const LIST: &str = "system.listMethods";

/// All calls, in the order in which they are made: what takes no lock comes first.
pub(super) static ALL: &[Method] = &[
    free("core.version"),
    free(LIST),
    free("core.flags"),
    free("core.info"),
    free("core.uptime"),
    free("core.psx"),
    free("core.tcp_info"),
    free("core.modules"),
    free("pkg.stats"),
    free("tm.stats"),
    free("sl.stats"),
    Method {
        name: "stats.get_statistics",
        arguments: &[
            "core:",
            "tcp:",
            "udp:",
            "tls:",
            "sctp:",
            "sl:",
            "tmx:",
            "dns:",
            "dialog:",
            "registrar:",
            "usrloc:",
            "mysql:",
            "postgres:",
            "script:",
            "siptrace:",
        ],
        takes: Takes::Nothing,
    },
    Method { name: "dlg.stats_active", arguments: &[], takes: Takes::TableLocks },
    Method { name: "htable.stats", arguments: &[], takes: Takes::TableLocks },
    Method { name: "core.shmmem", arguments: &[], takes: Takes::PoolLock },
    Method { name: "mod.stats", arguments: &["all", "shm"], takes: Takes::PoolLock },
    Method { name: "corex.shm_summary", arguments: &[], takes: Takes::PoolLockWhileLogging },
];

const fn free(name: &'static str) -> Method {
    Method { name, arguments: &[], takes: Takes::Nothing }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_a_lock_comes_after_what_does_not() {
        assert!(ALL.is_sorted_by_key(|method| method.takes));
        let lock_free = ALL.iter().filter(|method| method.takes == Takes::Nothing);
        assert_eq!(lock_free.filter(|method| method.arguments.contains(&"all")).count(), 0);
    }
}
