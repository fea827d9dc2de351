//! The options of `--post-mortem`.

use std::path::PathBuf;

use clap::Args;

/// What is looked for when the process is gone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
#[command(next_help_heading = "When the process is gone")]
pub struct PostMortem {
    /// Collect what is left of a program that has died: its cores, files, logs and configuration.
    /// No running process is touched
    #[arg(long, conflicts_with_all = ["pid", "list", "every", "stacks_only", "no_memory", "rings"])]
    pub post_mortem: bool,
    /// This core, or the cores in this folder, instead of those that the system kept (.zst, .lz4,
    /// .xz, .gz and reports of apport are unpacked); may be given several times
    #[arg(long, value_name = "FILE", requires = "post_mortem")]
    pub core: Vec<PathBuf>,
    /// The program's file, if it is not where the core says; taken only if it is the same
    #[arg(long, value_name = "FILE", requires = "post_mortem")]
    pub executable: Option<PathBuf>,
    /// The files of a system that is mounted here, not those of this host
    #[arg(long, value_name = "FOLDER", requires = "post_mortem")]
    pub root: Option<PathBuf>,
}
