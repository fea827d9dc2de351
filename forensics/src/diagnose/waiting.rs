//! What the rules about locks have in common: who, which lock, held by whom.

use super::{Fact, fact, fact_at};
use crate::case::{Case, Member, describe};
use crate::locks::{Holder, How, Lock, Presence, Wait};
use crate::threads::{NamedFrame, ThreadView};

/// Functions of a stack that are shown in one line.
const SHOWN: usize = 6;

/// A thread for a person: its process, and itself where the process has several.
pub(super) fn thread_name(case: &Case, thread: usize) -> String {
    let Some(view) = case.threads.get(thread) else { return "a thread".to_owned() };
    let Some(member) = case.members.get(view.member) else { return format!("thread {}", view.tid) };
    let process = describe(member);
    match member.process.core.notes.threads.len() {
        0 | 1 => process,
        _ => format!("thread {}{} of {process}", view.tid, own_name(view, member)),
    }
}

/// ` ("NAME")` for a thread that has another name than its program.
fn own_name(view: &ThreadView, member: &Member) -> String {
    let program = member.process.core.notes.process.as_ref().map(|info| info.name.as_str());
    match view.name.as_deref() {
        Some(name) if program != Some(name) => format!(" ({name:?})"),
        _ => String::new(),
    }
}

/// `a Kamailio lock at 0x… (the lock of the shared pool)`
pub(super) fn lock_name(lock: &Lock) -> String {
    format!("{} at {} ({})", lock.kind.words(), lock.at, lock.name)
}

/// The functions from the one that takes the lock outwards.
pub(super) fn way(view: &ThreadView) -> String {
    innermost(view, SHOWN)
}

/// The `count` innermost functions of the program's own.
pub(super) fn innermost(view: &ThreadView, count: usize) -> String {
    let own = view.frames.iter().skip_while(|frame| frame.is_c_library() || frame.module.is_none());
    let names: Vec<String> = own.take(count).map(NamedFrame::words).collect();
    match names.is_empty() {
        true => "its stack is not known".to_owned(),
        false => names.join(" ← "),
    }
}

/// Where a thread stands: its innermost function outside the C library, and, where that has no name,
/// the one with a name that it is called from.
pub(super) fn stands(view: &ThreadView) -> Option<String> {
    let own = view.own_frame()?;
    let named = view.frames.iter().skip_while(|frame| !std::ptr::eq(*frame, own));
    let named = named.filter(|frame| !frame.is_c_library()).find_map(NamedFrame::function);
    Some(match named.filter(|_| own.function().is_none()) {
        Some(named) => format!("{}, called from {named}", own.words()),
        None => own.words(),
    })
}

/// That a thread waits for a lock, where, and for how long.
pub(super) fn waits(case: &Case, wait: &Wait) -> Fact {
    let name = thread_name(case, wait.thread);
    let way = case.threads.get(wait.thread).map(way).unwrap_or_default();
    let lasted = match wait.lasted {
        Some(lasted) if !lasted.is_zero() => {
            format!(", for {:.1} s at least", lasted.as_secs_f64())
        }
        _ => String::new(),
    };
    match case.locks.lock_of(wait) {
        Some(lock) => fact_at(lock.at, format!("{name} waits for lock {}{lasted}: {way}", lock.at)),
        None => fact(format!("{name} waits{lasted}: {way}")),
    }
}

/// A holder for a person, with what it does and how it is known.
pub(super) fn holder_name(case: &Case, holder: &Holder) -> String {
    match holder.thread {
        Some(thread) => thread_name(case, thread),
        None => match (holder.tid, case.role_of_holder(holder)) {
            (Some(tid), _) if tid == holder.pid => format!("thread {tid}"),
            (Some(tid), _) => format!("thread {tid} of process {}", holder.pid),
            (None, Some(role)) => format!("process {} ({role})", holder.pid),
            (None, None) => format!("process {}", holder.pid),
        },
    }
}

/// What a holder does: the end of a sentence that names it.
pub(super) fn holder_does(case: &Case, holder: &Holder) -> String {
    match (holder.presence, holder.thread) {
        (Presence::Captured, Some(thread)) => {
            let doing = case.doing(thread);
            let at = case.threads.get(thread).and_then(stands);
            let at = at.map(|at| format!(" in {at}")).unwrap_or_default();
            format!("which is {doing}{at}")
        }
        (Presence::Ended, _) => "which has ended, so that nobody will release it".to_owned(),
        _ => "which is not in the input".to_owned(),
    }
}

/// How a holder is known.
pub(super) fn how_known(holder: &Holder) -> String {
    match &holder.how {
        How::LockerPid => "the lock records its holder's PID".to_owned(),
        How::OwnerField => "the lock records its holder's thread".to_owned(),
        How::Inferred { because } => format!("inferred: {because}"),
    }
}
