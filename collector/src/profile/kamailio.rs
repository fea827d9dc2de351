//! A Kamailio SIP server: its interfaces answer only while it runs, so they come before the files.

use super::Profile;
use crate::evidence::{
    Descriptors, FIRST_SAMPLE, KamailioConfig, KamailioMemory, KamailioRpc, KamailioVersion,
    Modules, ProcessFiles, SECOND_SAMPLE, System,
};

pub(super) static PROFILE: Profile = Profile {
    name: "kamailio",
    sources: &[
        &FIRST_SAMPLE,
        &SECOND_SAMPLE,
        &KamailioMemory,
        &KamailioRpc,
        &ProcessFiles,
        &Descriptors,
        &System,
        &KamailioConfig,
        &KamailioVersion,
        &Modules,
    ],
};
