//! Threads as text: who burns CPU, equal stacks together.

use std::collections::BTreeMap;
use std::io::{self, Write};

use super::{findings, gaps, lines, table, wrapped};
use crate::report::threads::{ProcessThreads, StackFrame, ThreadReport, ThreadsReport};
use crate::unwind::FrameTrust;

/// Threads below this share of a CPU are not told of, in percent.
const NOTABLE_PERCENT: f64 = 1.0;
/// Threads that are told of.
const BUSIEST: usize = 10;

/// The part of `forensics threads`; of each stack at most `most` frames, 0 for all.
///
/// # Errors
/// Those of `out`.
pub fn threads(report: &ThreadsReport, most: usize, out: &mut dyn Write) -> io::Result<()> {
    cpu(report, out)?;
    findings(&report.findings, out)?;
    stacks(report, most, out)?;
    gaps(&report.gaps, out)
}

type Named<'a> = (&'a ProcessThreads, &'a ThreadReport);

fn all(report: &ThreadsReport) -> impl Iterator<Item = Named<'_>> {
    report
        .processes
        .iter()
        .flat_map(|process| process.threads.iter().map(move |thread| (process, thread)))
}

/// Which thread burns which CPU in which function.
fn cpu(report: &ThreadsReport, out: &mut dyn Write) -> io::Result<()> {
    let measured = all(report).any(|(_, thread)| thread.cpu_percent.is_some());
    if !measured {
        return writeln!(out, "CPU        not measured: the input has no two samples of /proc\n");
    }
    let mut busy: Vec<(f64, Named<'_>)> = all(report)
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
    let own = thread.frames.iter().find(|frame| {
        frame.module.as_deref().is_some_and(|module| !crate::threads::is_c_library(module))
    });
    own.or(thread.frames.first()).map(function).unwrap_or_default()
}

fn name(process: &ProcessThreads, thread: &ThreadReport) -> String {
    let pid = process.pid.map_or_else(|| "?".to_owned(), |pid| pid.to_string());
    let tid = match process.pid {
        Some(pid) if pid == thread.tid => String::new(),
        _ => format!("/{}", thread.tid),
    };
    let what = process.role.as_ref().or(thread.name.as_ref());
    what.map_or_else(|| format!("{pid}{tid}"), |what| format!("{pid}{tid} ({what})"))
}

/// Equal stacks together, those of most threads first; those that are idle last.
fn stacks(report: &ThreadsReport, most: usize, out: &mut dyn Write) -> io::Result<()> {
    let mut groups: BTreeMap<Vec<String>, Vec<Named<'_>>> = BTreeMap::new();
    for named in all(report) {
        let mut key: Vec<String> = named.1.frames.iter().map(function).collect();
        key.push(named.1.doing.to_owned());
        groups.entry(key).or_default().push(named);
    }
    let mut groups: Vec<Vec<Named<'_>>> = groups.into_values().collect();
    let idle = |group: &[Named<'_>]| group.first().is_some_and(|(_, first)| first.doing == "idle");
    groups.sort_by_key(|group| (idle(group), std::cmp::Reverse(group.len())));
    let threads: usize = groups.iter().map(Vec::len).sum();
    writeln!(out, "Stacks ({} different, of {threads} threads)", groups.len())?;
    for group in &groups {
        stack(group, most, out)?;
    }
    Ok(())
}

fn stack(group: &[Named<'_>], most: usize, out: &mut dyn Write) -> io::Result<()> {
    let Some((_, first)) = group.first() else { return Ok(()) };
    let count = match group.len() {
        1 => "1 thread".to_owned(),
        count => format!("{count} threads"),
    };
    wrapped("  ", &format!("{count}: {}", first.state), out)?;
    for (process, thread) in group {
        let state = if thread.state == first.state { "" } else { &*thread.state };
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

fn function(frame: &StackFrame) -> String {
    match (&frame.function, &frame.module, frame.address_in_file) {
        (Some(function), ..) => function.clone(),
        (None, Some(module), Some(at)) => format!("{module}+{at}"),
        _ => frame.address.to_string(),
    }
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
