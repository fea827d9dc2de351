//! Reading a table's structures: each must be a used fragment of the shared pool.

use std::cell::Cell;

use super::Clock;
use crate::addr::Addr;
use crate::bytes::Chunk;
use crate::leak::Used;
use crate::memory::{Absent, Memory};
use crate::num::narrow;

/// A fragment may be longer than what was asked for, by less than a fragment of its own would take,
/// in bytes.
const SPARE: u64 = 256;

/// Why a table was not counted, for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Doubt(String);

impl Doubt {
    pub(super) fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}

impl std::fmt::Display for Doubt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<Absent> for Doubt {
    fn from(absent: Absent) -> Self {
        Self(absent.to_string())
    }
}

/// Says why, unless `holds`.
pub(super) fn ensure(holds: bool, at: Addr, what: &str) -> Result<(), Doubt> {
    if holds { Ok(()) } else { Err(Doubt(format!("at {at}: {what}"))) }
}

/// A process's memory, and the fragments of the shared pool.
pub(super) struct View<'a> {
    memory: &'a dyn Memory,
    fragments: &'a [Used],
    /// Bytes of fragments that may still be visited.
    left: Cell<u64>,
    pub(super) clock: Clock,
}

impl<'a> View<'a> {
    pub(super) fn new(memory: &'a dyn Memory, fragments: &'a [Used], clock: Clock) -> Self {
        Self { memory, fragments, left: Cell::new(0), clock }
    }

    /// Allows each fragment to be visited twice; who wants more follows a list that does not end.
    pub(super) fn start(&self) {
        let bytes = self.fragments.iter().map(|fragment| fragment.bytes());
        let all = bytes.fold(0_u64, u64::saturating_add);
        self.left.set(all.saturating_mul(2));
    }

    /// Bytes of the used fragment that begins at an address.
    pub(super) fn fragment(&self, at: Addr) -> Option<u64> {
        let found = self.fragments.binary_search_by_key(&at, |fragment| fragment.start);
        let fragment = self.fragments.get(found.ok()?)?;
        Some(fragment.bytes())
    }

    /// Visits a used fragment; its bytes.
    fn visit(&self, at: Addr, missing: impl FnOnce() -> String) -> Result<u64, Doubt> {
        let held = self.fragment(at).ok_or_else(|| Doubt(format!("at {at}: {}", missing())))?;
        let left = self.left.get().checked_sub(held);
        self.left.set(left.ok_or_else(|| Doubt(format!("at {at}: a list does not end")))?);
        Ok(held)
    }

    /// A structure that fills a fragment, or its beginning.
    pub(super) fn whole(&self, at: Addr, size: u64) -> Result<Record<'a>, Doubt> {
        let missing = || format!("no used fragment of at least {size} bytes begins there");
        let held = self.visit(at, missing)?;
        if held < size {
            return Err(Doubt(format!("at {at}: {}", missing())));
        }
        self.part(at, size)
    }

    /// A structure at a place that was checked.
    pub(super) fn part(&self, at: Addr, size: u64) -> Result<Record<'a>, Doubt> {
        Ok(Record { at, bytes: self.memory.bytes(at, narrow(size))? })
    }

    /// Structures of `each` bytes side by side, which fill a fragment.
    pub(super) fn array(&self, at: Addr, count: u64, each: u64) -> Result<Array<'_, 'a>, Doubt> {
        self.array_behind(at, 0, count, each)
    }

    /// The same, `skip` bytes behind the beginning of their fragment.
    pub(super) fn array_behind(
        &self,
        fragment: Addr,
        skip: u64,
        count: u64,
        each: u64,
    ) -> Result<Array<'_, 'a>, Doubt> {
        let missing = || format!("no used fragment for {count} slots begins there");
        let held = self.visit(fragment, missing)?;
        let end = count.checked_mul(each).and_then(|size| size.checked_add(skip));
        let fits = end.and_then(|end| held.checked_sub(end)).is_some_and(|left| left < SPARE);
        ensure(fits, fragment, &missing())?;
        let at = Addr(fragment.0.saturating_add(skip));
        Ok(Array { view: self, at, count, each })
    }

    /// A name from the configuration, if it is in the snapshot and looks like one.
    pub(super) fn name(&self, at: Addr, length: u32) -> Option<String> {
        let length = usize::try_from(length).ok().filter(|length| (1..=255).contains(length))?;
        let bytes = self.memory.bytes(at, length).ok()?;
        let plain = bytes.iter().all(u8::is_ascii_graphic);
        plain.then(|| String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// Structures side by side.
pub(super) struct Array<'v, 'a> {
    view: &'v View<'a>,
    at: Addr,
    count: u64,
    each: u64,
}

impl<'a> Array<'_, 'a> {
    /// One by one, by their index.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, Result<Record<'a>, Doubt>)> {
        (0..self.count).map(|index| {
            let at = Addr(self.at.0.saturating_add(index.saturating_mul(self.each)));
            (index, self.view.part(at, self.each))
        })
    }
}

/// The bytes of one structure.
#[derive(Clone, Debug)]
pub(super) struct Record<'a> {
    pub(super) at: Addr,
    bytes: Chunk<'a>,
}

impl Record<'_> {
    /// Address of a field.
    pub(super) fn field(&self, offset: u64) -> Addr {
        Addr(self.at.0.saturating_add(offset))
    }

    pub(super) fn word(&self, offset: u64) -> Result<u64, Doubt> {
        self.chunk(offset).map(u64::from_le_bytes)
    }

    pub(super) fn pointer(&self, offset: u64) -> Result<Addr, Doubt> {
        self.word(offset).map(Addr)
    }

    /// A `time_t`.
    pub(super) fn time(&self, offset: u64) -> Result<i64, Doubt> {
        self.chunk(offset).map(i64::from_le_bytes)
    }

    /// An `unsigned int`.
    pub(super) fn int(&self, offset: u64) -> Result<u32, Doubt> {
        self.chunk(offset).map(u32::from_le_bytes)
    }

    /// An `unsigned short`.
    pub(super) fn short(&self, offset: u64) -> Result<u16, Doubt> {
        self.chunk(offset).map(u16::from_le_bytes)
    }

    fn chunk<const N: usize>(&self, offset: u64) -> Result<[u8; N], Doubt> {
        let bytes = self.bytes.get(narrow(offset)..).and_then(|bytes| bytes.first_chunk());
        bytes.copied().ok_or_else(|| Doubt(format!("at {}: no field at {offset}", self.at)))
    }
}
