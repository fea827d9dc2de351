//! Which private memory a walk of Kamailio's pools needs, for the earlier samples of a series.
//!
//! Needed are the data of the program and its libraries (with the pools' roots and the process
//! table) and the private pool. The pool is found through the exported `_pkg_root`, whose second
//! and third word point to it in every build since 5.2; it fills a part of one run of anonymous
//! mappings. The other runs, the C heap and the stacks among them, are left out and marked. Where
//! the pool is not found, in the group or in one process, everything is kept.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use object::{Object, ObjectSymbol};

use crate::mappings::{Kind, Mapping};
use crate::number::page_floor;
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
        let program = fs::read(format!("/proc/{main}/exe")).unwrap_or_default();
        Self { root: distance(&program, "_pkg_root") }
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
        let program = fs::read_link(format!("/proc/{id}/exe")).ok()?;
        let program = program.to_str()?;
        let first = mappings.iter().find(|one| one.offset == 0 && one.name == program)?;
        let root = first.span.start.checked_add(self.root?)?;
        // Not process_vm_readv, which would take the page from those that share it.
        let memory = File::open(format!("/proc/{id}/mem")).ok()?;
        let word = |at: u64| {
            let mut bytes = [0; 8];
            memory.read_exact_at(&mut bytes, at).ok()?;
            Some(u64::from_le_bytes(bytes))
        };
        let addresses = [word(root.checked_add(8)?)?, word(root.checked_add(16)?)?];
        let mapped = |at: &u64| mappings.iter().any(|one| holds(one.span, *at));
        addresses.iter().all(mapped).then_some(addresses)
    }
}

/// From the lowest page of an ELF file in memory to a symbol.
fn distance(program: &[u8], name: &str) -> Option<u64> {
    use object::ObjectSegment;
    let file = object::File::parse(program).ok()?;
    let lowest = file.segments().map(|segment| segment.address()).min()?;
    let mut symbols = file.dynamic_symbols().chain(file.symbols());
    let symbol = symbols.find(|symbol| symbol.is_definition() && symbol.name() == Ok(name))?;
    symbol.address().checked_sub(page_floor(lowest))
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
        assert_eq!(distance(b"no program", "_pkg_root"), None);
    }

    #[test]
    fn a_symbol_is_found_at_its_distance() {
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        let libc = Mapping::parse_all(&maps).into_iter();
        let libc = libc.filter(|one| one.offset == 0).find(|one| one.name.contains("libc.so"));
        let libc = libc.unwrap();
        let file = fs::read(&libc.name).unwrap();
        let call: unsafe extern "C" fn() -> libc::pid_t = libc::getpid;
        let here = u64::from_str_radix(&format!("{call:p}")[2..], 16).unwrap();
        assert_eq!(distance(&file, "getpid"), Some(here - libc.span.start));
    }
}
