//! What the operator sees while it runs: lines on stderr, and a bar where that is a terminal.
//!
//! Nothing is written while the group stands still: a terminal that is stuck must not hold it.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Where progress goes.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    quiet: bool,
    bar: Option<ProgressBar>,
}

impl Progress {
    pub(crate) fn new(quiet: bool) -> Self {
        Self { quiet, bar: None }
    }

    /// One line. A broken stderr is no reason to fail.
    pub(crate) fn line(&self, text: impl Display) {
        tracing::info!("{text}");
        if self.quiet {
            return;
        }
        let write = || {
            let mut out = io::stderr().lock();
            writeln!(out, "{text}").and_then(|()| out.flush()).unwrap_or_default();
        };
        match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    /// Shows a bar for `total` bytes from now on, on a terminal.
    pub(crate) fn start(&mut self, total: u64) {
        if self.quiet || !io::stderr().is_terminal() {
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
    }

    /// Takes the bar away.
    pub(crate) fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}
