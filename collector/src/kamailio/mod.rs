//! What the collector knows of Kamailio, and how it is asked: our own client for its RPC.
//!
//! - [`memory`]: its process table, how full its pools are, and who has the lock of shared memory,
//!   read from its own variables.
//! - [`configuration`], [`files`]: what the configuration says of sockets, with its includes.
//! - [`listening`]: what the group itself listens on. [`endpoint`]: both together, best first.
//! - [`interview`]: which calls are made, in the order of `methods`; `locks` says when those that
//!   take a lock are left out.
//! - `transport`, `fifo`, `deadline`: the ways there. `packet`, `binrpc`, [`value`]: the languages.
//!
//! Nothing waits longer than its deadline, believes a length, or asks anybody but the group itself.

mod binrpc;
mod configuration;
mod deadline;
pub(crate) mod endpoint;
mod fifo;
pub(crate) mod files;
#[cfg(test)]
mod hostile;
pub(crate) mod interview;
pub(crate) mod listening;
mod locks;
pub(crate) mod memory;
mod methods;
mod packet;
mod transport;
pub(crate) mod value;
