//! What systemd knows of the target's unit, and the journal around the hang.
//!
//! Members: `system/systemd/NAME` with NAME one of `show`, `status`, `cat`: what systemctl says of
//! the unit; `config/PATH`: the unit's files where systemctl does not answer; `logs/journal/unit`
//! and `logs/journal/processes`: the journal since `--since`, of the unit and of the group's
//! processes, as `short-iso-precise`.
//!
//! systemctl may hang on a dead D-Bus, journalctl on a slow disk: each has a deadline. The first
//! call that gets no answer is the last one to systemctl.

use std::fs;
use std::time::Duration;

use bundle::{Phase, member};

use super::{Context, Drawer, Needs, Source};
use crate::board::Fact;
use crate::command::{self, CommandError, Ended, Output};
use crate::host::unit;
use crate::number::{human, size};

/// For one call of systemctl.
const PATIENCE: Duration = Duration::from_secs(2);
/// For one call of journalctl, which may have to read gigabytes.
const LONG: Duration = Duration::from_secs(8);
const CAP: usize = 1 << 20;
/// Processes whose journal is asked for.
const PROCESSES: usize = 500;

#[derive(Debug)]
pub(crate) struct Systemd;

impl Source for Systemd {
    fn name(&self) -> &'static str {
        "systemd"
    }

    fn about(&self) -> &'static str {
        "its unit: state, settings, restarts so far"
    }

    fn phase(&self) -> Phase {
        Phase::AfterThaw
    }

    fn needs(&self) -> Needs {
        Needs::Files
    }

    fn collect(&self, context: &Context, out: &Drawer) -> anyhow::Result<()> {
        let remains = context.remains.as_ref();
        for path in remains.iter().flat_map(|remains| &remains.unit_files) {
            put_file(path, context, out);
        }
        if remains.is_some_and(|remains| remains.mounted) {
            return Ok(());
        }
        let Some(unit) = unit_of(context) else {
            out.not_here("the program runs in no unit of systemd");
            return Ok(());
        };
        let mut show = None;
        let calls: [(&str, &[&str]); 3] = [
            ("show", &["show", "--no-pager", "--", &unit]),
            ("status", &["status", "--no-pager", "-l", "-n", "50", "--", &unit]),
            ("cat", &["cat", "--no-pager", "--", &unit]),
        ];
        // As sd_booted(3) asks.
        let runs = fs::exists("/run/systemd/system").unwrap_or(false);
        if !runs {
            out.not_here("no systemd runs here (no /run/systemd/system)");
        }
        for (name, arguments) in calls.into_iter().filter(|_| runs) {
            let output = match command::run("systemctl", arguments, PATIENCE, CAP) {
                Ok(output) => output,
                Err(error) => {
                    missing(out, "systemctl", &error);
                    break;
                }
            };
            // `status` tells by its exit status that a unit is not running.
            if let Some(why) = output.complaint().filter(|_| output.stdout.is_empty()) {
                out.left_out(format!("systemctl {name} {unit}"), why);
            } else {
                let to = format!("{}/systemd/{name}", member::SYSTEM);
                if name == "show" {
                    show = Some(String::from_utf8_lossy(&output.stdout).into_owned());
                }
                out.put(to, Some(format!("systemctl {}", arguments.join(" "))), output.stdout);
            }
            if matches!(output.ended, Ended::Deadline(_)) {
                break;
            }
        }
        let known = remains.map(|remains| remains.unit_files.as_slice()).unwrap_or_default();
        for path in unit::files(&unit, show.as_deref()) {
            if !known.contains(&path) {
                put_file(&path, context, out);
            }
        }
        if let Some(words) = unit::restart_command(&unit, show.as_deref()) {
            context.board.note(Fact::RestartCommand { words });
        }
        Ok(())
    }
}

#[derive(Debug)]
pub(crate) struct Journal;

