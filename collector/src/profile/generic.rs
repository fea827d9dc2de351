//! Any other program: what the kernel says of it.

use super::Profile;
use crate::evidence::{
    Descriptors, FIRST_SAMPLE, Logs, Modules, ProcessFiles, SECOND_SAMPLE, System,
};

pub(super) static PROFILE: Profile = Profile {
    name: "generic",
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
