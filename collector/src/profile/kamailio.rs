//! A Kamailio SIP server: its interfaces answer only while it runs, so they come before the files.

use super::Profile;
use crate::evidence::{
    ControlGroups, Database, Descriptors, Disks, FIRST_HOST_SAMPLE, FIRST_SAMPLE, Journal,
    KamailioConfig, KamailioMemory, KamailioRpc, KamailioVersion, KernelLog, Logs, Modules,
    Packages, ProcessFiles, SECOND_HOST_SAMPLE, SECOND_SAMPLE, System, Systemd,
};

pub(super) static PROFILE: Profile = Profile {
    name: "kamailio",
    sources: &[
        &FIRST_SAMPLE,
        &FIRST_HOST_SAMPLE,
        &SECOND_SAMPLE,
        &SECOND_HOST_SAMPLE,
        &KamailioMemory,
        &KamailioRpc,
        &ProcessFiles,
        &Descriptors,
        // Secrets that it names are masked in what comes after it.
        &KamailioConfig,
        &System,
        &ControlGroups,
        &Disks,
        &KernelLog,
        &Systemd,
        &Logs,
        &Journal,
        &KamailioVersion,
        &Packages,
        &Database,
        &Modules,
    ],
};
