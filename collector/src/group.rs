//! Which processes belong together, found without asking the program.
//!
//! Same executable (device and inode of `/proc/PID/exe`, which holds for replaced binaries, chroots
//! and containers), **and** parent and child of one another, or mapping one pool of shared memory:
//! so the orphans of a main process that was killed are found, two instances side by side stay
//! apart, and a child that exec'd something else is left alone. Never the collector's own
//! ancestors: it would freeze the terminal it runs in.
//!
//! [`select`] is pure, over a table; [`read_table`] fills one.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::known;
use crate::mappings::{FileKey, Mapping};
use crate::parallel;
use crate::procfs::{self, Fields, Stat};

/// What the operator asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The group of this process.
    Pid(u32),
    /// The program with this name.
    Name(String),
    /// The program in this systemd unit.
    Unit(String),
    /// Any program with a profile.
    Known,
}

/// What identifies a program.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Executable {
    /// Device and inode of the file.
    File(u64, u64),
    /// The kernel does not let us see it; the process's name stands in for it.
    Hidden(String),
}

/// One process of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// PID.
    pub pid: u32,
    /// Parent.
    pub parent: u32,
    /// Its program.
    pub executable: Executable,
    /// Path of its program; may end in ` (deleted)`.
    pub path: String,
    /// Its name, `comm`.
    pub name: String,
    /// Start time in clock ticks after boot.
    pub started: u64,
    /// Its control groups, one path a line.
    pub control_groups: String,
    /// Shared memory that no other instance can have.
    pub pools: BTreeSet<FileKey>,
}

impl Entry {
    /// The file name of its program; its own name where that is hidden.
    pub fn program(&self) -> &str {
        let path = self.path.strip_suffix(" (deleted)").unwrap_or(&self.path);
        match path.rsplit('/').next() {
            Some(name) if !name.is_empty() => name,
            _ => &self.name,
        }
    }

    /// Whether it runs in the unit, or below it.
    fn in_unit(&self, unit: &str) -> bool {
        let path = |line: &str| line.splitn(3, ':').nth(2).unwrap_or_default().to_owned();
        self.control_groups.lines().any(|line| path(line).split('/').any(|part| part == unit))
    }

    /// The unit it runs in, or its control group.
    fn place(&self) -> String {
        let mut paths = self.control_groups.lines().filter_map(|line| line.splitn(3, ':').nth(2));
        let mut parts = paths.clone().flat_map(|path| path.split('/').rev());
        let unit = parts.find(|part| part.ends_with(".service"));
        unit.or_else(|| paths.next_back()).unwrap_or("/").to_owned()
    }
}

/// Processes that belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// The first one: the parent of the others, or the oldest.
    pub main: u32,
    /// Each with the reason why it belongs, for a person; rising.
    pub members: BTreeMap<u32, String>,
}

/// No group, or more than one.
#[derive(Debug, Error)]
pub enum GroupError {
    /// Nothing fits.
    #[error("{0}")]
    NotFound(String),
    /// Several fit.
    #[error("{} instances fit; name one with --pid", .0.len())]
    Ambiguous(Vec<Instance>),
    /// It would freeze ourselves.
    #[error(
        "process {0} started this program (it is one of its ancestors): it would freeze itself"
    )]
    Ancestor(u32),
}

/// The one instance that is wanted.
///
/// # Errors
/// [`GroupError`]
pub fn select(
    table: &[Entry],
    wanted: &Wanted,
    excluded: &BTreeSet<u32>,
) -> Result<Instance, GroupError> {
    if let Wanted::Pid(pid) = wanted
        && excluded.contains(pid)
    {
        return Err(GroupError::Ancestor(*pid));
    }
    let candidates: Vec<&Entry> =
        table.iter().filter(|entry| !excluded.contains(&entry.pid)).collect();
    let matches = matching(&candidates, wanted);
    let mut instances: Vec<Instance> = cluster(&candidates, &matches)
        .into_iter()
        .filter(|instance| instance.members.keys().any(|pid| matches.contains(pid)))
        .collect();
    if let (Wanted::Unit(_), true) = (wanted, instances.len() > 1) {
        // Helpers run in the unit too; a program that we know is what is meant.
        let known = |instance: &Instance| {
            let main = candidates.iter().find(|entry| entry.pid == instance.main);
            main.is_some_and(|entry| known::of(entry.program()) != "generic")
        };
        if instances.iter().filter(|instance| known(instance)).count() == 1 {
            instances.retain(known);
        }
    }
    match instances.len() {
        1 => instances.pop().ok_or_else(|| GroupError::NotFound(String::new())),
        0 => Err(GroupError::NotFound(match wanted {
            Wanted::Pid(pid) => format!("there is no process {pid} (or it is a zombie)"),
            Wanted::Name(name) => format!("no process runs a program named {name}"),
            Wanted::Unit(unit) => format!("no process runs in the unit {unit}"),
            Wanted::Known => {
                let names: Vec<&str> = known::KNOWN.iter().map(|known| known.name).collect();
                format!(
                    "none of the known programs runs here ({}); name one with --pid, --name or \
                     --unit",
                    names.join(", ")
                )
            }
        })),
        _ => Err(GroupError::Ambiguous(instances)),
    }
}

