//! The first words on what was seen, from facts that cost nothing: for the operator who must decide
//! at once. The analyzer says more, and with reasons.
//!
//! A thread is called busy if it wanted [`BUSY`] percent of a CPU, a pool full from [`FULL`] percent on,
//! and a worker blocked if it waited for the same lock before the freeze and after it.

use std::collections::BTreeMap;

use crate::board::{Board, Fact, ShmLock};
use crate::kamailio::memory::{Look, Usage};
use crate::number::human;
use crate::target::Target;
use crate::watch::{Busy, Stuck};

/// Percent of one CPU.
const BUSY: u64 = 90;
/// Percent of a pool.
const FULL: u64 = 90;
/// Lines of one kind; the rest is counted.
const SHOWN: usize = 5;

/// What is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// What stands out, or that nothing does; a line each.
    pub(crate) lines: Vec<String>,
    /// How the service is restarted, if it runs in a unit.
    pub(crate) restart: Option<String>,
}

/// Puts together what was noted on the board.
pub(crate) fn first_look(target: &Target, board: &Board) -> Verdict {
    let threads = board.threads();
    let (busy, stuck, seen) = (threads.busy(BUSY), threads.stuck(), threads.seen());
    drop(threads);
    let none = Look::default();
    let look = board.kamailio().unwrap_or(&none);
    let mut lines = Vec::new();
    lines.extend(stopped(target));
    lines.extend(match look.roles.is_empty() && target.profile == "kamailio" {
        true => blocked_of_unknown_role(&stuck),
        false => blocked(look, &stuck, board.shm_lock()),
    });
    lines.extend(shown(
        busy.iter().map(|busy| of_busy(target, board, look, busy)).collect(),
        "threads",
    ));
    lines.extend(pools(look));
    let facts = board.facts();
    lines.extend(shown(facts.iter().filter_map(of_fact).collect(), "facts"));
    if lines.is_empty() {
        lines.push(calm(target, look, seen));
    }
    lines.extend(earlier(&facts));
    let restart = facts.into_iter().find_map(|fact| match fact {
        Fact::RestartCommand { words } => Some(words),
        _ => None,
    });
    Verdict { lines, restart }
}

/// Processes that stood still before anybody looked.
fn stopped(target: &Target) -> Option<String> {
    let all = &target.processes;
    let stopped: Vec<String> = all
        .iter()
        .filter(|process| process.was_stopped)
        .map(|process| process.pid.to_string())
        .collect();
    let (number, first) = (stopped.len(), stopped.get(..12).unwrap_or(&stopped).join(", "));
    let more = if number > 12 { " and others" } else { "" };
    (number > 0).then(|| {
        format!(
            "stopped: {number} of {} processes, in state T before we came: {first}{more}",
            all.len()
        )
    })
}

/// Processes of a Kamailio that wait, where its table could not be read.
fn blocked_of_unknown_role(stuck: &[Stuck]) -> Vec<String> {
    match stuck.len() {
        0 => Vec::new(),
        number => vec![format!(
            "blocked: {number} threads waited for a lock before the freeze and after it; which of \
             them are workers is not known"
        )],
    }
}

/// Workers that wait, and for what.
fn blocked(look: &Look, stuck: &[Stuck], lock: ShmLock) -> Vec<String> {
    let mut waiting: BTreeMap<u64, Vec<u32>> = BTreeMap::new();
    // What else waits all along may have nothing to do, as threads of a pool.
    for one in stuck.iter().filter(|one| look.roles.contains_key(&one.pid)) {
        waiting.entry(one.lock).or_default().push(one.pid);
    }
    let workers = look.roles.values().filter(|role| role.rank > 0).count();
    let is_worker = |pid: &&u32| look.roles.get(*pid).is_some_and(|role| role.rank > 0);
    let blocked = waiting.values().flatten().filter(is_worker).count();
    let others = waiting.values().flatten().count() - blocked;
    let mut lines = Vec::new();
    if blocked + others > 0 {
        let others = match others {
            0 => String::new(),
            1 => " and 1 other process".to_owned(),
            many => format!(" and {many} other processes"),
        };
        lines.push(format!(
            "blocked: {blocked} of {workers} workers{others} waited for a lock before the freeze \
             and after it"
        ));
    }
    let mut waiting: Vec<_> = waiting.into_iter().collect();
    waiting.sort_by_key(|(_, pids)| std::cmp::Reverse(pids.len()));
    for (at, pids) in waiting.into_iter().take(SHOWN) {
        let name = if look.lock == Some(at) { ", the lock of shared memory" } else { "" };
        let list: Vec<String> = pids.iter().take(12).map(u32::to_string).collect();
        let more = if pids.len() > 12 { " and others" } else { "" };
        lines.push(format!("  at 0x{at:x}{name}: {}{more}", list.join(", ")));
    }
    if lock == ShmLock::Held {
        lines.push(
            "locked: the lock of shared memory was never free in 0.2 s; nothing was asked that \
             takes it"
                .to_owned(),
        );
    }
    lines
}

