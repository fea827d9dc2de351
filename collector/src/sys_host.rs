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
