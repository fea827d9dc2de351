//! The Debian packages that the tests run: installed when we are root, named when we are not.

use std::fs;
use std::process::{Command, Stdio};

use crate::{Outcome, step};

/// Kamailio and sipp make the cases, mmdebstrap roots of other releases whose keys are in the
/// keyring, gdb gives the second opinion, zstd reads the bundles, Python tests the gdb scripts, gcc,
/// g++ and make build the samples, dwz and debuginfod split and serve their debug files, iproute2 has
/// ss and opens the loopback interface of a namespace, openssl encrypts for the sniffer's stand-in.
const NEEDED: &[&str] = &[
    "kamailio",
    "sip-tester",
    "mmdebstrap",
    "debian-archive-keyring",
    "gdb",
    "zstd",
    "python3",
    "gcc",
    "g++",
    "dwz",
    "debuginfod",
    "libc6-dev",
    "make",
    "iproute2",
    "openssl",
];

const INSTALL: &str = include_str!("install.sh");

/// Sees to it that every package is there.
pub(crate) fn ensure() -> Outcome {
    let missing: Vec<&str> = NEEDED.iter().copied().filter(|name| !installed(name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    if !is_root() {
        return Err(format!(
            "these packages are missing: {list}\n\
             install them with `apt-get install --no-install-recommends {list}` (without starting \
             their services), or run this as root"
        ));
    }
    let mut install = Command::new("sh");
    install.args(["-c", INSTALL, "install.sh"]).args(&missing);
    step::run(&format!("missing packages: {list}"), &mut install)?;
    match missing.iter().find(|name| !installed(name)) {
        None => Ok(()),
        Some(name) => Err(format!("apt did not install {name}")),
    }
}

fn installed(package: &str) -> bool {
    let mut query = Command::new("dpkg-query");
    query.args(["-W", "-f", "${db:Status-Status}", package]).stderr(Stdio::null());
    query.output().is_ok_and(|output| output.stdout == b"installed")
}

/// Whether this process has the right to install, to freeze any process, to open namespaces.
pub(crate) fn is_root() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ids = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    ids.and_then(|ids| ids.split_whitespace().nth(1)) == Some("0")
}
