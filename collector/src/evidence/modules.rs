//! The ELF files that the group maps: `modules/BUILDID/NAME`, whole.
//!
//! A file is taken through `/proc/PID/map_files`, which leads to the very file that is mapped even
//! if it was replaced or deleted; else by its path in the process's root, and then only if it is
//! the same file, or has the build ID that is in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use bundle::{PAGE_SIZE, Phase, member};
use sha2::{Digest, Sha256};

use super::{Brief, Context, Drawer, Preview, Source, tables};
use crate::build_id;
use crate::files::{self, Root};
use crate::mappings::{FileKey, Kind, Mapping};
use crate::number::{human, size};
use crate::sys;

/// Of a mapped file that cannot be had.
const UNREADABLE: &str = "the file that is mapped cannot be read, or is larger than 2 GiB";
/// No program is larger, in bytes; it is read as a whole.
const LARGEST: u64 = 2 << 30;

/// Which modules are copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum WhichModules {
    /// All of them.
    #[default]
    All,
    /// Not those in a system library folder (libc, libssl): they can be had elsewhere by their
    /// build ID.
    Own,
    /// As own, and without their code: symbols and constants, enough to name what owns memory.
    Tables,
    /// None.
    None,
}

impl WhichModules {
    /// Whether the file at this path is to be copied.
    fn wants(self, path: &str) -> bool {
        match self {
            Self::All => true,
            Self::Own | Self::Tables => !in_system_folder(path),
            Self::None => false,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Modules;

impl Source for Modules {
    fn name(&self) -> &'static str {
        "modules"
    }

    fn about(&self) -> &'static str {
        "the program and its libraries, by build ID"
    }

    fn phase(&self) -> Phase {
        Phase::AfterThaw
    }

    fn deadline(&self) -> Duration {
        Duration::from_secs(30)
    }

    /// They are the slowest part of a small bundle.
    fn serves(&self, sample: Brief) -> bool {
        sample != Brief::Profile { first: false }
    }

    fn preview(&self, context: &Context) -> Vec<Preview> {
        let wanted = |(name, one): &(String, Candidates)| one.code && context.modules.wants(name);
        let files = candidates(context).into_iter().filter(wanted);
        let sizes: Vec<u64> = files.map(|(_, one)| one.size()).collect();
        let what = format!("{} files", sizes.len());
        vec![Preview { what, size: Some(sizes.iter().sum()), missing: None }]
    }

    fn collect(&self, context: &Context, out: &Drawer) -> anyhow::Result<()> {
        let mut shelf = Shelf::new(context.modules);
        for (name, candidates) in candidates(context) {
            match candidates.read() {
                Some((origin, content)) => shelf.put(&name, origin, content, out),
                None if candidates.code => {
                    out.gap(format!("module {name}"), UNREADABLE);
                }
                None => {}
            }
        }
        shelf.close(out);
        Ok(())
    }
}

/// Puts ELF files into the bundle: each once, as far as they are wanted.
#[derive(Debug)]
pub(super) struct Shelf {
    wanted: WhichModules,
    known: BTreeSet<String>,
    /// Bytes of code that were left out.
    code: u64,
}

impl Shelf {
    pub(super) fn new(wanted: WhichModules) -> Self {
        Self { wanted, known: BTreeSet::new(), code: 0 }
    }

    /// What is no ELF file is passed over. `name` is the path as the process saw it.
    pub(super) fn put(&mut self, name: &str, origin: String, content: Vec<u8>, out: &Drawer) {
        if !content.starts_with(b"\x7fELF") {
            return;
        }
        let build_id = build_id::of_file(&content);
        let folder = build_id.clone().unwrap_or_else(|| no_build_id(name));
        let file = Path::new(name).file_name().map(|file| file.to_string_lossy());
        let file = file.as_deref().unwrap_or("module").replace(" (deleted)", "");
        let path = member::module(&folder, &file);
        if !self.wanted.wants(name) {
            let id = build_id.as_deref().unwrap_or("none");
            let what = format!("module {name} (build ID {id})");
            out.left_out(what, "left out as wanted (--modules)");
        } else if self.known.insert(path.clone()) {
            let content = match self.wanted {
                WhichModules::Tables => tables::without_code(content, &mut self.code),
                _ => content,
            };
            out.put_raw(path, Some(origin), content);
        }
    }

    pub(super) fn close(self, out: &Drawer) {
        if self.code > 0 {
            let what = format!("code of the modules ({})", human(self.code));
            out.left_out(what, "left out as wanted (--modules tables)");
        }
    }
}

/// Ways to one mapped file.
#[derive(Debug, Default)]
struct Candidates {
    /// Leads to the mapped file and no other.
    certain: Vec<String>,
    /// May lead to another one by now.
    by_path: Vec<Place>,
    /// A part of it is mapped executable.
    code: bool,
}

/// A path where a mapped file may still be.
#[derive(Debug)]
struct Place {
    /// The process whose root it begins at; else our own.
    root: Option<u32>,
    path: String,
    /// The file that is mapped.
    key: FileKey,
    /// A thread that maps it, and where.
    id: u32,
    address: u64,
}

impl Place {
    fn open(&self) -> io::Result<File> {
        let root = self.root.map_or_else(|| Ok(Root::own()), Root::of_process)?;
        root.open(&self.path)
    }

