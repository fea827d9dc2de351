//! `forensics profile`.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, ValueEnum};

use super::{FileArgs, diff};
use crate::case::CaseOptions;
use crate::input::{Evidence, ModuleInput};
use crate::report::Profile;

#[derive(Debug, Args)]
pub(super) struct ProfileArgs {
    /// One or more snapshots of the same processes, each a bundle, a core, or a directory with the
    /// cores of one group; a series is made by `collect-evidence --samples N --every T`.
    #[arg(required = true, value_name = "INPUT")]
    snapshots: Vec<PathBuf>,
    #[command(flatten)]
    files: FileArgs,
    /// Only threads that ran when they were stopped; not those that waited in a system call.
    #[arg(long)]
    on_cpu: bool,
    /// What to write.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Show so many functions in the text.
    #[arg(long, value_name = "N", default_value_t = 20)]
    top: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Functions by samples, and those of each thread that burns CPU.
    Text,
    /// A line for each stack, for flame graph programs.
    Folded,
    /// JSON for <https://www.speedscope.app>.
    Speedscope,
}

impl ProfileArgs {
    pub(super) fn run(&self, out: &mut dyn Write) -> Result<u8> {
        let open = |path| self.files.open(std::slice::from_ref(path));
        let opened = self.snapshots.iter().map(open).collect::<Result<Vec<Evidence>>>()?;
        let (mut ordered, _) = diff::by_time(opened);
        share_modules(&mut ordered);
        let options = CaseOptions { threads: true, without_pools: true, ..CaseOptions::default() };
        let mut profile = Profile::default();
        for evidence in ordered {
            profile.add(&self.files.case(evidence, options)?, self.on_cpu);
        }
        match self.format {
            Format::Text => profile.text(self.top, out)?,
            Format::Folded => out.write_all(profile.folded().as_bytes())?,
            Format::Speedscope => writeln!(out, "{}", profile.speedscope()?)?,
        }
        Ok(0)
    }
}

/// Of a series of stacks only the first and the last bundle hold the modules, which are the same in
/// all: they serve those between.
fn share_modules(snapshots: &mut [Evidence]) {
    let series = |evidence: &Evidence| Some(evidence.header.as_ref()?.series.as_ref()?.id.clone());
    let held: Vec<(String, Vec<ModuleInput>)> = snapshots
        .iter()
        .filter(|evidence| !evidence.modules.is_empty())
        .filter_map(|evidence| Some((series(evidence)?, evidence.modules.clone())))
        .collect();
    for evidence in snapshots.iter_mut().filter(|evidence| evidence.modules.is_empty()) {
        let own = series(evidence);
        if let Some((_, modules)) = held.iter().find(|(id, _)| Some(id) == own.as_ref()) {
            evidence.modules.clone_from(modules);
        }
    }
}
