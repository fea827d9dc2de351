//! One table as it was found.

use std::collections::BTreeMap;

use serde::Serialize;

/// A table and how many entries it holds. No word of what is in them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Held {
    /// The module whose table it is: `htable`, `usrloc`, `dialog` or `tm`.
    pub module: &'static str,
    /// The table's own name, where a module has several: that of the hash table or of the domain.
    pub name: Option<String>,
    /// Slots of the table.
    pub slots: u64,
    /// Entries: cells, contacts, dialogs, transactions.
    pub entries: u64,
    /// Entries by state, in modules that have states.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub states: BTreeMap<&'static str, u64>,
    /// Entries past their end and still there; null where the snapshot does not tell the time.
    pub past_end: Option<PastEnd>,
    /// Age of the oldest entry, in seconds; null where entries do not record it or the snapshot
    /// does not tell the time.
    pub oldest_seconds: Option<u64>,
    /// How the layout of its structures is known.
    pub layout: TableLayout,
}

/// Entries past their end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PastEnd {
    /// How many.
    pub entries: u64,
    /// For how long the one that ended first has been, in seconds; 0 without any, and where their
    /// ends are not recorded.
    pub longest_seconds: u64,
}

/// How the layout of a table's structures is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "source")]
pub enum TableLayout {
    /// Debug information of this very build.
    Dwarf {
        /// Build ID of the module that carries it.
        build_id: String,
    },
    /// A known layout with which every entry agrees.
    Agreed {
        /// Which.
        layout: &'static str,
        /// How many layouts are known.
        tried: usize,
    },
}

impl PastEnd {
    /// Counts an entry that ended so many seconds ago.
    pub(super) fn add(&mut self, seconds: u64) {
        self.entries = self.entries.saturating_add(1);
        self.longest_seconds = self.longest_seconds.max(seconds);
    }
}
