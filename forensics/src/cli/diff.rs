//! `forensics diff`.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use super::{FileArgs, needs_heap};
use crate::case::{Case, CaseOptions};
use crate::input::Evidence;
use crate::report::{Comparison, text};

#[derive(Debug, Args)]
pub(super) struct DiffArgs {
    /// Two or more snapshots, each a bundle, a core, or a directory with the cores of one group.
    #[arg(required = true, num_args = 2.., value_name = "INPUT")]
    snapshots: Vec<PathBuf>,
    #[command(flatten)]
    files: FileArgs,
    /// JSON, as docs/report-schema.md describes it.
    #[arg(long)]
    json: bool,
    /// Show so many owners of each list [default: 10 as text, all as JSON].
    #[arg(long, value_name = "N")]
    top: Option<usize>,
}

impl DiffArgs {
    pub(super) fn run(&self, out: &mut dyn Write) -> Result<u8> {
        let open = |path| self.files.open(std::slice::from_ref(path));
        let opened = self.snapshots.iter().map(open).collect::<Result<Vec<Evidence>>>()?;
        let (ordered, reordered) = by_time(opened);
        let mut comparison = Comparison::default();
        for evidence in ordered {
            // Each case is gone before the next one is built: of its fragments only what tells
            // them apart stays.
            comparison.add(self.case(evidence)?);
        }
        let mut report = comparison.finish(reordered);
        anyhow::ensure!(!report.pools.is_empty(), "{}", nothing(&report.gaps));
        if self.json {
            report.owners.truncate(self.top.unwrap_or(usize::MAX));
            serde_json::to_writer_pretty(&mut *out, &report).map_err(std::io::Error::from)?;
            writeln!(out)?;
        } else {
            report.text(self.top.unwrap_or(text::DEFAULT_TOP), out)?;
        }
        // Growth is a fact, and no fault by itself.
        Ok(0)
    }

    fn case(&self, evidence: Evidence) -> Result<Case> {
        let options = CaseOptions { keep_used: true, ..CaseOptions::default() };
        let case = self.files.case(evidence, options)?;
        needs_heap(&case)?;
        Ok(case)
    }
}

/// The snapshots in the order of their times, and whether that is another than the one given. If a
/// time is not recorded, the user's order stands.
pub(super) fn by_time(opened: Vec<Evidence>) -> (Vec<Evidence>, bool) {
    let moments: Result<Vec<_>, _> = opened.iter().map(Evidence::moment).collect();
    let Ok(moments) = moments else { return (opened, false) };
    if moments.is_sorted_by_key(|moment| moment.at) {
        return (opened, false);
    }
    let mut pairs: Vec<_> = moments.into_iter().zip(opened).collect();
    pairs.sort_by_key(|(moment, _)| moment.at);
    (pairs.into_iter().map(|(_, evidence)| evidence).collect(), true)
}

/// Why nothing could be compared.
fn nothing(gaps: &[crate::Gap]) -> String {
    let about = gaps.iter().find(|gap| gap.why.starts_with("not compared"));
    match about.or(gaps.first()) {
        Some(gap) => format!("no pool is in every snapshot ({}: {})", gap.what, gap.why),
        None => "no pool is in every snapshot".to_owned(),
    }
}