/// The processes that the request names itself.
fn matching(table: &[&Entry], wanted: &Wanted) -> BTreeSet<u32> {
    let all = |test: &dyn Fn(&Entry) -> bool| -> BTreeSet<u32> {
        table.iter().filter(|entry| test(entry)).map(|entry| entry.pid).collect()
    };
    match wanted {
        Wanted::Pid(pid) => all(&|entry| entry.pid == *pid),
        Wanted::Unit(unit) => all(&|entry| entry.in_unit(unit)),
        Wanted::Name(name) => {
            // A start script bears the name of its program in `comm`.
            let by_program = all(&|entry| entry.program() == name);
            if by_program.is_empty() { all(&|entry| entry.name == *name) } else { by_program }
        }
        Wanted::Known => all(&|entry| known::of(entry.program()) != "generic"),
    }
}

/// Groups the processes that run the same programs as `matches`.
fn cluster(table: &[&Entry], matches: &BTreeSet<u32>) -> Vec<Instance> {
    let programs: BTreeSet<&Executable> = table
        .iter()
        .filter(|entry| matches.contains(&entry.pid))
        .map(|entry| &entry.executable)
        .collect();
    let mut left: BTreeMap<u32, &Entry> = table
        .iter()
        .filter(|entry| programs.contains(&entry.executable))
        .map(|entry| (entry.pid, *entry))
        .collect();
    let mut instances = Vec::new();
    while let Some((&seed, &entry)) =
        left.iter().find(|(pid, _)| matches.contains(pid)).or_else(|| left.iter().next())
    {
        left.remove(&seed);
        let mut members = vec![(entry, "it was asked for".to_owned())];
        let mut next = 0;
        while let Some((known, _)) = members.get(next).cloned() {
            next += 1;
            let related: Vec<(u32, String)> = left
                .values()
                .filter_map(|other| Some((other.pid, relation(known, other)?)))
                .collect();
            for (pid, why) in related {
                members.extend(left.remove(&pid).map(|other| (other, why)));
            }
        }
        let inside: BTreeSet<u32> = members.iter().map(|(entry, _)| entry.pid).collect();
        let main = members
            .iter()
            .min_by_key(|(entry, _)| (inside.contains(&entry.parent), entry.started, entry.pid))
            .map_or(seed, |(entry, _)| entry.pid);
        let members = members.into_iter().map(|(entry, why)| (entry.pid, why)).collect();
        instances.push(Instance { main, members });
    }
    instances.sort_by_key(|instance| instance.main);
    instances
}

/// Why `other` belongs to `known`, if it does.
fn relation(known: &Entry, other: &Entry) -> Option<String> {
    if known.executable != other.executable {
        None
    } else if other.parent == known.pid {
        Some(format!("same executable, child of {}", known.pid))
    } else if known.parent == other.pid {
        Some(format!("same executable, parent of {}", known.pid))
    } else {
        let pool = known.pools.intersection(&other.pools).next()?;
        Some(format!(
            "same executable, shares memory {}-{} with {}",
            pool.device, pool.inode, known.pid
        ))
    }
}

