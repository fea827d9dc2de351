//! `forensics heap`.

use std::io::Write;

use anyhow::Result;
use clap::{Args, ValueEnum};

use super::{InputArgs, needs_heap, parse_size, process, show};
use crate::addr::Addr;
use crate::case::CaseOptions;
use crate::content::Shown;
use crate::kamailio::PoolKind;
use crate::report::{Report, Selection, SortKey, Tame, details, text};

#[derive(Debug, Args)]
pub(super) struct HeapArgs {
    #[command(flatten)]
    input: InputArgs,
    /// JSON, as docs/report-schema.md describes it.
    #[arg(long)]
    json: bool,
    /// Only private or only shared memory.
    #[arg(long, value_enum)]
    pool: Option<PoolChoice>,
    /// Only the private pool of this process, by its PID on the host or in its own namespace.
    #[arg(long)]
    pid: Option<u32>,
    /// How owners are sorted.
    #[arg(long, value_enum, default_value = "bytes")]
    sort: SortKey,
    /// Leave out owners with fewer bytes.
    #[arg(long, value_name = "SIZE", default_value = "0", value_parser = parse_size)]
    min_bytes: u64,
    /// Show so many owners of each pool [default: 10 as text, all as JSON].
    #[arg(long, value_name = "N")]
    top: Option<usize>,
    /// Leave the first N used fragments of each pool out of the owners: what the program
    /// allocated at start-up.
    #[arg(long, value_name = "N", default_value_t = 0)]
    skip_first: u64,
    /// Show used and free fragments by size.
    #[arg(long)]
    sizes: bool,
    /// List single fragments with address, size, owner and their first bytes.
    #[arg(long)]
    list: bool,
    /// Show the fragment that contains this address in full.
    #[arg(long, value_name = "ADDR", conflicts_with_all = ["list", "json"])]
    frag: Option<Addr>,
    /// Show what fragments hold as it is; else private content is masked: of texts only their
    /// form is shown, of other words only pointers and small numbers.
    #[arg(long)]
    show_content: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum PoolChoice {
    /// Private pools.
    Pkg,
    /// The shared pool.
    Shm,
}

impl HeapArgs {
    pub(super) fn run(&self, out: &mut dyn Write) -> Result<u8> {
        let shown = Shown::from(self.show_content);
        let case = self.input.case(CaseOptions {
            skip_first: self.skip_first,
            keep_fragments: self.list || self.frag.is_some(),
            shown,
            ..CaseOptions::default()
        })?;
        if let Some(pid) = self.pid {
            process(&case, pid)?;
        }
        if let Some(at) = self.frag {
            needs_heap(&case)?;
            let found = details(&case, at, self.pid, shown);
            anyhow::ensure!(!found.is_empty(), "{at} is in no fragment of any pool that was read");
            for text in found {
                writeln!(Tame(&mut *out), "{text}")?;
            }
            return Ok(0);
        }
        let selection = Selection {
            kind: self.pool.map(|pool| match pool {
                PoolChoice::Pkg => PoolKind::Pkg,
                PoolChoice::Shm => PoolKind::Shm,
            }),
            pid: self.pid,
            sort: self.sort,
            min_bytes: self.min_bytes,
            top: self.top.or((!self.json).then_some(text::DEFAULT_TOP)),
            sizes: self.sizes,
            list: self.list,
            registers: false,
            shown,
        };
        show(&Report::of(&case, &selection), self.json, out, text::heap)
    }
}
