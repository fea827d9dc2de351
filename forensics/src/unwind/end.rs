//! Why a stack ends.

use thiserror::Error;

use crate::addr::Addr;
use crate::memory::Absent;
use crate::units::count;

/// Why a stack ends where it does; displayed, it is words for a person.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum End {
    /// The first function of the thread: nothing called it.
    #[error("the first function of the thread: {0}")]
    Outermost(Mark),
    /// The stack goes on where the snapshot has no byte.
    #[error("the stack goes on, but {0}")]
    Absent(Absent),
    /// The caller could not be found.
    #[error("the caller of {pc} was not found: {why}")]
    Lost {
        /// Where the outermost frame that was found stands.
        pc: Addr,
        /// What each way of finding the caller met.
        why: String,
    },
    /// The same frame was met before: the stack is damaged or leads back into itself.
    #[error("the frame at {0} was met before: the stack is damaged")]
    Repeated(Addr),
    /// A caller's frame would lie below the called function's: the stack is damaged.
    #[error("the next frame, at {0}, would lie below the one that it called: the stack is damaged")]
    Downwards(Addr),
    /// More frames than are followed.
    #[error("there are more than {} frames", count(*.0))]
    Limit(u64),
    /// The snapshot has no program counter or stack pointer of the thread.
    #[error("the thread's registers are not known")]
    NoRegisters,
    /// Stacks of this machine are not read.
    #[error("not supported: stacks of {0}")]
    NotSupported(&'static str),
}

/// What shows that a function is the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Mark {
    /// Its unwind information says that it has no return address.
    #[error("its unwind information says so")]
    CallFrameInfo,
    /// Its return address is 0.
    #[error("its return address is 0")]
    NullReturn,
    /// It is returned to at its first instruction: it was never called, and its stack was made by
    /// hand, as `makecontext` makes a coroutine's.
    #[error("it was never called, its stack was made for it")]
    NeverCalled,
    /// Its frame pointer is 0.
    #[error("its frame pointer is 0")]
    NullFramePointer,
}

impl End {
    /// Whether every frame up to the thread's first function was found.
    pub fn is_outermost(&self) -> bool {
        matches!(self, Self::Outermost(_))
    }
}
