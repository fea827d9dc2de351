//! Hangs of a real Kamailio, one of each kind: the report's first finding names the processes by
//! role, the lock, the function and the kind; and an instance that does not hang gives none.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test stops at the first surprise"
)]

mod answers;
mod connect;
mod cycle;
mod healthy;
mod pool;
mod slot;
mod spin;
