//! What a thread's registers say of the memory that a stack trace of it needs.

use crate::arch;
use crate::freeze::FrozenThread;

/// Where a thread stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Live {
    /// It is the process's first thread, whose stack the kernel made.
    pub first: bool,
    /// Its stack pointer.
    pub stack_pointer: u64,
    /// Where the C library keeps what it knows of the thread; not known of one that runs on.
    pub thread_pointer: Option<u64>,
    /// The word that it waits on in a futex call.
    pub waits_on: Option<u64>,
}

impl Live {
    /// Of a thread of which at least the stack pointer is known.
    pub fn of(thread: &FrozenThread) -> Option<Self> {
        let registers = &thread.registers;
        let general = &registers.general;
        let known = |word: u64| (word != 0).then_some(word);
        let tls = registers.extended.iter().find(|set| set.kind == arch::TLS);
        let tls = tls.map_or(&[][..], |set| &set.content);
        let (call, argument) = arch::system_call(general);
        Some(Self {
            first: thread.tid == thread.pid,
            stack_pointer: known(arch::stack_pointer(general))?,
            thread_pointer: known(arch::thread_pointer(general, tls)),
            waits_on: known(argument).filter(|_| call == arch::FUTEX),
        })
    }
}

#[cfg(test)]
#[cfg(target_arch = "x86_64")]
mod tests {
    use super::*;
    use crate::arch::SystemCall;
    use crate::registers::Registers;

    #[test]
    fn a_thread_in_a_futex_call_names_its_lock() {
        let call = SystemCall {
            number: 202,
            arguments: [0x7f10, 0, 2, 0, 0, 0],
            stack_pointer: 0x7ffc_1000,
            program_counter: 0x40_1000,
        };
        let mut registers = Registers::none();
        registers.general = arch::from_system_call(&call);
        let mut thread = FrozenThread { pid: 7, tid: 8, registers, unstopped: None, signal: 0 };
        let live = Live::of(&thread).unwrap();
        assert_eq!((live.first, live.stack_pointer), (false, 0x7ffc_1000));
        assert_eq!((live.thread_pointer, live.waits_on), (None, Some(0x7f10)));
        // A thread in read(2) waits on no lock, and one without registers is nowhere.
        thread.registers.general = arch::from_system_call(&SystemCall { number: 0, ..call });
        assert_eq!(Live::of(&thread).unwrap().waits_on, None);
        thread.registers = Registers::none();
        assert_eq!(Live::of(&thread), None);
    }
}
