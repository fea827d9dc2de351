//! `header.json`: the first member of a bundle, so that a cut bundle still says what it is.

use serde::{Deserialize, Serialize};

use crate::{Holds, Series};

/// What was collected: a running program, or what is left of one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// The program ran, and was frozen where memory was wanted.
    #[default]
    Live,
    /// It was gone (`--post-mortem`): cores are those that the system kept, as they are.
    PostMortem,
}

impl Mode {
    /// Whether the program ran.
    pub fn is_live(&self) -> bool {
        *self == Self::Live
    }
}

/// What was collected, where, when and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The bundle format, [`crate::FORMAT_VERSION`].
    pub format: u32,
    /// The collector's name and version, for instance `collect-evidence 0.1.0`.
    pub tool: String,
    /// When the collection began, RFC 3339 with offset and zone name.
    pub created: String,
    /// Node name of the host (`uname -n`).
    pub host: String,
    /// `/proc/sys/kernel/random/boot_id`; two bundles of one boot share it.
    pub boot_id: String,
    /// Kernel release and version (`uname -rv`).
    pub kernel: String,
    /// Machine (`uname -m`), for instance `x86_64`.
    pub machine: String,
    /// Names this collection; also part of the default file name.
    pub case_id: String,
    /// The program profile: `kamailio`, `voipmonitor` or `generic`.
    pub profile: String,
    /// Why it was collected, as the operator gave it; may be empty.
    pub reason: String,
    /// What this collection leaves out on purpose, and what secrets it holds, in words.
    #[serde(default)]
    pub scope: Vec<String>,
    /// How much of the memory was asked for; absent where it is the whole.
    #[serde(default, skip_serializing_if = "Holds::is_whole")]
    pub holds: Holds,
    /// Whether the program ran; absent where it did.
    #[serde(default, skip_serializing_if = "Mode::is_live")]
    pub mode: Mode,
    /// Its place in a series (`--samples`); absent for a bundle by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub series: Option<Series>,
}
