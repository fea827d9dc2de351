//! `forensics profile`.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, ValueEnum};

use super::{FileArgs, diff};
use crate::case::CaseOptions;
use crate::input::Evidence;
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
        let mut opened = self.snapshots.iter().map(open).collect::<Result<Vec<Evidence>>>()?;
        share_modules(&mut opened);
        let (ordered, _) = diff::by_time(opened);
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

/// Gives the samples of a series that came without modules those of a sample of the same host and
/// boot that has them: of a series only the first and the last one bring any.
fn share_modules(snapshots: &mut [Evidence]) {
    let boot = |snapshot: &Evidence| snapshot.header.as_ref().map(|header| header.boot_id.clone());
    let with_modules = snapshots.iter().filter(|snapshot| !snapshot.modules.is_empty());
    let known: Vec<_> =
        with_modules.filter_map(|with| Some((boot(with)?, with.modules.clone()))).collect();
    for snapshot in snapshots.iter_mut().filter(|snapshot| snapshot.modules.is_empty()) {
        let same = known.iter().find(|(of, _)| Some(of) == boot(snapshot).as_ref());
        if let Some((_, modules)) = same {
            snapshot.modules.clone_from(modules);
        }
    }
}
