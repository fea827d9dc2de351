//! How much of the group's memory is wanted: one notion for every step of a collection.

use bundle::Holds;

use crate::pools_only::{NO_POOL, PoolsOnly};
use crate::stacks_only::{NO_STACK, StacksOnly};

/// What of the memory is wanted, with what is needed to find it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    #[default]
    Whole,
    /// Of private memory only what a walk of the pools needs.
    Pools(PoolsOnly),
    /// Only what stack traces need.
    Stacks(StacksOnly),
}

impl Part {
    /// Looks into the program of the process `main` where that is needed.
    pub fn find(holds: Holds, main: u32) -> Self {
        match holds {
            Holds::Whole => Self::Whole,
            Holds::Pools => Self::Pools(PoolsOnly::find(main)),
            Holds::Stacks => Self::Stacks(StacksOnly::find(main)),
        }
    }

    /// Only what stack traces need.
    pub fn is_stacks(self) -> bool {
        matches!(self, Self::Stacks(_))
    }
}

/// What is left out on purpose, and the words of its ranges for why.
pub(crate) const LEFT_OUT: [(&str, &str); 2] = [
    ("C heaps, stacks and other private memory of the group", NO_POOL),
    ("address space of the group: heaps, shared memory and variables", NO_STACK),
];

/// Whether a range was left out on purpose.
pub(crate) fn is_left_out(why: &str) -> bool {
    LEFT_OUT.iter().any(|(_, known)| *known == why)
}
