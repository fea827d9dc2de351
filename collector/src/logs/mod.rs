//! Log files: where they are ([`rules`], [`places`]), what time a line tells ([`time`]), and the
//! part of one that is wanted ([`slice`]), rotated and packed ones included ([`packed`]).
//!
//! A log may hold anything: lines of a gigabyte, no time stamps, holes, a bomb behind `.gz`. Each
//! reader has a limit on what it keeps, on what it unpacks and on the time it takes, and says where
//! that cut.

pub(crate) mod packed;
pub(crate) mod places;
pub(crate) mod rules;
pub(crate) mod slice;
pub(crate) mod time;
