//! What the collector knows of Kamailio.
//!
//! - [`memory`]: its process table, how full its pools are, and who has the lock of shared memory,
//!   read from its own variables.

pub(crate) mod memory;
