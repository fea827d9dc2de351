//! The command line: what was asked, and the exit code.
//!
//! 0: nothing from *warning* upwards; 1: findings; 2: could not run. A command with options of its
//! own has a file of its own.

mod diff;
mod extract;
mod heap;
mod leaks;
mod profile;
mod threads;
mod why;

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::{Args, Parser, Subcommand};

use self::diff::DiffArgs;
use self::extract::ExtractArgs;
use self::heap::HeapArgs;
use self::leaks::LeaksArgs;
use self::profile::ProfileArgs;
use self::threads::{LocksArgs, ThreadsArgs};
use self::why::{RefsArgs, WhyArgs};
use crate::case::{Case, CaseOptions, Member};
use crate::commands;
use crate::diagnose::Severity;
use crate::input::{self, Evidence, OpenOptions};
use crate::modules::LibraryOptions;
use crate::report::{Report, Selection, Tame, is_process, text};
use crate::symbols::{SymbolOptions, debuginfod_caches};

/// Analyses support bundles and cores of Kamailio: what its memory pools hold, and who holds it.
///
/// INPUT is a bundle of collect-evidence (.tar.zst), one or several ELF cores of one process group
/// (plain, .zst, .gz, .xz, .lz4), or a directory of these. Without a command the whole report is
/// shown.
///
/// Exit status: 0 nothing to warn of, 1 findings, 2 could not run.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    report: ReportArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// What the pools hold, by owner; single fragments on demand.
    Heap(HeapArgs),
    /// Fragments that nothing points to any more.
    Leaks(LeaksArgs),
    /// Why a fragment is still alive: the shortest ways to it from the roots.
    Why(WhyArgs),
    /// Every word that points at a fragment, or into it.
    Refs(RefsArgs),
    /// What owners hold in two or more snapshots, and who grows like a leak.
    Diff(DiffArgs),
    /// What each thread does: its stack, its CPU, what it waits for.
    Threads(ThreadsArgs),
    /// Who waits for which lock, and who holds it.
    Locks(LocksArgs),
    /// In which functions threads are, over one or more snapshots.
    Profile(ProfileArgs),
    /// What the input is: processes, memory, modules, what is missing.
    Info(InfoArgs),
    /// Write a complete, standalone core of one process, for gdb.
    Extract(ExtractArgs),
    /// Check a bundle's hashes and completeness, and every core's headers.
    Verify(ReportArgs),
}

#[derive(Debug, Args)]
struct ReportArgs {
    #[command(flatten)]
    input: InputArgs,
    /// JSON, as docs/report-schema.md describes it.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct InfoArgs {
    #[command(flatten)]
    report: ReportArgs,
    /// Show every thread's general registers and what each points at (x86-64 only).
    #[arg(long)]
    registers: bool,
}

#[derive(Debug, Args)]
struct InputArgs {
    /// A bundle, cores of one group, or a directory.
    #[arg(required = true, value_name = "INPUT")]
    inputs: Vec<PathBuf>,
    #[command(flatten)]
    files: FileArgs,
}

/// How inputs are opened.
#[derive(Debug, Args)]
struct FileArgs {
    /// An age identity file (of age-keygen), for encrypted bundles; may be repeated.
    #[arg(long = "identity", value_name = "FILE")]
    identities: Vec<PathBuf>,
    /// Folder with the customer's files under their own paths, for cores without modules.
    #[arg(long, value_name = "DIR")]
    sysroot: Option<PathBuf>,
    /// An executable or library of the process, or a folder of them; may be repeated.
    #[arg(long = "module", value_name = "FILE")]
    modules: Vec<PathBuf>,
    /// Folder with debug files, for names, files and lines: by build ID as below /usr/lib/debug, by
    /// debug link, or in any order; may be repeated.
    #[arg(long = "debug-dir", value_name = "DIR")]
    debug_dirs: Vec<PathBuf>,
    /// Ask the servers in DEBUGINFOD_URLS for debug files that are not at hand; without it nothing
    /// goes over the network.
    #[arg(long)]
    debuginfod: bool,
    /// Keep so much of compressed input unpacked in memory; a compressed core that is larger is
    /// unpacked into a temporary file, a bundle is unpacked anew where it is needed again.
    #[arg(long, value_name = "SIZE", default_value = "2G", value_parser = parse_size)]
    memory: u64,
}

impl InputArgs {
    fn open(&self) -> Result<Evidence> {
        self.files.open(&self.inputs)
    }

    fn case(&self, options: CaseOptions) -> Result<Case> {
        self.files.case(self.open()?, options)
    }
}

impl FileArgs {
    fn open(&self, inputs: &[PathBuf]) -> Result<Evidence> {
        let identities = input::identities(&self.identities)?;
        Ok(Evidence::open_with(inputs, OpenOptions { memory: self.memory }, &identities)?)
    }

