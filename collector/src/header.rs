//! What a bundle is called and what its first member says.

use std::fs;
use std::path::PathBuf;

use bundle::{FORMAT_VERSION, Header, Holds, Series};

use crate::cli::Options;
use crate::evidence::WhichModules;
use crate::target::Target;

/// `evidence-HOST-PROGRAM-TIME.tar.zst` in the current folder.
pub(crate) fn default_path(target: &Target) -> PathBuf {
    let time = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ");
    let name = format!("evidence-{}-{}-{time}.tar.zst", kernel_text("hostname"), target.program);
    PathBuf::from(name.replace(['/', ' '], "_"))
}

fn kernel_text(name: &str) -> String {
    let text = fs::read_to_string(format!("/proc/sys/kernel/{name}")).unwrap_or_default();
    text.trim().to_owned()
}

/// The first member.
pub(crate) fn header(options: &Options, target: &Target, series: Option<Series>) -> Header {
    let now = jiff::Zoned::now();
    let machine = nix::sys::utsname::uname();
    let machine = machine.map(|names| names.machine().to_string_lossy().into_owned());
    let pools_only = series.as_ref().is_some_and(|series| series.holds == Holds::Pools);
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
        reason: options.reason.clone(),
        scope: scope(options, pools_only),
        series,
    }
}

/// What is left out on purpose.
fn scope(options: &Options, pools_only: bool) -> Vec<String> {
    let mut scope = Vec::new();
    if pools_only {
        scope.push(
            "the memory pools and what names their owners: no C heap, no stacks, no code, no \
             evidence of the system (--earlier pools)"
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
