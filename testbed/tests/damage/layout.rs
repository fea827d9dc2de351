//! Where Kamailio 5.6.3 keeps what, by manager, in bytes; observed on Debian's build, and written
//! down here once more so that the program under test does not check itself.

use testbed::kamailio::Manager;

/// A manager's fragments and lists.
#[derive(Debug)]
pub(crate) struct Layout {
    pub(crate) manager: Manager,
    /// From a fragment's header to its payload.
    pub(crate) header: u64,
    /// Behind the payload.
    pub(crate) trailer: u64,
    /// At a header's start: part of the payload before it.
    pub(crate) shared: u64,
    /// In the header: the payload's length, ...
    pub(crate) size: u64,
    /// ... with these flags in its lowest bits.
    pub(crate) flags: u64,
    /// In the header: the name of the source file.
    pub(crate) file: u64,
    /// In the header: a constant.
    pub(crate) check: Option<u64>,
    /// From the header: the next free fragment of its list.
    pub(crate) next: u64,
    /// From the header, or from the trailer if there is one: the free fragment before it.
    pub(crate) back: u64,
    pub(crate) lists: Lists,
}

/// The heads of the lists of free fragments, in the pool's block.
#[derive(Debug)]
pub(crate) struct Lists {
    pub(crate) start: u64,
    pub(crate) count: u64,
    /// From one head to the next.
    pub(crate) stride: u64,
    /// In a head: the first fragment, ...
    pub(crate) first: u64,
    /// ... and how many there are.
    pub(crate) said: Option<u64>,
}

pub(crate) const QM: Layout = Layout {
    manager: Manager::Qm,
    header: 56,
    trailer: 48,
    shared: 0,
    size: 0,
    flags: 0,
    file: 16,
    check: Some(48),
    next: 8,
    back: 40,
    lists: Lists { start: 64, count: 2099, stride: 112, first: 8, said: Some(104) },
};

pub(crate) const FM: Layout = Layout {
    manager: Manager::Fm,
    header: 72,
    trailer: 0,
    shared: 0,
    size: 0,
    flags: 0,
    file: 32,
    check: Some(64),
    next: 8,
    back: 16,
    lists: Lists { start: 328, count: 2099, stride: 16, first: 0, said: Some(8) },
};

pub(crate) const TLSF: Layout = Layout {
    manager: Manager::Tlsf,
    header: 48,
    trailer: 0,
    shared: 8,
    size: 40,
    flags: 3,
    file: 8,
    check: None,
    next: 48,
    back: 56,
    lists: Lists { start: 248, count: 1024, stride: 8, first: 0, said: None },
};

impl Layout {
    /// Bytes that a fragment takes besides its payload.
    pub(crate) fn overhead(&self) -> u64 {
        self.header + self.trailer - self.shared
    }

    /// What ends a list whose head is at `head`, in the pool of `block`.
    pub(crate) fn end_of_list(&self, block: u64, head: u64) -> u64 {
        match self.manager {
            Manager::Qm => head,
            Manager::Fm => 0,
            Manager::Tlsf => block,
        }
    }

    /// The byte of the bitmap that says whether list `index` has fragments, and its bit.
    pub(crate) fn bit_of_list(&self, block: u64, index: u64) -> Option<(u64, u8)> {
        let bit = 1 << (index % 8);
        match self.manager {
            Manager::Qm => None,
            Manager::Fm => Some((block + 64 + index / 8, bit)),
            // One word of 4 bytes for each row of 32 lists.
            Manager::Tlsf => Some((block + 116 + index / 8, bit)),
        }
    }
}
