//! A system call that a thread is in: from the text of `/proc/PID/task/TID/syscall`, or from the
//! registers of a core.
//!
//! x86-64 only: on other machines numbers mean other calls, so neither is read.

use super::calls;
use crate::addr::Addr;
use crate::core::Thread;
use crate::memory::Memory;

/// `-ERESTARTSYS`, `-ERESTARTNOINTR`, `-ERESTARTNOHAND`, `-ERESTART_RESTARTBLOCK`: the kernel's own
/// marks in `rax` of a thread that was stopped while it waited and that waits again when it goes on.
const RESTARTS: [i64; 4] = [-512, -513, -514, -516];
/// `-EINTR`: some calls, `epoll_wait` for one, do not wait again.
const INTERRUPTED: i64 = -4;
/// `restart_syscall`: the kernel's own call with which a thread waits again.
const RESTART: u64 = 219;

/// A system call, with what it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SystemCall {
    /// Its number.
    pub number: u64,
    /// Its name; `None` for a number that this program does not know.
    pub name: Option<&'static str>,
    /// Its arguments as they stand in the registers; those that the call does not have mean
    /// nothing.
    pub arguments: [u64; 6],
    /// Stack pointer in user mode.
    pub stack_pointer: Addr,
    /// Where it goes on in user mode: behind the `syscall` instruction.
    pub program_counter: Addr,
    /// Whether it has ended.
    pub progress: Progress,
}

/// How far a call has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The thread is in it: `/proc` says so, or the registers that it was stopped while waiting and
    /// would have waited again.
    Inside,
    /// It was waiting, and the stop itself ended its waiting (`EINTR`).
    Interrupted,
    /// It had returned this; the thread stood at its very end.
    Returned(i64),
}

/// What `/proc/PID/task/TID/syscall` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InKernel {
    /// On a CPU, or ready for one.
    Running,
    /// Blocked in a system call.
    Call(SystemCall),
    /// Blocked in the kernel, but not in a call: on a page fault, for instance.
    Blocked {
        /// Stack pointer in user mode.
        stack_pointer: Addr,
        /// Where it goes on.
        program_counter: Addr,
    },
}

impl InKernel {
    /// Parses the file's one line: `running`; `-1 SP PC`; or a number, six arguments, SP and PC.
    pub fn parse(text: &str) -> Option<Self> {
        let line = text.strip_suffix('\n')?;
        if line == "running" {
            return Some(Self::Running);
        }
        let mut fields = line.split(' ');
        let number: i64 = fields.next()?.parse().ok()?;
        let values: Option<Vec<u64>> = fields.map(hex).collect();
        match (u64::try_from(number), values?.as_slice()) {
            (Err(_), &[sp, pc]) => {
                Some(Self::Blocked { stack_pointer: Addr(sp), program_counter: Addr(pc) })
            }
            (Ok(number), &[a, b, c, d, e, f, sp, pc]) => Some(Self::Call(SystemCall {
                number,
                name: calls::name(number),
                arguments: [a, b, c, d, e, f],
                stack_pointer: Addr(sp),
                program_counter: Addr(pc),
                progress: Progress::Inside,
            })),
            _ => None,
        }
    }
}

fn hex(field: &str) -> Option<u64> {
    u64::from_str_radix(field.strip_prefix("0x")?, 16).ok()
}

impl SystemCall {
    /// The call that a core's thread is in or at the end of; `None` where it is in none, where its
    /// registers are not known, and for machines other than `x86-64`.
    pub fn of_thread(thread: &Thread, machine: &str) -> Option<Self> {
        let registers = thread.general_registers(machine)?;
        let value = |name: &str| Some(registers.iter().find(|r| r.name == name)?.value);
        // On an interrupt or a fault `orig_rax` is negative.
        let number = u64::try_from(value("orig_rax")?.cast_signed()).ok()?;
        let program_counter = Addr(value("rip")?);
        // Without `rax` they come from the `syscall` file. A thread that ran has no number there,
        // and all that is left of its registers is zero.
        let progress = match value("rax").map(u64::cast_signed) {
            None if program_counter.is_null() => return None,
            None => Progress::Inside,
            Some(result) if RESTARTS.contains(&result) => Progress::Inside,
            Some(INTERRUPTED) => Progress::Interrupted,
            Some(result) => Progress::Returned(result),
        };
        Some(Self {
            number,
            name: calls::name(number),
            arguments: [
                value("rdi")?,
                value("rsi")?,
                value("rdx")?,
                value("r10")?,
                value("r8")?,
                value("r9")?,
            ],
            stack_pointer: Addr(value("rsp")?),
            program_counter,
            progress,
        })
    }