/// Every process of the host that has a program, with the pools of those that may be wanted.
pub fn read_table(wanted: &Wanted) -> Vec<Entry> {
    let mut table: Vec<Entry> =
        procfs::numbers_in("/proc").into_iter().filter_map(read_entry).collect();
    let matches = matching(&table.iter().collect::<Vec<_>>(), wanted);
    let programs: BTreeSet<Executable> = table
        .iter()
        .filter(|entry| matches.contains(&entry.pid))
        .map(|entry| entry.executable.clone())
        .collect();
    let pids: Vec<u32> = table
        .iter()
        .filter(|entry| programs.contains(&entry.executable))
        .map(|entry| entry.pid)
        .collect();
    // Reading `maps` may hang with the process: whose pools do not come is grouped without.
    let begun = Instant::now();
    let found = parallel::each(pids, 4, read_pools, || begun.elapsed() > Duration::from_secs(3));
    let found: BTreeMap<u32, BTreeSet<FileKey>> = found.into_iter().flatten().collect();
    for entry in &mut table {
        if let Some(pools) = found.get(&entry.pid) {
            entry.pools.clone_from(pools);
        }
    }
    table
}

fn read_pools(pid: u32) -> (u32, BTreeSet<FileKey>) {
    let id = procfs::memory_thread(pid).unwrap_or(pid);
    let maps = fs::read(format!("/proc/{id}/maps")).unwrap_or_default();
    let mappings = Mapping::parse_all(&String::from_utf8_lossy(&maps));
    (pid, mappings.iter().filter(|mapping| mapping.is_pool()).map(Mapping::file).collect())
}

fn read_entry(pid: u32) -> Option<Entry> {
    /// `PF_KTHREAD`
    const KERNEL_THREAD: u64 = 0x0020_0000;
    let folder = format!("/proc/{pid}");
    let stat = Stat::read(Path::new(&folder)).ok()?;
    if stat.flags & KERNEL_THREAD != 0 {
        return None;
    }
    let id = procfs::memory_thread(pid).unwrap_or(pid);
    let program = format!("/proc/{id}/exe");
    let executable = match fs::metadata(&program) {
        Ok(file) => Executable::File(file.dev(), file.ino()),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            Executable::Hidden(stat.name.clone())
        }
        Err(_) => return None,
    };
    let path = fs::read_link(&program).map(|path| path.to_string_lossy().into_owned());
    let control_groups = fs::read(format!("{folder}/cgroup")).unwrap_or_default();
    Some(Entry {
        pid,
        parent: stat.parent,
        executable,
        path: path.unwrap_or_default(),
        name: stat.name,
        started: stat.started,
        control_groups: String::from_utf8_lossy(&control_groups).into_owned(),
        pools: BTreeSet::new(),
    })
}

/// The process that a number given by the operator means: a thread's ID means its process.
pub fn process_of(id: u32) -> u32 {
    let status = Fields::read(Path::new(&format!("/proc/{id}/status"))).unwrap_or_default();
    status.number("Tgid").and_then(|pid| u32::try_from(pid).ok()).unwrap_or(id)
}

/// This process and its ancestors.
pub fn own_ancestors() -> BTreeSet<u32> {
    let mut ancestors = BTreeSet::new();
    let mut pid = std::process::id();
    while pid != 0 && ancestors.insert(pid) {
        let folder = format!("/proc/{pid}");
        pid = Stat::read(Path::new(&folder)).map_or(0, |stat| stat.parent);
    }
    ancestors
}

