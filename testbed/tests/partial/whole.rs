//! A whole core, cut at will, and what of it lies before the cut.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use testbed::analysis::{Fragment, Heap, Pool};
use testbed::elf::{Core, Segment};
use testbed::{memlog, tools};

use super::case::{Host, analyse};

/// Where a core ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Whole,
    /// After so many hundredths.
    Percent(u64),
    /// In the middle of a pool's fragments.
    Among(&'static str),
    /// In a pool's block, before its first fragment.
    InBlock(&'static str),
}

/// A whole core, what is in it, and in which file.
pub(crate) struct Whole {
    pub(crate) writer: &'static str,
    pub(crate) path: PathBuf,
    pub(crate) core: Core,
    pub(crate) length: u64,
    pub(crate) heap: Heap,
}

impl Whole {
    #[track_caller]
    pub(crate) fn of(writer: &'static str, path: &Path) -> Self {
        let heap: Heap = analyse(path, Host::OwnFiles, &[]).expect(&[0]).json();
        let length = fs::metadata(path).unwrap().len();
        let whole = Self { writer, path: path.to_owned(), core: Core::open(path), length, heap };
        for kind in ["pkg", "shm"] {
            let pool = whole.pool(kind);
            let (walked, count) = (pool.walked(), u64::try_from(pool.fragments.len()).unwrap());
            assert!(walked.complete, "{kind} of {}", path.display());
            assert_eq!(walked.expected_fragments, Some(count), "{kind}: what the counters imply");
            assert_eq!(walked.expected_bytes, pool.counters().size, "{kind}");
            assert_eq!(walked.seen_bytes, walked.expected_bytes, "{kind}: seen of a whole pool");
        }
        whole
    }

    #[track_caller]
    pub(crate) fn pool(&self, kind: &str) -> &Pool {
        pool(&self.heap, kind).expect("whole cores have both pools")
    }

    /// Where the byte at an address lies in the file.
    #[track_caller]
    pub(crate) fn offset(&self, address: u64) -> u64 {
        let holds = |s: &&Segment| (s.start..s.start + s.file).contains(&address);
        let segment = self.core.segments().find(holds).expect("the whole core has the pools");
        segment.offset + (address - segment.start)
    }

    /// How many fragments the first `length` bytes of the file hold: at least those that are there
    /// with the end of their own and the beginning of the next one, at most those that begin there.
    pub(crate) fn before(&self, kind: &str, length: u64) -> (usize, usize) {
        let fragments = &self.pool(kind).fragments;
        let is_before = |address: u64| self.offset(address) < length;
        let begins = |fragment: &&Fragment| is_before(memlog::hex(&fragment.header) + 8);
        let next = |fragment: &Fragment| memlog::hex(&fragment.address) + fragment.size;
        let last = fragments.last().map(next).unwrap();
        let ends = |fragment: &&Fragment| is_before((next(fragment) + 128).min(last));
        (fragments.iter().take_while(ends).count(), fragments.iter().take_while(begins).count())
    }

    /// A copy that ends early; itself if it shall not.
    pub(crate) fn ending(&self, end: End) -> PathBuf {
        let first = |kind| &self.pool(kind).fragments[0];
        let length = match end {
            End::Whole => return self.path.clone(),
            End::Percent(percent) => self.length * percent / 100,
            End::Among(kind) => {
                let fragments = &self.pool(kind).fragments;
                self.offset(memlog::hex(&fragments[fragments.len() / 2].address)) + 4
            }
            End::InBlock(kind) => self.offset(memlog::hex(&first(kind).header)) - 4096,
        };
        let path = self.path.with_extension("cut");
        let mut command = Command::new("cp");
        command.arg("--reflink=auto").arg(&self.path).arg(&path);
        tools::run(&mut command, tools::PATIENCE).expect(&[0]);
        File::options().write(true).open(&path).unwrap().set_len(length).unwrap();
        path
    }
}

#[track_caller]
pub(crate) fn pool<'a>(heap: &'a Heap, kind: &str) -> Option<&'a Pool> {
    let pools: Vec<&Pool> = heap.pools.iter().filter(|pool| pool.kind == kind).collect();
    assert!(pools.len() < 2, "{} pools of kind {kind}", pools.len());
    pools.first().copied()
}
