//! Any other program: what the kernel says of it.

use super::Profile;
use crate::evidence::{
    ControlGroups, Database, Descriptors, Disks, FIRST_HOST_SAMPLE, FIRST_SAMPLE, Journal,
    KernelLog, Logs, Modules, Packages, ProcessFiles, SECOND_HOST_SAMPLE, SECOND_SAMPLE, System,
    Systemd,
};

pub(super) static PROFILE: Profile = Profile {
    name: "generic",
    sources: &[
        &FIRST_SAMPLE,
        &FIRST_HOST_SAMPLE,
        &SECOND_SAMPLE,
        &SECOND_HOST_SAMPLE,
        &ProcessFiles,
        &Descriptors,
        &System,
        &ControlGroups,
        &Disks,
        &KernelLog,
        &Systemd,
        &Logs,
        &Journal,
        &Packages,
        &Database,
        &Modules,
    ],
};
