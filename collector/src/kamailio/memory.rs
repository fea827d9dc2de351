//! What Kamailio's own variables say at a glance: which process does what, how full the pools are,
//! and whether anybody has the lock of shared memory.
//!
//! Reads some words of live processes through the variables that every build exports (`pt`,
//! `process_count`, `_pkg_root`, `_shm_root`), never a page that does not exist yet. What is not
//! as in the builds since 5.2 is not known rather than guessed. For the first words on the
//! terminal, and to know what may be asked; the analyzer walks the pools from the snapshot.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::board::ShmLock;
use crate::mappings::Mapping;
use crate::program::{self, Words};
use crate::target::{Process, Target};

/// `struct process_table`: its length, and where `rank` and `desc` lie; the same in every build
/// since 5.2.
const ENTRY: u64 = 148;
const RANK: u64 = 16;
const DESCRIPTION: u64 = 20;
const LONGEST_DESCRIPTION: u64 = 128;
/// More processes than any configuration starts.
const MOST_PROCESSES: i32 = 4096;

/// The word before each fragment's payload and the one behind it, where the manager checks them.
const BEFORE: u64 = 0xf0f0_f0f0;
const BEHIND: u64 = 0xc0c0_c0c0;

/// What was seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Look {
    /// By PID as we count it.
    pub(crate) roles: BTreeMap<u32, Role>,
    /// PIDs in the process table as the processes count them, of those that have ended, too.
    pub(crate) table: BTreeSet<u32>,
    /// The shared pool.
    pub(crate) shared: Option<Usage>,
    /// The private pools, by PID as we count it.
    pub(crate) private: BTreeMap<u32, Usage>,
    /// Where the lock of the shared pool is.
    pub(crate) lock: Option<u64>,
}

/// What a process does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Role {
    /// Above 0: it handles SIP messages.
    pub(crate) rank: i32,
    /// In Kamailio's words.
    pub(crate) description: String,
}

/// How full a pool is, by the manager's own counters, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Usage {
    /// The whole pool.
    pub(crate) size: u64,
    /// In use, with the manager's overhead.
    pub(crate) used: u64,
}

impl Usage {
    /// Share of the pool in use, in percent.
    pub(crate) fn percent(self) -> u64 {
        self.used.saturating_mul(100).checked_div(self.size).unwrap_or(0)
    }
}

impl Look {
    /// Looks at a running group.
    pub(crate) fn at(target: &Target) -> Self {
        let names = ["pt", "process_count", "_pkg_root", "_shm_root"];
        let [table, count, private, shared] = program::distances(target.main, names);
        let mut look = Self::default();
        for process in &target.processes {
            let Some((words, base)) = open(process) else { continue };
            let at = |distance: Option<u64>| base.checked_add(distance?);
            look.private.extend(
                at(private)
                    .and_then(|root| Pool::behind(&words, root))
                    .and_then(|pool| Some((process.pid, pool.usage(&words)?))),
            );
            if look.shared.is_none()
                && let Some(pool) = at(shared).and_then(|root| Pool::behind(&words, root))
            {
                look.shared = pool.usage(&words);
                look.lock = pool.first_payload(&words);
            }
            if look.roles.is_empty()
                && let Some((table, count)) = at(table).zip(at(count))
            {
                look.read_table(&words, table, count, target).unwrap_or_default();
            }
        }
        look
    }

    /// The process table, whose PIDs are those that the processes themselves see.
    fn read_table(&mut self, words: &Words, table: u64, count: u64, target: &Target) -> Option<()> {
        let number = words.int(words.word(count)?)?;
        if !(1..=MOST_PROCESSES).contains(&number) {
            return None;
        }
        let first = words.word(table)?;
        for index in 0..u64::from(number.unsigned_abs()) {
            let entry = first.checked_add(index * ENTRY)?;
            let inner = words.int(entry).and_then(|pid| u32::try_from(pid).ok());
            let Some(inner) = inner.filter(|pid| *pid != 0) else { continue };
            self.table.insert(inner);
            let process = target.processes.iter().find(|process| process.inner_pid == inner);
            let (Some(process), Some(rank)) = (process, words.int(entry + RANK)) else { continue };
            let description = words.text(entry + DESCRIPTION, LONGEST_DESCRIPTION);
            let description = description.unwrap_or_default();
            self.roles.insert(process.pid, Role { rank, description });
        }
        Some(())
    }

