//! Threads as text: who burns CPU, equal stacks together.

use std::io::{self, Write};

use super::crashes::crashes;
use super::{findings, gaps, lines, table, wrapped};
use crate::report::threads::{
    Named, ProcessThreads, StackFrame, ThreadReport, ThreadsReport, all, grouped, is_idle, state,
};
use crate::unwind::FrameTrust;

/// Threads below this share of a CPU are not told of, in percent.
const NOTABLE_PERCENT: f64 = 1.0;
/// Threads that are told of.
const BUSIEST: usize = 10;
/// Functions of each stack in the summary.
const FUNCTIONS: usize = 4;

/// The part of `forensics threads`; of each stack at most `most` frames, 0 for all.
///
/// # Errors
/// Those of `out`.
pub fn threads(report: &ThreadsReport, most: usize, out: &mut dyn Write) -> io::Result<()> {
    cpu(&report.processes, out)?;
    crashes(&report.crashes, out)?;
    findings(&report.findings, out)?;
    stacks(&report.processes, most, out)?;
    gaps(&report.gaps, out)
}

/// Which thread burns which CPU in which function.
pub(super) fn cpu(processes: &[ProcessThreads], out: &mut dyn Write) -> io::Result<()> {
    let measured = all(processes).any(|(_, thread)| thread.cpu_percent.is_some());
    if !measured {
        return writeln!(out, "CPU        not measured: the input has no two samples of /proc\n");
    }
    let mut busy: Vec<(f64, Named<'_>)> = all(processes)
        .filter_map(|named| Some((named.1.cpu_percent?, named)))
        .filter(|(percent, _)| *percent >= NOTABLE_PERCENT)
        .collect();
    busy.sort_by(|(one, _), (other, _)| other.total_cmp(one));
    if busy.is_empty() {
        return writeln!(out, "CPU        every thread used less than {NOTABLE_PERCENT} %\n");
    }
    let mut table = table(&["CPU", "kernel", "thread", "function", "state"], 2);
    for (percent, (process, thread)) in busy.iter().take(BUSIEST) {
        let kernel = thread.kernel_percent.map(|kernel| format!("{kernel:.1} %"));
        table.add_row(vec![
            format!("{percent:.1} %"),
            kernel.unwrap_or_default(),
            name(process, thread),
            at(thread),
            thread.state.clone(),
        ]);
    }
    writeln!(out, "CPU between the two samples")?;
    lines("  ", &table, out)?;
    if busy.len() > BUSIEST {
        writeln!(out, "  … {} more", busy.len().saturating_sub(BUSIEST))?;
    }
    writeln!(out)
}

/// The innermost function of the program's own.
fn at(thread: &ThreadReport) -> String {
    let own = thread.frames.iter().find(|frame| !is_of_c_library(frame));
    own.or(thread.frames.first()).map(StackFrame::words).unwrap_or_default()
}

fn is_of_c_library(frame: &StackFrame) -> bool {
    frame.module.as_deref().is_some_and(crate::threads::is_c_library)
}

fn name(process: &ProcessThreads, thread: &ThreadReport) -> String {
    let pid = process.pid.map_or_else(|| "?".to_owned(), |pid| pid.to_string());
    let tid = match process.pid {
        Some(pid) if pid == thread.tid => String::new(),
        _ => format!("/{}", thread.tid),
    };
    // A program may name its threads as it likes, with line ends, too.
    let what = process.role.as_ref().or(thread.name.as_ref());
    let what = what.map(|what| what.replace(char::is_control, "�"));
    what.map_or_else(|| format!("{pid}{tid}"), |what| format!("{pid}{tid} ({what})"))
}

/// What the threads do, in few lines: functions of those only that are not idle.
pub(super) fn summary(processes: &[ProcessThreads], out: &mut dyn Write) -> io::Result<()> {
    let groups = grouped(processes);
    let threads: usize = groups.iter().map(Vec::len).sum();
    writeln!(out, "Threads ({threads}; `forensics threads` shows their stacks)")?;
    for group in groups.iter().filter(|group| !is_idle(group)) {
        let Some((_, first)) = group.first() else { continue };
        let own = first.frames.iter().skip_while(|frame| is_of_c_library(frame));
        let functions: Vec<String> = own.take(FUNCTIONS).map(StackFrame::words).collect();
        let what = format!("{}: {}", state(group), functions.join(" ← "));
        wrapped("  ", &format!("{} {what}", group.len()), out)?;
        for (process, thread) in group {
            wrapped("    ", &name(process, thread), out)?;
        }
    }
    let idle: usize = groups.iter().filter(|group| is_idle(group)).map(Vec::len).sum();
    if idle > 0 {
        writeln!(out, "  {idle} idle, waiting for work")?;
    }
    writeln!(out)
}

/// Equal stacks together.
fn stacks(processes: &[ProcessThreads], most: usize, out: &mut dyn Write) -> io::Result<()> {
    let groups = grouped(processes);
    let threads: usize = groups.iter().map(Vec::len).sum();
    writeln!(out, "Stacks ({} different, of {threads} threads)", groups.len())?;
    groups.iter().try_for_each(|group| stack(group, most, out))
}

fn stack(group: &[Named<'_>], most: usize, out: &mut dyn Write) -> io::Result<()> {
    let Some((_, first)) = group.first() else { return Ok(()) };
    let count = match group.len() {
        1 => "1 thread".to_owned(),
        count => format!("{count} threads"),
    };
    let state = state(group);
    wrapped("  ", &format!("{count}: {state}"), out)?;
    for (process, thread) in group {
        let state = if thread.state == state { "" } else { &*thread.state };
        let separator = if state.is_empty() { "" } else { ": " };
        wrapped("    ", &format!("{}{separator}{state}", name(process, thread)), out)?;
    }
    let shown = if most == 0 { usize::MAX } else { most };
    for (number, frame) in first.frames.iter().take(shown).enumerate() {
        writeln!(out, "      #{number:<2} {}", frame_line(frame))?;
    }
    match first.frames.len().saturating_sub(shown) {
        0 => writeln!(out, "      {}", first.end)?,
        more => writeln!(out, "      … {more} more frames (--frames 0 shows all)")?,
    }
    writeln!(out)
}

/// `0x… qm_malloc+0x1c (kamailio) at core/mem/q_malloc.c:386`
fn frame_line(frame: &StackFrame) -> String {
    let mut line = frame.address.to_string();
    if frame.inlined {
        line.push_str(" (inlined)");
    }
    match (&frame.function, &frame.module, frame.address_in_file) {
        (Some(function), module, _) => {
            line.push_str(&format!(" {function}"));
            if let Some(offset) = frame.offset.filter(|offset| *offset > 0) {
                line.push_str(&format!("+{offset:#x}"));
            }
            if let Some(module) = module {
                line.push_str(&format!(" ({module})"));
            }
        }
        (None, Some(module), Some(at)) => line.push_str(&format!(" {module}+{at}")),
        _ => line.push_str(" in no module"),
    }
    if let Some(file) = &frame.file {
        let number = frame.line.map(|line| format!(":{line}")).unwrap_or_default();
        line.push_str(&format!(" at {file}{number}"));
    }
    if frame.signal {
        line.push_str(" [a signal handler was called here]");
    }
    match frame.trust {
        FrameTrust::Context | FrameTrust::CallFrameInfo => {}
        FrameTrust::FramePointer => line.push_str(" [by frame pointer]"),
        FrameTrust::Scan => line.push_str(" [found by searching the stack: may be wrong]"),
    }
    line
}
