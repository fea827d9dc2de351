//! A VoIPmonitor sniffer: its manager answers only while it runs, so it comes before the files.

use super::Profile;
use crate::evidence::{
    ControlGroups, Database, Descriptors, Disks, FIRST_HOST_SAMPLE, FIRST_SAMPLE, Journal,
    KernelLog, Logs, Modules, Packages, ProcessFiles, SECOND_HOST_SAMPLE, SECOND_SAMPLE,
    SpoolWrite, System, Systemd, VoipmonitorFiles, VoipmonitorManager,
};

pub(super) static PROFILE: Profile = Profile {
    name: "voipmonitor",
    sources: &[
        &FIRST_SAMPLE,
        &FIRST_HOST_SAMPLE,
        &SECOND_SAMPLE,
        &SECOND_HOST_SAMPLE,
        &VoipmonitorManager,
        &ProcessFiles,
        &Descriptors,
        // Secrets that its configuration names are masked in what comes after it.
        &VoipmonitorFiles,
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
        // It loads the disk that others read.
        &SpoolWrite,
    ],
};