    /// Looks at the lock of the shared pool again and again: what is free once is not stuck.
    pub(crate) fn shm_lock(&self, target: &Target) -> ShmLock {
        const LOOKS: u32 = 40;
        let words = target.processes.iter().find_map(|process| Words::of(process.id));
        let (Some(lock), Some(words)) = (self.lock, words) else { return ShmLock::Unknown };
        for _ in 0..LOOKS {
            match words.int(lock) {
                Some(0) => return ShmLock::Free,
                // Held, or held while others wait.
                Some(1 | 2) => std::thread::sleep(Duration::from_millis(5)),
                _ => return ShmLock::Unknown,
            }
        }
        ShmLock::Held
    }
}

/// A process's memory, and where its program is mapped.
fn open(process: &Process) -> Option<(Words, u64)> {
    let maps = std::fs::read(format!("/proc/{}/maps", process.id)).ok()?;
    let mappings = Mapping::parse_all(&String::from_utf8_lossy(&maps));
    Some((Words::of(process.id)?, program::base(process.id, &mappings)?))
}

/// A pool that a memory manager keeps.
#[derive(Clone, Copy, Debug)]
struct Pool {
    manager: Manager,
    block: u64,
}

#[derive(Clone, Copy, Debug)]
enum Manager {
    QMalloc,
    FMalloc,
    /// With the size in bytes of what precedes a payload, and of `control_t`.
    Tlsf {
        header: u64,
        control: u64,
    },
}

impl Pool {
    /// The pool that `_pkg_root` or `_shm_root` describes: a name, the pool, its block.
    fn behind(words: &Words, root: u64) -> Option<Self> {
        let name = words.text(words.word(root)?, 32)?;
        let block = words.word(root.checked_add(16)?).filter(|block| *block != 0)?;
        let manager = match name.as_str() {
            "q_malloc" => Manager::QMalloc,
            "f_malloc" => Manager::FMalloc,
            // The lists' end, at the start of the control block, leads on to itself; where the
            // fragments name their owners it is 32 bytes longer.
            "tlsf_malloc" if leads_to_itself(words, block, 48) => {
                Manager::Tlsf { header: 48, control: 8440 }
            }
            "tlsf_malloc" if leads_to_itself(words, block, 16) => {
                Manager::Tlsf { header: 16, control: 8408 }
            }
            _ => return None,
        };
        Some(Self { manager, block })
    }

    /// The manager's own counters.
    fn usage(self, words: &Words) -> Option<Usage> {
        let (size, used) = match self.manager {
            Manager::QMalloc | Manager::FMalloc => (8, 24),
            Manager::Tlsf { header, .. } => (header + 16, header + 32),
        };
        let size = words.word(self.block.checked_add(size)?)?;
        let used = words.word(self.block.checked_add(used)?)?;
        (0 < size && used <= size).then_some(Usage { size, used })
    }

    /// The payload of the first fragment: in the shared pool, the pool's lock.
    fn first_payload(self, words: &Words) -> Option<u64> {
        let field = |at: u64| words.word(self.block.checked_add(at)?);
        match self.manager {
            Manager::QMalloc => of_qm(words, field(48)?),
            // A reserved word before it since 5.8.
            Manager::FMalloc => of_fm(words, field(48)?).or_else(|| of_fm(words, field(56)?)),
            Manager::Tlsf { header, control } => {
                // The first block's header begins in the control block's last word.
                self.block.checked_add(control - 8 + header)
            }
        }
    }
}

fn leads_to_itself(words: &Words, block: u64, at: u64) -> bool {
    block.checked_add(at).and_then(|at| words.word(at)) == Some(block)
}

/// The payload of a fragment of `q_malloc`, which knows of four headers: the one whose own words,
/// or those behind the payload, are where they must be.
fn of_qm(words: &Words, fragment: u64) -> Option<u64> {
    let word = |at: u64| words.word(fragment.checked_add(at)?);
    let size = word(0)?;
    let checked = |check: u64, header: u64| {
        word(check) == Some(BEFORE) && word(header.saturating_add(size)) == Some(BEHIND)
    };
    let header = if checked(48, 56) {
        56
    } else if checked(48, 64) {
        64
    } else if checked(120, 128) {
        128
    } else if word(16_u64.saturating_add(size)) == Some(size) {
        16
    } else {
        return None;
    };
    fragment.checked_add(header)
}

