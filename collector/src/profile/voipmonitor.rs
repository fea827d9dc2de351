//! A VoIPmonitor sniffer: its manager answers only while it runs, so it comes before the files.

use super::Profile;
use crate::evidence::{
    ControlGroups, Database, Descriptors, Disks, FIRST_HOST_SAMPLE, FIRST_SAMPLE, Journal,
    KernelLog, Logs, Modules, Packages, ProcessFiles, SECOND_HOST_SAMPLE, SECOND_SAMPLE,
    System, Systemd, VoipmonitorManager,
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
