//! Processes that died of a signal, and whether that is the failure itself.

use super::waiting::{innermost, thread_name};
use super::{Confidence, Fact, Finding, Rule, Severity, fact, fact_at};
use crate::case::{Case, CrashView, Nearby};
use crate::crash::{Crash, Standing};

pub(super) struct Crashed;

/// Functions of the stack that are told.
const FUNCTIONS: usize = 8;

impl Rule for Crashed {
    fn id(&self) -> &'static str {
        "crashed"
    }

    fn check(&self, case: &Case) -> Vec<Finding> {
        case.crashes.iter().map(|view| self.finding(case, view)).collect()
    }
}

impl Crashed {
    fn finding(&self, case: &Case, view: &CrashView) -> Finding {
        let crash = &view.crash;
        let severity = match crash.standing {
            Standing::Sent => Severity::Error,
            Standing::Primary | Standing::Secondary => Severity::Critical,
        };
        Finding {
            rule: self.id(),
            severity,
            confidence: Confidence::Certain,
            summary: summary(case, crash),
            facts: facts(case, view),
            advice: advice(crash).to_owned(),
        }
    }
}

/// `process 12 (udp receiver) died of SIGSEGV in tm_relay: read of 8 bytes at 0x28, …`
fn summary(case: &Case, crash: &Crash) -> String {
    let name = thread_name(case, crash.thread);
    let place = place(case, crash);
    let what = match (&crash.fault, crash.cause()) {
        (Some(fault), _) => format!(": {}", fault.words()),
        (None, Some(cause)) => format!(": {cause}"),
        (None, None) => String::new(),
    };
    let standing = match crash.standing {
        Standing::Primary => "",
        Standing::Secondary => "; SECONDARY: something else failed first",
        Standing::Sent => "; the signal came from outside",
    };
    format!("{name} died of {}{place}{what}{standing}", crash.signal_name())
}

/// ` in strlen, called by pv_get_ruri`
fn place(case: &Case, crash: &Crash) -> String {
    let Some(view) = case.threads.get(crash.thread) else { return String::new() };
    let Some(first) = view.frames.first() else { return String::new() };
    let own = view.own_frame();
    match own {
        Some(own) if own.frame.pc == first.frame.pc => format!(" in {}", own.words()),
        // What abort and raise are called by is what ended the process.
        Some(own) if crash.fault.is_none() => format!(" in {}", own.words()),
        Some(own) => format!(" in {}, called by {}", first.words(), own.words()),
        None => format!(" in {}", first.words()),
    }
}

fn facts(case: &Case, view: &CrashView) -> Vec<Fact> {
    let crash = &view.crash;
    let mut facts = Vec::new();
    if let Some(why) = &crash.why {
        facts.push(fact(format!("{}: {why}", crash.standing.name())));
    }
    if let Some(info) = crash.info {
        let cause = crash.cause().unwrap_or("a code that this program does not know");
        facts.push(fact(format!("the kernel says: {cause} (si_code {})", info.code)));
    } else {
        facts.push(fact("the core has no note of the signal's cause (NT_SIGINFO)"));
    }
    if let Some(stack) = case.threads.get(crash.thread) {
        facts.push(fact(format!("its stack: {}", innermost(stack, FUNCTIONS))));
        let at = stack.frames.first().map(|frame| frame.frame.pc);
        let is_fault = crash.info.is_none_or(|info| info.sender().is_none());
        match (&crash.instruction, at.filter(|_| is_fault)) {
            (Ok(found), Some(at)) => facts.push(fact_at(at, format!("at {at}: {}", found.text))),
            (Err(why), _) => facts.push(fact(format!("the instruction is not known: {why}"))),
            _ => {}
        }
    }
    facts.extend(view.nearby.iter().filter_map(pointed));
    for (header, pool) in &view.damaged {
        let text = format!("the damaged fragment that it looked at: {header}, in the {pool}");
        facts.push(fact_at(*header, text));
    }
    if let Some(interrupted) = &crash.interrupted {
        let functions = interrupted.functions.join(" ← ");
        facts.push(fact(format!("the alarm interrupted: {functions}")));
    }
    if let Some((at, words)) = &view.lock {
        facts.push(fact_at(*at, format!("the shutdown waited for the lock at {at} ({words})")));
    }
    facts.extend(others(case, crash));
    facts
}

/// What the registers of the instruction point at.
fn pointed(nearby: &Nearby) -> Option<Fact> {
    let place = nearby.place.as_ref().filter(|_| nearby.what != "fault")?;
    Some(fact_at(nearby.at, format!("{} is {}: {place}", nearby.what, nearby.at)))
}

/// Of several cores, which is the one to look at.
fn others(case: &Case, crash: &Crash) -> Option<Fact> {
    let primary = case.crashes.iter().find(|view| view.crash.standing == Standing::Primary)?;
    let name = thread_name(case, primary.crash.thread);
    (crash.standing != Standing::Primary)
        .then(|| fact(format!("look at {name} first: its core is the primary one")))
}

fn advice(crash: &Crash) -> &'static str {
    match crash.standing {
        Standing::Secondary if crash.is_heap_damage => {
            "Do not look for the fault in these functions: the findings about the heap say which \
             fragment is damaged and who owns the memory before it."
        }
        Standing::Secondary => {
            "Look in the log for the first \"exited by a signal\" before the shutdown, and for the \
             core of that process. If nothing died, the group hung before it was stopped: take the \
             next snapshot before the restart."
        }
        Standing::Sent => {
            "Find out who sent it: a person who wanted this core, a watchdog, a supervisor whose \
             time-out ran out. The locks and states of the threads say whether the process hung."
        }
        Standing::Primary if crash.is_heap_damage => {
            "Look at the findings about the heap: they say which fragment is damaged and who owns \
             the memory before it. The functions on this stack only met the damage."
        }
        Standing::Primary => {
            "`forensics threads` shows the whole stack, `forensics why` what an address belongs to. \
             A report to the developers needs this finding, the stack and the version."
        }
    }
}