/// The payload of a fragment of `f_malloc`: the next fragment's check word says where it ends.
fn of_fm(words: &Words, fragment: u64) -> Option<u64> {
    let word = |at: u64| words.word(fragment.checked_add(at)?);
    let size = word(0)?;
    // Up to 5.7 the check word has four bytes, and four of padding behind it.
    let is_check = |at: u64| word(at).is_some_and(|word| word & 0xffff_ffff == BEFORE);
    let known: [(u64, u64); 3] = [(72, 64), (80, 72), (48, 40)];
    let (header, _) = known.into_iter().find(|(header, check)| {
        is_check(*check) && is_check(header.saturating_add(size).saturating_add(*check))
    })?;
    fragment.checked_add(header)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::number::bytes;

    /// Memory of our own at a known address.
    struct Block(Vec<u64>);

    impl Block {
        fn new() -> Self {
            Self(vec![0; 2000])
        }

        fn start(&self) -> u64 {
            bytes(self.0.as_ptr().expose_provenance())
        }

        fn set(&mut self, at: usize, word: u64) {
            self.0[at / 8] = word;
        }
    }

    fn own() -> Words {
        Words::of(std::process::id()).unwrap()
    }

    #[test]
    fn the_first_payload_of_q_malloc_lies_behind_one_of_four_headers() {
        for (header, check) in [(56, Some(48)), (64, Some(48)), (128, Some(120)), (16, None)] {
            let mut block = Block::new();
            let first = block.start() + 800;
            block.set(48, first);
            block.set(800, 32);
            if let Some(check) = check {
                block.set(800 + check, BEFORE);
                block.set(800 + header + 32, BEHIND);
            } else {
                block.set(800 + header + 32 - 16, 0);
                block.set(800 + 16 + 32, 32);
            }
            let pool = Pool { manager: Manager::QMalloc, block: block.start() };
            let header = u64::try_from(header).unwrap();
            assert_eq!(pool.first_payload(&own()), Some(first + header), "{header}");
            block.set(800, 1000);
            assert_eq!(pool.first_payload(&own()), None, "a wrong size is noticed");
        }
    }

    #[test]
    fn the_first_payload_of_f_malloc_lies_before_the_next_header() {
        for (header, check, pointer) in [(72, 64, 48), (80, 72, 56)] {
            let mut block = Block::new();
            let first = block.start() + 800;
            block.set(pointer, first);
            block.set(800, 16);
            block.set(800 + check, BEFORE);
            block.set(800 + header + 16 + check, BEFORE);
            let pool = Pool { manager: Manager::FMalloc, block: block.start() };
            assert_eq!(pool.first_payload(&own()), Some(first + u64::try_from(header).unwrap()));
            block.set(800 + check, 0);
            assert_eq!(pool.first_payload(&own()), None);
        }
    }

    #[test]
    fn a_pool_is_known_by_its_managers_name_and_says_how_full_it_is() {
        let name = b"q_malloc\0".to_vec();
        let mut block = Block::new();
        let root = block.start() + 1600;
        block.set(1600, bytes(name.as_ptr().expose_provenance()));
        let start = block.start();
        block.set(1616, start);
        block.set(8, 1000);
        block.set(24, 950);
        let usage = |words: &Words| Pool::behind(words, root)?.usage(words);
        assert_eq!(usage(&own()), Some(Usage { size: 1000, used: 950 }));
        assert_eq!(usage(&own()).map(Usage::percent), Some(95));
        block.set(24, 1001);
        assert_eq!(usage(&own()), None, "more used than there is");
        let other = b"new_malloc\0".to_vec();
        block.set(1600, bytes(other.as_ptr().expose_provenance()));
        assert_eq!(usage(&own()), None);
    }

    #[test]
    fn counters_of_tlsf_lie_behind_the_lists_end() {
        let name = b"tlsf_malloc\0".to_vec();
        for (header, control) in [(48_u64, 8440), (16, 8408)] {
            let mut block = Block::new();
            let (root, start) = (block.start() + 1600, block.start());
            block.set(1600, bytes(name.as_ptr().expose_provenance()));
            block.set(1616, start);
            let at = usize::try_from(header).unwrap();
            block.set(at, start);
            // Whatever was freed last left its address here.
            block.set(at + 8, start + 800);
            block.set(at + 16, 5000);
            block.set(at + 32, 100);
            let pool = Pool::behind(&own(), root).unwrap();
            assert_eq!(pool.usage(&own()), Some(Usage { size: 5000, used: 100 }));
            assert_eq!(pool.first_payload(&own()), Some(start + control - 8 + header));
        }
    }
}
