//! Every command that may be sent to a sniffer's manager; nothing else has a type to be sent by.
//!
//! A word that the manager does not know makes it run the first of its command names that occurs
//! anywhere in the text, and `restart`, `terminating` and `thread` are such names. So the texts are
//! fixed, read only, and hold no other name; the only variable part is a number of our own.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

/// A read-only command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Version and build.
    Version,
    /// Calls that are alive or wait to be stored.
    TotalCalls,
    /// Registrations that are alive.
    TotalRegisters,
    /// Version, uptime, status line, drops, disk: one line of JSON.
    Statistics,
    /// The same as lines of text, the status line taken apart.
    StatisticsPlain,
    /// What was measured of the spool's disk at the start.
    DiskCalibration,
    /// Role and CPU time of each thread since the session's call before.
    Threads(Session),
    /// Blocks of the packet buffer that wait to be let go, with their locks.
    PacketBuffer,
    /// What the capture library dropped.
    CaptureDrops,
    /// Memory by place of allocation, if that is counted.
    Memory,
    /// What tcmalloc says of its heap.
    Tcmalloc,
    /// Sizes of the RTP hash table.
    HashTable,
    /// The configuration in force.
    Configuration,
    /// Every call, as a table in JSON.
    Calls,
}

/// A thread-statistics session of ours alone: the CPU time since its call before, whoever else asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session(u32);

impl Session {
    /// A session that nobody else has, as far as chance goes. Its number is positive and fits an
    /// `int`: 0 is the session that everybody shares.
    pub fn new() -> Self {
        let random = RandomState::new().hash_one("session") % 2_000_000_000;
        Self(u32::try_from(random).unwrap_or(0) + 1)
    }
}

impl Default for Session {
    fn default() -> Self {
        Self::new()
    }
}

impl Command {
    /// In the order in which they are asked: what takes no lock first, what can be huge last.
    pub fn all(session: Session) -> [Self; 15] {
        [
            Self::Version,
            Self::TotalCalls,
            Self::Statistics,
            Self::StatisticsPlain,
            Self::TotalRegisters,
            Self::DiskCalibration,
            Self::Threads(session),
            Self::Threads(session),
            Self::PacketBuffer,
            Self::CaptureDrops,
            Self::Memory,
            Self::Tcmalloc,
            Self::HashTable,
            Self::Configuration,
            Self::Calls,
        ]
    }

    /// What is sent, without the end of the line.
    pub fn text(self) -> String {
        match self {
            Self::Version => "getverbuild".into(),
            Self::TotalCalls => "totalcalls".into(),
            Self::TotalRegisters => "totalregisters".into(),
            Self::Statistics => "sniffer_stat".into(),
            Self::StatisticsPlain => "sniffer_stat plain".into(),
            Self::DiskCalibration => "disk_io_calibration".into(),
            Self::Threads(Session(number)) => format!("sniffer_threads all uid={number}"),
            Self::PacketBuffer => "packetbuffer_log".into(),
            Self::CaptureDrops => "pcapstat".into(),
            Self::Memory => "memory_stat".into(),
            Self::Tcmalloc => "tcmalloc_stats".into(),
            Self::HashTable => "hashtable_stats".into(),
            Self::Configuration => "get_sensor_information configuration_active".into(),
            Self::Calls => "listcalls".into(),
        }
    }

    /// Its name in the bundle.
    pub fn name(self) -> &'static str {
        match self {
            Self::Version => "getverbuild",
            Self::TotalCalls => "totalcalls",
            Self::TotalRegisters => "totalregisters",
            Self::Statistics => "sniffer_stat",
            Self::StatisticsPlain => "sniffer_stat_plain",
            Self::DiskCalibration => "disk_io_calibration",
            Self::Threads(_) => "sniffer_threads",
            Self::PacketBuffer => "packetbuffer_log",
            Self::CaptureDrops => "pcapstat",
            Self::Memory => "memory_stat",
            Self::Tcmalloc => "tcmalloc_stats",
            Self::HashTable => "hashtable_stats",
            Self::Configuration => "configuration_active",
            Self::Calls => "listcalls",
        }
    }

    /// How long its answer is waited for, from connecting to its end.
    pub fn deadline(self) -> Duration {
        Duration::from_secs(match self {
            Self::Calls => 5,
            _ => 3,
        })
    }

    /// Whether the manager takes a lock for it that the program's own threads take, too. Of those
    /// that are not known to take none, it is assumed.
    pub fn takes_locks(self) -> bool {
        !matches!(
            self,
            Self::Version
                | Self::TotalCalls
                | Self::TotalRegisters
                | Self::Statistics
                | Self::StatisticsPlain
                | Self::DiskCalibration
        )
    }

    /// Whether it makes the sniffer start `rrdtool` where that is not installed and `rrd` is on.
    pub fn may_start_rrdtool(self) -> bool {
        matches!(self, Self::Statistics | Self::StatisticsPlain)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Names of commands that do something, as a sniffer registers them.
    const HARMFUL: &str = "terminating restart hot_restart upgrade gitUpgrade reload set_json_config \
        setverbparam cleanverbparams set_pcap_stat_period usleep processing_limitations \
        disk_io_recalibrate jemalloc_stat heapprof_ alloc_trim alloc_test memalloc_ \
        memcrash_test block unblock sleepprocesspacket cleanup_ expire_registers \
        destroy_close_calls d_close_call flush_tar packetbuffer_save sqlexport sqlvmexport \
        reindex check_filesindex creategraph livefilter startlivesniffer stoplivesniffer \
        listen sql_errors_skip syslogstr coutstr manager_file exists_aes_key offon printspool \
        convertchars refresh";

    #[test]
    fn no_text_holds_the_name_of_a_command_that_does_something() {
        for command in Command::all(Session(7)) {
            for harmful in HARMFUL.split(' ') {
                assert!(!command.text().contains(harmful), "{} in {}", harmful, command.text());
            }
            // `thread` came long after `sniffer_threads`, which is found first, being exact.
            assert_eq!(command.text().contains("thread"), command == Command::Threads(Session(7)));
        }
    }

    #[test]
    fn texts_are_words_and_numbers_on_one_line() {
        for command in Command::all(Session::new()) {
            let fits = |letter: char| letter.is_ascii_alphanumeric() || "_ =".contains(letter);
            assert!(command.text().chars().all(fits), "{}", command.text());
        }
    }

    #[test]
    fn only_the_threads_are_asked_twice() {
        let all = Command::all(Session(7));
        let names: BTreeSet<&str> = all.iter().map(|command| command.name()).collect();
        assert_eq!(names.len() + 1, all.len());
        assert_eq!(all[6], all[7]);
        assert_eq!(all[14], Command::Calls);
    }

    #[test]
    fn a_session_is_a_positive_int() {
        for _ in 0..1000 {
            let Session(number) = Session::new();
            assert!(number > 0 && i32::try_from(number).is_ok());
        }
        assert_ne!(Session::new(), Session::new());
    }
}
