//! The signal of a thread: which one, and what the kernel said of it (`siginfo_t`).

use super::{CoreFile, Thread, Writer};
use crate::addr::Addr;

/// `si_code` of a signal that the kernel sent without a closer cause; on x86-64 that is how a
/// general protection fault comes, whose address the processor does not tell.
pub const SI_KERNEL: i32 = 0x80;
/// `SI_TIMER`: a timer of POSIX ran out; the union holds no sender.
const SI_TIMER: i32 = -2;

/// Names of the signals by their numbers, from 1.
const NAMES: [&str; 31] = [
    "SIGHUP",
    "SIGINT",
    "SIGQUIT",
    "SIGILL",
    "SIGTRAP",
    "SIGABRT",
    "SIGBUS",
    "SIGFPE",
    "SIGKILL",
    "SIGUSR1",
    "SIGSEGV",
    "SIGUSR2",
    "SIGPIPE",
    "SIGALRM",
    "SIGTERM",
    "SIGSTKFLT",
    "SIGCHLD",
    "SIGCONT",
    "SIGSTOP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGXCPU",
    "SIGXFSZ",
    "SIGVTALRM",
    "SIGPROF",
    "SIGWINCH",
    "SIGIO",
    "SIGPWR",
    "SIGSYS",
];

/// Signals with which a program dies by its own fault, or kills itself: SIGILL, SIGABRT, SIGBUS,
/// SIGFPE, SIGSEGV, SIGXCPU, SIGSYS. SIGTRAP is a debugger's as a rule.
const CRASHES: [u16; 7] = [4, 6, 7, 8, 11, 24, 31];
/// SIGCONT, SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU: nobody dies of them.
const NO_DEATH: [u16; 5] = [18, 19, 20, 21, 22];

/// Whether a signal is that of a program's own fault, or its own `abort`.
pub fn is_crash(signal: u16) -> bool {
    CRASHES.contains(&signal)
}

/// `SIGSEGV`, or `signal 40`.
pub fn signal_name(signal: u16) -> String {
    let name = usize::from(signal).checked_sub(1).and_then(|index| NAMES.get(index));
    name.map_or_else(|| format!("signal {signal}"), |name| (*name).to_owned())
}

/// Whether the kernel tells an address with a signal that it sends for a fault: SIGILL, SIGTRAP,
/// SIGBUS, SIGFPE, SIGSEGV.
pub fn names_address(signal: u16) -> bool {
    matches!(signal, 4 | 5 | 7 | 8 | 11)
}

/// `siginfo_t` of 64-bit machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignalInfo {
    /// `si_signo`
    pub signal: u16,
    /// `si_code`: why it was sent.
    pub code: i32,
    /// The union's first word: an address, or a sender's PID and user.
    word: u64,
}

impl SignalInfo {
    /// `si_signo` at 0, `si_code` at 8, the union at 16; `None` if that is not all there.
    pub(super) fn read(content: &[u8]) -> Option<Self> {
        let int = |at: usize| content.get(at..)?.first_chunk().map(|b| i32::from_le_bytes(*b));
        let word = content.get(16..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))?;
        Some(Self { signal: u16::try_from(int(0)?).unwrap_or(0), code: int(8)?, word })
    }

    /// `si_addr`: the address that could not be used; for SIGILL and SIGFPE the instruction's.
    /// `None` for a signal that somebody sent, and for a fault whose address is not known.
    pub fn address(&self) -> Option<Addr> {
        let fault = self.code > 0 && self.code != SI_KERNEL && names_address(self.signal);
        fault.then_some(Addr(self.word))
    }

    /// `si_pid`: who sent it (`kill`, `tgkill`, `sigqueue`), by the PID that the receiver's
    /// namespace gives it; 0 is a process outside that.
    pub fn sender(&self) -> Option<u32> {
        let sent = self.code <= 0 && self.code != SI_TIMER;
        sent.then(|| u32::try_from(self.word & 0xffff_ffff).unwrap_or(0))
    }
}

impl CoreFile {
    /// The thread that died, if the core was written since one did. The kernel notes the signal
    /// with every thread and writes the one that died first; gdb writes each thread's own, and
    /// stops live processes with signals that kill nobody.
    pub fn dead_thread(&self) -> Option<&Thread> {
        let threads = &self.notes.threads;
        match self.writer {
            Writer::Kernel => threads.first().filter(|thread| self.is_dead(thread)),
            Writer::Gcore | Writer::Collector => {
                threads.iter().find(|thread| is_crash(thread.signal))
            }
        }
    }

    /// A SIGTRAP with nothing said of it is a debugger's.
    fn is_dead(&self, thread: &Thread) -> bool {
        match thread.signal {
            0 => false,
            5 => self.notes.signals.contains_key(&thread.tid),
            signal => !NO_DEATH.contains(&signal),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(signal: i32, code: i32, word: u64) -> SignalInfo {
        let mut note = vec![0; 128];
        note[0..4].copy_from_slice(&signal.to_le_bytes());
        note[8..12].copy_from_slice(&code.to_le_bytes());
        note[16..24].copy_from_slice(&word.to_le_bytes());
        SignalInfo::read(&note).unwrap()
    }

    #[test]
    fn a_fault_has_an_address_and_no_sender() {
        let info = info(11, 1, 0x28);
        assert_eq!((info.signal, info.code), (11, 1));
        assert_eq!(info.address(), Some(Addr(0x28)));
        assert_eq!(info.sender(), None);
    }

    #[test]
    fn a_signal_that_was_sent_has_a_sender_and_no_address() {
        for code in [0, -1, -6] {
            let info = info(11, code, 4711 | 1000 << 32);
            assert_eq!((info.address(), info.sender()), (None, Some(4711)));
        }
        assert_eq!(info(14, -2, 7).sender(), None);
    }

    #[test]
    fn a_general_protection_fault_has_neither() {
        let info = info(11, SI_KERNEL, 0);
        assert_eq!((info.address(), info.sender()), (None, None));
    }

    #[test]
    fn a_short_note_is_none() {
        assert_eq!(SignalInfo::read(&[0; 23]), None);
    }

    #[test]
    fn signals_have_their_names() {
        let names = [1, 6, 11, 14, 31].map(signal_name);
        assert_eq!(names, ["SIGHUP", "SIGABRT", "SIGSEGV", "SIGALRM", "SIGSYS"]);
        assert_eq!(signal_name(40), "signal 40");
        assert_eq!(signal_name(0), "signal 0");
    }
}
