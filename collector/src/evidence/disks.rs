//! Room on the file systems that the program and its logs need, and where the next core would go.
//!
//! Members: `system/disks.json`: for each path its file system, bytes and inodes;
//! `system/core-pattern.json`: in words what a crash of each process would leave behind, and what
//! prevents it. Each path is looked at by a thread of its own, so that a dead network mount costs
//! only itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use bundle::{Phase, member};
use serde::Serialize;
use serde_json::json;

use super::{Context, Drawer, Needs, Source};
use crate::board::Fact;
use crate::files::Root;
use crate::host::core_pattern::{self, Facts, Goes, Meaning};
use crate::procfs::Fields;
use crate::target::Process;

/// How long one file system may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// A file system is called full from so many percent on.
const FULL: u32 = 98;
/// Processes whose next core is thought about.
const PROCESSES: usize = 1000;

/// Folders of both roots.
const FOLDERS: [&str; 11] = [
    "/",
    "/var",
    "/var/log",
    "/var/spool",
    "/var/spool/voipmonitor",
    "/var/lib",
    "/var/lib/mysql",
    "/var/lib/systemd/coredump",
    "/var/crash",
    "/tmp",
    "/run",
];

#[derive(Debug)]
pub(crate) struct Disks;

impl Source for Disks {
    fn name(&self) -> &'static str {
        "disks"
    }

    fn about(&self) -> &'static str {
        "room on its file systems, and where the next core would go"
    }

    fn phase(&self) -> Phase {
        Phase::AfterThaw
    }

    fn needs(&self) -> Needs {
        Needs::Host
    }

    fn collect(&self, context: &Context, out: &Drawer) -> anyhow::Result<()> {
        let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap_or_default();
        let goes = Goes::of(&pattern, core_uses_pid());
        let mut entries = BTreeMap::new();
        for path in paths(context, &goes) {
            if let Some(room) = room(&context.files, &path) {
                note_full(context, &path, &room);
                if let Some(error) = &room.error {
                    out.gap(format!("room on the file system of {path}"), error);
                }
                entries.insert(path, room);
            }
        }
        let text = serde_json::to_vec_pretty(&entries)?;
        out.put(format!("{}/disks.json", member::SYSTEM), None, text);
        if context.target.processes.is_empty() {
            return Ok(());
        }
        let cores = serde_json::to_vec_pretty(&next_cores(context, &pattern, &goes, &entries))?;
        out.put(format!("{}/core-pattern.json", member::SYSTEM), None, cores);
        Ok(())
    }
}

fn core_uses_pid() -> bool {
    fs::read_to_string("/proc/sys/kernel/core_uses_pid").is_ok_and(|text| text.trim() != "0")
}

