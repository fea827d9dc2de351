//! The names of the system calls of x86-64.
//!
//! `x86_64_calls.txt` has a line `NUMBER NAME` for each, of the kernel's
//! `arch/x86/entry/syscalls/syscall_64.tbl` (ABIs `common` and `64`) as of Linux 6.18. Numbers never
//! change their meaning; later kernels add to them.

use std::collections::BTreeMap;
use std::sync::LazyLock;

static NAMES: LazyLock<BTreeMap<u64, &'static str>> =
    LazyLock::new(|| include_str!("x86_64_calls.txt").lines().filter_map(entry).collect());

fn entry(line: &str) -> Option<(u64, &str)> {
    let (number, name) = line.split_once(' ')?;
    Some((number.parse().ok()?, name))
}

/// The name of a call; `None` for a number that Linux 6.18 does not have.
pub(super) fn name(number: u64) -> Option<&'static str> {
    NAMES.get(&number).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_table_is_a_call() {
        assert_eq!(NAMES.len(), include_str!("x86_64_calls.txt").lines().count());
        assert_eq!((name(0), name(202), name(334)), (Some("read"), Some("futex"), Some("rseq")));
        assert_eq!((name(400), name(u64::MAX)), (None, None));
    }

    /// The header comes with every C library for development, which the samples need anyway.
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    #[test]
    fn the_table_is_that_of_the_kernels_header() {
        let folders = ["/usr/include/x86_64-linux-gnu/asm", "/usr/include/asm"];
        let mut headers = folders.iter().map(|folder| format!("{folder}/unistd_64.h"));
        let header = headers.find_map(|path| std::fs::read_to_string(path).ok());
        let header =
            header.expect("no asm/unistd_64.h: install the kernel's headers for user space");
        let defined: BTreeMap<u64, &str> = header
            .lines()
            .filter_map(|line| line.strip_prefix("#define __NR_")?.split_once(' '))
            .filter_map(|(name, number)| Some((number.trim().parse().ok()?, name)))
            .collect();
        assert!(defined.len() > 300, "only {} calls in the header", defined.len());
        // A newer header may know more than the table, never something else.
        for (number, expected) in defined {
            let known = name(number);
            assert!(known == Some(expected) || (known.is_none() && number > 470), "{number}");
        }
    }
}
