//! `forensics threads` and `forensics locks`.

use std::io::Write;

use anyhow::Result;
use clap::Args;

use super::{InputArgs, process};
use crate::case::{Case, CaseOptions};
use crate::diagnose::Severity;
use crate::report::{LocksReport, Tame, ThreadsReport, text};

#[derive(Debug, Args)]
pub(super) struct ThreadsArgs {
    #[command(flatten)]
    input: InputArgs,
    /// Only the threads of this process, by its PID on the host or in its own namespace.
    #[arg(long)]
    pid: Option<u32>,
    /// JSON, as docs/report-schema.md describes it.
    #[arg(long)]
    json: bool,
    /// Show at most so many frames of each stack; 0 shows all.
    #[arg(long, value_name = "N", default_value_t = 32)]
    frames: usize,
}

#[derive(Debug, Args)]
pub(super) struct LocksArgs {
    #[command(flatten)]
    input: InputArgs,
    /// JSON, as docs/report-schema.md describes it.
    #[arg(long)]
    json: bool,
}

/// Threads, and of the shared pool what names the locks.
fn case(input: &InputArgs) -> Result<Case> {
    input.case(CaseOptions { threads: true, without_pools: true, ..CaseOptions::default() })
}

impl ThreadsArgs {
    pub(super) fn run(&self, out: &mut dyn Write) -> Result<u8> {
        let case = case(&self.input)?;
        let mut report = ThreadsReport::of(&case);
        if let Some(pid) = self.pid {
            report.only(process(&case, pid)?.process.pid);
        }
        if self.json {
            serde_json::to_writer_pretty(&mut *out, &report).map_err(std::io::Error::from)?;
            writeln!(out)?;
        } else {
            text::threads(&report, self.frames, &mut Tame(out))?;
        }
        Ok(u8::from(report.worst() >= Some(Severity::Warning)))
    }
}

impl LocksArgs {
    pub(super) fn run(&self, out: &mut dyn Write) -> Result<u8> {
        let report = LocksReport::of(&case(&self.input)?);
        if self.json {
            serde_json::to_writer_pretty(&mut *out, &report).map_err(std::io::Error::from)?;
            writeln!(out)?;
        } else {
            text::locks(&report, &mut Tame(out))?;
        }
        Ok(u8::from(report.worst() >= Some(Severity::Warning)))
    }
}
