//! The host, once: what does not need two samples.
//!
//! Members: `system/NAME`, NAME the path below `/proc` with `/` as `.`: `meminfo`, `version`,
//! `mounts`, `loadavg`, `stat`, `uptime`, `vmstat`, `cpuinfo`, `swaps`, `cmdline`, `slabinfo`,
//! `buddyinfo`, `zoneinfo`, `modules`, `locks`, `filesystems`, `partitions`, `pressure.cpu`,
//! `pressure.io`, `pressure.memory`, `sys.fs.file-nr`, `sys.kernel.core_pattern`,
//! `sys.kernel.pid_max`, `sys.kernel.random.boot_id`, `sys.vm.overcommit_memory`,
//! `sys.vm.max_map_count`; `system/os-release`; `system/sysctl`: settings that matter to a server, a
//! line `NAME = VALUE` each as sysctl(8) prints them, `net.` those of our own network namespace;
//! `system/sys`: the same for files of `/sys`; `system/clock.json`: the clocks and what the kernel
//! says of their discipline; `system/node/nodeN.NAME`: memory by NUMA node.

use std::fmt::Write as _;
use std::fs;

use bundle::{Phase, member};
use serde_json::json;

use super::{Context, Drawer, Needs, Source};
use crate::{procfs, sys, sys_host};

const NAMES: [&str; 26] = [
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
    "zoneinfo",
    "modules",
    "locks",
    "filesystems",
    "partitions",
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

/// Folders of `/proc/sys` whose settings are wanted, and how their names begin.
const SETTINGS: [(&str, &[&str]); 12] = [
    ("fs", &["file-max", "file-nr", "inode-nr", "nr_open", "suid_dumpable", "aio-", "pipe-"]),
    ("fs/inotify", &[""]),
    (
        "kernel",
        &[
            "core_",
            "hung_task_",
            "numa_balancing",
            "panic",
            "pid_max",
            "threads-max",
            "sched_",
            "sem",
            "shm",
            "msg",
            "softlockup_",
            "soft_watchdog",
            "watchdog",
            "nmi_watchdog",
            "tainted",
            "printk",
            "dmesg_restrict",
            "yama",
            "kptr_restrict",
            "randomize_va_space",
            "unprivileged_bpf_disabled",
            "perf_event_paranoid",
        ],
    ),
    ("kernel/yama", &["ptrace_scope"]),
    (
        "vm",
        &[
            "swappiness",
            "overcommit_",
            "dirty_",
            "min_free_kbytes",
            "max_map_count",
            "oom_",
            "panic_on_oom",
            "vfs_cache_pressure",
            "zone_reclaim_mode",
            "nr_hugepages",
            "watermark_",
        ],
    ),
    (
        "net/core",
        &["rmem_", "wmem_", "optmem_max", "netdev_", "somaxconn", "default_qdisc", "busy_"],
    ),
    ("net/ipv4", &["tcp_", "udp_", "ip_local_", "ip_forward", "ip_nonlocal_bind", "ipfrag_"]),
    ("net/ipv4/neigh/default", &["gc_thresh"]),
    ("net/ipv6", &["ip6frag_"]),
    ("net/netfilter", &["nf_conntrack_"]),
    ("net/unix", &["max_dgram_qlen"]),
    ("user", &["max_"]),
];

/// Files of `/sys`.
const SYS: [&str; 10] = [
    "kernel/mm/transparent_hugepage/enabled",
    "kernel/mm/transparent_hugepage/defrag",
    "kernel/mm/transparent_hugepage/shmem_enabled",
    "kernel/mm/ksm/run",
    "devices/system/clocksource/clocksource0/current_clocksource",
    "devices/system/clocksource/clocksource0/available_clocksource",
    "devices/system/cpu/online",
    "devices/system/cpu/cpu0/cpufreq/scaling_governor",
    "devices/system/node/online",
    "class/dmi/id/product_name",
];

/// Files of each NUMA node.
const NODE: [&str; 3] = ["meminfo", "numastat", "cpulist"];

#[derive(Debug)]
pub(crate) struct System;

impl Source for System {
    fn name(&self) -> &'static str {
        "system"
    }

    fn about(&self) -> &'static str {
        "the host's memory, load, pressure, clocks and kernel settings"
    }

    fn phase(&self) -> Phase {
        Phase::AfterThaw
    }

    fn needs(&self) -> Needs {
        Needs::Host
    }

    fn collect(&self, _: &Context, out: &Drawer) -> anyhow::Result<()> {
        for name in NAMES {
            let path = format!("{}/{}", member::SYSTEM, name.replace('/', "."));
            out.copy(path, &format!("/proc/{name}"));
        }
        out.copy(format!("{}/os-release", member::SYSTEM), "/etc/os-release");
        out.put(format!("{}/sysctl", member::SYSTEM), None, settings().into_bytes());
        let mut text = String::new();
        for name in SYS {
            line(&mut text, name, &format!("/sys/{name}"));
        }
        out.put(format!("{}/sys", member::SYSTEM), None, text.into_bytes());
        let clock = serde_json::to_vec_pretty(&clock())?;
        out.put(format!("{}/clock.json", member::SYSTEM), None, clock);
        let nodes = "/sys/devices/system/node";
        for node in (0..1024).map_while(|number| {
            let folder = format!("node{number}");
            fs::exists(format!("{nodes}/{folder}")).unwrap_or(false).then_some(folder)
        }) {
            for name in NODE {
                let to = format!("{}/node/{node}.{name}", member::SYSTEM);
                out.copy(to, &format!("{nodes}/{node}/{name}"));
            }
        }
        Ok(())
    }
}

