//! What a person or a script is told: one model, several renderers.
//!
//! [`Report::of`] takes from the case all that is shown; [`text`] and JSON (serde) compute nothing.
//! The JSON form is written down in `docs/report-schema.md`.

mod by_size;
mod crashes;
mod diff;
mod fragments;
mod held;
mod leaks;
mod locks;
mod model;
mod owners;
mod profile;
mod registers;
mod selection;
mod tables;
mod tame;
pub mod text;
mod threads;
mod why;

pub use by_size::PayloadSizeReport;
pub use crashes::{
    CrashReport, FaultReport, InstructionReport, NearbyReport, NeighbourReport, WordReport,
};
pub use diff::{
    Comparison, DiffReport, HeldReport, OwnerDiff, PoolDiff, SnapshotReport, StepReport,
};
pub use fragments::{FragmentReport, FrameReport, details, preview};
pub use leaks::{LeakOptions, LeakReport, LostReport, PoolLoss};
pub use locks::{HolderReport, LockReport, LocksReport, WaitReport, WaiterReport};
pub use model::{
    ClassReport, CutList, FragmentationReport, PoolReport, ProcessReport, Report, UnusableReport,
    WalkedReport,
};
pub use owners::OwnerReport;
pub use profile::{FunctionCost, Profile, ProfileFrame, ProfileSample, ThreadCost};
pub use registers::{RegisterReport, ThreadRegisters};
pub use selection::{Selection, SortKey, is_process};
pub use tables::TablesReport;
pub use tame::Tame;
pub use threads::{
    CallReport, ProcessThreads, StackFrame, StackGroup, SwitchReport, ThreadName, ThreadReport,
    ThreadsReport,
};
pub use why::{
    Held, Kept, NodeReport, PathReport, Referred, RefsReport, RootKind, RootReport, WayPoint,
    WhyReport,
};

/// Version of the JSON form; raised with every change that a script could notice.
pub const SCHEMA: u32 = 1;