/// Room on one file system.
#[derive(Clone, Debug, Default, Serialize)]
struct Room {
    /// Device number of its files.
    device: String,
    /// Length in bytes.
    size: u64,
    /// Bytes that are free.
    free: u64,
    /// Bytes that are free for others than root.
    available: u64,
    /// Inodes; 0 where the file system does not count them.
    inodes: u64,
    /// Inodes that are free.
    inodes_free: u64,
    /// `ST_…` flags, for instance 1 for read-only.
    flags: String,
    /// Why nothing is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

fn paths(context: &Context, goes: &Goes) -> BTreeSet<String> {
    let mut paths: BTreeSet<String> = FOLDERS.iter().map(|path| (*path).to_owned()).collect();
    for process in context.target.processes.iter().take(PROCESSES) {
        let working = working_folder(process);
        paths.extend(goes.folder(working.as_deref()));
        paths.extend(working);
    }
    let configuration = context.files.read("/etc/voipmonitor.conf", 1 << 20);
    let text = configuration.map(|part| part.content).unwrap_or_default();
    paths.extend(spool_folders(&String::from_utf8_lossy(&text)));
    paths.extend(
        context
            .wishes
            .logs
            .iter()
            .filter_map(|log| log.parent().and_then(Path::to_str).map(str::to_owned)),
    );
    paths
}

fn working_folder(process: &Process) -> Option<String> {
    let folder = fs::read_link(format!("/proc/{}/cwd", process.id)).ok()?;
    folder.to_str().map(str::to_owned)
}

/// The folders that VoIPmonitor writes to: `spooldir`, `spooldir_rtp`, `pcapdir` and such.
fn spool_folders(text: &str) -> Vec<String> {
    let options = text.lines().filter_map(|line| line.trim().split_once('='));
    let folders = options.filter(|(name, _)| {
        let name = name.trim();
        name.starts_with("spooldir") || name == "cachedir" || name == "convert_dir"
    });
    let paths = folders.map(|(_, value)| value.trim().to_owned());
    paths.filter(|path| path.starts_with('/')).take(20).collect()
}

/// `None` where the path leads nowhere.
fn room(root: &Root, path: &str) -> Option<Room> {
    let (sender, receiver) = mpsc::channel();
    let (root, wanted) = (root.clone(), path.to_owned());
    let look = move || sender.send(look_at(&root, &wanted)).unwrap_or_default();
    let error = |error: String| Some(Room { error: Some(error), ..Room::default() });
    if let Err(failed) = std::thread::Builder::new().name("room".into()).spawn(look) {
        return error(format!("no thread for it: {failed}"));
    }
    match receiver.recv_timeout(PATIENCE) {
        Ok(Ok(room)) => Some(room),
        Ok(Err(failed)) if failed.kind() == std::io::ErrorKind::NotFound => None,
        Ok(Err(failed)) => error(failed.to_string()),
        Err(_) => error(format!("no answer within {} ms", PATIENCE.as_millis())),
    }
}

fn look_at(root: &Root, path: &str) -> std::io::Result<Room> {
    let found = root.find(path)?;
    let device = fs::File::from(found.try_clone()?).metadata()?.dev();
    let known = nix::sys::statvfs::fstatvfs(&found)?;
    let length = |blocks: u64| blocks.saturating_mul(known.fragment_size());
    Ok(Room {
        device: format!("{}:{}", libc::major(device), libc::minor(device)),
        size: length(known.blocks()),
        free: length(known.blocks_free()),
        available: length(known.blocks_available()),
        inodes: known.files(),
        inodes_free: known.files_free(),
        flags: format!("0x{:x}", known.flags().bits()),
        error: None,
    })
}

fn note_full(context: &Context, path: &str, room: &Room) {
    let note = |what, percent| {
        context.board.note(Fact::DiskFull { path: path.to_owned(), what, percent });
    };
    // As df reckons: what is kept for root, or by a quota, is neither used nor available.
    if let Some(percent) = full(room.size.saturating_sub(room.free), room.available) {
        note("bytes", percent);
    }
    if let Some(percent) = full(room.inodes.saturating_sub(room.inodes_free), room.inodes_free) {
        note("inodes", percent);
    }
}

/// How full it is, in percent, if that is worth a word.
fn full(used: u64, available: u64) -> Option<u32> {
    let percent = used.saturating_mul(100).checked_div(used.saturating_add(available))?;
    u32::try_from(percent).ok().filter(|percent| *percent >= FULL)
}

/// What a crash would leave behind; processes of which the same is true stand together.
fn next_cores(
    context: &Context,
    pattern: &str,
    goes: &Goes,
    rooms: &BTreeMap<String, Room>,
) -> serde_json::Value {
    let mut alike: Vec<(Meaning, Vec<u32>)> = Vec::new();
    for process in context.target.processes.iter().take(PROCESSES) {
        let meaning = core_pattern::meaning(&facts(context, process, pattern, goes, rooms));
        match alike.iter_mut().find(|(known, _)| *known == meaning) {
            Some((_, pids)) => pids.push(process.pid),
            None => alike.push((meaning, vec![process.pid])),
        }
    }
    let processes: Vec<_> = alike
        .into_iter()
        .map(|(meaning, pids)| {
            json!({
                "pids": pids,
                "core_goes": meaning.goes,
                "a_core_is_expected": meaning.prevented.is_empty(),
                "prevented_by": meaning.prevented,
                "doubts": meaning.doubts,
            })
        })
        .collect();
    json!({ "core_pattern": pattern.trim_end(), "processes": processes })
}

fn facts(
    context: &Context,
    process: &Process,
    pattern: &str,
    goes: &Goes,
    rooms: &BTreeMap<String, Room>,
) -> Facts {
    let folder = format!("/proc/{}", process.id);
    let status = Fields::read(&Path::new(&folder).join("status")).unwrap_or_default();
    let limits = fs::read_to_string(format!("{folder}/limits")).unwrap_or_default();
    let memory = ["VmRSS", "VmSwap"].map(|name| status.number(name).unwrap_or(0));
    let working = working_folder(process);
    let to = goes.folder(working.as_deref());
    let user = process.facts.owner.0;
    let belongs_to = fs::metadata(format!("{folder}/stat")).map(|known| known.uid());
    let number = |path: String| fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
    Facts {
        pattern: pattern.to_owned(),
        uses_pid: core_uses_pid(),
        suid_dumpable: number("/proc/sys/fs/suid_dumpable".into())
            .and_then(|text| text.parse().ok()),
        limit: core_limit(&limits),
        undumpable: user != 0 && belongs_to.is_ok_and(|owner| owner == 0),
        writable: to.as_deref().and_then(|to| writable(&context.files, to, process.facts.owner)),
        free: to
            .as_ref()
            .and_then(|to| rooms.get(to))
            .map(|room| if user == 0 { room.free } else { room.available }),
        folder: working,
        size: Some(memory[0].saturating_add(memory[1]).saturating_mul(1024)),
        filter: number(format!("{folder}/coredump_filter"))
            .and_then(|text| u64::from_str_radix(&text, 16).ok()),
        program_exists: goes.program().map(|program| fs::exists(program).unwrap_or(true)),
    }
}

/// The soft limit of `Max core file size` in `/proc/PID/limits`.
fn core_limit(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max core file size"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(u64::MAX),
        bytes => bytes.parse().ok(),
    }
}

