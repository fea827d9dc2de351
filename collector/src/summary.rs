//! What the operator is told on stdout when a bundle is sealed.

use std::io::{self, Write};
use std::time::Duration;

use bundle::{GapRecord, Manifest, Outcome};

use crate::cli::Options;
use crate::limits::Form;
use crate::number::{human, plain};
use crate::place::Output;
use crate::progress::Event;
use crate::run::{Collected, Dry, Ending};

/// Lines on what is missing.
const SHOWN: usize = 20;

/// Everything about one bundle, without the verdict.
pub(crate) fn of(collected: &Collected) -> String {
    let Collected { manifest, snapshot, target, .. } = collected;
    let mut text = String::new();
    for words in &collected.scope {
        text += &format!("scope: {words}\n");
    }
    let took = collected.took.as_secs_f64();
    text += &match snapshot.longest_pause() {
        Some(longest) => format!(
            "pause: at most {} (process {}), of {took:.1} s in all\n",
            milliseconds(longest.length),
            longest.pid
        ),
        None => format!("pause: none; {took:.1} s in all\n"),
    };
    for process in target.processes.iter().filter(|process| process.was_stopped) {
        text += &format!("  process {} was stopped before, and still is\n", process.pid);
    }
    for process in &manifest.processes {
        for thread in &process.unstopped {
            text += &format!(
                "not stopped: thread {} of process {}: {}\n",
                thread.tid, process.pid, thread.why
            );
        }
    }
    text += &lacks(manifest, |_| true);
    for (index, line) in collected.verdict.lines.iter().enumerate() {
        let line = plain(line);
        text += &format!("{} {line}\n", if index == 0 { "first look:" } else { "           " });
    }
    if let Some(words) = &collected.unnamed {
        text += &format!("not renamed: {words}\n");
    }
    if let Some(path) = &collected.map {
        text += &format!("map: {} translates pseudonyms back; it stays here\n", path.display());
    }
    let Some(Dry { content, memory }) = collected.dry else {
        return text + &format!("bundle: {}\n", file(collected));
    };
    let (packed, length) = (human(collected.length), collected.length);
    text + &format!(
        "dry run: nothing was frozen and nothing written; texts and files have {} ({content} bytes), \
         packed {packed} ({length} bytes), and about {} of memory would come to that\n",
        human(content),
        human(memory)
    )
}

/// What a bundle lacks: sources that failed, and gaps; of those that nobody wanted to fill, how many.
/// Gaps that are not `told` have been told already.
pub(crate) fn lacks(manifest: &Manifest, told: impl Fn(&GapRecord) -> bool) -> String {
    let mut text = String::new();
    for source in &manifest.sources {
        match &source.outcome {
            Outcome::Failed { error } => {
                text += &format!("failed: {}: {}\n", source.name, plain(error));
            }
            Outcome::TimedOut { after_ms } => {
                text += &format!("timed out: {} after {after_ms} ms\n", source.name);
            }
            Outcome::Collected | Outcome::Skipped { .. } => {}
        }
    }
    let (expected, missing): (Vec<_>, Vec<_>) = manifest.gaps.iter().partition(|gap| gap.expected);
    let missing: Vec<_> = missing.into_iter().filter(|gap| told(gap)).collect();
    for gap in missing.iter().take(SHOWN) {
        text += &format!("missing: {}: {}\n", plain(&gap.what), plain(&gap.why));
    }
    if missing.len() > SHOWN {
        text += &format!("missing: {} more, in the manifest\n", missing.len() - SHOWN);
    }
    match expected.len() {
        0 => {}
        number => {
            text += &format!(
                "not taken: {number} that do not apply or were not wanted, in the manifest\n"
            );
        }
    }
    text
}

/// The last event.
pub(crate) fn end<'a>(collected: &Collected, text: &'a str) -> Event<'a> {
    let pause = collected.snapshot.longest_pause().map(|pause| pause.length);
    Event::End {
        ending: collected.ending.name(),
        exit_code: collected.ending.code(),
        path: collected.path.display().to_string(),
        bytes: collected.length,
        pause_micros: pause.map(|pause| u64::try_from(pause.as_micros()).unwrap_or(u64::MAX)),
        lines: text.lines().collect(),
    }
}

/// What the operator may do now.
pub(crate) fn verdict(collected: &Collected, ending: Ending) -> String {
    let restart = collected.verdict.restart.as_deref();
    let restart = restart.map_or_else(String::new, |command| format!(": {command}"));
    if collected.dry.is_some() {
        return "not safe to restart yet: the evidence is still to be taken\n".to_owned();
    }
    match ending {
        Ending::Complete => format!("safe to restart now{restart}\n"),
        Ending::Incomplete => format!(
            "incomplete: what is missing above is lost with a restart; apart from that, safe to \
             restart now{restart}\n"
        ),
        Ending::Interrupted => {
            "interrupted: the group runs again; the bundle is only a part\n".to_owned()
        }
    }
}

/// One line for a sample that others follow; what it lacks, in a second one.
pub(crate) fn of_sample(collected: &Collected, number: u32, of: u32) -> String {
    let mut text = format!("sample {number} of {of}: {}", file(collected));
    if let Some(longest) = collected.snapshot.longest_pause() {
        text += &format!(", pause at most {}", milliseconds(longest.length));
    }
    text.push('\n');
    let missing = collected.manifest.gaps.iter().filter(|gap| !gap.expected);
    let missing: Vec<&str> = missing.map(|gap| gap.what.as_str()).collect();
    if let [first, others @ ..] = missing.as_slice() {
        let more =
            if others.is_empty() { String::new() } else { format!(", {} more", others.len()) };
        text += &format!("  missing: {first}{more} (why is in its manifest)\n");
    }
    text
}

fn file(collected: &Collected) -> String {
    let length = collected.length;
    format!("{} ({}, {length} bytes)", collected.path.display(), human(length))
}

/// Writes to stdout. A broken pipe is no error.
pub(crate) fn say(text: &str) {
    io::stdout().lock().write_all(text.as_bytes()).unwrap_or_default();
}

/// Writes to stdout, unless the bundle itself goes there: then to stderr, where neither a program nor
/// nobody reads that.
pub(crate) fn tell(options: &Options, output: &Output, text: &str) {
    if *output != Output::Stream {
        say(text);
    } else if !options.quiet && options.limits.progress == Form::Lines {
        io::stderr().lock().write_all(text.as_bytes()).unwrap_or_default();
    }
}

/// `12.8 ms`
pub(crate) fn milliseconds(duration: Duration) -> String {
    format!("{}.{} ms", duration.as_millis(), duration.subsec_micros() % 1000 / 100)
}
