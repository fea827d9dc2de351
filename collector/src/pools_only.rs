//! Which private memory a walk of Kamailio's pools needs, for the earlier samples of a series.
//!
//! Needed are the data of the program and its libraries (with the pools' roots and the process
//! table) and the private pool. The pool is found through the exported `_pkg_root`, whose second
//! and third word point to it in every build since 5.2; it fills a part of one run of anonymous
//! mappings. The other runs, the C heap and the stacks among them, are left out and marked. Where
//! the pool is not found, in the group or in one process, everything is kept.

use crate::mappings::{Kind, Mapping};
use crate::program::{self, Words};
use crate::spans::Span;

/// Why a range was left out, for a person.
pub(crate) const NO_POOL: &str = "it holds no pool (--earlier pools)";

/// How the private pools are found in each process of a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolsOnly {
    /// Distance of `_pkg_root` from where the program is mapped, in bytes.
    root: Option<u64>,
}

impl PoolsOnly {
    /// Looks into the program of the process `main`.
    pub fn find(main: u32) -> Self {
        let [root] = program::distances(main, ["_pkg_root"]);
        Self { root }
    }

    /// The mappings of a process that hold no pool for sure; `id` is a thread of it.
    pub(crate) fn unneeded(self, id: u32, mappings: &[Mapping]) -> Vec<Span> {
        match self.pool(id, mappings) {
            Some(addresses) => without(mappings, addresses),
            None => Vec::new(),
        }
    }

    /// Two addresses in the private pool.
    fn pool(self, id: u32, mappings: &[Mapping]) -> Option<[u64; 2]> {
        let root = program::base(id, mappings)?.checked_add(self.root?)?;
        let words = Words::of(id)?;
        let addresses = [words.word(root.checked_add(8)?)?, words.word(root.checked_add(16)?)?];
        let mapped = |at: &u64| mappings.iter().any(|one| holds(one.span, *at));
        addresses.iter().all(mapped).then_some(addresses)
    }
}

/// The anonymous mappings that neither follow a file's (they would be its `.bss`) nor belong to a
/// run that holds one of the addresses.
fn without(mappings: &[Mapping], addresses: [u64; 2]) -> Vec<Span> {
    let anonymous = |one: &Mapping| one.kind(false) == Kind::PrivateAnonymous;
    let joined = |a: &Mapping, b: &Mapping| a.span.end == b.span.start;
    let mut unneeded = Vec::new();
    let mut before: Option<&Mapping> = None;
    for run in mappings.chunk_by(|a, b| joined(a, b) && anonymous(a) && anonymous(b)) {
        let (Some(first), Some(last)) = (run.first(), run.last()) else { continue };
        let file = |one: &Mapping| joined(one, first) && one.kind(false) == Kind::PrivateFile;
        let whole = Span::new(first.span.start, last.span.end);
        let needed = !anonymous(first)
            || before.is_some_and(file)
            || addresses.iter().any(|at| holds(whole, *at));
        if !needed {
            unneeded.push(whole);
        }
        before = Some(last);
    }
    unneeded
}

fn holds(span: Span, at: u64) -> bool {
    span.start <= at && at < span.end
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &str = "\
00001000-00002000 r--p 00000000 fe:00 7 /sbin/kamailio
00002000-00003000 rw-p 00001000 fe:00 7 /sbin/kamailio
00003000-00005000 rw-p 00000000 00:00 0
00006000-00009000 rw-p 00000000 00:00 0 [heap]
00010000-00020000 rw-s 00000000 00:01 9 /dev/zero (deleted)
00020000-00021000 rw-p 00000000 00:00 0
00030000-00031000 ---p 00000000 00:00 0
00031000-00038000 rw-p 00000000 00:00 0
00040000-00041000 r-xp 00000000 00:00 0 [vdso]
00050000-00052000 rw-p 00000000 00:00 0 [stack]";

    fn left_out(at: u64) -> Vec<(u64, u64)> {
        let spans = without(&Mapping::parse_all(MAPS), [at, at + 8]);
        spans.into_iter().map(|span| (span.start, span.end)).collect()
    }

    #[test]
    fn data_and_the_run_with_the_pool_are_kept() {
        assert_eq!(
            left_out(0x3_2010),
            [(0x6000, 0x9000), (0x2_0000, 0x2_1000), (0x5_0000, 0x5_2000)]
        );
    }

    #[test]
    fn a_c_heap_that_holds_the_pool_is_kept() {
        assert_eq!(
            left_out(0x6010),
            [(0x2_0000, 0x2_1000), (0x3_0000, 0x3_8000), (0x5_0000, 0x5_2000)]
        );
    }

    #[test]
    fn without_a_root_everything_is_kept() {
        let mappings = Mapping::parse_all(MAPS);
        assert_eq!(PoolsOnly::default().unneeded(std::process::id(), &mappings), []);
    }
}
