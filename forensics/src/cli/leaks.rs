//! `forensics leaks`.

use std::io::Write;

use anyhow::Result;
use clap::Args;

use super::InputArgs;
use crate::case::CaseOptions;
use crate::diagnose::Severity;
use crate::report::{LeakReport, Tame, text};

#[derive(Debug, Args)]
pub(super) struct LeaksArgs {
    #[command(flatten)]
    input: InputArgs,
    /// JSON, as docs/report-schema.md describes it.
    #[arg(long)]
    json: bool,
    /// Show so many owners [default: 10 as text, all as JSON].
    #[arg(long, value_name = "N")]
    top: Option<usize>,
}

impl LeaksArgs {
    pub(super) fn run(&self, out: &mut dyn Write) -> Result<u8> {
        let options = CaseOptions { reachability: true, ..CaseOptions::default() };
        let report = LeakReport::of(&self.input.case(options)?);
        if self.json {
            serde_json::to_writer_pretty(&mut *out, &report).map_err(std::io::Error::from)?;
            writeln!(out)?;
        } else {
            text::leaks(&report, self.top.unwrap_or(text::DEFAULT_TOP), &mut Tame(out))?;
        }
        Ok(u8::from(report.worst() >= Some(Severity::Warning)))
    }
}
