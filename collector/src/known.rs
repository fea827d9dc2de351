//! The programs that are found without being named.

/// A program that the analyzer understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// Name of its profile, also in the bundle's header.
    pub name: &'static str,
    /// File name of its executable.
    pub executable: &'static str,
}

/// Every program with a profile of its own.
pub static KNOWN: &[Known] = &[
    Known { name: "kamailio", executable: "kamailio" },
    Known { name: "voipmonitor", executable: "voipmonitor" },
];

/// What the profile of any other program is called.
pub const GENERIC: &str = "generic";

/// The profile name for an executable's file name.
pub fn of(executable: &str) -> &'static str {
    let known = KNOWN.iter().find(|known| known.executable == executable);
    known.map_or(GENERIC, |known| known.name)
}