/// Whether the folder's mode lets a user make files in it; access lists and groups beyond the first
/// one are not asked.
fn writable(root: &Root, folder: &str, (user, group): (u32, u32)) -> Option<bool> {
    let known = root.metadata(folder).ok()?;
    let bits = match known.mode() {
        _ if user == 0 => return Some(true),
        mode if known.uid() == user => mode >> 6,
        mode if known.gid() == group => mode >> 3,
        mode => mode,
    };
    Some(bits & 0b11 == 0b11)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_of_cores_is_read() {
        let text =
            |soft: &str| format!("Limit\nMax core file size        {soft}   unlimited   bytes\n");
        assert_eq!(core_limit(&text("0")), Some(0));
        assert_eq!(core_limit(&text("unlimited")), Some(u64::MAX));
        assert_eq!(core_limit("Max cpu time 1 1 s"), None);
    }

    #[test]
    fn the_root_file_system_has_room_and_what_is_missing_is_passed_over() {
        let room = super::room(&Root::own(), "/").unwrap();
        assert!(room.error.is_none() && room.size >= room.free && room.size > 0);
        assert!(super::room(&Root::own(), "/no/such/folder").is_none());
    }

    #[test]
    fn a_full_file_system_is_worth_a_word() {
        assert_eq!(full(97, 3), None);
        assert_eq!(full(99, 1), Some(99));
        assert_eq!(full(0, 0), None);
    }

    #[test]
    fn spool_folders_are_named_by_the_configuration() {
        let text = "[general]\nspooldir = /srv/spool\n#spooldir=/x\nspooldir_2=/srv/two\nspooldir_rtp = rel\n";
        assert_eq!(spool_folders(text), ["/srv/spool", "/srv/two"]);
    }
}
