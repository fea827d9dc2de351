//! Addresses in a process. A bare `u64` is a count of bytes; an [`Addr`] is a place.

use std::fmt;

use serde::{Serialize, Serializer};

/// An address in the virtual memory of one process.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Addr(pub u64);

impl Addr {
    /// The null pointer.
    pub const NULL: Self = Self(0);

    /// `length` bytes further; `None` past the end of the address space.
    pub fn checked_add(self, length: u64) -> Option<Self> {
        self.0.checked_add(length).map(Self)
    }

    /// `length` bytes before; `None` below zero.
    pub fn checked_sub(self, length: u64) -> Option<Self> {
        self.0.checked_sub(length).map(Self)
    }

    /// Bytes from `start` to here; `None` if `start` is higher.
    pub fn offset_from(self, start: Self) -> Option<u64> {
        self.0.checked_sub(start.0)
    }

    /// Whether it is the null pointer.
    pub fn is_null(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{:#x}", self.0))
    }
}

impl fmt::Debug for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// In JSON an address is a hex string: a number would lose bits in many readers.
impl Serialize for Addr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl std::str::FromStr for Addr {
    type Err = std::num::ParseIntError;

    /// Reads hex with or without `0x`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).unwrap_or(text);
        u64::from_str_radix(digits, 16).map(Self)
    }
}

/// A half-open range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct AddrRange {
    /// First address.
    pub start: Addr,
    /// First address behind it; never below `start`.
    pub end: Addr,
}

impl AddrRange {
    /// From `start`, `length` bytes, cut at the end of the address space.
    pub fn new(start: Addr, length: u64) -> Self {
        Self { start, end: Addr(start.0.saturating_add(length)) }
    }

    /// Length in bytes.
    pub fn length(&self) -> u64 {
        self.end.0.saturating_sub(self.start.0)
    }

    /// Whether `at` lies inside.
    pub fn contains(&self, at: Addr) -> bool {
        self.start <= at && at < self.end
    }
}

impl fmt::Display for AddrRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.start, self.end)
    }
}
