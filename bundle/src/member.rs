//! The names of a bundle's members. Paths are relative, with `/`, and never contain `..`.

/// First member: [`crate::Header`] as JSON.
pub const HEADER: &str = "header.json";
/// Last member: [`crate::Manifest`] as JSON. A bundle without it was cut.
pub const MANIFEST: &str = "manifest.json";
/// The collector's own trace, one JSON object a line.
pub const TRACE: &str = "collector.jsonl";
/// What was masked: a JSON array of [`crate::Redaction`].
pub const REDACTIONS: &str = "redactions.json";
/// Post mortem: where cores were sought, and what each is, as JSON.
pub const POST_MORTEM: &str = "post-mortem.json";
/// Evidence about the host as raw text, below this folder.
pub const SYSTEM: &str = "system";
/// Evidence about each process, below `processes/PID/`.
pub const PROCESSES: &str = "processes";
/// Pages of shared mappings, one member for each mapping.
pub const SHARED: &str = "shared";
/// The ELF files that the group maps, below `modules/BUILDID/`.
pub const MODULES: &str = "modules";

/// The folder of a process; `pid` as the collector's PID namespace counts it.
pub fn process(pid: u32) -> String {
    format!("{PROCESSES}/{pid}")
}

/// The ELF core of a process.
pub fn core(pid: u32) -> String {
    format!("{PROCESSES}/{pid}/core")
}

/// One `/proc/PID` file of a process, for instance `maps`.
pub fn process_file(pid: u32, name: &str) -> String {
    format!("{PROCESSES}/{pid}/{name}")
}

/// When the samples of `/proc` were taken.
pub const SAMPLE_TIMES: &str = "processes/samples.json";

/// One `/proc/PID/task/TID` file of a thread.
pub fn thread_file(pid: u32, tid: u32, name: &str) -> String {
    format!("{PROCESSES}/{pid}/task/{tid}/{name}")
}

/// The pages of a shared mapping. `device` is the text of `/proc/PID/maps`, for instance `00:01`.
pub fn shared(device: &str, inode: u64) -> String {
    format!("{SHARED}/{}-{inode}", device.replace(':', "."))
}

/// A module's file. `build_id` in lower-case hex; a file without one is kept under `no-build-id`
/// and a hash of its path.
pub fn module(build_id: &str, file_name: &str) -> String {
    format!("{MODULES}/{build_id}/{file_name}")
}

/// A member's place in the tree, for the reader: `processes/12/task/13/stat` is
/// `Place::Thread { pid: 12, tid: 13, name: "stat" }`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place<'a> {
    /// `processes/PID/core`
    Core {
        /// The process.
        pid: u32,
    },
    /// `processes/PID/NAME`
    Process {
        /// The process.
        pid: u32,
        /// The rest of the path.
        name: &'a str,
    },
    /// `processes/PID/task/TID/NAME`
    Thread {
        /// The process.
        pid: u32,
        /// The thread.
        tid: u32,
        /// The rest of the path.
        name: &'a str,
    },
    /// `modules/BUILDID/NAME`
    Module {
        /// Lower-case hex.
        build_id: &'a str,
        /// The file's own name.
        name: &'a str,
    },
    /// `shared/DEV-INODE`
    Shared,
    /// Anything else.
    Other,
}

impl<'a> Place<'a> {
    /// Classifies a member's path.
    pub fn of(path: &'a str) -> Self {
        let mut parts = path.splitn(3, '/');
        let (Some(first), Some(second), rest) = (parts.next(), parts.next(), parts.next()) else {
            return Self::Other;
        };
        match (first, rest) {
            (SHARED, None) => Self::Shared,
            (MODULES, Some(name)) => Self::Module { build_id: second, name },
            (PROCESSES, Some(name)) => {
                let Ok(pid) = second.parse() else { return Self::Other };
                if name == "core" {
                    return Self::Core { pid };
                }
                let thread = name.strip_prefix("task/").and_then(|rest| rest.split_once('/'));
                if let Some((tid, name)) = thread
                    && let Ok(tid) = tid.parse()
                {
                    return Self::Thread { pid, tid, name };
                }
                Self::Process { pid, name }
            }
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_placed_where_it_was_made() {
        assert_eq!(Place::of(&core(12)), Place::Core { pid: 12 });
        assert_eq!(
            Place::of(&process_file(12, "2/stat")),
            Place::Process { pid: 12, name: "2/stat" }
        );
        assert_eq!(
            Place::of(&thread_file(12, 13, "stat")),
            Place::Thread { pid: 12, tid: 13, name: "stat" }
        );
        assert_eq!(
            Place::of(&module("ab12", "tm.so")),
            Place::Module { build_id: "ab12", name: "tm.so" }
        );
        assert_eq!(Place::of(&shared("00:01", 1026)), Place::Shared);
        assert_eq!(shared("00:01", 1026), "shared/00.01-1026");
        assert_eq!(Place::of(HEADER), Place::Other);
        assert_eq!(Place::of("processes/x/core"), Place::Other);
    }
}
