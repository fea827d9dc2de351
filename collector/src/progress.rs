//! What the operator sees while it runs: lines on stderr, and a bar where that is a terminal; or for
//! a program one JSON object a line, as `docs/collector-progress.md` describes them.
//!
//! Nothing is written while the group stands still: a terminal that is stuck must not hold it.

use std::cell::Cell;
use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use bundle::{Outcome, Series};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use crate::cli::Options;
use crate::limits::Form;
use crate::number::human;
use crate::place::Output;
use crate::target::Target;

/// The version of the JSON lines: raised when a field changes its meaning or goes.
const SCHEMA: u32 = 1;
/// Between two `progress` events.
const OFTEN: Duration = Duration::from_millis(500);

/// What a program is told.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub(crate) enum Event<'a> {
    /// The group was chosen.
    Begin { program: &'a str, main: u32, processes: usize, output: String, encrypted: bool },
    /// A part of the collection begins.
    Phase { phase: Step },
    /// A source has ended.
    Source {
        name: &'a str,
        /// Uncompressed bytes that it gave.
        bytes: u64,
        #[serde(flatten)]
        outcome: &'a Outcome,
    },
    /// The group runs again.
    Thawed { processes: usize, threads: usize, pause_micros: u64, copied_bytes: u64 },
    /// Uncompressed bytes of memory that were written so far.
    Progress { phase: Step, bytes: u64, total: u64, percent: u64 },
    /// Anything else, for a person.
    Message { text: String },
    /// The last one of a bundle.
    End {
        ending: &'a str,
        exit_code: u8,
        path: String,
        bytes: u64,
        pause_micros: Option<u64>,
        lines: Vec<&'a str>,
    },
    /// The last one where there is no bundle.
    Failed { exit_code: u8, text: String },
}

/// Where a collection is.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Step {
    BeforeFreeze,
    Frozen,
    Memory,
    AfterThaw,
    Seal,
}

#[derive(Serialize)]
struct Line<'a> {
    schema: u32,
    time: String,
    elapsed_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    sample: Option<u32>,
    #[serde(flatten)]
    event: &'a Event<'a>,
}

/// Where progress goes.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    quiet: bool,
    form: Form,
    begun: Instant,
    sample: Option<u32>,
    bar: Option<ProgressBar>,
    total: u64,
    told: Cell<Option<Instant>>,
}

impl Progress {
    /// Of one bundle. Of a series only the last one is worth more than a line to a person.
    pub(crate) fn new(options: &Options, series: Option<&Series>) -> Self {
        let form = options.limits.progress;
        let earlier = series.is_some_and(|series| series.number < series.of);
        Self {
            quiet: options.quiet || (earlier && form == Form::Lines),
            form,
            begun: Instant::now(),
            sample: series.map(|series| series.number),
            bar: None,
            total: 0,
            told: Cell::new(None),
        }
    }

    /// One line. A broken stderr is no reason to fail.
    pub(crate) fn line(&self, text: impl Display) {
        let event = Event::Message { text: text.to_string() };
        self.tell(&event, text);
    }

    /// The event for a program, or the words for a person.
    pub(crate) fn tell(&self, event: &Event<'_>, words: impl Display) {
        tracing::info!("{words}");
        match self.form {
            Form::Json => self.event(event),
            Form::Lines if self.quiet => {}
            Form::Lines => {
                let write = || write_line(&words.to_string());
                match &self.bar {
                    Some(bar) => bar.suspend(write),
                    None => write(),
                }
            }
        }
    }

    /// For a program only.
    pub(crate) fn event(&self, event: &Event<'_>) {
        if self.form != Form::Json {
            return;
        }
        let line = Line {
            schema: SCHEMA,
            time: jiff::Zoned::now().to_string(),
            elapsed_ms: u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX),
            sample: self.sample,
            event,
        };
        if let Ok(text) = serde_json::to_string(&line) {
            write_line(&text);
        }
    }

    /// The first words.
    pub(crate) fn begin(&self, target: &Target, output: &Output, encrypted: bool) {
        let (program, main) = (target.program.as_str(), target.main);
        let processes = target.processes.len();
        let output = output.to_string();
        let event = Event::Begin { program, main, processes, output, encrypted };
        self.tell(&event, format_args!("{program}: {processes} processes, main {main}"));
    }

    /// A source has ended.
    pub(crate) fn source(&self, name: &str, bytes: u64, outcome: &Outcome) {
        let event = Event::Source { name, bytes, outcome };
        self.tell(&event, format_args!("{name}: {}", human(bytes)));
    }

    /// Another part of the collection begins.
    pub(crate) fn phase(&self, phase: Step) {
        self.event(&Event::Phase { phase });
    }

    /// Shows a bar for `total` bytes from now on, on a terminal.
    pub(crate) fn start(&mut self, total: u64) {
        self.total = total;
        if self.quiet || self.form == Form::Json || !io::stderr().is_terminal() {
            return;
        }
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
        let style = "{bar:30} {bytes} of {total_bytes}, {bytes_per_sec}";
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style);
        }
        self.bar = Some(bar);
    }

    /// Moves the bar.
    pub(crate) fn at(&self, bytes: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(bytes);
        }
        if self.told.get().is_none_or(|told| told.elapsed() >= OFTEN) {
            self.told.set(Some(Instant::now()));
            let (total, phase) = (self.total, Step::Memory);
            let percent = percent(bytes, total);
            self.event(&Event::Progress { phase, bytes, total, percent });
        }
    }

    /// Takes the bar away.
    pub(crate) fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

/// The last word of a run that made no bundle.
pub(crate) fn failed(options: &Options, error: &anyhow::Error) {
    match options.limits.progress {
        Form::Lines => write_line(&format!("collect-evidence: {error:#}")),
        Form::Json => {
            let text = format!("{error:#}");
            Progress::new(options, None).event(&Event::Failed { exit_code: 2, text });
        }
    }
}

/// Of `total`; 100 where that is nothing, and never more: notes and headers come on top of it.
fn percent(bytes: u64, total: u64) -> u64 {
    bytes.saturating_mul(100).checked_div(total).map_or(100, |percent| percent.min(100))
}

fn write_line(text: &str) {
    let mut out = io::stderr().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).unwrap_or_default();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_flat_object() {
        let outcome = Outcome::TimedOut { after_ms: 2000 };
        let event = Event::Source { name: "system", bytes: 7, outcome: &outcome };
        let line =
            Line { schema: SCHEMA, time: "T".into(), elapsed_ms: 12, sample: None, event: &event };
        assert_eq!(
            serde_json::to_string(&line).unwrap(),
            r#"{"schema":1,"time":"T","elapsed_ms":12,"event":"source","name":"system","bytes":7,"outcome":"timed-out","after_ms":2000}"#
        );
        let event = Event::Phase { phase: Step::BeforeFreeze };
        let line = Line { sample: Some(3), event: &event, ..line };
        assert_eq!(
            serde_json::to_string(&line).unwrap(),
            r#"{"schema":1,"time":"T","elapsed_ms":12,"sample":3,"event":"phase","phase":"before-freeze"}"#
        );
    }

    #[test]
    fn percents_stay_within_a_hundred() {
        assert_eq!((percent(0, 0), percent(1, 3), percent(5, 4)), (100, 33, 100));
    }
}