    /// The same call, or, where the kernel had to start it again (`restart_syscall`), the one that
    /// the program made: the arguments are still there, and the instructions `mov $NUMBER, %eax;
    /// syscall` before the program counter give its number. If they are not known, it stays.
    #[must_use]
    pub fn as_made(self, memory: &dyn Memory) -> Self {
        match (self.number, self.number_in_code(memory)) {
            (RESTART, Some(number)) => Self { number, name: calls::name(number), ..self },
            _ => self,
        }
    }

    fn number_in_code(&self, memory: &dyn Memory) -> Option<u64> {
        const MOVE_TO_EAX: u8 = 0xb8;
        const SYSCALL: [u8; 2] = [0x0f, 0x05];
        let code = memory.bytes(self.program_counter.checked_sub(7)?, 7).ok()?;
        let (&operation, rest) = code.split_first()?;
        let (number, instruction) = rest.split_first_chunk::<4>()?;
        let made = operation == MOVE_TO_EAX && instruction == SYSCALL;
        made.then(|| u64::from(u32::from_le_bytes(*number)))
    }

    /// Whether two readings of a thread may be of one and the same wait: the same call from the
    /// same place with the same arguments. The kernel begins some calls again under the number of
    /// `restart_syscall` after a thread was stopped in them.
    pub fn is_same_wait(&self, other: &Self) -> bool {
        let place = |call: &Self| (call.arguments, call.stack_pointer, call.program_counter);
        let restarted = self.number == RESTART || other.number == RESTART;
        place(self) == place(other) && (restarted || self.number == other.number)
    }

