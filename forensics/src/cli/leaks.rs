//! `forensics leaks`.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use super::{InputArgs, parse_size};
use crate::case::CaseOptions;
use crate::content::{DumpOptions, Shown};
use crate::diagnose::Severity;
use crate::report::{LeakOptions, LeakReport, Tame, text};

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
    /// Show what unreachable fragments hold as it is; else private content is masked.
    #[arg(long)]
    show_content: bool,
    /// Write the payload of every unreachable fragment, as it is, to a file of its own in this
    /// directory, which is made or must be empty; index.json names their owners.
    #[arg(long, value_name = "DIR")]
    dump: Option<PathBuf>,
    /// Write at most so many bytes of payloads, those of the largest owners first.
    #[arg(long, value_name = "SIZE", default_value = "256M", requires = "dump",
          value_parser = parse_size)]
    dump_max: u64,
    /// Write into a directory that is not empty, and replace files of the same names.
    #[arg(long, requires = "dump")]
    force: bool,
}

impl LeaksArgs {
    pub(super) fn run(&self, out: &mut dyn Write) -> Result<u8> {
        let options = CaseOptions { reachability: true, ..CaseOptions::default() };
        let dump = self.dump.clone().map(|directory| DumpOptions {
            directory,
            force: self.force,
            max_bytes: self.dump_max,
        });
        let wanted = LeakOptions { shown: Shown::from(self.show_content), dump };
        let report = LeakReport::of(&self.input.case(options)?, &wanted)?;
        if self.json {
            serde_json::to_writer_pretty(&mut *out, &report).map_err(std::io::Error::from)?;
            writeln!(out)?;
        } else {
            text::leaks(&report, self.top.unwrap_or(text::DEFAULT_TOP), &mut Tame(out))?;
        }
        Ok(u8::from(report.worst() >= Some(Severity::Warning)))
    }
}
