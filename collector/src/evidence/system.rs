//! The host.
//!
//! Members: `system/NAME`, NAME the path below `/proc` with `/` as `.`: `meminfo`, `version`,
//! `mounts`, `loadavg`, `stat`, `uptime`, `vmstat`, `cpuinfo`, `swaps`, `cmdline`, `slabinfo`,
//! `buddyinfo`, `pressure.cpu`, `pressure.io`, `pressure.memory`, `sys.fs.file-nr`,
//! `sys.kernel.core_pattern`, `sys.kernel.pid_max`, `sys.kernel.random.boot_id`,
//! `sys.vm.overcommit_memory`, `sys.vm.max_map_count`; and `system/os-release`.

use bundle::{Phase, member};

use super::{Context, Drawer, Source};

const NAMES: [&str; 21] = [
    "meminfo",
    "version",
    "mounts",
    "loadavg",
    "stat",
    "uptime",
    "vmstat",
    "cpuinfo",
    "swaps",
    "cmdline",
    "slabinfo",
    "buddyinfo",
    "pressure/cpu",
    "pressure/io",
    "pressure/memory",
    "sys/fs/file-nr",
    "sys/kernel/core_pattern",
    "sys/kernel/pid_max",
    "sys/kernel/random/boot_id",
    "sys/vm/overcommit_memory",
    "sys/vm/max_map_count",
];

#[derive(Debug)]
pub(crate) struct System;

impl Source for System {
    fn name(&self) -> &'static str {
        "system"
    }

    fn about(&self) -> &'static str {
        "what the kernel says of the host"
    }

    fn phase(&self) -> Phase {
        Phase::AfterThaw
    }

    fn collect(&self, _: &Context, out: &Drawer) -> anyhow::Result<()> {
        for name in NAMES {
            let path = format!("{}/{}", member::SYSTEM, name.replace('/', "."));
            out.copy(path, &format!("/proc/{name}"));
        }
        out.copy(format!("{}/os-release", member::SYSTEM), "/etc/os-release");
        Ok(())
    }
}
