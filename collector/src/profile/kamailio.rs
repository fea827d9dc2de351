//! A Kamailio SIP server: its interfaces answer only while it runs, so they come before the files.

use super::Profile;
use crate::evidence::{
    Descriptors, FIRST_SAMPLE, KamailioMemory, Logs, Modules, ProcessFiles, SECOND_SAMPLE, System,
};

pub(super) static PROFILE: Profile = Profile {
    name: "kamailio",
    sources: &[
        &FIRST_SAMPLE,
        &SECOND_SAMPLE,
        &KamailioMemory,
        &ProcessFiles,
        &Descriptors,
        &System,
        &Logs,
        &Modules,
    ],
};
