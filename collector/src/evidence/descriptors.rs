//! Open files and sockets of each process, and the sockets of its network namespace.
//!
//! Members: `processes/PID/fd`: a line `NUMBER -> TARGET` for each descriptor;
//! `processes/PID/fdinfo`: for each a line `NUMBER:` and the kernel's text, indented;
//! `processes/PID/net/NAME` for the first process of each network namespace, NAME one of `tcp`,
//! `tcp6`, `udp`, `udp6`, `raw`, `raw6`, `unix`, `netlink`, `packet`, `snmp`, `netstat`, `sockstat`.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;

use bundle::{Phase, member};

use super::{Context, Drawer, Source};
use crate::procfs;

const NET: [&str; 12] = [
    "tcp", "tcp6", "udp", "udp6", "raw", "raw6", "unix", "netlink", "packet", "snmp", "netstat",
    "sockstat",
];

#[derive(Debug)]
pub(crate) struct Descriptors;

impl Source for Descriptors {
    fn name(&self) -> &'static str {
        "descriptors"
    }

    fn about(&self) -> &'static str {
        "open files and sockets with their queues"
    }

    fn phase(&self) -> Phase {
        Phase::AfterThaw
    }

    fn collect(&self, context: &Context, out: &Drawer) -> anyhow::Result<()> {
        let mut namespaces = BTreeSet::new();
        for process in &context.target.processes {
            let (pid, id) = (process.pid, process.id);
            let (mut links, mut details) = (String::new(), String::new());
            let folder = format!("/proc/{id}/fd");
            if let Err(error) = fs::read_dir(&folder) {
                out.failed(&folder, &error);
            }
            for number in procfs::numbers_in(&folder) {
                let Ok(target) = fs::read_link(format!("{folder}/{number}")) else { continue };
                writeln!(links, "{number} -> {}", target.display())?;
                let detail = fs::read(format!("/proc/{id}/fdinfo/{number}")).unwrap_or_default();
                writeln!(details, "{number}:")?;
                for line in String::from_utf8_lossy(&detail).lines() {
                    writeln!(details, "  {line}")?;
                }
            }
            out.put(member::process_file(pid, "fd"), None, links.into_bytes());
            out.put(member::process_file(pid, "fdinfo"), None, details.into_bytes());
            let namespace = fs::read_link(format!("/proc/{id}/ns/net")).ok();
            if namespace.is_none_or(|namespace| namespaces.insert(namespace)) {
                for name in NET {
                    let to = member::process_file(pid, &format!("net/{name}"));
                    out.copy(to, &format!("/proc/{id}/net/{name}"));
                }
            }
        }
        Ok(())
    }
}
