//! A pool of a sound core, as `gdb-scripts/kamailio.py` lists it.

use testbed::analysis;
use testbed::memlog::hex;
use testbed::patch::{Patch, Patient};
use testbed::scripts;

use crate::layout::Layout;

/// A sound pool.
#[derive(Debug)]
pub(crate) struct Pool<'a> {
    pub(crate) core: &'a Patient,
    pub(crate) layout: &'static Layout,
    /// `pkg` or `shm`.
    pub(crate) kind: String,
    /// Address of its own block.
    pub(crate) block: u64,
    /// By rising address.
    pub(crate) fragments: Vec<Fragment>,
    /// Those that are not empty.
    pub(crate) lists: Vec<List>,
}

/// A fragment as either side sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fragment {
    pub(crate) header: u64,
    pub(crate) payload: u64,
    pub(crate) size: u64,
    pub(crate) used: bool,
    pub(crate) owner: Owner,
}

/// Who allocated a fragment; of a free one the last who did, or what an older owner left there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) module: Option<String>,
    pub(crate) file: Option<String>,
    pub(crate) function: Option<String>,
    pub(crate) line: Option<u64>,
}

/// A list of free fragments.
#[derive(Debug)]
pub(crate) struct List {
    pub(crate) index: u64,
    pub(crate) head: u64,
    /// Places in [`Pool::fragments`], in the order of the list.
    pub(crate) members: Vec<usize>,
}

impl Fragment {
    /// The address behind the payload.
    pub(crate) fn end(&self) -> u64 {
        self.payload + self.size
    }
}

impl From<&scripts::Fragment> for Fragment {
    fn from(listed: &scripts::Fragment) -> Self {
        // What the script cannot read it shows in angle brackets, and what is no text escaped.
        let is_text =
            |text: &str| !text.is_empty() && !text.starts_with('<') && !text.contains('\\');
        let text = |text: &str| is_text(text).then(|| text.to_owned());
        let prefix = format!("{}: ", listed.module);
        Self {
            header: hex(&listed.header),
            payload: hex(&listed.payload),
            size: listed.size,
            used: listed.state == "used",
            owner: Owner {
                module: text(&listed.module),
                file: text(listed.file.strip_prefix(&prefix).unwrap_or(&listed.file)),
                function: text(&listed.function),
                line: Some(listed.line),
            },
        }
    }
}

impl From<&analysis::Fragment> for Fragment {
    fn from(listed: &analysis::Fragment) -> Self {
        Self {
            header: hex(&listed.header),
            payload: hex(&listed.address),
            size: listed.size,
            used: listed.state == "used",
            owner: Owner {
                module: listed.module.clone(),
                file: listed.file.clone(),
                function: listed.function.clone(),
                line: listed.line.map(u64::from),
            },
        }
    }
}

impl<'a> Pool<'a> {
    /// What the script says of a pool, and its free lists as they are linked in the core.
    #[track_caller]
    pub(crate) fn new(
        core: &'a Patient,
        layout: &'static Layout,
        listing: scripts::Listing,
    ) -> Self {
        let fragments = listing.fragments.iter().map(Fragment::from).collect();
        let scripts::Listing { kind, block, .. } = listing;
        let mut pool = Self { core, layout, kind, block, fragments, lists: Vec::new() };
        pool.lists = (0..layout.lists.count).filter_map(|index| pool.list(index)).collect();
        let listed: usize = pool.lists.iter().map(|list| list.members.len()).sum();
        let free = pool.fragments.iter().filter(|fragment| !fragment.used).count();
        assert_eq!(listed, free, "{}: free fragments in lists, and in all", pool.kind);
        pool
    }

    #[track_caller]
    fn list(&self, index: u64) -> Option<List> {
        let lists = &self.layout.lists;
        let head = self.block + lists.start + index * lists.stride;
        let end = self.layout.end_of_list(self.block, head);
        let (mut at, mut members) = (self.core.word(head + lists.first), Vec::new());
        while at != end {
            let place = self.fragments.binary_search_by_key(&at, |fragment| fragment.header);
            let place = place.expect("a list of the sound core leads from fragment to fragment");
            assert!(members.len() < self.fragments.len(), "list {index} ends");
            members.push(place);
            at = self.core.word(at + self.layout.next);
        }
        (!members.is_empty()).then_some(List { index, head, members })
    }

    /// The list of a free fragment, and its place there.
    pub(crate) fn list_with(&self, index: usize) -> Option<(&List, usize)> {
        self.lists.iter().find_map(|list| {
            let place = list.members.iter().position(|member| *member == index)?;
            Some((list, place))
        })
    }

    /// Where the link backwards of a free fragment stands.
    pub(crate) fn back(&self, index: usize) -> u64 {
        let fragment = &self.fragments[index];
        match self.layout.trailer {
            0 => fragment.header + self.layout.back,
            _ => fragment.end() + self.layout.back,
        }
    }

    /// Whether something outside these bytes points at a fragment's payload.
    pub(crate) fn is_pointed_at(&self, index: usize, but: &[Patch]) -> bool {
        let is_patched = |at: &u64| {
            let length = |bytes: &[u8]| u64::try_from(bytes.len()).unwrap();
            but.iter().any(|(from, bytes)| (*from..*from + length(bytes)).contains(at))
        };
        !self.core.find(self.fragments[index].payload).iter().all(is_patched)
    }

    /// What one fragment takes of the pool, in bytes.
    pub(crate) fn extent(&self, index: usize) -> u64 {
        self.fragments[index].size + self.layout.overhead()
    }
}
