//! What a sniffer leaves in files: its configuration, what its signal handler wrote at faults, its
//! watchdog scripts, how full its spool is; and whether its program was renamed or replaced, and who
//! really has its port.
//!
//! Members: `config/ABSOLUTE/PATH`; `voipmonitor/crash_bt/NAME` and `voipmonitor/watchdog/NAME`, from
//! the folder for temporary files; `voipmonitor/files.json`. Without a process, the places are those
//! that a sniffer uses by default.

use std::ffi::OsString;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use bundle::Phase;
use serde::Serialize;

use super::{Context, Drawer, Needs, Preview, Source};
use crate::number::{bytes, human};
use crate::voipmonitor::config::{CommandLine, Config};
use crate::voipmonitor::listeners::{self, Holder};
use crate::voipmonitor::spool::{self, Folder};
use crate::voipmonitor::{command_line, temporary_folder};

/// Bytes of a crash file or a script that are kept; real ones have some kilobytes.
const LONGEST: u64 = 1 << 20;
/// Files of each kind that are kept, or named.
const MOST: usize = 50;

/// The source.
#[derive(Debug)]
pub(crate) struct VoipmonitorFiles;

/// `voipmonitor/files.json`
#[derive(Debug, Serialize)]
struct Record {
    /// The folder where crash files and watchdog scripts are looked for.
    temporary_folder: PathBuf,
    /// Folders that the sniffer writes to.
    folders: Vec<Folder>,
    /// Files that look like cores, where a sniffer or the kernel may have put them.
    cores: Vec<Named>,
    /// The program's file.
    program: Option<Program>,
    /// The port of the manager, and who listens on it.
    port: Option<Port>,
    /// The host of its database, as the configuration says.
    database: Option<String>,
}

#[derive(Debug, Serialize)]
struct Named {
    path: PathBuf,
    /// In bytes.
    size: u64,
    /// Last change, in seconds since 1970.
    changed: i64,
}

#[derive(Debug, Serialize)]
struct Program {
    /// Where it was started from.
    path: PathBuf,
    /// The file that runs has no name any more.
    deleted: bool,
    /// A file of that name is there.
    present: bool,
    /// It is the one that runs; null where that cannot be told.
    same: Option<bool>,
    /// Files beside it with its name, `_` and more: a sniffer's own repair renames it so.
    renamed: Vec<Named>,
}

#[derive(Debug, Serialize)]
struct Port {
    port: u16,
    /// Every listener on it, in the program's network.
    listeners: Vec<Listener>,
}

#[derive(Debug, Serialize)]
struct Listener {
    address: String,
    /// Null if it was not found.
    process: Option<Holder>,
    /// It is of the program.
    own: bool,
}

impl Source for VoipmonitorFiles {
    fn name(&self) -> &'static str {
        "voipmonitor-files"
    }

    fn about(&self) -> &'static str {
        "the sniffer's configuration, crash files, watchdog scripts, spool and port"
    }

    fn phase(&self) -> Phase {
        Phase::AfterThaw
    }

    fn needs(&self) -> Needs {
        Needs::Files
    }

    fn preview(&self, context: &Context) -> Vec<Preview> {
        let looked = Look::at(context);
        let config = looked.config.files.iter().map(|file| Preview {
            what: file.path.display().to_string(),
            size: file.content.as_ref().ok().map(|content| bytes(content.len())),
            missing: file.content.as_ref().err().cloned(),
        });
        let kept = looked.kept();
        let kept = kept.iter().flat_map(|(_, names)| names).map(|name| Preview {
            what: looked.temporary.join(name).display().to_string(),
            size: None,
            missing: None,
        });
        config.chain(kept).collect()
    }

    fn collect(&self, context: &Context, out: &Drawer) -> anyhow::Result<()> {
        let looked = Look::at(context);
        looked.put_config(out);
        looked.put_kept(out);
        let record = looked.record();
        if let Some(program) = &record.program
            && !program.present
        {
            let path = program.path.display().to_string();
            out.left_out(path, "the program's file is not there; voipmonitor/files.json says more");
        }
        out.put("voipmonitor/files.json".into(), None, serde_json::to_vec_pretty(&record)?);
        Ok(())
    }
}

/// What the rest is found by.
struct Look<'a> {
    context: &'a Context,
    command: CommandLine,
    config: Config,
    temporary: PathBuf,
}

impl<'a> Look<'a> {
    fn at(context: &'a Context) -> Self {
        let command = match &context.remains {
            Some(remains) => CommandLine::parse(
                remains.command_line.join("\0").as_bytes(),
                remains.working_directory.clone().unwrap_or_default().into(),
            ),
            None => command_line(context.target.main),
        };
        let config = Config::read(&context.files, &command);
        Self { context, config, command, temporary: temporary_folder(context.target.main) }
    }

    fn put_config(&self, out: &Drawer) {
        for file in &self.config.files {
            let path = file.path.display().to_string();
            match &file.content {
                Ok(content) => {
                    if file.cut {
                        let first = human(bytes(content.len()));
                        out.gap(format!("{path} beyond its first {first}"), "the file is longer");
                    }
                    out.put(format!("config{path}"), Some(path), content.clone());
                }
                Err(why) => out.gap(path, why),
            }
        }
    }

