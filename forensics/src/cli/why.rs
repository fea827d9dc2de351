//! `forensics why` and `forensics refs`.

use std::io::Write;

use anyhow::Result;
use clap::Args;

use super::{InputArgs, needs_heap, process};
use crate::addr::Addr;
use crate::case::{Case, CaseOptions, Member};
use crate::report::{RefsReport, Tame, WhyReport, is_process, text};

#[derive(Debug, Args)]
struct Question {
    /// An address in the payload of a used fragment.
    #[arg(value_name = "ADDR")]
    address: Addr,
    #[command(flatten)]
    input: InputArgs,
    /// Only the private pool of this process, by its PID on the host or in its own namespace.
    #[arg(long)]
    pid: Option<u32>,
    /// JSON, as docs/report-schema.md describes it.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct WhyArgs {
    #[command(flatten)]
    question: Question,
    /// Show so many ways.
    #[arg(long, value_name = "N", default_value_t = 5)]
    paths: usize,
}

#[derive(Debug, Args)]
pub(super) struct RefsArgs {
    #[command(flatten)]
    question: Question,
}

impl Question {
    fn case(&self) -> Result<Case> {
        let options = CaseOptions { keep_used: true, ..CaseOptions::default() };
        let case = self.input.case(options)?;
        needs_heap(&case)?;
        if let Some(pid) = self.pid {
            process(&case, pid)?;
        }
        Ok(case)
    }

    fn chosen(&self, member: &Member) -> bool {
        self.pid.is_none_or(|pid| is_process(member, pid))
    }

    fn found(&self, fragments: usize) -> Result<()> {
        let at = self.address;
        anyhow::ensure!(
            fragments > 0,
            "{at} is in no used fragment of any pool that was read \
             (`forensics heap --frag {at}` knows free ones, too)"
        );
        Ok(())
    }
}

impl WhyArgs {
    pub(super) fn run(&self, out: &mut dyn Write) -> Result<u8> {
        let question = &self.question;
        let case = question.case()?;
        let chosen = |member: &Member| question.chosen(member);
        let report = WhyReport::of(&case, question.address, self.paths, chosen);
        question.found(report.fragments.len())?;
        if question.json {
            serde_json::to_writer_pretty(&mut *out, &report).map_err(std::io::Error::from)?;
            writeln!(out)?;
        } else {
            text::why(&report, question.address, &mut Tame(out))?;
        }
        Ok(0)
    }
}

impl RefsArgs {
    pub(super) fn run(&self, out: &mut dyn Write) -> Result<u8> {
        let question = &self.question;
        let case = question.case()?;
        let report = RefsReport::of(&case, question.address, |member| question.chosen(member));
        question.found(report.fragments.len())?;
        if question.json {
            serde_json::to_writer_pretty(&mut *out, &report).map_err(std::io::Error::from)?;
            writeln!(out)?;
        } else {
            text::refs(&report, question.address, &mut Tame(out))?;
        }
        Ok(0)
    }
}
