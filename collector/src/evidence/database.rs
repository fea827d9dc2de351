//! The MySQL or MariaDB server of this host, if there is one: how much memory it may take and takes.
//!
//! Members: `system/mysql.json`: the server's processes with their resident memory, and the settings
//! that matter; `config/ABSOLUTE/PATH`: its option files. No server is asked.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;

use bundle::{Phase, member};
use serde_json::json;

use super::{Context, Drawer, Needs, Source};
use crate::files::Root;
use crate::host::database;
use crate::procfs::{self, Fields};

/// Where option files begin, in the order in which a server reads them.
const FILES: [&str; 4] =
    ["/etc/my.cnf", "/etc/mysql/my.cnf", "/usr/etc/my.cnf", "/usr/local/etc/my.cnf"];
/// Files that are read, and bytes of each.
const MOST: usize = 100;
const LENGTH: u64 = 256 << 10;

#[derive(Debug)]
pub(crate) struct Database;

impl Source for Database {
    fn name(&self) -> &'static str {
        "mysql"
    }

    fn about(&self) -> &'static str {
        "a local MySQL or MariaDB server's buffer pool and memory, from files"
    }

    fn phase(&self) -> Phase {
        Phase::AfterThaw
    }

    fn needs(&self) -> Needs {
        Needs::Files
    }

    fn collect(&self, context: &Context, out: &Drawer) -> anyhow::Result<()> {
        let mut pending: VecDeque<String> = FILES.iter().map(|path| (*path).to_owned()).collect();
        let mut seen = Vec::new();
        let mut settings = BTreeMap::new();
        while let Some(path) = pending.pop_front() {
            if seen.len() >= MOST || seen.contains(&path) || !path.starts_with('/') {
                continue;
            }
            let Ok(part) = context.files.read(&path, LENGTH) else { continue };
            seen.push(path.clone());
            let file = database::option_file(&String::from_utf8_lossy(&part.content));
            for (name, value) in file.settings {
                settings.insert(name, json!({ "value": value, "file": path }));
            }
            let inner = file.folders.iter().flat_map(|folder| {
                let entries = context.files.list(folder).unwrap_or_default();
                entries.into_iter().filter_map(move |entry| {
                    let name = entry.name.into_string().ok()?;
                    let folder = folder.trim_end_matches('/');
                    name.ends_with(".cnf").then(|| format!("{folder}/{name}"))
                })
            });
            pending.extend(file.files.into_iter().chain(inner));
            out.put(format!("config{path}"), Some(path), part.content);
        }
        let elsewhere = context.remains.is_some() && !context.files.is_same(&Root::own());
        let servers: &[&str] = if elsewhere { &[] } else { &["mysqld", "mariadbd"] };
        let running: Vec<_> = procfs::running(servers)
            .into_iter()
            .map(|server| {
                let status = Path::new("/proc").join(server.pid.to_string()).join("status");
                let status = Fields::read(&status).unwrap_or_default();
                let length = |name: &str| status.number(name).and_then(|kib| kib.checked_mul(1024));
                json!({ "pid": server.pid, "name": server.name, "rss": length("VmRSS"),
                    "swap": length("VmSwap") })
            })
            .collect();
        if seen.is_empty() && running.is_empty() {
            out.not_here("no MySQL or MariaDB server here: no process, no option file");
            return Ok(());
        }
        let text = json!({ "running": running, "settings": settings, "files": seen });
        let text = serde_json::to_vec_pretty(&text)?;
        out.put(format!("{}/mysql.json", member::SYSTEM), None, text);
        Ok(())
    }
}
