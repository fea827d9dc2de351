//! The time that one call may take, over all its waits together.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// A moment after which nothing is waited for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadline(Instant);

impl Deadline {
    /// So far from now.
    pub(super) fn after(time: Duration) -> Self {
        let now = Instant::now();
        Self(now.checked_add(time).unwrap_or(now))
    }

    /// What is left; `TimedOut` when nothing is.
    pub(super) fn left(self) -> io::Result<Duration> {
        match self.0.checked_duration_since(Instant::now()) {
            Some(left) if !left.is_zero() => Ok(left),
            _ => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    /// Waits until there is something to read, or an end or error to learn of.
    pub(super) fn readable(self, file: &impl AsFd) -> io::Result<()> {
        self.wait(file, PollFlags::POLLIN)
    }

    /// Waits until something can be written, or an error can be learnt of.
    pub(super) fn writable(self, file: &impl AsFd) -> io::Result<()> {
        self.wait(file, PollFlags::POLLOUT)
    }

    fn wait(self, file: &impl AsFd, events: PollFlags) -> io::Result<()> {
        loop {
            let mut files = [PollFd::new(file.as_fd(), events)];
            // Rounded up: a wait of 0 ms would spin.
            let milliseconds = self.left()?.as_millis().saturating_add(1);
            let timeout = u16::try_from(milliseconds).unwrap_or(u16::MAX);
            match poll(&mut files, PollTimeout::from(timeout)) {
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits a little where the kernel offers nothing to wait for.
    pub(super) fn pause(self) -> io::Result<()> {
        std::thread::sleep(self.left()?.min(Duration::from_millis(20)));
        Ok(())
    }
}