impl Source for Journal {
    fn name(&self) -> &'static str {
        "journal"
    }

    fn about(&self) -> &'static str {
        "systemd's journal of its unit and processes since --since"
    }

    fn phase(&self) -> Phase {
        Phase::AfterThaw
    }

    fn needs(&self) -> Needs {
        Needs::Host
    }

    fn deadline(&self) -> Duration {
        LONG.saturating_add(PATIENCE)
    }

    fn collect(&self, context: &Context, out: &Drawer) -> anyhow::Result<()> {
        let now = jiff::Timestamp::now();
        let since = now.checked_sub(context.wishes.since).unwrap_or(now);
        let since = format!("--since=@{}", since.as_second());
        let common = ["--no-pager", "-q", "-o", "short-iso-precise", &since];
        if let Some(unit) = unit_of(context) {
            let of_unit = format!("--unit={unit}");
            if !ask(context, out, "unit", &[&common[..], &[&of_unit]].concat()) {
                return Ok(());
            }
        }
        let processes = context.target.processes.iter().take(PROCESSES);
        let pids: Vec<String> = processes.map(|one| format!("_PID={}", one.pid)).collect();
        if !pids.is_empty() {
            let mut arguments = common.to_vec();
            arguments.extend(pids.iter().map(String::as_str));
            ask(context, out, "processes", &arguments);
        }
        Ok(())
    }
}

/// Whether it makes sense to ask again.
fn ask(context: &Context, out: &Drawer, name: &str, arguments: &[&str]) -> bool {
    let cap = size(context.wishes.log_cap);
    let output = match command::run_tail("journalctl", arguments, LONG, cap) {
        Ok(output) => output,
        Err(error) => {
            missing(out, "journal", &error);
            return false;
        }
    };
    let what = format!("journal of the {name}");
    let complaint = output.complaint();
    let Output { stdout, cut, ended, .. } = output;
    match complaint {
        Some(why) if stdout.is_empty() => out.left_out(&what, why),
        None if stdout.is_empty() => out.not_here(format!("the {what} has no line since then")),
        why => {
            if let Some(why) = why {
                out.left_out(format!("a part of the {what}"), why);
            }
            if cut > 0 {
                let words = format!("older than what --log-cap keeps ({cut} bytes)");
                out.left_out(format!("{} of the {what}", human(cut)), words);
            }
        }
    }
    if !stdout.is_empty() {
        let kept = whole_lines(stdout, cut > 0);
        let origin = format!("journalctl {}", arguments.join(" "));
        out.put(format!("logs/journal/{name}"), Some(origin), kept);
    }
    !matches!(ended, Ended::Deadline(_))
}

/// Without the half of a line that a cut left in front: it may hold the half of a secret.
fn whole_lines(mut text: Vec<u8>, was_cut: bool) -> Vec<u8> {
    if was_cut {
        let end =
            text.iter().position(|byte| *byte == b'\n').map_or(0, |end| end.saturating_add(1));
        text.drain(..end);
    }
    text
}

fn missing(out: &Drawer, what: &str, error: &CommandError) {
    match error {
        CommandError::NotInstalled(_) => out.not_here(format!("{what}: {error}")),
        CommandError::NotStarted(..) => out.gap(what, error.to_string()),
    }
}

/// A file of the unit, if there is one.
fn put_file(path: &str, context: &Context, out: &Drawer) {
    if let Ok(part) = context.files.read(path, 1 << 20) {
        out.put(format!("config{path}"), Some(path.to_owned()), part.content);
    }
}

/// The unit that the main process runs in, or ran in.
fn unit_of(context: &Context) -> Option<String> {
    if let Some(remains) = &context.remains {
        return remains.unit.clone().filter(|unit| unit::is_unit_name(unit));
    }
    let text = fs::read(format!("/proc/{}/cgroup", context.target.main)).ok()?;
    unit::of_control_groups(&String::from_utf8_lossy(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_journal_begins_with_a_whole_line() {
        assert_eq!(whole_lines(b"half\nwhole\n".to_vec(), true), b"whole\n");
        assert_eq!(whole_lines(b"first\nwhole\n".to_vec(), false), b"first\nwhole\n");
    }
}