fn of_busy(target: &Target, board: &Board, look: &Look, busy: &Busy) -> String {
    let Busy { pid, tid, name, percent, wanted } = busy;
    let own_name = (*name != target.program).then(|| name.clone());
    // In a PID namespace the program counts its threads by itself.
    let namespace = target.processes.iter().any(|process| process.pid != process.inner_pid);
    let role = look.roles.get(pid).map(|role| role.description.clone());
    let role = role.or_else(|| board.thread_role(*tid).filter(|_| !namespace));
    let who = match role.or(own_name) {
        Some(role) => format!("{tid} ({role})"),
        None => tid.to_string(),
    };
    let of = if pid == tid { String::new() } else { format!(" of process {pid}") };
    let more = if wanted - percent < 10 { "" } else { ", and waited for one the rest of the time" };
    format!("busy: thread {who}{of} used {percent} % of a CPU{more}")
}

fn pools(look: &Look) -> Vec<String> {
    let words = |usage: Usage| {
        let Usage { size, used } = usage;
        format!("{} % of {} ({used} of {size} bytes)", usage.percent(), human(size))
    };
    let is_full = |usage: &Usage| usage.percent() >= FULL;
    let mut lines = Vec::new();
    lines.extend(look.shared.filter(is_full).map(|usage| format!("full: SHM, {}", words(usage))));
    let private = look.private.iter().filter(|(_, usage)| is_full(usage));
    let private = private.map(|(pid, usage)| {
        let role = look.roles.get(pid).map_or("", |role| &role.description);
        format!("full: PKG of process {pid} ({role}), {}", words(*usage))
    });
    lines.extend(shown(private.collect(), "private pools"));
    lines
}

/// What is worth a line; how to restart comes last.
fn of_fact(fact: &Fact) -> Option<String> {
    match fact {
        Fact::OomKill { program, pid, when } => {
            Some(format!("killed: {program} ({pid}), by the kernel for want of memory, {when}"))
        }
        Fact::Segfault { program, pid, when } => {
            Some(format!("faulted: {program} ({pid}), in the kernel's log, {when}"))
        }
        Fact::DiskBusy { device, percent } => {
            Some(format!("disk: {device} was busy for {percent} % of the time"))
        }
        Fact::DiskFull { path, what, percent } => {
            Some(format!("full: the file system of {path}, {percent} % of its {what}"))
        }
        Fact::PortHeldBy { port, pid, program } => {
            Some(format!("port: {port} belongs to {program} ({pid}), which was not asked"))
        }
        Fact::Silent { way, seconds } => {
            Some(format!("silent: {way} did not answer within {seconds} s and was not asked again"))
        }
        Fact::EarlierEnds { .. } | Fact::RestartCommand { .. } => None,
    }
}

/// What the kernel's log says of other runs of the program.
fn earlier(facts: &[Fact]) -> Option<String> {
    let (count, last) = facts.iter().find_map(|fact| match fact {
        Fact::EarlierEnds { count, last } => Some((*count, last)),
        _ => None,
    })?;
    let processes = if count == 1 { "process" } else { "processes" };
    Some(format!(
        "earlier: {count} {processes} of other runs faulted or were killed in the last 24 hours, the \
         last {last}"
    ))
}

fn calm(target: &Target, look: &Look, seen: usize) -> String {
    if seen == 0 {
        return "nothing is known of the threads: there are no two samples of them".to_owned();
    }
    let mut words = format!("nothing stands out: no thread wanted {BUSY} % of a CPU");
    let workers = look.roles.values().filter(|role| role.rank > 0).count();
    if workers > 0 {
        words += &format!(", 0 of {workers} workers are blocked");
    }
    if target.profile == "kamailio" && look.roles.is_empty() {
        words += ", and none waits for a lock";
    }
    if let Some(usage) = look.shared {
        words += &format!(", {} % of SHM is in use", usage.percent());
    }
    words
}

/// The first lines, and how many more there are.
fn shown(mut lines: Vec<String>, what: &str) -> Vec<String> {
    let more = lines.len().saturating_sub(SHOWN);
    if more > 0 {
        lines.truncate(SHOWN);
        lines.push(format!("  and {more} more {what}"));
    }
    lines
}

#[cfg(test)]
#[cfg(target_arch = "x86_64")]
mod tests {
    use super::*;
    use crate::kamailio::memory::Role;
    use crate::watch::Files;

    const LOCK: u64 = 0x7f10;