    fn case(&self, evidence: Evidence, options: CaseOptions) -> Result<Case> {
        // What a bundle says must not depend on the host that it is read on.
        let this_host = !evidence.is_bundle;
        let library = LibraryOptions {
            modules: self.modules.clone(),
            sysroot: self.sysroot.clone(),
            this_host,
        };
        let symbols = SymbolOptions {
            debug_dirs: self.debug_dirs.clone(),
            sysroot: self.sysroot.clone(),
            this_host,
            // Filed by build ID, they hold the same on every host.
            caches: debuginfod_caches(),
            debuginfod: self.debuginfod,
        };
        let case = Case::build(evidence, &library, symbols, options);
        let failed = case.members.is_empty() && !case.evidence.is_bundle;
        if let Some(gap) = case.gaps.iter().find(|_| failed) {
            anyhow::bail!("{}: {}", gap.what, gap.why);
        }
        Ok(case)
    }
}

impl Cli {
    /// Does what was asked; the exit code.
    ///
    /// # Errors
    /// What kept it from running: exit code 2.
    pub fn run(&self, out: &mut dyn Write) -> Result<u8> {
        match &self.command {
            None => {
                let options =
                    CaseOptions { reachability: true, threads: true, ..CaseOptions::default() };
                let case = self.report.input.case(options)?;
                let top = (!self.report.json).then_some(text::DEFAULT_TOP);
                let report = Report::of(&case, &Selection { top, ..Selection::default() });
                show(&report, self.report.json, out, text::report)
            }
            Some(Command::Heap(heap)) => heap.run(out),
            Some(Command::Info(info)) => {
                let options = CaseOptions { without_pools: true, ..CaseOptions::default() };
                let selection = Selection { registers: info.registers, ..Selection::default() };
                let report = Report::of(&info.report.input.case(options)?, &selection);
                show(&report, info.report.json, out, text::info)
            }
            Some(Command::Leaks(leaks)) => leaks.run(out),
            Some(Command::Why(why)) => why.run(out),
            Some(Command::Refs(refs)) => refs.run(out),
            Some(Command::Diff(diff)) => diff.run(out),
            Some(Command::Threads(threads)) => threads.run(out),
            Some(Command::Locks(locks)) => locks.run(out),
            Some(Command::Profile(profile)) => profile.run(out),
            Some(Command::Verify(verify)) => {
                commands::verify(&verify.input.open()?, verify.json, out)
            }
            Some(Command::Extract(extract)) => extract.run(out),
        }
    }
}

/// An error where a question is about heaps, and none was saved.
fn needs_heap(case: &Case) -> Result<()> {
    anyhow::ensure!(!case.evidence.has_no_heap(), "{}", text::NO_HEAP);
    Ok(())
}

/// The process with a PID, or an error that names those there are.
fn process(case: &Case, pid: u32) -> Result<&Member> {
    // A PID inside a namespace may be another process's on the host: the host's comes first.
    let on_host = case.members.iter().find(|member| member.process.pid == Some(pid));
    let inside = || case.members.iter().find(|member| is_process(member, pid));
    on_host.or_else(inside).with_context(|| {
        let pids = case.members.iter().filter_map(|member| member.process.pid);
        let pids: Vec<String> = pids.map(|pid| pid.to_string()).collect();
        format!("no process {pid} in the input; it has {}", pids.join(", "))
    })
}

/// Writes a report as text or JSON; the exit code that its findings ask for.
fn show(
    report: &Report,
    json: bool,
    out: &mut dyn Write,
    text: fn(&Report, &mut dyn Write) -> std::io::Result<()>,
) -> Result<u8> {
    if json {
        serde_json::to_writer_pretty(&mut *out, report).map_err(std::io::Error::from)?;
        writeln!(out)?;
    } else {
        text(report, &mut Tame(out))?;
    }
    Ok(u8::from(report.worst() >= Some(Severity::Warning)))
}

/// A size with an optional unit: `4096`, `512K`, `2G`, `2GiB`.
fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let shift = match unit.to_ascii_uppercase().trim_end_matches("IB") {
        "" | "B" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return Err(format!("unknown unit {unit:?}; use K, M, G or T")),
    };
    let number: u64 = number.parse().map_err(|_| "expected a number of bytes".to_owned())?;
    number.checked_mul(1_u64 << shift).ok_or_else(|| "too large".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!(parse_size("4096"), Ok(4096));
        assert_eq!(parse_size("2G"), Ok(2 << 30));
        assert_eq!(parse_size("3kib"), Ok(3072));
        assert!(parse_size("x").is_err());
        assert!(parse_size("99999999999T").is_err());
    }
}
