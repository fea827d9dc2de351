//! The raw system calls that look at the host rather than at the target, each behind a safe
//! function.
#![expect(unsafe_code, reason = "prctl between fork and exec is a raw system call")]

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// Lets the command run in a session and process group of its own, and die with the thread that
/// starts it.
pub(crate) fn tie_to_this_thread(command: &mut Command) {
    let parent = nix::unistd::getpid();
    let prepare = move || {
        nix::unistd::setsid()?;
        nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
        // The parent may have died before the call above.
        if nix::unistd::getppid() == parent {
            Ok(())
        } else {
            Err(io::Error::from_raw_os_error(libc::ESRCH))
        }
    };
    // SAFETY: between fork and exec it makes three system calls and allocates nothing.
    unsafe { command.pre_exec(prepare) };
}

/// The kernel's log through `syslog(2)`: text as `dmesg` shows it, the last `cap` bytes at most.
pub(crate) fn kernel_ring(cap: usize) -> io::Result<Vec<u8>> {
    /// `SYSLOG_ACTION_READ_ALL`
    const READ_ALL: libc::c_int = 3;
    let mut text = vec![0; cap];
    let length = libc::c_int::try_from(text.len()).unwrap_or(libc::c_int::MAX);
    // SAFETY: the buffer has `length` bytes.
    let read = unsafe { libc::klogctl(READ_ALL, text.as_mut_ptr().cast(), length) };
    text.truncate(usize::try_from(read).map_err(|_| io::Error::last_os_error())?);
    Ok(text)
}

/// What the kernel says of the clock's discipline.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClockState {
    /// The return value: 0 to 4 a leap-second state, 5 (`TIME_ERROR`) not synchronised.
    pub(crate) state: i32,
    /// `STA_…` bits.
    pub(crate) status: i64,
    /// Offset from the reference; nanoseconds with `STA_NANO` (0x2000), else microseconds.
    pub(crate) offset: i64,
    /// Frequency offset in parts per million, times 65536.
    pub(crate) frequency: i64,
    /// Maximum error in microseconds.
    pub(crate) maximum_error: i64,
    /// Estimated error in microseconds.
    pub(crate) estimated_error: i64,
    /// Seconds that TAI is ahead of UTC; 0 where nobody told the kernel.
    pub(crate) tai: i64,
}

/// `adjtimex` that changes nothing.
pub(crate) fn clock_state() -> io::Result<ClockState> {
    // SAFETY: a C struct of numbers; all zero (`modes` 0) asks without setting.
    let mut timex: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: `timex` outlives the call.
    let state = unsafe { libc::adjtimex(&raw mut timex) };
    if state == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(ClockState {
        state,
        status: timex.status.into(),
        offset: timex.offset,
        frequency: timex.freq,
        maximum_error: timex.maxerror,
        estimated_error: timex.esterror,
        tai: timex.tai.into(),
    })
}
