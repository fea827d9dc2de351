//! Whether a death is the failure itself or something that came after it.

use serde::Serialize;

use super::Interrupted;
use crate::core::SignalInfo;
use crate::kamailio::is_manager_function;
use crate::memory::Memory;
use crate::threads::{NamedFrame, ThreadView};

const SIGABRT: u16 = 6;

/// Functions of Kamailio and OpenSIPS that run at shutdown only. `shutdown_children` has no name in
/// a stripped program.
const SHUTDOWN: [&str; 3] = ["cleanup", "destroy_modules", "shutdown_children"];

/// Parts of names of functions that write text.
const PRINTING: [&str; 4] = ["printf", "syslog", "strlen", "strnlen"];

/// What a crash stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// The failure itself, as far as this core tells.
    Primary,
    /// Something else failed before.
    Secondary,
    /// Somebody ended it from outside.
    Sent,
}

impl Standing {
    /// For a person and for scripts.
    pub fn name(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Secondary => "secondary",
            Self::Sent => "sent",
        }
    }
}

/// How a crash stands, and what makes it so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Judged {
    pub(super) standing: Standing,
    /// For a person; `None` for a primary one of which nothing is to be said.
    pub(super) why: Option<String>,
    /// Whether damage of a heap explains it.
    pub(super) is_heap_damage: bool,
    /// What a time-out interrupted.
    pub(super) interrupted: Option<Interrupted>,
}

/// Judges by the stack and by who sent the signal.
pub(super) fn judge(
    view: &ThreadView,
    info: Option<&SignalInfo>,
    own_pids: &[u32],
    memory: &dyn Memory,
) -> Judged {
    let judged = |standing, why: &str, is_heap_damage| Judged {
        standing,
        why: Some(why.to_owned()),
        is_heap_damage,
        interrupted: None,
    };
    if let Some(interrupted) = shutdown_timeout(view, memory) {
        return Judged {
            interrupted: Some(interrupted),
            ..judged(
                Standing::Secondary,
                "its shutdown took too long, and the alarm that guards it aborted it: the first \
                 failure was earlier, often a process that died or hung with a lock in its hands",
                false,
            )
        };
    }
    if let Some(sender) = info.and_then(SignalInfo::sender)
        && !own_pids.contains(&sender)
    {
        let by = match sender {
            0 => "the kernel or a process outside its PID namespace".to_owned(),
            pid => format!("process {pid}"),
        };
        return judged(Standing::Sent, &format!("{by} sent it the signal"), false);
    }
    let own = own_functions(view);
    let Some(first) = own.first() else {
        return Judged {
            standing: Standing::Primary,
            why: None,
            is_heap_damage: false,
            interrupted: None,
        };
    };
    let in_manager = first.iter().any(|name| is_manager(name))
        // The check itself has no name in a stripped program.
        || (first.is_empty() && own.get(1).is_some_and(|names| names.iter().any(|n| is_manager(n))));
    let prints_status = own.iter().take(3).flatten().any(|name| is_status(name));
    if prints_status {
        let why = "it died while it printed the state of a heap: the heap was damaged before";
        return judged(Standing::Secondary, why, true);
    }
    if in_manager && view.signal != SIGABRT && was_printing(view) {
        let why = "it died while it printed that a fragment of the heap is overwritten: the damage \
                   was done before, by somebody else";
        return judged(Standing::Secondary, why, true);
    }
    if in_manager {
        let why = match view.signal {
            SIGABRT => {
                "the memory manager found damage and ended the process: whoever did the damage ran \
                 before"
            }
            _ => {
                "it died inside the memory manager, whose lists or headers are damaged: whoever did \
                 the damage ran before"
            }
        };
        return judged(Standing::Primary, why, true);
    }
    Judged { standing: Standing::Primary, why: None, is_heap_damage: false, interrupted: None }
}

/// The names of each frame of the program's own, innermost first; empty without a name.
fn own_functions(view: &ThreadView) -> Vec<Vec<&str>> {
    let frames = view.frames.iter().skip_while(|frame| is_foreign(frame));
    frames.map(|frame| frame.functions().collect()).collect()
}

fn is_foreign(frame: &NamedFrame) -> bool {
    frame.is_c_library() || frame.module.is_none()
}

/// Functions of Kamailio's memory managers, without those that print.
pub(crate) fn is_manager(function: &str) -> bool {
    is_manager_function(function) && !is_status(function)
}

fn is_status(function: &str) -> bool {
    is_manager_function(function) && (function.contains("status") || function.contains("sums"))
}

/// Whether the innermost frames are the C library's, and one of them writes text.
fn was_printing(view: &ThreadView) -> bool {
    let library = view.frames.iter().take_while(|frame| frame.is_c_library());
    library.flat_map(NamedFrame::functions).any(|name| PRINTING.iter().any(|p| name.contains(p)))
}

/// Abort ← handler of SIGALRM ← … ← shutdown. The handler has no name in a stripped program, and the
/// kernel keeps the signal's number for handlers with `SA_SIGINFO` only; so it is known by calling
/// `abort` itself, during a shutdown.
fn shutdown_timeout(view: &ThreadView, memory: &dyn Memory) -> Option<Interrupted> {
    if view.signal != SIGABRT {
        return None;
    }
    let at = view.frames.iter().position(|frame| frame.frame.is_signal_frame)?;
    let (inner, outer) = view.frames.split_at_checked(at)?;
    let mut handler = inner.iter().skip_while(|frame| is_foreign(frame));
    let (first, rest) = (handler.next()?, handler.next());
    let is_alarm = first.functions().any(|name| name == "sig_alarm_abort");
    let is_nameless = first.functions().next().is_none() && rest.is_none();
    let outer: Vec<&NamedFrame> = outer.iter().skip(1).collect();
    let mut functions = outer.iter().flat_map(|frame| frame.functions());
    let shuts_down = functions.any(|name| SHUTDOWN.contains(&name));
    (is_alarm || is_nameless && shuts_down).then(|| Interrupted::of(&outer, memory))
}
