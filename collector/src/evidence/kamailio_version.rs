//! Which Kamailio it is: by its own `-v` and `-I` where its executable runs in our root, else by the
//! texts in its memory.
//!
//! Members: `kamailio/version.txt`, `kamailio/internals.txt`. An executable of another root is never
//! run: it would load that root's libraries from ours.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use bundle::Phase;

use super::{Context, Drawer, Source};
use crate::command;
use crate::mappings::Mapping;
use crate::program::{Words, base, distances};

/// How long the program may take to say its version.
const PATIENCE: Duration = Duration::from_secs(3);
/// Bytes that are kept of what it says, which are about 1,000.
const LONGEST: usize = 64 << 10;

#[derive(Debug)]
pub(crate) struct KamailioVersion;

impl Source for KamailioVersion {
    fn name(&self) -> &'static str {
        "kamailio-version"
    }

    fn about(&self) -> &'static str {
        "the version and build options of Kamailio (-v, -I)"
    }

    fn phase(&self) -> Phase {
        Phase::AfterThaw
    }

    fn collect(&self, context: &Context, out: &Drawer) -> anyhow::Result<()> {
        let main = context.target.main;
        let program = format!("/proc/{main}/exe");
        let Some(why) = objection(main)? else {
            ask(&program, "-v", "kamailio/version.txt", out);
            ask(&program, "-I", "kamailio/internals.txt", out);
            return Ok(());
        };
        out.not_here(format!("kamailio -v and -I are not run: {why}"));
        match from_memory(main) {
            Some(text) => {
                let origin = format!("memory of process {main}");
                out.put("kamailio/version.txt".into(), Some(origin), text.into_bytes());
            }
            None => out.gap("the version of Kamailio", "no text of it was found in memory"),
        }
        Ok(())
    }
}

/// Why the executable of process `id` is not run here.
fn objection(id: u32) -> io::Result<Option<&'static str>> {
    let same = |one: &str, other: &str| -> io::Result<bool> {
        let [one, other] = [fs::metadata(one)?, fs::metadata(other)?];
        Ok((one.dev(), one.ino()) == (other.dev(), other.ino()))
    };
    if !same(&format!("/proc/{id}/root/"), "/")? {
        return Ok(Some("it runs in a root of its own"));
    }
    let program = format!("/proc/{id}/exe");
    let path = fs::read_link(&program)?;
    if !path.to_str().is_some_and(|path| same(&program, path).unwrap_or(false)) {
        return Ok(Some("its executable was replaced since it was started"));
    }
    // Whoever may write to it could have us run anything.
    let file = fs::metadata(&program)?;
    let trusted = [0, nix::unistd::Uid::effective().as_raw()].contains(&file.uid());
    if !trusted || file.mode() & 0o022 != 0 {
        return Ok(Some("others than root may write to its executable"));
    }
    Ok(None)
}

/// What the program says with `option` becomes `member`.
fn ask(program: &str, option: &str, member: &str, out: &Drawer) {
    let what = format!("kamailio {option}");
    match command::run(program, &[option], PATIENCE, LONGEST) {
        Ok(output) if output.succeeded() => out.put(member.into(), Some(what), output.stdout),
        Ok(output) => out.gap(what, output.complaint().unwrap_or_default()),
        Err(error) => out.gap(what, error.to_string()),
    }
}

/// The version texts that the executable exports, from the memory of process `id`.
fn from_memory(id: u32) -> Option<String> {
    const NAMES: [&str; 5] =
        ["full_version", "ver_id", "ver_flags", "ver_compiler", "ver_compiled_time"];
    /// Longer than any of them, which hold a list of 30 build options.
    const LONGEST: u64 = 4096;
    let maps = fs::read_to_string(format!("/proc/{id}/maps")).ok()?;
    let start = base(id, &Mapping::parse_all(&maps))?;
    let words = Words::of(id)?;
    let text = |distance: Option<u64>| words.text(start.checked_add(distance?)?, LONGEST);
    let mut lines = String::new();
    for (name, distance) in NAMES.into_iter().zip(distances(id, NAMES)) {
        if let Some(text) = text(distance) {
            lines.push_str(&format!("{name}: {text}\n"));
        }
    }
    Some(lines).filter(|lines| !lines.is_empty())
}
