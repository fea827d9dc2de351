//! What `forensics locks` tells: who waits for which lock, who holds it, and where that ends.

use serde::Serialize;

use crate::addr::Addr;
use crate::case::Case;
use crate::diagnose::{Finding, Severity, diagnose};
use crate::gap::Gap;
use crate::kamailio::OwnerName;
use crate::locks::{How, Lock, LockKind, Presence, Wait};

/// The report of `forensics locks`.
#[derive(Clone, Debug, Serialize)]
pub struct LocksReport {
    /// Version of this form.
    pub schema: u32,
    /// Threads that were looked at.
    pub threads: u64,
    /// The locks that somebody waits for, those with most waiters first.
    pub locks: Vec<LockReport>,
    /// Who waits.
    pub waits: Vec<WaitReport>,
    /// Circles: each thread waits for a lock that the next one holds, the last one for one of the
    /// first.
    pub cycles: Vec<Vec<WaiterReport>>,
    /// What the rules say of locks.
    pub findings: Vec<Finding>,
    /// What is not known.
    pub gaps: Vec<Gap>,
}

/// A lock.
#[derive(Clone, Debug, Serialize)]
pub struct LockReport {
    /// Address of its word.
    pub lock: Addr,
    /// The process whose private memory it is in; null for shared memory.
    pub pid: Option<u32>,
    /// What it is.
    pub kind: LockKind,
    /// What its word held.
    pub word: Option<u32>,
    /// How many threads hold it for reading.
    pub readers: u32,
    /// What it is called, or where it lies, for a person.
    pub name: String,
    /// The fragment of the shared pool that holds it.
    pub fragment: Option<FragmentName>,
    /// Who holds it.
    pub holder: Option<HolderReport>,
    /// Threads that wait for it.
    pub waiters: u64,
}

/// The fragment that a lock lies in.
#[derive(Clone, Debug, Serialize)]
pub struct FragmentName {
    /// Its payload.
    pub payload: Addr,
    /// Length of the payload in bytes.
    pub bytes: u64,
    /// From the payload's start to the lock, in bytes.
    pub offset: u64,
    /// Who allocated it; null if it is free.
    pub owner: Option<OwnerName>,
}

/// Who holds a lock.
#[derive(Clone, Debug, Serialize)]
pub struct HolderReport {
    /// Its PID.
    pub pid: u32,
    /// Its thread ID; null where only its process is known.
    pub tid: Option<u32>,
    /// What its process does.
    pub role: Option<String>,
    /// `locker-pid`, `owner-field` or `inferred`.
    pub how: &'static str,
    /// What an inference rests on; null for what is recorded.
    pub because: Option<String>,
    /// `captured`, `not-in-input` or `ended`.
    pub presence: &'static str,
    /// What it does, for a person; null if it is not in the input.
    pub state: Option<String>,
}

/// A thread that waits.
#[derive(Clone, Debug, Serialize)]
pub struct WaitReport {
    /// Who.
    #[serde(flatten)]
    pub waiter: WaiterReport,
    /// What its process does.
    pub role: Option<String>,
    /// What the lock is.
    pub kind: LockKind,
    /// The function that takes it.
    pub function: Option<String>,
    /// For how long at least, in seconds, by two samples of `/proc`; 0 if it moved in between, null
    /// without samples.
    pub seconds: Option<f64>,
    /// Who holds it.
    pub holder: Option<HolderReport>,
}

/// A thread and the lock that it waits for.
#[derive(Clone, Debug, Serialize)]
pub struct WaiterReport {
    /// PID on the host.
    pub pid: Option<u32>,
    /// Its thread ID.
    pub tid: u32,
    /// Address of the lock's word.
    pub lock: Addr,
}

/// Rules that speak of locks.
const LOCKS: [&str; 3] = ["lock-cycle", "lock-held", "lock-on-stack"];

impl LocksReport {
    /// Of a case whose threads were looked at.
    pub fn of(case: &Case) -> Self {
        let found = &case.locks;
        let findings = diagnose(case).into_iter();
        let circle = |circle: &Vec<usize>| {
            circle.iter().filter_map(|wait| waiter(case, found.waits.get(*wait)?)).collect()
        };
        Self {
            schema: super::SCHEMA,
            threads: crate::num::wide(case.threads.len()),
            locks: locks(case),
            waits: found.waits.iter().filter_map(|wait| wait_report(case, wait)).collect(),
            cycles: found.cycles.iter().map(circle).collect(),
            findings: findings.filter(|finding| LOCKS.contains(&finding.rule)).collect(),
            gaps: case.gaps.clone(),
        }
    }

    /// The worst finding.
    pub fn worst(&self) -> Option<Severity> {
        self.findings.iter().map(|finding| finding.severity).max()
    }
}

/// The locks that threads wait for.
pub(super) fn locks(case: &Case) -> Vec<LockReport> {
    let locks = case.locks.locks.iter().enumerate();
    locks.map(|(index, lock)| lock_report(case, index, lock)).collect()
}

fn lock_report(case: &Case, index: usize, lock: &Lock) -> LockReport {
    let member = lock.member.and_then(|member| case.members.get(member));
    let fragment = lock.name.fragment.as_ref().map(|fragment| FragmentName {
        payload: fragment.payload.start,
        bytes: fragment.payload.length(),
        offset: lock.at.offset_from(fragment.payload.start).unwrap_or(0),
        owner: fragment.owner.clone(),
    });
    LockReport {
        lock: lock.at,
        pid: member.and_then(|member| member.process.pid),
        kind: lock.kind,
        word: lock.word,
        readers: lock.readers,
        name: lock.name.to_string(),
        fragment,
        holder: holder(case, lock),
        waiters: crate::num::wide(case.locks.waits_for(index).count()),
    }
}

fn holder(case: &Case, lock: &Lock) -> Option<HolderReport> {
    let holder = lock.holder.as_ref()?;
    let thread = holder.thread.and_then(|thread| case.threads.get(thread));
    let because = match &holder.how {
        How::Inferred { because } => Some(because.clone()),
        How::LockerPid | How::OwnerField => None,
    };
    Some(HolderReport {
        pid: holder.pid,
        tid: thread.map(|thread| thread.tid).or(holder.tid),
        role: case.role_of_holder(holder),
        how: holder.how.id(),
        because,
        presence: match holder.presence {
            Presence::Captured => "captured",
            Presence::NotInInput => "not-in-input",
            Presence::Ended => "ended",
        },
        state: holder.thread.map(|thread| case.doing(thread).to_string()),
    })
}

fn waiter(case: &Case, wait: &Wait) -> Option<WaiterReport> {
    let thread = case.threads.get(wait.thread)?;
    let member = case.members.get(thread.member)?;
    let lock = case.locks.lock_of(wait)?;
    Some(WaiterReport { pid: member.process.pid, tid: thread.tid, lock: lock.at })
}

fn wait_report(case: &Case, wait: &Wait) -> Option<WaitReport> {
    let thread = case.threads.get(wait.thread)?;
    let lock = case.locks.lock_of(wait)?;
    Some(WaitReport {
        waiter: waiter(case, wait)?,
        role: case.members.get(thread.member)?.role().map(str::to_owned),
        kind: lock.kind,
        function: wait.function.clone(),
        seconds: wait.lasted.map(|lasted| lasted.as_secs_f64()),
        holder: holder(case, lock),
    })
}
