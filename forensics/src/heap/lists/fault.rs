//! What can be wrong with a list, and how that is said.

use std::fmt;

use crate::addr::Addr;
use crate::memory::Absent;

/// Something wrong with one list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListFault {
    /// Which list, counted as the manager does.
    pub list: u32,
    /// The free fragment, or the list's head.
    pub at: Addr,
    /// What.
    pub what: ListDamage,
}

/// What can be wrong with a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListDamage {
    /// A link leads to where no free fragment of the pool can be.
    WildLink {
        /// Where it leads.
        to: Addr,
    },
    /// A link leads back to a fragment that the list has already passed.
    Loop {
        /// Where it leads.
        to: Addr,
    },
    /// A link leads to a fragment that is in use.
    Used {
        /// Where it leads.
        to: Addr,
    },
    /// Its link backwards does not lead to the fragment before it in the list.
    BackLink {
        /// Where it leads.
        found: Addr,
    },
    /// A fragment stands in a list for other sizes.
    WrongList {
        /// Its payload, in bytes.
        size: u64,
        /// The list for that size.
        belongs: u32,
    },
    /// The list's own count is wrong.
    Count {
        /// What it says.
        said: u64,
        /// Fragments that were found.
        found: u64,
    },
    /// The bitmap of lists that are not empty is wrong.
    Bitmap {
        /// Whether the bitmap says that the list has fragments.
        said: bool,
    },
    /// It leads to a place inside another fragment.
    NoFragment,
    /// A free fragment stands in no list.
    Unlisted,
    /// Free fragments that the list no longer leads to, behind a bad link.
    CutOff {
        /// How many.
        fragments: u64,
    },
    /// The bytes are not known; never reported as a fault.
    Absent(Absent),
}

impl fmt::Display for ListFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { list, at, what } = self;
        match what {
            ListDamage::WildLink { to } => {
                write!(f, "free list {list}: the link at {at} leads to {to}, no free fragment")
            }
            ListDamage::Loop { to } => {
                write!(f, "free list {list}: the link at {at} leads back to {to}: it never ends")
            }
            ListDamage::Used { to } => {
                write!(f, "free list {list}: the link at {at} leads to {to}, which is in use")
            }
            ListDamage::BackLink { found } => {
                write!(f, "free list {list}: the link backwards of {at} leads to {found}")
            }
            ListDamage::WrongList { size, belongs } => write!(
                f,
                "free list {list}: the fragment at {at} has {size} bytes and belongs into list \
                 {belongs}"
            ),
            ListDamage::Count { said, found } => {
                write!(f, "free list {list}: it counts {said} fragments, and leads to {found}")
            }
            ListDamage::Bitmap { said: true } => {
                write!(f, "free list {list}: the bitmap says that it has fragments; it is empty")
            }
            ListDamage::Bitmap { said: false } => {
                write!(f, "free list {list}: the bitmap says that it is empty; it has fragments")
            }
            ListDamage::NoFragment => {
                write!(f, "free list {list}: it leads to {at}, which is inside another fragment")
            }
            ListDamage::Unlisted => {
                write!(f, "the free fragment at {at} is in no free list: nobody can allocate it")
            }
            ListDamage::CutOff { fragments } => {
                write!(f, "free list {list}: {fragments} free fragments behind the bad link")
            }
            ListDamage::Absent(absent) => write!(f, "free list {list}: {absent}"),
        }
    }
}