    /// One of its arguments, 0 for the first.
    pub fn argument(&self, index: usize) -> u64 {
        self.arguments.get(index).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use bundle::notes::{RegisterSource, ThreadRecord};

    use super::*;
    use crate::activity::tests::memory;

    /// A Kamailio 5.6.3 worker that waits for a datagram (Linux 6.18).
    const RECEIVING: &str = "45 0x9 0x558592eccde0 0xffff 0x0 0x7fabd2cfecd0 0x7ffd705b431c \
                             0x7ffd705b42b8 0x7fabd35569e3\n";

    fn call(text: &str) -> SystemCall {
        match InKernel::parse(text) {
            Some(InKernel::Call(call)) => call,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_call_is_read_with_its_arguments() {
        let call = call(RECEIVING);
        assert_eq!((call.number, call.name), (45, Some("recvfrom")));
        assert_eq!(
            call.arguments,
            [9, 0x5585_92ec_cde0, 0xffff, 0, 0x7fab_d2cf_ecd0, 0x7ffd_705b_431c]
        );
        assert_eq!(call.stack_pointer, Addr(0x7ffd_705b_42b8));
        assert_eq!(call.program_counter, Addr(0x7fab_d355_69e3));
        assert_eq!(call.progress, Progress::Inside);
    }

    #[test]
    fn a_thread_without_a_call_is_told_from_one_in_a_call() {
        assert_eq!(InKernel::parse("running\n"), Some(InKernel::Running));
        let blocked = InKernel::Blocked {
            stack_pointer: Addr(0x7ffd_0010),
            program_counter: Addr(0x40_1000),
        };
        assert_eq!(InKernel::parse("-1 0x7ffd0010 0x401000\n"), Some(blocked));
    }

    #[test]
    fn a_cut_or_odd_line_is_not_read() {
        for length in 0..RECEIVING.len() {
            assert_eq!(InKernel::parse(&RECEIVING[..length]), None, "{length}");
        }
        for text in ["45\n", "x 0x1 0x2\n", "-1 0x1\n", "45 0x9 zz 0x0 0x0 0x0 0x0 0x1 0x2\n"] {
            assert_eq!(InKernel::parse(text), None, "{text}");
        }
        assert_eq!(InKernel::parse(&RECEIVING.replace("0xffff", "0x1ffffffffffffffff")), None);
        assert_eq!(call(&RECEIVING.replace("45 ", "999999 ")).name, None);
    }

    /// A thread with these values of rax, orig_rax and rip; rdi to r9 are 1 to 6.
    fn thread(rax: i64, orig_rax: i64, source: Option<RegisterSource>) -> Thread {
        let mut registers = vec![0; 27];
        let values =
            [(7, 4), (8, 6), (9, 5), (12, 3), (13, 2), (14, 1), (16, 0x1000), (19, 0x7000)];
        for (index, value) in values {
            registers[index] = value;
        }
        registers[10] = rax.cast_unsigned();
        registers[15] = orig_rax.cast_unsigned();
        let record = source.map(|registers| ThreadRecord {
            tid: 7,
            state: b'S',
            registers,
            name: "kamailio".into(),
        });
        Thread { tid: 7, signal: 0, registers, record }
    }

    #[test]
    fn registers_tell_a_waiting_call_from_one_that_ended() {
        let progress = |rax| {
            let call = SystemCall::of_thread(&thread(rax, 202, None), "x86-64").unwrap();
            assert_eq!((call.name, call.arguments), (Some("futex"), [1, 2, 3, 4, 5, 6]));
            assert_eq!((call.program_counter, call.stack_pointer), (Addr(0x1000), Addr(0x7000)));
            call.progress
        };
        assert_eq!(progress(-512), Progress::Inside);
        assert_eq!(progress(-516), Progress::Inside);
        assert_eq!(progress(-4), Progress::Interrupted);
        assert_eq!(progress(-11), Progress::Returned(-11));
        assert_eq!(progress(30), Progress::Returned(30));
    }

    #[test]
    fn a_thread_that_was_stopped_in_user_mode_is_in_no_call() {
        assert_eq!(SystemCall::of_thread(&thread(-512, -1, None), "x86-64"), None);
        assert_eq!(SystemCall::of_thread(&thread(-512, 202, None), "aarch64"), None);
        let unread = thread(0, 0, Some(RegisterSource::None));
        assert_eq!(SystemCall::of_thread(&unread, "x86-64"), None);
    }

    #[test]
    fn a_thread_that_would_not_stop_is_in_the_call_that_proc_tells() {
        let of_file = thread(0, 7, Some(RegisterSource::SystemCallFile));
        let call = SystemCall::of_thread(&of_file, "x86-64").unwrap();
        assert_eq!((call.name, call.progress), (Some("poll"), Progress::Inside));
    }

    #[test]
    fn a_call_that_was_started_again_is_named_by_the_code_that_made_it() {
        // mov $0x7,%eax; syscall; cmp $-4096,%rax
        let code = [0xb8, 7, 0, 0, 0, 0x0f, 0x05, 0x48, 0x3d];
        let again = |pc| call(&format!("219 0x5 0x0 0x0 0x0 0x0 0x0 0x7000 {pc:#x}\n"));
        let code_at = memory(0x1000, &code);
        assert_eq!(again(0x1007).name, Some("restart_syscall"));
        assert_eq!(again(0x1007).as_made(&code_at).name, Some("poll"));
        assert_eq!(again(0x1006).as_made(&code_at).name, Some("restart_syscall"));
        assert_eq!(again(3).as_made(&code_at).name, Some("restart_syscall"));
        // Of any other call the number is right as it is.
        assert_eq!(call(RECEIVING).as_made(&code_at).name, Some("recvfrom"));
    }
}