    /// Names in the folder for temporary files: those of crash files and of watchdog scripts, by the
    /// folder of the bundle that they belong into. Each begins with the name of some program.
    fn kept(&self) -> [(&'static str, Vec<OsString>); 2] {
        let entries = self.context.files.list(&self.temporary).unwrap_or_default();
        let names = |fits: &dyn Fn(&str) -> bool| {
            let names = entries.iter().filter(|one| one.name.to_str().is_some_and(fits));
            names.map(|one| one.name.clone()).take(MOST).collect()
        };
        [
            ("crash_bt", names(&|name| name.ends_with("_crash_bt"))),
            ("watchdog", names(&|name| name.contains("_watchdog_"))),
        ]
    }

    fn put_kept(&self, out: &Drawer) {
        let owner = self.owner();
        for (folder, names) in self.kept() {
            for name in names {
                let path = self.temporary.join(&name).display().to_string();
                match self.read_kept(&name, owner) {
                    Ok(content) => {
                        let name = name.to_string_lossy();
                        out.put(format!("voipmonitor/{folder}/{name}"), Some(path), content);
                    }
                    Err(error) => out.left_out(path, error.to_string()),
                }
            }
        }
    }

    fn read_kept(&self, name: &std::ffi::OsStr, owner: u32) -> std::io::Result<Vec<u8>> {
        let file = spool::open_in_shared(&self.context.files, &self.temporary, name, owner)?;
        let mut content = Vec::new();
        file.take(LONGEST).read_to_end(&mut content)?;
        Ok(content)
    }

    /// The user that the program runs as.
    fn owner(&self) -> u32 {
        let main = self.context.target.main;
        let process = self.context.target.processes.iter().find(|process| process.pid == main);
        process.map_or(0, |process| process.facts.owner.0)
    }

    fn record(&self) -> Record {
        Record {
            temporary_folder: self.temporary.clone(),
            folders: self.folders(),
            cores: self.cores(),
            program: self.program(),
            port: self.port(),
            database: self.config.text("mysqlhost").map(str::to_owned),
        }
    }

    /// The spool, and what else the configuration names for it.
    fn folders(&self) -> Vec<Folder> {
        let others = ["spooldir_rtp", "spooldir_graph", "spooldir_audio", "cachedir"];
        let others = others.iter().filter_map(|key| self.config.text(key)).map(PathBuf::from);
        let mut paths = vec![self.config.spool()];
        for path in others.chain([self.config.spool().join("packetbuffer")]) {
            if path.is_absolute() && !paths.contains(&path) {
                paths.push(path);
            }
        }
        paths.iter().map(|path| Folder::look(&self.context.files, path)).collect()
    }

    /// Names that begin as cores do, in the spool, in the working folder, and where the kernel's
    /// pattern says.
    fn cores(&self) -> Vec<Named> {
        let remains = self.context.remains.as_ref();
        let pattern = match remains.is_some_and(|remains| remains.mounted) {
            true => String::new(),
            false => std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap_or_default(),
        };
        let pattern = Path::new(pattern.trim()).parent().filter(|path| path.is_absolute());
        let main = self.context.target.main;
        let working = std::fs::read_link(format!("/proc/{main}/cwd")).ok();
        let mut folders = vec![self.config.spool()];
        for folder in pattern.map(Path::to_owned).into_iter().chain(working) {
            if !folders.contains(&folder) {
                folders.push(folder);
            }
        }
        let program = self.command.name().unwrap_or("voipmonitor").to_owned();
        let looks = |name: &str| {
            name == "core"
                || name.starts_with("core.")
                || (name.contains("core") && name.contains(&program))
        };
        folders.iter().flat_map(|folder| self.named(folder, &looks)).take(MOST).collect()
    }

    /// The regular files of a folder whose names fit.
    fn named(&self, folder: &Path, fits: &dyn Fn(&str) -> bool) -> Vec<Named> {
        let entries = self.context.files.list(folder).unwrap_or_default().into_iter();
        let fitting = entries.filter(|one| one.kind.is_file());
        let fitting = fitting.filter(|one| one.name.to_str().is_some_and(fits)).take(MOST);
        let named = fitting.filter_map(|one| {
            let path = folder.join(one.name);
            let about = self.context.files.metadata(&path).ok()?;
            Some(Named { path, size: about.len(), changed: about.mtime() })
        });
        named.collect()
    }

    fn program(&self) -> Option<Program> {
        let main = self.context.target.main;
        let link = std::fs::read_link(format!("/proc/{main}/exe")).ok();
        let link = link?.to_string_lossy().into_owned();
        let deleted = link.ends_with(" (deleted)");
        let path = PathBuf::from(link.strip_suffix(" (deleted)").unwrap_or(&link));
        let there = self.context.files.metadata(&path).ok();
        let runs = std::fs::metadata(format!("/proc/{main}/exe")).ok();
        let same = there
            .as_ref()
            .zip(runs)
            .map(|(there, runs)| (there.dev(), there.ino()) == (runs.dev(), runs.ino()));
        let prefix = format!("{}_", path.file_name()?.to_string_lossy());
        let renamed = self.named(path.parent()?, &|name| name.starts_with(&prefix));
        Some(Program { deleted, present: there.is_some(), same, renamed, path })
    }

    fn port(&self) -> Option<Port> {
        let port = self.config.manager_port();
        let target = &self.context.target;
        if port == 0 || target.processes.is_empty() {
            return None;
        }
        let own: std::collections::BTreeSet<u64> = target
            .processes
            .iter()
            .flat_map(|process| listeners::sockets(process.pid).unwrap_or_default())
            .collect();
        let all = listeners::all(target.main).into_iter();
        let on_it = all.filter(|one| one.address.port() == port).map(|one| Listener {
            address: one.address.to_string(),
            process: listeners::holder(one.inode),
            own: own.contains(&one.inode),
        });
        Some(Port { port, listeners: on_it.collect() })
    }
}
