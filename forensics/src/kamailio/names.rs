//! The texts behind an owner's pointers. They lie in the modules' `.rodata`, which cores lack, so
//! they come from the module files; where a file is missing the address stands for the text.

use std::collections::HashMap;
use std::fmt;

use serde::Serialize;

use crate::addr::Addr;
use crate::heap::Owner;
use crate::memory::{Memory as _, Why};
use crate::process::Process;

/// Longest text that is taken for a name.
const LONGEST: usize = 256;

/// An owner as people know it; `None` is a text that could not be read.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct OwnerName {
    /// Module, for instance `core` or `htable`.
    pub module: Option<String>,
    /// Source file without the module before it, for instance `core/pt.c`.
    pub file: Option<String>,
    /// Function.
    pub function: Option<String>,
    /// Line; `None` in builds that record no owners.
    pub line: Option<u64>,
}

/// `htable: ht_api.c: ht_cell_new(189)`, with `?` for what could not be read.
impl fmt::Display for OwnerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::default() {
            return f.write_str("(owner not recorded)");
        }
        let known = |text: &Option<String>| text.clone().unwrap_or_else(|| "?".to_owned());
        let line = self.line.map_or_else(|| "?".to_owned(), |line| line.to_string());
        let (module, file, function) =
            (known(&self.module), known(&self.file), known(&self.function));
        write!(f, "{module}: {file}: {function}({line})")
    }
}

/// Reads names, each text once.
#[derive(Debug)]
pub struct Names<'a> {
    process: &'a Process,
    texts: HashMap<Addr, Result<String, NoText>>,
}

/// Why a pointer leads to no text.
#[derive(Clone, Debug, PartialEq, Eq)]
enum NoText {
    /// What it leads to is not known.
    NotKnown(String),
    /// It leads to nothing, or to what no name is.
    Wild(String),
}

impl NoText {
    fn why(&self) -> &str {
        match self {
            Self::NotKnown(why) | Self::Wild(why) => why,
        }
    }
}

impl<'a> Names<'a> {
    /// Names of the owners in one process's pools.
    pub fn new(process: &'a Process) -> Self {
        Self { process, texts: HashMap::new() }
    }

    /// An owner's name.
    pub fn owner(&mut self, owner: Owner) -> OwnerName {
        if owner == Owner::default() {
            return OwnerName::default();
        }
        let module = self.text(owner.module);
        let file = self.text(owner.file).map(|file| {
            // The file's text is "core: core/pt.c"; the module before it is said already.
            let rest = module.as_deref().and_then(|module| file.strip_prefix(module));
            match rest.and_then(|rest| rest.strip_prefix(": ")) {
                Some(rest) => rest.to_owned(),
                None => file,
            }
        });
        OwnerName { file, function: self.text(owner.function), line: Some(owner.line), module }
    }

    fn text(&mut self, at: Addr) -> Option<String> {
        let process = self.process;
        let known = self.texts.entry(at).or_insert_with(|| {
            // A damaged header may lead to anybody's text; names are constants of a module.
            let writable = process.memory.find(at).is_some_and(|held| held.writable == Some(true));
            if writable && process.modules.covering(at).is_none() {
                return Err(NoText::Wild("in memory that the program writes to".to_owned()));
            }
            let text = process.memory.text(at, LONGEST).map_err(|absent| match absent.why {
                Why::Unmapped => NoText::Wild(absent.why.to_string()),
                why => NoText::NotKnown(why.to_string()),
            })?;
            let plain = !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic() || c == ' ');
            if plain { Ok(text) } else { Err(NoText::Wild("not a name".to_owned())) }
        });
        known.as_ref().ok().cloned()
    }

    /// The first pointer of an owner that was read and leads to no text: field, pointer, why.
    pub fn wild(&self, owner: Owner) -> Option<(&'static str, Addr, &str)> {
        if owner == Owner::default() {
            return None;
        }
        let fields = [("file", owner.file), ("func", owner.function), ("mname", owner.module)];
        fields.into_iter().find_map(|(field, at)| match self.texts.get(&at)? {
            Err(NoText::Wild(why)) => Some((field, at, why.as_str())),
            Ok(_) | Err(NoText::NotKnown(_)) => None,
        })
    }

    /// Pointers whose text could not be read, with the reason, by address.
    pub fn unreadable(&self) -> Vec<(Addr, &str)> {
        let mut unreadable: Vec<(Addr, &str)> = self
            .texts
            .iter()
            .filter_map(|(at, text)| Some((*at, text.as_ref().err()?.why())))
            .collect();
        unreadable.sort_unstable();
        unreadable
    }
}