/// A list of instances for the operator.
pub fn describe(instances: &[Instance], table: &[Entry]) -> String {
    let boot = Fields::parse(
        &fs::read_to_string("/proc/stat").unwrap_or_default().replace("btime ", "btime: "),
    )
    .number("btime");
    let mut text = String::new();
    let mains = instances.iter().map(|instance| instance.main).collect();
    let read = |pid: u32| fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let begun = Instant::now();
    // Where the address space is locked, reading this hangs.
    let lines = parallel::each(mains, 4, read, || begun.elapsed() > Duration::from_secs(2));
    for (instance, line) in instances.iter().zip(lines) {
        let Some(main) = table.iter().find(|entry| entry.pid == instance.main) else { continue };
        let line = line.unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        let started = boot
            .and_then(|boot| i64::try_from(boot + main.started / 100).ok())
            .and_then(|second| jiff::Timestamp::from_second(second).ok())
            .map(|time| time.to_string())
            .unwrap_or_default();
        text += &format!(
            "--pid {}  {} processes, started {started}, in {}: {}\n",
            main.pid,
            instance.members.len(),
            main.place(),
            line.trim_end()
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(pid: u32, parent: u32, inode: u64, pools: &[u64]) -> Entry {
        let pool = |inode: &u64| FileKey { device: "00:01".into(), inode: *inode };
        Entry {
            pid,
            parent,
            executable: Executable::File(1, inode),
            path: if inode == 9 { "/usr/sbin/kamailio".into() } else { "/bin/sh".into() },
            name: if inode == 9 { "kamailio".into() } else { "sh".into() },
            started: u64::from(pid),
            control_groups: "0::/system.slice/kamailio.service\n".into(),
            pools: pools.iter().map(pool).collect(),
        }
    }

    fn members(table: &[Entry], wanted: &Wanted) -> Vec<u32> {
        let instance = select(table, wanted, &BTreeSet::new()).unwrap();
        instance.members.into_keys().collect()
    }

    #[test]
    fn two_instances_of_one_executable_stay_apart() {
        let table = [
            entry(10, 1, 9, &[100]),
            entry(11, 10, 9, &[100]),
            entry(12, 10, 9, &[100]),
            entry(20, 1, 9, &[200]),
            entry(21, 20, 9, &[200]),
        ];
        assert_eq!(members(&table, &Wanted::Pid(21)), [20, 21]);
        assert_eq!(members(&table, &Wanted::Pid(10)), [10, 11, 12]);
        let named = select(&table, &Wanted::Known, &BTreeSet::new());
        let Err(GroupError::Ambiguous(instances)) = named else { panic!("{named:?}") };
        assert_eq!(instances.iter().map(|instance| instance.main).collect::<Vec<_>>(), [10, 20]);
    }

    #[test]
    fn orphans_of_a_dead_main_process_are_found_by_their_pool() {
        let table = [entry(11, 1, 9, &[100]), entry(12, 1, 9, &[100]), entry(13, 12, 9, &[])];
        assert_eq!(members(&table, &Wanted::Name("kamailio".into())), [11, 12, 13]);
        let instance = select(&table, &Wanted::Pid(12), &BTreeSet::new()).unwrap();
        assert_eq!(instance.main, 11);
        assert_eq!(instance.members[&11], "same executable, shares memory 00:01-100 with 12");
    }

    #[test]
    fn a_child_that_runs_another_program_is_left_alone() {
        // 11 became a shell and started another kamailio (12): that is not ours either.
        let table = [entry(10, 1, 9, &[100]), entry(11, 10, 5, &[]), entry(12, 11, 9, &[300])];
        assert_eq!(members(&table, &Wanted::Pid(10)), [10]);
    }

    #[test]
    fn our_own_ancestors_are_never_frozen() {
        let table = [entry(10, 1, 5, &[]), entry(11, 10, 5, &[]), entry(12, 11, 5, &[])];
        let excluded = BTreeSet::from([10, 11]);
        let own = select(&table, &Wanted::Pid(11), &excluded);
        assert!(matches!(own, Err(GroupError::Ancestor(11))), "{own:?}");
        let instance = select(&table, &Wanted::Pid(12), &excluded).unwrap();
        assert_eq!(instance.members.into_keys().collect::<Vec<_>>(), [12]);
    }

    #[test]
    fn a_unit_names_its_known_program() {
        let mut helper = entry(30, 1, 5, &[]);
        helper.control_groups = "0::/system.slice/kamailio.service/helpers\n".into();
        let mut other = entry(40, 1, 9, &[400]);
        other.control_groups = "0::/system.slice/kamailio2.service\n".into();
        let table = [entry(10, 1, 9, &[100]), entry(11, 10, 9, &[100]), helper, other];
        assert_eq!(members(&table, &Wanted::Unit("kamailio.service".into())), [10, 11]);
        assert_eq!(members(&table, &Wanted::Unit("kamailio2.service".into())), [40]);
    }

    #[test]
    fn a_replaced_binary_keeps_its_name() {
        let mut table = [entry(10, 1, 9, &[])];
        table[0].path = "/usr/sbin/kamailio (deleted)".into();
        assert_eq!(members(&table, &Wanted::Known), [10]);
        let nothing = select(&table, &Wanted::Name("opensips".into()), &BTreeSet::new());
        assert!(matches!(nothing, Err(GroupError::NotFound(_))));
    }
}
