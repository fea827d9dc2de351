//! The few files of `/proc` that the collector itself must understand; text is parsed apart from
//! reading it. Everything else is copied as it is.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

/// The fields of `/proc/PID/stat` or `/proc/PID/task/TID/stat` that a core's notes need.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stat {
    /// Name, at most 15 bytes.
    pub name: String,
    /// State letter.
    pub state: u8,
    /// Parent process.
    pub parent: u32,
    /// Process group.
    pub process_group: u32,
    /// Session.
    pub session: u32,
    /// Kernel flags (`PF_…`).
    pub flags: u64,
    /// User time, system time, and both of the children that were waited for; in clock ticks.
    pub times: [u64; 4],
    /// Nice value.
    pub nice: i8,
    /// Start time in clock ticks after boot.
    pub started: u64,
    /// First address of the environment's texts, and the first one behind them; 0 where the kernel
    /// does not tell.
    pub environment: (u64, u64),
}

impl Stat {
    /// Parses the one line. The name may hold spaces and parentheses: the last `)` ends it.
    pub fn parse(text: &str) -> Option<Self> {
        let (head, tail) = text.rsplit_once(')')?;
        let (_, name) = head.split_once('(')?;
        let fields: Vec<&str> = tail.split_whitespace().collect();
        // Field 3 of proc(5) is the first after the name.
        let number = |field: usize| fields.get(field.checked_sub(3)?)?.parse::<u64>().ok();
        let small =
            |field: usize| number(field).and_then(|number| u32::try_from(number).ok()).unwrap_or(0);
        Some(Self {
            name: name.to_owned(),
            state: *fields.first()?.as_bytes().first()?,
            parent: small(4),
            process_group: small(5),
            session: small(6),
            flags: number(9).unwrap_or(0),
            times: [
                number(14).unwrap_or(0),
                number(15).unwrap_or(0),
                number(16).unwrap_or(0),
                number(17).unwrap_or(0),
            ],
            nice: fields.get(16).and_then(|nice| nice.parse().ok()).unwrap_or(0),
            started: number(22).unwrap_or(0),
            environment: (number(50).unwrap_or(0), number(51).unwrap_or(0)),
        })
    }

    /// Reads `stat` in `folder`.
    ///
    /// # Errors
    /// Those of reading; a text that is no such line is `InvalidData`.
    pub fn read(folder: &Path) -> io::Result<Self> {
        let text = fs::read(folder.join("stat"))?;
        Self::parse(&String::from_utf8_lossy(&text))
            .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
    }
}

/// `key: value` lines, as in `/proc/PID/status` and `/proc/meminfo`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields(BTreeMap<String, String>);

impl Fields {
    /// Parses the text.
    pub fn parse(text: &str) -> Self {
        let pairs = text.lines().filter_map(|line| line.split_once(':'));
        Self(pairs.map(|(key, value)| (key.to_owned(), value.trim().to_owned())).collect())
    }

    /// Reads and parses a file.
    ///
    /// # Errors
    /// Those of reading.
    pub fn read(path: &Path) -> io::Result<Self> {
        Ok(Self::parse(&String::from_utf8_lossy(&fs::read(path)?)))
    }

    /// The value of `key`.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// The first number in the value of `key`.
    pub fn number(&self, key: &str) -> Option<u64> {
        self.text(key)?.split_whitespace().next()?.parse().ok()
    }

    /// The last number in the value of `key`: in `NSpid` the process's own view.
    pub fn last_number(&self, key: &str) -> Option<u64> {
        self.text(key)?.split_whitespace().next_back()?.parse().ok()
    }

    /// The value of `key` as hexadecimal: signal and capability masks.
    pub fn mask(&self, key: &str) -> Option<u64> {
        u64::from_str_radix(self.text(key)?, 16).ok()
    }
}

/// Length of a clock tick as `/proc/PID/stat` counts, in nanoseconds.
pub(crate) fn tick_nanoseconds() -> u64 {
    let rate = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok().flatten();
    let rate = rate.and_then(|rate| u64::try_from(rate).ok()).unwrap_or(100);
    1_000_000_000_u64.checked_div(rate).unwrap_or(10_000_000)
}

/// The numeric names in a folder, rising: PIDs in `/proc`, TIDs in `/proc/PID/task`.
pub fn numbers_in(folder: impl AsRef<Path>) -> Vec<u32> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let mut numbers: Vec<u32> = names.filter_map(|name| name.parse().ok()).collect();
    numbers.sort_unstable();
    numbers
}

/// A thread's ID through which the process's memory is reached: the process itself, or, where its
/// first thread has ended and others run on, one of those (`/proc/TID` exists for each).
pub fn memory_thread(pid: u32) -> Option<u32> {
    let alive = |tid: u32| fs::read_link(format!("/proc/{pid}/task/{tid}/exe")).is_ok();
    if alive(pid) {
        return Some(pid);
    }
    numbers_in(format!("/proc/{pid}/task")).into_iter().find(|tid| alive(*tid))
}

/// What a thread's notes need, read before the freeze so that the freeze is short.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ThreadFacts {
    /// From `stat`.
    pub stat: Stat,
    /// Pending signals.
    pub pending: u64,
    /// Blocked signals.
    pub blocked: u64,
}

impl ThreadFacts {
    /// Reads them; a thread that is gone has none.
    pub fn read(pid: u32, tid: u32) -> Option<Self> {
        let folder = format!("/proc/{pid}/task/{tid}");
        let folder = Path::new(&folder);
        let stat = Stat::read(folder).ok()?;
        let status = Fields::read(&folder.join("status")).unwrap_or_default();
        Some(Self {
            stat,
            pending: status.mask("SigPnd").unwrap_or(0),
            blocked: status.mask("SigBlk").unwrap_or(0),
        })
    }
}

/// A process with a name that was looked for.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Running {
    /// Its PID.
    pub pid: u32,
    /// Its name, as the kernel cuts it to 15 bytes.
    pub name: String,
}

/// The processes of these names, by PID.
pub fn running(names: &[&str]) -> Vec<Running> {
    let name = |pid: u32| {
        let name = fs::read(format!("/proc/{pid}/comm")).ok()?;
        Some(String::from_utf8_lossy(&name).trim_end().to_owned())
    };
    let processes = numbers_in("/proc").into_iter();
    let named = processes.filter_map(|pid| Some(Running { pid, name: name(pid)? }));
    named.filter(|running| names.contains(&&*running.name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_spaces_and_parentheses() {
        let text = "42 (a) b) S 1 2 3 0 -1 4194560 9 8 7 6 10 11 12 13 20 -5 1 0 777 99 1";
        let stat = Stat::parse(text).unwrap();
        assert_eq!((stat.name.as_str(), stat.state), ("a) b", b'S'));
        assert_eq!((stat.parent, stat.process_group, stat.session), (1, 2, 3));
        assert_eq!((stat.flags, stat.times), (4_194_560, [10, 11, 12, 13]));
        assert_eq!((stat.nice, stat.started), (-5, 777));
        assert_eq!(Stat::parse("nothing"), None);
    }

    #[test]
    fn the_innermost_pid_is_the_last() {
        let fields = Fields::parse("NSpid:\t4711\t12\nCapEff:\t00000000a80425fb\n");
        assert_eq!(fields.last_number("NSpid"), Some(12));
        assert_eq!(fields.number("NSpid"), Some(4711));
        assert_eq!(fields.mask("CapEff"), Some(0xa804_25fb));
    }
}