    fn name(&self) -> String {
        let root = self.root.map(|id| format!("/proc/{id}/root")).unwrap_or_default();
        root + &self.path
    }
}

/// Every mapped file of the group, by name.
fn candidates(context: &Context) -> Vec<(String, Candidates)> {
    let mut files: BTreeMap<(String, FileKey), Candidates> = BTreeMap::new();
    for process in &context.target.processes {
        let id = process.id;
        let read;
        let mappings = match context.surveys.get(&process.pid) {
            Some(survey) => &survey.mappings,
            None => {
                let text = fs::read(format!("/proc/{id}/maps")).unwrap_or_default();
                read = Mapping::parse_all(&String::from_utf8_lossy(&text));
                &read
            }
        };
        for mapping in mappings {
            let file = mapping.kind(false) == Kind::PrivateFile && !mapping.is_nameless_memory();
            if !file || !mapping.name.starts_with('/') {
                continue;
            }
            let key = (mapping.name.clone(), mapping.file());
            let candidates = files.entry(key).or_default();
            if candidates.certain.len() < 2 {
                let name = mapping.map_files_name();
                candidates.certain.push(format!("/proc/{id}/map_files/{name}"));
            }
            if mapping.name == process.executable {
                candidates.certain.push(format!("/proc/{id}/exe"));
            }
            if mapping.offset == 0 && candidates.by_path.is_empty() {
                // Our own root will do too, where the process's is refused: it is the same file
                // or it is not taken.
                for process in [Some(id), None] {
                    let place = Place {
                        root: process,
                        path: mapping.path().to_owned(),
                        key: mapping.file(),
                        id,
                        address: mapping.span.start,
                    };
                    candidates.by_path.push(place);
                }
            }
            candidates.code |= mapping.flags & 1 != 0;
        }
    }
    files.into_iter().map(|((name, _), candidates)| (name, candidates)).collect()
}

impl Candidates {
    /// Length of the file in bytes, as far as a look shows; 0 if it cannot be seen.
    fn size(&self) -> u64 {
        let certain = self.certain.iter().filter_map(|link| files::open_link(link).ok());
        let by_path = self.by_path.iter().filter_map(|place| place.open().ok());
        let mut found = certain.chain(by_path).filter_map(|file| file.metadata().ok());
        found.next().map_or(0, |file| file.len())
    }

    /// The mapped file: where from, and its bytes; of a file that is no ELF file only the head.
    fn read(&self) -> Option<(String, Vec<u8>)> {
        for link in &self.certain {
            if let Some(content) = files::open_link(link).ok().and_then(read_elf) {
                let origin = fs::read_link(link).map(|path| path.to_string_lossy().into_owned());
                return Some((origin.unwrap_or_else(|_| link.clone()), content));
            }
        }
        for place in &self.by_path {
            let Ok(file) = place.open() else { continue };
            let Ok(found) = file.metadata() else { continue };
            let device =
                format!("{:02x}:{:02x}", libc::major(found.dev()), libc::minor(found.dev()));
            let same = FileKey { device, inode: found.ino() } == place.key;
            let Some(content) = read_elf(file) else { continue };
            if same
                || build_id::of_file(&content)
                    .is_some_and(|found| mapped_build_id(place.id, place.address) == Some(found))
            {
                return Some((place.name(), content));
            }
        }
        None
    }
}

/// The whole file; of one that is no ELF file only the head.
fn read_elf(mut file: File) -> Option<Vec<u8>> {
    let mut content = Vec::new();
    file.by_ref().take(4).read_to_end(&mut content).ok()?;
    if content == b"\x7fELF" {
        if file.metadata().ok()?.len() > LARGEST {
            return None;
        }
        file.take(LARGEST).read_to_end(&mut content).ok()?;
    }
    Some(content)
}

/// GNU build ID in the first page of a mapped ELF file.
fn mapped_build_id(id: u32, address: u64) -> Option<String> {
    let mut page = vec![0; size(PAGE_SIZE)];
    let read = sys::read_process(id, std::iter::once((address, PAGE_SIZE)), &mut page).ok()?;
    build_id::of_page(page.get(..read)?)
}

fn no_build_id(path: &str) -> String {
    let hash = build_id::hex(&Sha256::digest(path.as_bytes()));
    format!("no-build-id/{}", hash.get(..16).unwrap_or(&hash))
}

/// Directly in a folder where the system keeps libraries; a program's own folder below it is not.
fn in_system_folder(path: &str) -> bool {
    let Some(folder) = Path::new(path).parent().and_then(Path::to_str) else { return false };
    let below = folder.strip_prefix("/usr").unwrap_or(folder);
    match below.strip_prefix("/lib") {
        Some("" | "64" | "32") => true,
        Some(rest) => {
            let triple = rest.strip_prefix('/').unwrap_or("/");
            !triple.contains('/') && triple.contains("-linux-")
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_folders_are_told_from_a_programs_own() {
        assert!(in_system_folder("/lib/x86_64-linux-gnu/libc.so.6"));
        assert!(in_system_folder("/usr/lib64/libssl.so.3"));
        assert!(in_system_folder("/usr/lib/libm.so.6"));
        assert!(!in_system_folder("/usr/lib/x86_64-linux-gnu/kamailio/modules/tm.so"));
        assert!(!in_system_folder("/usr/lib64/kamailio/modules/tm.so"));
        assert!(!in_system_folder("/usr/sbin/kamailio"));
        assert!(!in_system_folder("/opt/lib/x.so"));
    }

    #[test]
    fn a_file_and_its_mapping_have_one_build_id() {
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        let libc = Mapping::parse_all(&maps)
            .into_iter()
            .find(|mapping| mapping.name.contains("libc.so") && mapping.offset == 0)
            .unwrap();
        let content = fs::read(&libc.name).unwrap();
        let mapped = mapped_build_id(std::process::id(), libc.span.start);
        assert!(mapped.is_some());
        assert_eq!(build_id::of_file(&content), mapped);
    }
}