/// `NAME = VALUE`; files of several lines become one, with ` | ` between them. What cannot be read
/// is passed over.
fn line(text: &mut String, name: &str, path: &str) {
    let Ok(value) = fs::read(path) else { return };
    let value = String::from_utf8_lossy(&value);
    let value = value.trim_end().replace('\n', " | ");
    writeln!(text, "{name} = {value}").unwrap_or_default();
}

fn settings() -> String {
    let mut text = String::new();
    for (folder, beginnings) in SETTINGS {
        let Ok(entries) = fs::read_dir(format!("/proc/sys/{folder}")) else { continue };
        let names =
            entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()));
        let mut names: Vec<String> =
            names.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort_unstable();
        for name in names {
            if beginnings.iter().any(|beginning| name.starts_with(beginning)) {
                let dotted = format!("{}.{name}", folder.replace('/', "."));
                line(&mut text, &dotted, &format!("/proc/sys/{folder}/{name}"));
            }
        }
    }
    text
}

fn clock() -> serde_json::Value {
    let uptime = fs::read_to_string("/proc/uptime").unwrap_or_default();
    let discipline = match sys_host::clock_state() {
        Err(error) => json!({ "error": error.to_string() }),
        Ok(state) => json!({
            // TIME_ERROR, or STA_UNSYNC
            "synchronised": state.state != 5 && state.status & 0x40 == 0,
            "state": state.state,
            "status": format!("0x{:x}", state.status),
            "offset": state.offset,
            "offset_unit": if state.status & 0x2000 == 0 { "us" } else { "ns" },
            "frequency_ppm_65536": state.frequency,
            "maximum_error_us": state.maximum_error,
            "estimated_error_us": state.estimated_error,
            "tai_offset_s": state.tai,
        }),
    };
    json!({
        "wall": jiff::Zoned::now().to_string(),
        "monotonic_ns": sys::monotonic(),
        "uptime_s": uptime.split_whitespace().next(),
        "discipline": discipline,
        "daemons": procfs::running(&["chronyd", "ntpd", "systemd-timesyncd", "systemd-timesyn", "ptp4l"]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_read_as_sysctl_prints_them() {
        let text = settings();
        for name in ["vm.swappiness", "kernel.core_pattern", "net.core.somaxconn", "fs.nr_open"] {
            assert!(text.lines().any(|line| line.starts_with(&format!("{name} = "))), "{name}");
        }
        assert!(text.lines().all(|line| line.contains(" = ")));
    }

    #[test]
    fn the_clock_says_whether_it_is_synchronised() {
        let clock = clock();
        assert!(clock["discipline"]["synchronised"].is_boolean(), "{clock}");
    }
}
