//! The ELF files at hand, found by build ID: those of the bundle, those given with `--module`, and
//! on demand those below `--sysroot` or, for cores without a bundle, on this host.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::ModuleFile;
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

/// All ELF files at hand.
#[derive(Debug, Default)]
pub struct Library {
    files: Vec<Arc<ModuleFile>>,
    /// The bundle's own files by file name; the group mapped these very files.
    bundled: HashMap<String, Vec<Arc<ModuleFile>>>,
    by_build_id: HashMap<String, Arc<ModuleFile>>,
    sysroot: Option<PathBuf>,
    this_host: bool,
    tried: Mutex<HashMap<PathBuf, Tried>>,
}

impl Library {
    /// Reads the bundle's files and those the user gave; what is not readable is a gap.
    pub fn new(inputs: &[ModuleInput], options: &LibraryOptions, gaps: &mut Vec<Gap>) -> Self {
        let (sysroot, this_host) = (options.sysroot.clone(), options.this_host);
        let mut library = Self { sysroot, this_host, ..Self::default() };
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
        for path in options.modules.iter().flat_map(|path| expand(path)) {
            match open(&path) {
                Ok(file) => {
                    library.add(file);
                }
                Err(why) => gaps.push(Gap::new(format!("--module {}", path.display()), why)),
            }
        }
        library
    }

    fn add(&mut self, file: ModuleFile) -> Arc<ModuleFile> {
        let file = Arc::new(file);
        if let Some(build_id) = &file.build_id {
            self.by_build_id.insert(build_id.clone(), Arc::clone(&file));
        }
        self.files.push(Arc::clone(&file));
        file
    }

    /// The file of a mapping whose memory says `build_id` and whose path on the host is `path`.
    ///
    /// # Errors
    /// Words for a person: no file, or only files of another build.
    pub fn find(&self, build_id: Option<&str>, path: &str) -> Tried {
        let clean = path.strip_suffix(" (deleted)").unwrap_or(path);
        let Some(build_id) = build_id else {
            return self.find_unverified(clean);
        };
        if let Some(file) = self.by_build_id.get(build_id) {
            return Ok(Arc::clone(file));
        }
        let mut other = self.given(clean).find_map(|file| file.build_id.clone());
        let rooted = self.sysroot.as_deref().map(|root| below(root, clean));
        let own = self.this_host.then(|| PathBuf::from(clean));
        for candidate in rooted.into_iter().chain(own) {
            match self.open_once(&candidate) {
                Ok(file) if file.build_id.as_deref() == Some(build_id) => return Ok(file),
                Ok(file) => other = other.or_else(|| file.build_id.clone()),
                Err(_) => {}
            }
        }
        Err(match other {
            Some(other) => format!("another build is at hand ({other}), not {build_id}"),
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
        if let Some(file) = self.given(path).next() {
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
}

/// A path of the customer's host below a folder of this one.
fn below(root: &Path, path: &str) -> PathBuf {
    let parts = path.split('/').filter(|part| !part.is_empty() && *part != "..");
    parts.fold(root.to_owned(), |path, part| path.join(part))
}

/// A file itself, or every file directly in a folder.
fn expand(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(path) else { return vec![path.to_owned()] };
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|file| file.is_file());
    files.sort();
    files
}

/// Opens regular files only: a path from inside a core may name a device or a FIFO.
fn open(path: &Path) -> Result<ModuleFile, String> {
    let metadata = std::fs::metadata(path).map_err(|error| error.to_string())?;
    if !metadata.is_file() || metadata.len() == 0 {
        return Err("not a regular file".to_owned());
    }
    let blob = map_path(path).map_err(|error| error.to_string())?;
    ModuleFile::read(&blob, path.display().to_string())
}
