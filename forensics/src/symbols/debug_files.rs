//! Finds the separate file with a module's debug information.
//!
//! Looks, in this order: by build ID in the folders that the user gave, in `--sysroot`, on this
//! host where it may serve, in the caches of the debuginfod client; by the name and checksum in
//! `.gnu_debuglink`, where gdb looks for it; and on the debuginfod servers, if the user said so.
//! Promises: a file of another build is never used, and is named as a gap.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use object::{Object as _, ObjectSection as _};

use super::SymbolOptions;
use super::debuginfod::{self, Refusal};
use crate::gap::Gap;
use crate::modules::{self, ModuleFile};

/// Longest build ID, in hex digits; linkers make 40 at most.
const LONGEST_BUILD_ID: usize = 128;
/// Modules named in one gap.
const MOST_NAMED: usize = 8;

/// The module whose debug information is wanted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'a> {
    /// Its path on the host.
    pub(super) path: &'a str,
    pub(super) build_id: Option<&'a str>,
    /// The module itself, if it is at hand.
    pub(super) file: Option<&'a ModuleFile>,
}

/// Where debug files may be, and what was wrong with those that were found.
#[derive(Debug)]
pub(super) struct DebugFiles {
    options: SymbolOptions,
    /// The files below each of the user's folders by build ID; made when one is not at the place
    /// for its build ID.
    indexes: Vec<OnceLock<HashMap<String, Vec<PathBuf>>>>,
    gaps: Mutex<BTreeSet<Gap>>,
    /// Names of the modules that no server knows.
    unknown: Mutex<BTreeSet<String>>,
    /// Why servers cannot be asked at all.
    no_servers: OnceLock<String>,
    /// Alternate files by build ID: several debug files share one.
    alternates: Mutex<BTreeMap<String, Option<Arc<ModuleFile>>>>,
}

impl DebugFiles {
    pub(super) fn new(options: SymbolOptions) -> Self {
        let missing = options.debug_dirs.iter().filter(|folder| !folder.is_dir());
        let gap = |folder: &PathBuf| {
            Gap::new(format!("--debug-dir {}", folder.display()), "there is no such folder")
        };
        Self {
            gaps: Mutex::new(missing.map(gap).collect()),
            indexes: options.debug_dirs.iter().map(|_| OnceLock::new()).collect(),
            unknown: Mutex::default(),
            no_servers: OnceLock::new(),
            alternates: Mutex::default(),
            options,
        }
    }

    /// The debug file of a module: the first one with debug information, else the first one with
    /// a full symbol table.
    pub(super) fn find(&self, wanted: Wanted<'_>) -> Option<Arc<ModuleFile>> {
        let build_id = wanted.build_id.filter(|id| is_build_id(id));
        let mut with_symbols = None;
        let by_build_id = build_id.map(|id| self.by_build_id(id)).unwrap_or_default();
        for path in by_build_id {
            match self.open(&path, wanted, None) {
                Some((file, Holds::DebugInformation)) => return Some(file),
                Some((file, Holds::Symbols)) => with_symbols = with_symbols.or(Some(file)),
                _ => {}
            }
        }
        if let Some((name, checksum)) = wanted.file.and_then(link) {
            for path in self.by_link(wanted, &name) {
                match self.open(&path, wanted, Some(checksum)) {
                    Some((file, Holds::DebugInformation)) => return Some(file),
                    Some((file, Holds::Symbols)) => with_symbols = with_symbols.or(Some(file)),
                    _ => {}
                }
            }
        }
        let fetched = build_id.and_then(|id| self.fetch(id, wanted.path));
        let fetched = fetched.and_then(|path| self.open(&path, wanted, None));
        fetched.map(|(file, _)| file).or(with_symbols)
    }

    /// The file that `dwz` split off several debug files, which one of them names.
    pub(super) fn alternate(&self, of: &ModuleFile) -> Option<Arc<ModuleFile>> {
        let elf = object::File::parse(of.bytes()).ok()?;
        let (name, build_id) = elf.gnu_debugaltlink().ok().flatten()?;
        let build_id = modules::hex(build_id);
        if !is_build_id(&build_id) {
            return None;
        }
        let mut known = self.alternates.lock().unwrap_or_else(PoisonError::into_inner);
        let found = known.entry(build_id.clone()).or_insert_with(|| {
            let name = String::from_utf8_lossy(name);
            let wanted = Wanted { path: &name, build_id: Some(&build_id), file: None };
            let by_name = self.by_alternate_name(of, &name);
            let paths = by_name.into_iter().chain(self.by_build_id(&build_id));
            let mut files = paths.filter_map(|path| self.open(&path, wanted, None));
            let found = files.next().map(|(file, _)| file);
            if found.is_none() {
                let what = format!("debug file {}, which {} refers to", name, of.origin);
                self.note(Gap::new(what, format!("no file with build ID {build_id} is at hand")));
            }
            found
        });
        found.clone()
    }

