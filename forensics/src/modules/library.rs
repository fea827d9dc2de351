//! The ELF files at hand, found by build ID: those of the bundle, those given with `--module`, and
//! on demand those below `--sysroot` or, for cores without a bundle, on this host.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::{ModuleFile, search};
use crate::bytes::map_path;
use crate::gap::Gap;
use crate::input::ModuleInput;

/// Where module files may come from besides the bundle.
#[derive(Clone, Debug, Default)]
pub struct LibraryOptions {
    /// Files the user gave, or folders of them.
    pub modules: Vec<PathBuf>,
    /// A folder that holds the host's files under their own paths.
    pub sysroot: Option<PathBuf>,
    /// Whether the files of this host may serve, for cores of its own programs.
    pub this_host: bool,
}

/// What is known of a path outside the bundle.
type Tried = Result<Arc<ModuleFile>, String>;

/// What a core says of a mapped file's path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place<'a> {
    /// It was mapped from here.
    Path(&'a str),
    /// The core has lost it; it may be here.
    Lost(Option<&'a str>),
}

/// All ELF files at hand.
#[derive(Debug, Default)]
pub struct Library {
    files: Vec<Arc<ModuleFile>>,
    /// Files that the user named one by one.
    named: Vec<Arc<ModuleFile>>,
    /// The bundle's own files by file name; the group mapped these very files.
    bundled: HashMap<String, Vec<Arc<ModuleFile>>>,
    by_build_id: HashMap<String, Arc<ModuleFile>>,
    /// Root directories that may be searched: `--sysroot`, and this host's.
    roots: Vec<PathBuf>,
    sysroot: Option<PathBuf>,
    tried: Mutex<HashMap<PathBuf, Tried>>,
    /// Programs and libraries below each root by build ID; made when a path is lost.
    indexes: Mutex<HashMap<PathBuf, Arc<HashMap<String, PathBuf>>>>,
}

impl Library {
    /// Reads the bundle's files and those the user gave; what is not readable is a gap.
    pub fn new(inputs: &[ModuleInput], options: &LibraryOptions, gaps: &mut Vec<Gap>) -> Self {
        let sysroot = options.sysroot.clone();
        let own = options.this_host.then(|| PathBuf::from("/"));
        let roots = sysroot.clone().into_iter().chain(own).collect();
        let mut library = Self { roots, sysroot, ..Self::default() };
        for input in inputs {
            let origin = format!("{} in the bundle", input.name);
            match ModuleFile::read(&input.blob, origin) {
                Ok(file) => {
                    let file = library.add(file);
                    library.bundled.entry(input.name.clone()).or_default().push(file);
                }
                Err(why) => gaps.push(Gap::new(format!("module {}", input.name), why)),
            }
        }
        for path in &options.modules {
            library.add_given(path, gaps);
        }
        library
    }

    /// Files that the user named one by one.
    pub fn named(&self) -> impl Iterator<Item = &ModuleFile> {
        self.named.iter().map(AsRef::as_ref)
    }

    /// Takes a file that the user gave, or the ELF files in a folder and those below it.
    fn add_given(&mut self, path: &Path, gaps: &mut Vec<Gap>) {
        let mut missing = |path: &Path, why: &str| {
            gaps.push(Gap::new(format!("--module {}", path.display()), why));
        };
        let is_folder = path.is_dir();
        let (files, more) = match is_folder {
            true => search::elf_files(path),
            false => (vec![path.to_owned()], false),
        };
        if files.is_empty() {
            missing(path, "a folder without ELF files");
        }
        if more {
            missing(path, "more files than are looked at; name a smaller folder");
        }
        for path in files {
            match open(&path) {
                Ok(file) => {
                    let file = self.add(file);
                    self.named.extend((!is_folder).then_some(file));
                }
                Err(why) => missing(&path, &why),
            }
        }
    }

    fn add(&mut self, file: ModuleFile) -> Arc<ModuleFile> {
        let file = Arc::new(file);
        if let Some(build_id) = &file.build_id {
            // The program itself goes before what was split off it.
            let known = self.by_build_id.get(build_id);
            let better = known.is_none_or(|known| known.completeness() < file.completeness());
            if better {
                self.by_build_id.insert(build_id.clone(), Arc::clone(&file));
            }
        }
        self.files.push(Arc::clone(&file));
        file
    }

    /// The file of a mapping whose memory says `build_id`.
    ///
    /// # Errors
    /// Words for a person: no file, or only files of another build.
    pub fn find(&self, build_id: Option<&str>, place: Place<'_>) -> Tried {
        let path = match place {
            Place::Path(path) => Some(path),
            Place::Lost(guess) => guess,
        };
        let path = path.map(|path| path.strip_suffix(" (deleted)").unwrap_or(path));
        let Some(build_id) = build_id else {
            return match (place, path) {
                (Place::Path(_), Some(path)) => self.find_unverified(path),
                _ => Err("neither its path nor its build ID is in the core".to_owned()),
            };
        };
        let known = self.by_build_id.get(build_id);
        if let Some(file) = known.filter(|file| !file.debug_only) {
            return Ok(Arc::clone(file));
        }
        let mut other = path.and_then(|path| self.given(path).find(|file| !file.debug_only));
        let mut debug = known.cloned();
        let opened;
        let at_path = self.roots.iter().filter_map(|root| Some(below(root, path?)));
        let linked = self.roots.iter().flat_map(|root| search::links(root, build_id));
        let indexed = self.roots.iter().filter(|_| matches!(place, Place::Lost(_)));
        let indexed = indexed.filter_map(|root| self.index(root).get(build_id).cloned());
        let mut at_hand = Vec::new();
        for candidate in at_path.chain(linked).chain(indexed) {
            match self.open_once(&candidate) {
                Ok(file) if file.build_id.as_deref() != Some(build_id) => at_hand.push(file),
                Ok(file) if file.debug_only => debug = debug.or(Some(file)),
                Ok(file) => return Ok(file),
                Err(_) => {}
            }
        }
        if let Some(file) = debug {
            return Ok(file);
        }
        if other.is_none() && matches!(place, Place::Path(_)) {
            opened = at_hand.into_iter().next();
            other = opened.as_ref();
        }
        Err(match other {
            Some(file) => another_build(file, build_id),
            None => format!("no file with build ID {build_id} is at hand"),
        })
    }

    /// Without a build ID only what the user pointed at is taken, or what the bundle holds: the
    /// collector copied the very files that the group had mapped. A worker that never touched a
    /// library's first page itself has no build ID for it in its core.
    fn find_unverified(&self, path: &str) -> Tried {
        let name = Path::new(path).file_name().and_then(|name| name.to_str()).unwrap_or(path);
        if let Some([file]) = self.bundled.get(name).map(Vec::as_slice) {
            return Ok(Arc::clone(file));
        }
        if let Some(file) = self.given(path).find(|file| !file.debug_only) {
            return Ok(Arc::clone(file));
        }
        match self.sysroot.as_deref().map(|root| self.open_once(&below(root, path))) {
            Some(Ok(file)) => Ok(file),
            _ => Err("its build ID is not in the core; name the file with --module".to_owned()),
        }
    }

    /// Files whose own name is that of `path`.
    fn given<'a>(&'a self, path: &'a str) -> impl Iterator<Item = &'a Arc<ModuleFile>> {
        let name = Path::new(path).file_name();
        self.files.iter().filter(move |file| Path::new(&file.origin).file_name() == name)
    }

    fn open_once(&self, path: &Path) -> Tried {
        let mut tried = self.tried.lock().unwrap_or_else(PoisonError::into_inner);
        tried.entry(path.to_owned()).or_insert_with(|| open(path).map(Arc::new)).clone()
    }

    fn index(&self, root: &Path) -> Arc<HashMap<String, PathBuf>> {
        let mut indexes = self.indexes.lock().unwrap_or_else(PoisonError::into_inner);
        let index = indexes.entry(root.to_owned());
        Arc::clone(index.or_insert_with(|| Arc::new(search::by_build_id(root))))
    }
}

fn another_build(file: &ModuleFile, build_id: &str) -> String {
    match &file.build_id {
        Some(own) => format!(
            "{} has another build ID: the core says {build_id}, the file says {own}",
            file.origin
        ),
        None => format!("{} has no build ID; the core says {build_id}", file.origin),
    }
}

/// A path of the customer's host below a folder of this one.
pub(crate) fn below(root: &Path, path: &str) -> PathBuf {
    let parts = path.split('/').filter(|part| !part.is_empty() && *part != "..");
    parts.fold(root.to_owned(), |path, part| path.join(part))
}

/// Opens regular files only: a path from inside a core may name a device or a FIFO.
///
/// # Errors
/// Words for a person.
pub(crate) fn open(path: &Path) -> Result<ModuleFile, String> {
    let metadata = std::fs::metadata(path).map_err(|error| error.to_string())?;
    if !metadata.is_file() || metadata.len() == 0 {
        return Err("not a regular file".to_owned());
    }
    let blob = map_path(path).map_err(|error| error.to_string())?;
    ModuleFile::read(&blob, path.display().to_string())
}
