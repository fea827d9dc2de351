//! What a bundle is called and what its first member says.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use bundle::{FORMAT_VERSION, Header, Holds};

use crate::cli::Options;
use crate::evidence::{Brief, WhichModules};
use crate::place::Output;
use crate::pseudonyms::Pseudonyms;
use crate::redact::Masker;
use crate::run::Order;
use crate::target::Target;

/// What the operator named, or `evidence-HOST-PROGRAM-TIME.tar.zst` in a folder.
pub(crate) fn output(options: &Options, target: &Target) -> Output {
    let time = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ");
    let age = if options.limits.is_encrypted() { ".age" } else { "" };
    let host = if options.pseudonymize { String::new() } else { kernel_text("hostname") + "-" };
    let name = format!("evidence-{host}{}-{time}.tar.zst{age}", target.program);
    Output::new(options.output.as_deref(), Path::new(&name.replace(['/', ' '], "_")))
}

fn kernel_text(name: &str) -> String {
    let text = fs::read_to_string(format!("/proc/sys/kernel/{name}")).unwrap_or_default();
    text.trim().to_owned()
}

/// What masks the secrets in the bundle's texts.
pub(crate) fn masker(target: &Target) -> Arc<Masker> {
    let names = vec![target.program.clone(), kernel_text("hostname")];
    Arc::new(Masker::new(target.profile, names))
}

/// What names of people and hosts are replaced by.
///
/// # Errors
/// The kernel gives no random bytes.
pub(crate) fn pseudonyms(target: &Target) -> io::Result<Pseudonyms> {
    let host = kernel_text("hostname");
    let own = if host == target.program { Vec::new() } else { vec![host] };
    Pseudonyms::new(&own)
}

/// The first member.
pub(crate) fn header(options: &Options, order: &Order) -> Header {
    let target = &order.target;
    let now = jiff::Zoned::now();
    let machine = nix::sys::utsname::uname();
    let machine = machine.map(|names| names.machine().to_string_lossy().into_owned());
    Header {
        format: FORMAT_VERSION,
        tool: format!("collect-evidence {}", env!("CARGO_PKG_VERSION")),
        created: now.to_string(),
        host: kernel_text("hostname"),
        boot_id: kernel_text("random/boot_id"),
        kernel: format!("{} {}", kernel_text("osrelease"), kernel_text("version")),
        machine: machine.unwrap_or_default(),
        case_id: options.case.clone().unwrap_or_else(|| {
            format!("{}-{}", target.program, now.timestamp().strftime("%Y%m%dT%H%M%SZ"))
        }),
        profile: target.profile.to_owned(),
        reason: masker(target).mask_words(&options.reason),
        scope: scope(options, order.holds, order.brief()),
        holds: order.holds,
        mode: bundle::Mode::Live,
        series: order.series().cloned(),
    }
}

/// What memory holds.
const SECRETS: &str = "cores and shared memory are as they were: they hold secrets (passwords, keys, \
                       messages); texts have theirs masked (--redact-memory masks in memory, too)";
const REDACTED: &str = "in cores and shared memory the passwords of configuration and command lines, \
                        those in URLs, and SIP and HTTP credentials are masked (--redact-memory); \
                        messages and other secrets are as they were";

/// What is left out on purpose, and what its readers must know.
pub(crate) fn scope(options: &Options, holds: Holds, brief: Option<Brief>) -> Vec<String> {
    let words: &[&str] = match holds {
        Holds::Whole => &[],
        Holds::Pools => {
            &["the memory pools and what names their owners: no C heap, no stacks, no code, no \
             evidence of the system (--earlier pools)"]
        }
        Holds::Stacks => &[
            "registers, stacks and /proc (--stacks-only): no heap leaves the host; stacks may \
             hold secrets (passwords, messages, keys that a function works on)",
            "besides the stacks only: what names the loaded files, Kamailio's process table, and \
             256 bytes on either side of each lock that a thread waits on",
        ],
    };
    let mut scope: Vec<String> = words.iter().map(|words| (*words).to_owned()).collect();
    match brief {
        Some(Brief::Profile { first: true }) => {
            scope.push("evidence of the system is in the last sample of the series".to_owned());
        }
        Some(Brief::Profile { first: false }) => scope.push(
            "modules are in the first and the last sample of the series, evidence of the system \
             in the last one"
                .to_owned(),
        ),
        Some(Brief::Growth) | None => {}
    }
    if options.redact_memory {
        scope.push(REDACTED.to_owned());
    } else if !options.no_memory && holds != Holds::Stacks {
        scope.push(SECRETS.to_owned());
    }
    if options.pseudonymize {
        scope.push(
            "addresses, users and hosts in texts are pseudonyms of equal form (--pseudonymize); their \
             map stayed on the host"
                .to_owned(),
        );
    }
    if options.no_memory {
        scope.push("no memory and no registers (--no-memory)".to_owned());
    }
    match options.modules {
        WhichModules::All => {}
        WhichModules::Own => scope.push("no system libraries (--modules own)".to_owned()),
        WhichModules::Tables => {
            scope.push("no system libraries and no code (--modules tables)".to_owned());
        }
        WhichModules::None => scope.push("no modules (--modules none)".to_owned()),
    }
    if !options.without.is_empty() {
        scope.push(format!("without {} (--without)", options.without.join(", ")));
    }
    scope
}
