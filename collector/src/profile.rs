//! The programs that are found without being named.

/// A program that the analyzer understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Its name in the bundle's header.
    pub name: &'static str,
    /// File name of its executable.
    pub executable: &'static str,
}

/// Every program with a profile of its own.
pub static KNOWN: &[Profile] = &[
    Profile { name: "kamailio", executable: "kamailio" },
    Profile { name: "voipmonitor", executable: "voipmonitor" },
];

/// The profile name for an executable's file name.
pub fn of(executable: &str) -> &'static str {
    let known = KNOWN.iter().find(|profile| profile.executable == executable);
    known.map_or("generic", |profile| profile.name)
}
