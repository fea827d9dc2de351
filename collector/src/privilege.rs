//! What this host lets us do, and the words for what it does not.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use crate::procfs::Fields;
use crate::target::Target;

/// `CAP_SYS_PTRACE`
const SYS_PTRACE: u32 = 19;
/// `CAP_SYS_ADMIN`
const SYS_ADMIN: u32 = 21;
/// `CAP_CHECKPOINT_RESTORE`
const CHECKPOINT_RESTORE: u32 = 40;

/// The collector's own rights.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Privileges {
    /// Effective user.
    pub user: u32,
    /// Effective capabilities.
    pub capabilities: u64,
    /// `kernel.yama.ptrace_scope`, where the kernel has Yama.
    pub yama: Option<u32>,
}

impl Privileges {
    /// Those of this process.
    pub fn read() -> Self {
        let status = Fields::read(Path::new("/proc/self/status")).unwrap_or_default();
        let yama = fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope");
        Self {
            user: nix::unistd::geteuid().as_raw(),
            capabilities: status.mask("CapEff").unwrap_or(0),
            yama: yama.ok().and_then(|text| text.trim().parse().ok()),
        }
    }

    fn has(&self, capability: u32) -> bool {
        self.capabilities & (1 << capability) != 0
    }

    /// Whether `/proc/PID/map_files` can be opened, tried on our own.
    pub fn map_files(&self) -> bool {
        let Ok(entries) = fs::read_dir("/proc/self/map_files") else { return false };
        entries.flatten().take(8).any(|entry| fs::metadata(entry.path()).is_ok())
    }

    /// What is missing to trace a process, and how to give it; `None` if nothing is.
    ///
    /// Opening `/proc/PID/mem` asks the kernel the very question that ptrace will ask.
    pub fn missing_for(&self, id: u32) -> Option<String> {
        match File::open(format!("/proc/{id}/mem")) {
            Ok(_) => None,
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => Some(self.explain(&error)),
        }
    }

    fn explain(&self, error: &io::Error) -> String {
        if self.yama == Some(3) {
            return "kernel.yama.ptrace_scope is 3: no process can be traced until the next boot \
                    with another value"
                .into();
        }
        if self.has(SYS_PTRACE) {
            return format!(
                "{error} in spite of CAP_SYS_PTRACE: the process belongs to a user namespace \
                 outside of ours, or a security module (AppArmor, SELinux, seccomp) forbids it; run \
                 on the host itself, outside of any container"
            );
        }
        let mut words = format!(
            "CAP_SYS_PTRACE is missing (user {}). Give it with one of: `sudo collect-evidence …`; \
             `sudo setcap cap_sys_ptrace,cap_checkpoint_restore,cap_dac_read_search+ep \
             collect-evidence`; in a container, start it with `--cap-add SYS_PTRACE`",
            self.user
        );
        if let Some(scope @ 1..) = self.yama {
            words += &format!(
                "; for processes of your own user, `sudo sysctl kernel.yama.ptrace_scope=0` (now \
                 {scope})"
            );
        }
        words
    }

    /// What is missing to ask shared memory for its holes, and how to give it.
    pub fn missing_for_map_files(&self) -> String {
        if self.has(SYS_ADMIN) || self.has(CHECKPOINT_RESTORE) {
            "/proc/PID/map_files is refused in spite of CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE: \
             they count only outside of user namespaces; run on the host itself"
                .into()
        } else {
            "CAP_CHECKPOINT_RESTORE (or CAP_SYS_ADMIN) is missing: `sudo`, or in a container \
             `--cap-add CHECKPOINT_RESTORE`"
                .into()
        }
    }
}

/// What this host lets us do with the group.
#[derive(Debug, Default)]
pub(crate) struct Rights {
    pub(crate) map_files: bool,
    /// Processes that may not be traced.
    pub(crate) refused: usize,
    /// What is missing and how to give it.
    pub(crate) words: Option<String>,
    /// The same for `map_files`.
    pub(crate) map_files_words: Option<String>,
}

impl Rights {
    pub(crate) fn of(target: &Target) -> Self {
        let privileges = Privileges::read();
        let missing =
            target.processes.iter().filter_map(|process| privileges.missing_for(process.id));
        let missing: Vec<String> = missing.collect();
        let map_files = privileges.map_files();
        Self {
            map_files,
            refused: missing.len(),
            words: missing.into_iter().next(),
            map_files_words: (!map_files).then(|| privileges.missing_for_map_files()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(capabilities: u64, yama: Option<u32>) -> String {
        let denied = io::Error::from(io::ErrorKind::PermissionDenied);
        Privileges { user: 1000, capabilities, yama }.explain(&denied)
    }

    #[test]
    fn the_missing_thing_is_named_with_its_remedy() {
        assert!(words(0, None).starts_with("CAP_SYS_PTRACE is missing (user 1000)"));
        assert!(!words(0, Some(0)).contains("ptrace_scope"));
        assert!(words(0, Some(1)).contains("sysctl kernel.yama.ptrace_scope=0"));
        assert!(words(0, Some(3)).contains("until the next boot"));
        assert!(words(1 << SYS_PTRACE, None).contains("in spite of CAP_SYS_PTRACE"));
    }

    #[test]
    fn our_own_memory_needs_nothing() {
        assert_eq!(Privileges::read().missing_for(std::process::id()), None);
    }
}