    /// Notes something that could not be used.
    pub(super) fn note(&self, gap: Gap) {
        self.gaps.lock().unwrap_or_else(PoisonError::into_inner).insert(gap);
    }

    pub(super) fn gaps(&self) -> Vec<Gap> {
        let mut gaps = self.gaps.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(why) = self.no_servers.get() {
            gaps.insert(Gap::new("--debuginfod: names from debug information", why));
        }
        let unknown = self.unknown.lock().unwrap_or_else(PoisonError::into_inner);
        if !unknown.is_empty() {
            let names: Vec<&str> = unknown.iter().take(MOST_NAMED).map(String::as_str).collect();
            let more = if unknown.len() > names.len() { ", …" } else { "" };
            let what =
                format!("debug information of {} ({}{more})", modules(&unknown), names.join(", "));
            gaps.insert(Gap::new(what, "no debuginfod server has it"));
        }
        gaps.into_iter().collect()
    }

    /// Folders that are laid out as a host's root directory.
    fn roots(&self) -> impl Iterator<Item = &Path> {
        let own = self.options.this_host.then_some(Path::new("/"));
        self.options.sysroot.as_deref().into_iter().chain(own)
    }

    fn by_build_id(&self, build_id: &str) -> Vec<PathBuf> {
        let (first, rest) = build_id.split_at_checked(2).unwrap_or((build_id, ""));
        let file = format!("{first}/{rest}.debug");
        let mut paths = Vec::new();
        for folder in &self.options.debug_dirs {
            let places = [".build-id", "usr/lib/debug/.build-id", "lib/debug/.build-id", ""];
            paths.extend(places.map(|place| folder.join(place).join(&file)));
        }
        let links = self.roots().map(|root| root.join("usr/lib/debug/.build-id").join(&file));
        paths.extend(links);
        let cached = |name: &'static str| {
            self.options.caches.iter().map(move |cache| cache.join(build_id).join(name))
        };
        paths.extend(cached("debuginfo"));
        if !paths.iter().any(|path| is_there(path)) {
            for (folder, index) in self.options.debug_dirs.iter().zip(&self.indexes) {
                let index = index.get_or_init(|| modules::files_by_build_id(folder));
                paths.extend(index.get(build_id).into_iter().flatten().cloned());
            }
            paths.extend(cached("executable"));
        }
        paths
    }

    /// Where gdb looks for the file of a `.gnu_debuglink`.
    fn by_link(&self, wanted: Wanted<'_>, name: &str) -> Vec<PathBuf> {
        let path = wanted.path.strip_suffix(" (deleted)").unwrap_or(wanted.path);
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        let mut paths = Vec::new();
        for given in &self.options.debug_dirs {
            paths.push(given.join(name));
            for place in [given.clone(), given.join("usr/lib/debug")] {
                paths.push(modules::below(&place, folder).join(name));
            }
        }
        // A file that the user named may have it at its side.
        let own = wanted.file.map(|file| Path::new(&file.origin)).filter(|path| path.is_file());
        let beside = own.and_then(Path::parent).map(Path::to_owned);
        let on_hosts = self.roots().map(|root| modules::below(root, folder));
        for folder in beside.into_iter().chain(on_hosts) {
            paths.extend([folder.join(name), folder.join(".debug").join(name)]);
        }
        for root in self.roots() {
            paths.push(modules::below(&root.join("usr/lib/debug"), folder).join(name));
        }
        paths
    }

    /// Where the file of a `.gnu_debugaltlink` may be: all distributions keep them in a folder
    /// `.dwz` of their debug files, which the name leads to.
    fn by_alternate_name(&self, of: &ModuleFile, name: &str) -> Vec<PathBuf> {
        let Some((_, end)) = name.split_once(".dwz/") else { return Vec::new() };
        let given = self.options.debug_dirs.iter();
        let given = given.flat_map(|folder| [folder.clone(), folder.join("usr/lib/debug")]);
        let hosts = self.roots().map(|root| root.join("usr/lib/debug"));
        // The debug file itself lies somewhere below the folder that holds `.dwz`.
        let above = Path::new(&of.origin).ancestors().skip(1).take(8).map(Path::to_owned);
        let folders = given.chain(hosts).chain(above);
        folders.map(|folder| modules::below(&folder.join(".dwz"), end)).collect()
    }

    /// Opens a file if it is of the wanted build; by its checksum where a build ID is lacking.
    fn open(
        &self,
        path: &Path,
        wanted: Wanted<'_>,
        checksum: Option<u32>,
    ) -> Option<(Arc<ModuleFile>, Holds)> {
        if !is_there(path) {
            return None;
        }
        let what = || format!("debug file {}", path.display());
        let file = match modules::open(path) {
            Ok(file) => file,
            Err(why) => {
                self.note(Gap::new(what(), why));
                return None;
            }
        };
        let holds = Holds::of(&file)?;
        let is_of_this_build = match (wanted.build_id, file.build_id.as_deref()) {
            (Some(wanted), Some(own)) => wanted == own,
            _ => checksum.is_some_and(|checksum| checksum == checksum_of(file.bytes())),
        };
        if !is_of_this_build {
            self.note(Gap::new(what(), another_build(wanted, &file)));
            return None;
        }
        Some((Arc::new(file), holds))
    }

    fn fetch(&self, build_id: &str, path: &str) -> Option<PathBuf> {
        if !self.options.debuginfod || self.no_servers.get().is_some() {
            return None;
        }
        match debuginfod::fetch(build_id) {
            Ok(path) => return Some(path),
            Err(Refusal::NotThere) => {
                let name = path.rsplit('/').next().unwrap_or(path).to_owned();
                self.unknown.lock().unwrap_or_else(PoisonError::into_inner).insert(name);
            }
            Err(Refusal::NotPossible(why)) => {
                // Another thread may have met the same.
                let _ = self.no_servers.set(why);
            }
            Err(Refusal::Failed(why)) => {
                self.note(Gap::new(format!("debug information of {path} by debuginfod"), why));
            }
        }
        None
    }
}