    /// A main process and three workers; the last two wait.
    fn hung() -> Board {
        let board = Board::default();
        let role = |rank, words: &str| Role { rank, description: words.to_owned() };
        let look = Look {
            roles: BTreeMap::from([
                (1, role(0, "main process")),
                (2, role(1, "udp receiver child=0")),
                (3, role(2, "udp receiver child=1")),
                (4, role(3, "udp receiver child=2")),
            ]),
            shared: Some(Usage { size: 1000, used: 40 }),
            private: BTreeMap::from([(2, Usage { size: 1000, used: 990 })]),
            lock: Some(LOCK),
            ..Look::default()
        };
        board.note_kamailio(look, ShmLock::Held);
        for sample in [1, 2] {
            for pid in [3, 4] {
                note(&board, sample, pid, 0, &format!("202 0x{LOCK:x} 0 0 0 0 0 0x7ffc 0x40\n"));
            }
            note(&board, sample, 2, u64::from(sample) * 100, "running\n");
        }
        board
    }

    fn note(board: &Board, sample: u32, pid: u32, ticks: u64, call: &str) {
        let stat = format!("{pid} (kamailio) S 1 7 7 0 -1 0 0 0 0 0 {ticks} 0 0 0 20 0 1 0 5 0");
        let at = u64::from(sample) * 1_000_000_000;
        let (stat, syscall) = (stat.as_bytes(), call.as_bytes());
        board.threads().note(sample, (pid, pid), Files { stat, syscall, schedstat: b"" }, at);
    }

    fn target() -> Target {
        Target { program: "kamailio".into(), ..Target::default() }
    }

    #[test]
    fn a_hang_is_told_with_its_workers_its_lock_and_who_burns_cpu() {
        let verdict = first_look(&target(), &hung());
        assert_eq!(
            verdict.lines,
            [
                "blocked: 2 of 3 workers waited for a lock before the freeze and after it",
                "  at 0x7f10, the lock of shared memory: 3, 4",
                "locked: the lock of shared memory was never free in 0.2 s; nothing was asked that \
                 takes it",
                "busy: thread 2 (udp receiver child=0) used 100 % of a CPU",
                "full: PKG of process 2 (udp receiver child=0), 99 % of 1000 bytes (990 of 1000 \
                 bytes)",
            ]
        );
        assert_eq!(verdict.restart, None);
    }

    #[test]
    fn a_sniffers_thread_goes_by_what_it_says_of_it() {
        let board = Board::default();
        for sample in [1, 2] {
            note(&board, sample, 24604, u64::from(sample) * 100, "running\n");
        }
        board.note_thread_roles(BTreeMap::from([(24604, "t2 find_call".to_owned())]));
        let words = "busy: thread 24604 (t2 find_call) used 100 % of a CPU";
        assert_eq!(first_look(&target(), &board).lines, [words]);
    }

    #[test]
    fn what_nobody_looked_at_is_not_called_calm() {
        let nothing = "nothing is known of the threads: there are no two samples of them";
        assert_eq!(first_look(&target(), &Board::default()).lines, [nothing]);
        let board = Board::default();
        for sample in [1, 2] {
            note(&board, sample, 9, 0, "202 0x7f10 0 0 0 0 0 0x7ffc 0x40\n");
        }
        let mut target = Target { profile: "kamailio", ..target() };
        let blocked = "blocked: 1 threads waited for a lock before the freeze and after it; which of \
                       them are workers is not known";
        assert_eq!(first_look(&target, &board).lines, [blocked]);
        let stopped = crate::target::Process { pid: 9, was_stopped: true, ..Default::default() };
        target.processes.push(stopped);
        let lines = first_look(&target, &Board::default()).lines;
        assert_eq!(lines, ["stopped: 1 of 1 processes, in state T before we came: 9"]);
    }

    #[test]
    fn what_waits_outside_the_process_table_is_no_hang() {
        let board = Board::default();
        for sample in [1, 2] {
            note(&board, sample, 9, 0, "202 0x7f10 0 0 0 0 0 0x7ffc 0x40\n");
        }
        let words = "nothing stands out: no thread wanted 90 % of a CPU";
        assert_eq!(first_look(&target(), &board).lines, [words]);
    }

    #[test]
    fn facts_of_the_host_are_told_and_the_restart_command_is_kept_for_the_end() {
        let board = Board::default();
        board.note(Fact::RestartCommand { words: "systemctl restart kamailio.service".into() });
        let when = "2026-11-23T05:00:00Z".to_owned();
        board.note(Fact::OomKill { program: "kamailio".into(), pid: 7, when });
        board.note(Fact::DiskBusy { device: "sda".into(), percent: 99 });
        board.note(Fact::PortHeldBy { port: 5029, pid: 8, program: "nc".into() });
        let verdict = first_look(&target(), &board);
        assert_eq!(
            verdict.lines,
            [
                "killed: kamailio (7), by the kernel for want of memory, 2026-11-23T05:00:00Z",
                "disk: sda was busy for 99 % of the time",
                "port: 5029 belongs to nc (8), which was not asked",
            ]
        );
        assert_eq!(verdict.restart.as_deref(), Some("systemctl restart kamailio.service"));
    }
}
