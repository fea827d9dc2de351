//! `forensics extract`.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use super::{InputArgs, process};
use crate::case::CaseOptions;
use crate::commands;
use crate::report::Tame;

#[derive(Debug, Args)]
pub(super) struct ExtractArgs {
    #[command(flatten)]
    input: InputArgs,
    /// The process whose core is written.
    #[arg(long)]
    pid: u32,
    /// Where to [default: core.PID].
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replace an existing file.
    #[arg(long)]
    force: bool,
    /// Also write the bundle's executable and libraries below this folder, under their own paths,
    /// for gdb's `set sysroot`.
    #[arg(long, value_name = "DIR")]
    modules_to: Option<PathBuf>,
}

impl ExtractArgs {
    pub(super) fn run(&self, out: &mut dyn Write) -> Result<u8> {
        let output =
            self.output.clone().unwrap_or_else(|| PathBuf::from(format!("core.{}", self.pid)));
        let same = |input: &PathBuf| match (input.canonicalize(), output.canonicalize()) {
            (Ok(input), Ok(output)) => input == output,
            _ => false,
        };
        anyhow::ensure!(
            !self.input.inputs.iter().any(same),
            "{}: is the input itself",
            output.display()
        );
        let options = CaseOptions { without_pools: true, ..CaseOptions::default() };
        let case = self.input.case(options)?;
        let member = process(&case, self.pid)?;
        let out = &mut Tame(out);
        commands::extract(&member.process, &output, self.force, out)?;
        if let Some(folder) = &self.modules_to {
            commands::extract_modules(&member.process, folder, out)?;
        }
        Ok(0)
    }
}
