//! Names of code: function, file, line and inlined functions of an address in a module.
//!
//! Reads: the module's own symbols, and debug information that is looked for only when an address
//! asks for it. Promises: a name is given only where a symbol or a function's debug information
//! covers the address, so that code without one has no name rather than its neighbour's; nothing
//! goes over the network unless asked for. Not for variables or types.

mod debug_files;
mod debuginfod;
mod demangle;
mod dwarf;
mod linkage;
mod mini;
mod names;
mod vdso;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

use self::debug_files::DebugFiles;
use self::names::Names;
use crate::addr::Addr;
use crate::gap::Gap;
use crate::modules::Module;

pub use self::debuginfod::caches as debuginfod_caches;
pub use self::vdso::vdso;

/// Where debug files may come from besides the modules themselves.
#[derive(Clone, Debug, Default)]
pub struct SymbolOptions {
    /// Folders of debug files that the user gave (`--debug-dir`).
    pub debug_dirs: Vec<PathBuf>,
    /// A folder that holds the host's files under their own paths.
    pub sysroot: Option<PathBuf>,
    /// Whether the debug files of this host may serve, for cores of its own programs.
    pub this_host: bool,
    /// Local caches of the debuginfod client ([`debuginfod_caches`]).
    pub caches: Vec<PathBuf>,
    /// Whether the debuginfod servers may be asked over the network.
    pub debuginfod: bool,
}

/// Where a name comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum NameSource {
    /// Debug information in the module itself.
    DebugInformation,
    /// A separate file of debug information of the same build.
    DebugFile,
    /// The module's full symbol table (`.symtab`).
    SymbolTable,
    /// The compressed symbol table that some distributions leave in stripped files
    /// (`.gnu_debugdata`).
    MiniDebugInformation,
    /// The module's exported names (`.dynsym`): static functions are not among them.
    DynamicSymbols,
    /// The procedure linkage table: the name of the function that is jumped to.
    LinkageTable,
}

/// A function that an address belongs to, by itself or because it was inlined there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodePlace {
    /// Its name, demangled, at most 256 characters; `None` where only the line is known.
    pub function: Option<String>,
    /// From the function's start to the address, in bytes; `None` for inlined functions and where
    /// the function's start is not known.
    pub offset: Option<u64>,
    /// The source file, as the compiler recorded it.
    pub file: Option<String>,
    /// The line in it, from 1.
    pub line: Option<u32>,
    /// Whether the function was inlined into the one that follows.
    pub is_inlined: bool,
    /// Where the name, or the line where there is no name, comes from.
    pub source: NameSource,
}

/// Names for all processes of a case; what was found for one serves the others.
#[derive(Debug)]
pub struct Symbols {
    files: DebugFiles,
    modules: Mutex<HashMap<Key, Arc<Names>>>,
}

/// Which modules have the same names: those of the same build ID and file.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Key {
    build_id: Option<String>,
    file: Option<String>,
}

impl Symbols {
    /// Looks nothing up yet.
    pub fn new(options: SymbolOptions) -> Self {
        Self { files: DebugFiles::new(options), modules: Mutex::default() }
    }

    /// The functions at an address in memory: the innermost inlined one first, the one that holds
    /// the code last. Empty where nothing covers the address: then module and offset must do.
    ///
    /// For a caller's frame pass the address before the return address; the return address may
    /// belong to the next line or even the next function.
    pub fn locate(&self, module: &Module, at: Addr) -> Vec<CodePlace> {
        let file = module.file.as_ref().ok();
        let key =
            Key { build_id: module.build_id.clone(), file: file.map(|file| file.origin.clone()) };
        if key.build_id.is_none() && key.file.is_none() {
            return Vec::new();
        }
        let names = {
            let mut modules = self.modules.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(modules.entry(key).or_insert_with(|| Arc::new(Names::of(module))))
        };
        names.at(module.address_in_file(at), &self.files)
    }

    /// What could not be used on the way: damaged debug files, files of another build, failed
    /// downloads.
    pub fn gaps(&self) -> Vec<Gap> {
        self.files.gaps()
    }
}

#[cfg(test)]
mod tests;
