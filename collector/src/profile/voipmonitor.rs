//! A VoIPmonitor sniffer.

use super::Profile;
use crate::evidence::{
    Descriptors, FIRST_SAMPLE, Logs, Modules, ProcessFiles, SECOND_SAMPLE, System,
};

pub(super) static PROFILE: Profile = Profile {
    name: "voipmonitor",
    sources: &[
        &FIRST_SAMPLE,
        &SECOND_SAMPLE,
        &ProcessFiles,
        &Descriptors,
        &System,
        &Logs,
        &Modules,
    ],
};
