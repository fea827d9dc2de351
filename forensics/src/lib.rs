//! `forensics`: opens support bundles and cores offline and says what Kamailio's pools hold.
//!
//! Data flows one way, in the order of the modules below: inputs are opened, bytes become
//! processes, processes give pools, pools are walked, rules look at the case, a report shows it.
//! No module uses one that comes later.

mod addr;
mod gap;
mod num;
mod units;

pub mod bytes;

pub mod input;
pub mod memory;

pub mod core;
pub mod modules;

pub mod layout;
pub mod process;

pub mod unwind;

pub mod symbols;

pub mod heap;
pub mod kamailio;
pub mod leak;
pub mod places;

pub mod activity;

pub mod threads;

pub mod locks;

pub mod crash;

pub mod content;

pub mod case;
pub mod diagnose;

pub mod cli;
pub mod commands;
pub mod report;

pub use addr::{Addr, AddrRange};
pub use gap::Gap;
