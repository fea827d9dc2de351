//! What differs between machines: one file each, the same names in each.

#[cfg(target_arch = "x86_64")]
mod x86_64;
#[cfg(target_arch = "x86_64")]
pub use x86_64::{
    EXTENDED, FUTEX, GENERAL_LENGTH, from_system_call, stack_pointer, system_call, thread_block,
    thread_pointer,
};

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(target_arch = "aarch64")]
pub use aarch64::{
    EXTENDED, FUTEX, GENERAL_LENGTH, from_system_call, stack_pointer, system_call, thread_block,
    thread_pointer,
};

/// The register set that holds the thread pointer, where the general one does not.
pub const TLS: u32 = 0x401;

/// A word of a register set; 0 where there is none.
fn word(set: &[u8], index: usize) -> u64 {
    let (words, _) = set.as_chunks::<8>();
    words.get(index).map_or(0, |word| u64::from_le_bytes(*word))
}

/// A thread inside a system call, as `/proc/PID/task/TID/syscall` shows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SystemCall {
    /// Its number; -1 outside a system call.
    pub number: i64,
    /// Its arguments.
    pub arguments: [u64; 6],
    /// Stack pointer.
    pub stack_pointer: u64,
    /// Program counter.
    pub program_counter: u64,
}

impl SystemCall {
    /// Parses the one line; `None` for `running`.
    pub fn parse(text: &str) -> Option<Self> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let (number, rest) = words.split_first()?;
        let number = number.parse().ok()?;
        let hex = |word: &&str| u64::from_str_radix(word.trim_start_matches("0x"), 16).ok();
        let values: Vec<u64> = rest.iter().map(hex).collect::<Option<_>>()?;
        let (arguments, [stack_pointer, program_counter]) = values.split_last_chunk::<2>()?;
        let arguments = arguments.try_into().unwrap_or_default();
        let (stack_pointer, program_counter) = (*stack_pointer, *program_counter);
        Some(Self { number, arguments, stack_pointer, program_counter })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_futex_wait_is_parsed() {
        let text = "202 0x7f1 0x80 0x2 0x0 0x5 0x6 0x7ffe10 0x7f2a20\n";
        let call = SystemCall::parse(text).unwrap();
        assert_eq!(call.number, 202);
        assert_eq!(call.arguments, [0x7f1, 0x80, 2, 0, 5, 6]);
        assert_eq!((call.stack_pointer, call.program_counter), (0x7ffe10, 0x7f2a20));
        assert_eq!(SystemCall::parse("running\n"), None);
        assert_eq!(SystemCall::parse("-1 0x10 0x20\n").unwrap().number, -1);
    }
}
