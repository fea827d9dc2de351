//! All sources of names for one module, each read when it is first needed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::debug_files::{DebugFiles, Wanted};
use super::dwarf::{DebugInfo, DwarfName, Found};
use super::linkage::Linkage;
use super::{CodePlace, NameSource, demangle, mini};
use crate::gap::Gap;
use crate::modules::{Module, ModuleFile, NearSymbol};

/// Addresses whose answers are kept; more than all stacks of a case have.
const MOST_KEPT: usize = 1 << 20;

/// One module, whatever processes it is mapped into.
#[derive(Debug)]
pub(super) struct Names {
    path: String,
    build_id: Option<String>,
    file: Option<Arc<ModuleFile>>,
    own: OnceLock<Option<DebugInfo>>,
    separate: OnceLock<Separate>,
    mini: OnceLock<Option<ModuleFile>>,
    linkage: OnceLock<Linkage>,
    known: Mutex<HashMap<u64, Vec<CodePlace>>>,
}

/// A module's separate debug file.
#[derive(Debug, Default)]
struct Separate {
    file: Option<Arc<ModuleFile>>,
    info: Option<DebugInfo>,
}

/// A symbol and the table that names it.
type Named = (NearSymbol, NameSource);

impl Names {
    pub(super) fn of(module: &Module) -> Self {
        let file = module.file.as_ref().ok();
        let own_id = file.and_then(|file| file.build_id.clone());
        Self {
            path: module.path.clone(),
            build_id: module.build_id.clone().or(own_id),
            file: file.cloned(),
            own: OnceLock::new(),
            separate: OnceLock::new(),
            mini: OnceLock::new(),
            linkage: OnceLock::new(),
            known: Mutex::default(),
        }
    }

    /// The functions at an address in the file, the innermost inlined one first.
    pub(super) fn at(&self, value: u64, files: &DebugFiles) -> Vec<CodePlace> {
        if let Some(known) = self.known().get(&value) {
            return known.clone();
        }
        let places = self.find(value, files);
        let mut known = self.known();
        if known.len() < MOST_KEPT {
            known.insert(value, places.clone());
        }
        places
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Vec<CodePlace>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, value: u64, files: &DebugFiles) -> Vec<CodePlace> {
        let (found, source) = self.described(value, files);
        let symbol = self.symbol(value, files);
        let Some((holder, inlined)) = found.split_last() else {
            return symbol.or_else(|| self.stub(value)).map(by_symbol).into_iter().collect();
        };
        let mut places: Vec<CodePlace> =
            inlined.iter().map(|found| place(found, source, true)).collect();
        places.push(match better_name(holder, symbol) {
            Some(symbol) => {
                CodePlace { file: holder.file.clone(), line: holder.line, ..by_symbol(symbol) }
            }
            None => place(holder, source, false),
        });
        places
    }

    /// What debug information says, the module's own first.
    fn described(&self, value: u64, files: &DebugFiles) -> (Vec<Found>, NameSource) {
        let own = self.own.get_or_init(|| info(self.file.as_ref()?, files));
        let (info, source) = match own {
            // What stands for the module may itself be what was split off it.
            Some(info) if self.is_debug_only() => (Some(info), NameSource::DebugFile),
            Some(info) => (Some(info), NameSource::DebugInformation),
            None => (self.separate(files).info.as_ref(), NameSource::DebugFile),
        };
        let found = info.map(|info| info.locate(value)).unwrap_or_else(|| Ok(Vec::new()));
        let found = found.unwrap_or_else(|why| {
            files.note(Gap::new(format!("debug information of {}", self.path), why));
            Vec::new()
        });
        (found, source)
    }

    fn separate(&self, files: &DebugFiles) -> &Separate {
        self.separate.get_or_init(|| {
            let wanted = Wanted {
                path: &self.path,
                build_id: self.build_id.as_deref(),
                file: self.file.as_deref(),
            };
            let Some(file) = files.find(wanted) else { return Separate::default() };
            Separate { info: info(&file, files), file: Some(file) }
        })
    }

    /// The symbol that covers an address: of the module's own full table, of its debug file's, of
    /// the small table in stripped files, or of those that it exports.
    fn symbol(&self, value: u64, files: &DebugFiles) -> Option<Named> {
        let file = self.file.as_ref();
        let own = || file.and_then(|file| file.symbol_at(value));
        if let Some(file) = file.filter(|file| !file.is_stripped()) {
            let source = match file.debug_only {
                true => NameSource::DebugFile,
                false => NameSource::SymbolTable,
            };
            return Some((file.symbol_at(value)?, source));
        }
        let separate = self.separate(files).file.as_ref().filter(|file| !file.is_stripped());
        if let Some(separate) = separate {
            return Some((separate.symbol_at(value)?, NameSource::DebugFile));
        }
        if let Some(symbol) = own() {
            return Some((symbol, NameSource::DynamicSymbols));
        }
        let mini = self.mini.get_or_init(|| {
            mini::read(file?).unwrap_or_else(|why| {
                files.note(Gap::new(format!(".gnu_debugdata of {}", self.path), why));
                None
            })
        });
        let symbol = mini.as_ref().and_then(|mini| mini.symbol_at(value));
        Some((symbol?, NameSource::MiniDebugInformation))
    }

    /// The stub of the procedure linkage table at an address.
    fn stub(&self, value: u64) -> Option<Named> {
        let file = self.file.as_ref()?;
        file.section_at(value).filter(|section| section.starts_with(".plt"))?;
        let linkage = self.linkage.get_or_init(|| Linkage::read(file));
        Some((linkage.at(value, file)?, NameSource::LinkageTable))
    }

    fn is_debug_only(&self) -> bool {
        self.file.as_ref().is_some_and(|file| file.debug_only)
    }
}

fn info(file: &Arc<ModuleFile>, files: &DebugFiles) -> Option<DebugInfo> {
    DebugInfo::read(file, || files.alternate(file)).unwrap_or_else(|why| {
        files.note(Gap::new(format!("debug information in {}", file.origin), why));
        None
    })
}

/// The symbol, where it says more than the debug information: where that has no name, or only a
/// plain one of a C++ function, while the symbol of the same function has its parameters.
fn better_name(found: &Found, symbol: Option<Named>) -> Option<Named> {
    let is_plain = match &found.name {
        None => return symbol,
        Some(DwarfName::Source(_)) => true,
        Some(DwarfName::Linkage(_)) => false,
    };
    symbol.filter(|(symbol, _)| {
        is_plain && demangle::is_cpp(&symbol.name) && found.offset == Some(symbol.offset)
    })
}

fn place(found: &Found, source: NameSource, is_inlined: bool) -> CodePlace {
    CodePlace {
        function: found.name.as_ref().map(|name| match name {
            DwarfName::Linkage(name) => demangle::readable(name),
            DwarfName::Source(name) => demangle::short(name),
        }),
        offset: found.offset,
        file: found.file.clone(),
        line: found.line,
        is_inlined,
        source,
    }
}

fn by_symbol((symbol, source): Named) -> CodePlace {
    let mut function = demangle::readable(&symbol.name);
    if source == NameSource::LinkageTable {
        function.push_str("@plt");
    }
    CodePlace {
        function: Some(function),
        offset: Some(symbol.offset),
        file: None,
        line: None,
        is_inlined: false,
        source,
    }
}