fn modules(names: &BTreeSet<String>) -> String {
    match names.len() {
        1 => "1 module".to_owned(),
        count => format!("{count} modules"),
    }
}

/// What a file has to give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holds {
    DebugInformation,
    Symbols,
}

impl Holds {
    fn of(file: &ModuleFile) -> Option<Self> {
        let elf = object::File::parse(file.bytes()).ok()?;
        let has = |name: &str| {
            let section = elf.section_by_name(name);
            section.is_some_and(|section| section.file_range().is_some_and(|range| range.1 > 0))
        };
        if has(".debug_info") {
            return Some(Self::DebugInformation);
        }
        has(".symtab").then_some(Self::Symbols)
    }
}

fn another_build(wanted: Wanted<'_>, file: &ModuleFile) -> String {
    match (wanted.build_id, &file.build_id) {
        (Some(wanted), Some(own)) => {
            format!("of another build: the module's build ID is {wanted}, the file's is {own}")
        }
        (Some(wanted), None) => {
            format!("it has no build ID (the module's is {wanted}) and another checksum")
        }
        (None, Some(own)) => format!(
            "the module's build ID is not known (the file's is {own}), and its link names another \
             checksum"
        ),
        (None, None) => "its checksum is not the one that the module names".to_owned(),
    }
}

/// The name and checksum in `.gnu_debuglink`; only a plain name, which leads nowhere else.
fn link(file: &ModuleFile) -> Option<(String, u32)> {
    let elf = object::File::parse(file.bytes()).ok()?;
    let (name, checksum) = elf.gnu_debuglink().ok().flatten()?;
    let name = std::str::from_utf8(name).ok()?;
    let is_plain = !name.is_empty() && !name.contains('/') && name != "." && name != "..";
    is_plain.then(|| (name.to_owned(), checksum))
}

/// The CRC-32 of a whole file, as `.gnu_debuglink` states it.
fn checksum_of(bytes: &[u8]) -> u32 {
    let mut checksum = flate2::Crc::new();
    checksum.update(bytes);
    checksum.sum()
}

/// Whether it is a regular file with something in it; the debuginfod client marks what no server
/// has by empty files.
fn is_there(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.len() > 0)
}

/// A build ID comes from the core and becomes part of a path and of a command.
fn is_build_id(text: &str) -> bool {
    let fits = text.len() > 2 && text.len() <= LONGEST_BUILD_ID;
    fits && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}
