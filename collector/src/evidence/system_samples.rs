//! Two samples of what the host counts: rates need both.
//!
//! Members: `system/NAME.1` and `.2` with NAME one of `stat`, `vmstat`, `meminfo`, `diskstats`,
//! `interrupts`, `softirqs`, `schedstat`, `slabinfo`, `pressure.cpu`, `pressure.io`,
//! `pressure.memory`; `system/net/NAME.1` and `.2`, of the network namespace of the main process,
//! with NAME one of `dev`, `softnet_stat`, `snmp`, `snmp6`, `netstat`, `sockstat`, `sockstat6`,
//! `udp`, `udp6`, `nf_conntrack_stat`; `system/samples.json`: when each was taken;
//! `system/disk-use.json`: how busy each device was in between.

use bundle::{Phase, member};
use serde_json::json;

use super::{Context, Drawer, Source};
use crate::board::Fact;
use crate::host::disks;
use crate::sys;

const NAMES: [&str; 11] = [
    "diskstats",
    "stat",
    "vmstat",
    "meminfo",
    "interrupts",
    "softirqs",
    "schedstat",
    "slabinfo",
    "pressure/cpu",
    "pressure/io",
    "pressure/memory",
];
const NET: [(&str, &str); 10] = [
    ("dev", "dev"),
    ("softnet_stat", "softnet_stat"),
    ("snmp", "snmp"),
    ("snmp6", "snmp6"),
    ("netstat", "netstat"),
    ("sockstat", "sockstat"),
    ("sockstat6", "sockstat6"),
    ("udp", "udp"),
    ("udp6", "udp6"),
    ("stat/nf_conntrack", "nf_conntrack_stat"),
];

/// A device that has work for so many percent of the time is worth a word.
const BUSY: u32 = 90;

/// The first sample, as the second one needs it.
#[derive(Clone, Debug)]
pub(crate) struct HostSample {
    wall: String,
    monotonic_ns: u64,
    diskstats: String,
}

#[derive(Debug)]
pub(crate) struct Sample {
    number: u32,
    name: &'static str,
    phase: Phase,
}

pub(crate) static FIRST: Sample =
    Sample { number: 1, name: "system-first-sample", phase: Phase::BeforeFreeze };
pub(crate) static SECOND: Sample =
    Sample { number: 2, name: "system-second-sample", phase: Phase::AfterThaw };

impl Source for Sample {
    fn name(&self) -> &'static str {
        self.name
    }

    fn about(&self) -> &'static str {
        if self.number == 1 {
            "what the host counts: disks, interrupts, memory, network"
        } else {
            "the same again, for rates, and how busy the disks were"
        }
    }

    fn phase(&self) -> Phase {
        self.phase
    }

    fn collect(&self, context: &Context, out: &Drawer) -> anyhow::Result<()> {
        let number = self.number;
        let mut sample = HostSample {
            wall: jiff::Zoned::now().to_string(),
            monotonic_ns: sys::monotonic(),
            diskstats: String::new(),
        };
        for name in NAMES {
            let path = format!("{}/{}.{number}", member::SYSTEM, name.replace('/', "."));
            let origin = format!("/proc/{name}");
            let Some(content) = out.read(&origin) else { continue };
            if name == "diskstats" {
                sample.diskstats = String::from_utf8_lossy(&content).into_owned();
            }
            out.put(path, Some(origin), content);
        }
        let main = context.target.main;
        for (name, to) in NET {
            let path = format!("{}/net/{to}.{number}", member::SYSTEM);
            out.copy(path, &format!("/proc/{main}/net/{name}"));
        }
        if number == 1 {
            context.board.note_host(sample);
        } else if let Some(first) = context.board.host() {
            compare(first, &sample, context, out)?;
        }
        Ok(())
    }
}

fn compare(
    first: &HostSample,
    second: &HostSample,
    context: &Context,
    out: &Drawer,
) -> anyhow::Result<()> {
    let elapsed_ms = second.monotonic_ns.saturating_sub(first.monotonic_ns) / 1_000_000;
    let times = |number: u32, sample: &HostSample| json!({ "sample": number, "wall": sample.wall, "monotonic_ns": sample.monotonic_ns });
    let text = serde_json::to_vec_pretty(&[times(1, first), times(2, second)])?;
    out.put(format!("{}/samples.json", member::SYSTEM), None, text);
    let busy = disks::busy(&first.diskstats, &second.diskstats, elapsed_ms);
    let shown: Vec<_> = busy
        .iter()
        .map(|one| {
            json!({
                "device": one.device,
                "busy_percent": one.percent,
                "operations": one.operations,
                "bytes_read": one.bytes[0],
                "bytes_written": one.bytes[1],
            })
        })
        .collect();
    let text = serde_json::to_vec_pretty(&json!({ "elapsed_ms": elapsed_ms, "devices": shown }))?;
    out.put(format!("{}/disk-use.json", member::SYSTEM), None, text);
    // Partitions count what their disk counts.
    let whole = |device: &str| std::fs::exists(format!("/sys/block/{device}")).unwrap_or(true);
    for one in busy.into_iter().filter(|one| one.percent >= BUSY && whole(&one.device)) {
        context.board.note(Fact::DiskBusy { device: one.device, percent: one.percent });
    }
    Ok(())
}
