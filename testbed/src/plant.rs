//! Allocations that a test plants into a running process, through the process's own allocator: gdb
//! calls the zero-filling function of `_pkg_root` or `_shm_root`. The owner is one that no code of
//! Kamailio has: the manager's own name for module, file and function, and a line of the test's.

use std::fmt::Write as _;
use std::path::Path;

use crate::gdb;

/// Which pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Into {
    /// Private memory.
    Pkg,
    /// Shared memory.
    Shm,
}

/// What is planted, as commands for gdb. Fragments are gdb's variables.
#[derive(Debug, Default)]
pub struct Plan {
    script: String,
}

impl Plan {
    /// Allocates `count` fragments of `size` bytes in the name of `line` and forgets them.
    pub fn forget(&mut self, into: Into, count: u32, size: u32, line: u32) {
        let new = allocation(into, size, line);
        let _ =
            writeln!(self.script, "set $i = 0\nwhile $i < {count}\nset $n = {new}\nset $i++\nend");
    }

    /// Allocates one fragment and keeps its address in gdb's `$name`.
    pub fn take(&mut self, name: &str, into: Into, size: u32, line: u32) {
        let _ = writeln!(self.script, "set ${name} = {}", allocation(into, size, line));
    }

    /// Writes `to` (an expression of gdb) into the word at `from`.
    pub fn link(&mut self, from: &str, to: &str) {
        let _ = writeln!(self.script, "set *(long*)({from}) = {to}");
    }

    /// Writes bytes to `to` and on, and zeroes up to a multiple of eight.
    pub fn write(&mut self, to: &str, bytes: &[u8]) {
        for (number, part) in bytes.chunks(8).enumerate() {
            let mut word = [0; 8];
            word[..part.len()].copy_from_slice(part);
            self.link(&format!("{to}+{}", number * 8), &format!("{:#x}", u64::from_le_bytes(word)));
        }
    }

    /// Keeps the address of a new chunk of the C library's heap in `$name`.
    pub fn chunk(&mut self, name: &str) {
        let _ = writeln!(self.script, "set ${name} = ((long(*)(long))malloc)(64)");
    }

    /// Does it all in the process.
    #[track_caller]
    pub fn carry_out(&self, pid: u32, directory: &Path) {
        let path = directory.join("plant.gdb");
        let mut script = "set $shm = (long)&_shm_root\nset $pkg = (long)&_pkg_root\n".to_owned();
        script.push_str(&self.script);
        script.push_str("printf \"planted\\n\"\n");
        std::fs::write(&path, script).expect("the script is written");
        let said = gdb::script(pid, &path);
        assert!(said.contains("planted"), "gdb:\n{said}");
    }
}

/// `mname` stands at 0 of a root, the block at 16, the zero-filling function at 32.
fn allocation(into: Into, size: u32, line: u32) -> String {
    let root = match into {
        Into::Pkg => "$pkg",
        Into::Shm => "$shm",
    };
    format!(
        "((long(*)(long,long,long,long,int,long))*(long*)({root}+32))\
         (*(long*)({root}+16), {size}, *(long*){root}, *(long*){root}, {line}, *(long*){root})"
    )
}
