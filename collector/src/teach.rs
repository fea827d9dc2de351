//! What the masker learns of a group before its texts are written: the passwords of its command
//! lines, environments and configuration. What is read for that is not kept; `environ` never goes
//! into a bundle.
//!
//! A file server may hang: the reading is done aside and left behind when its time is over. What was
//! learned until then counts.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use crate::bundle_writer::Bundle;
use crate::files::Root;
use crate::kamailio::files::{Configuration, Started};
use crate::redact::{Kind, Masker};
use crate::target::Target;
use crate::voipmonitor::config::{CommandLine, Config};

const DEADLINE: Duration = Duration::from_secs(10);

/// Teaches the bundle's masker; what could not be read is a gap.
pub(crate) fn teach(bundle: &mut Bundle, target: &Target, files: &Root) {
    let (sender, receiver) = mpsc::channel::<()>();
    let masker = Arc::clone(bundle.masker());
    let (target, files) = (target.clone(), files.clone());
    let worker = std::thread::Builder::new().name("teach".into()).spawn(move || {
        command_lines(&masker, &target);
        configuration(&masker, &target, &files);
        drop(sender);
    });
    let ended = worker.is_ok()
        && matches!(receiver.recv_timeout(DEADLINE), Err(RecvTimeoutError::Disconnected));
    if !ended {
        bundle.gap(
            "which secrets the configuration holds",
            "it could not be read in 10 s; secrets are masked only where their own lines name them",
        );
    }
}

fn command_lines(masker: &Masker, target: &Target) {
    for process in &target.processes {
        for name in ["cmdline", "environ"] {
            match fs::read(format!("/proc/{}/{name}", process.id)) {
                Ok(text) => masker.learn(Kind::Arguments, &text),
                Err(error) => tracing::debug!(name, %error),
            }
        }
    }
}

fn configuration(masker: &Masker, target: &Target, files: &Root) {
    let learn = |content: &[u8]| masker.learn(Kind::Configuration, content);
    match target.profile {
        "kamailio" => {
            let read = Configuration::read(&Started::of(target.main), files);
            read.files.iter().for_each(|file| learn(&file.content));
        }
        "voipmonitor" => {
            let proc = PathBuf::from(format!("/proc/{}", target.main));
            let text = fs::read(proc.join("cmdline")).unwrap_or_default();
            let folder = fs::read_link(proc.join("cwd")).unwrap_or_default();
            let read = Config::read(files, &CommandLine::parse(&text, folder));
            read.files.iter().flat_map(|file| &file.content).for_each(|content| learn(content));
        }
        _ => {}
    }
}
