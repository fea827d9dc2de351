//! Function, file, line and inlined calls of an address, from one file's debug information.
//!
//! Reads: DWARF 2 to 5, compressed or not, with the alternate file that `dwz` splits off. Promises:
//! a unit is read only when an address lies in it; a damaged unit costs only itself; no file, made
//! to hurt or not, is read recursively or without end. (That is why this is not the crate
//! `addr2line`: it recurses once per nested inlined call and copies every list of ranges that any
//! entry names.) Split DWARF (`.dwo`) is not followed.

mod functions;
mod lines;
mod names;
mod sections;
mod units;
mod work;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};

use self::functions::Functions;
use self::lines::Lines;
use self::names::Place;
use self::sections::{Sections, Slice};
use self::units::{Ranges, Units};
use self::work::Trouble;
use crate::modules::ModuleFile;

pub(super) use self::names::DwarfName;

/// A function at an address, by itself or inlined.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) name: Option<DwarfName>,
    /// From the function's first instruction to the address, in bytes; only of the one that was not
    /// inlined.
    pub(super) offset: Option<u64>,
    /// Source file and line; for a function into which another one was inlined, those of the call.
    pub(super) file: Option<String>,
    pub(super) line: Option<u32>,
}

/// Which of two files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    Primary,
    /// The one that `dwz` split off; several files share it.
    Alternate,
}

/// One of the two files.
#[derive(Debug)]
struct Part {
    sections: Sections,
    units: OnceLock<Units>,
}

impl Part {
    fn new(sections: Sections) -> Self {
        Self { sections, units: OnceLock::new() }
    }

    fn units(&self) -> &Units {
        self.units.get_or_init(|| Units::read(&self.sections.dwarf()))
    }
}

/// The debug information of one file.
#[derive(Debug)]
pub(super) struct DebugInfo {
    primary: Part,
    alternate: Option<Part>,
    ranges: OnceLock<Ranges>,
}

impl DebugInfo {
    /// Finds a file's debug information; `None` if it has none. Only if it has some is `alternate`
    /// asked for the file that `dwz` split off: stripped modules, too, name one.
    ///
    /// # Errors
    /// Words for a person.
    pub(super) fn read(
        file: &Arc<ModuleFile>,
        alternate: impl FnOnce() -> Option<Arc<ModuleFile>>,
    ) -> Result<Option<Self>, String> {
        let Some(sections) = Sections::read(file)? else { return Ok(None) };
        let alternate = match alternate() {
            Some(file) => Sections::read(&file)?.map(Part::new),
            None => None,
        };
        Ok(Some(Self { primary: Part::new(sections), alternate, ranges: OnceLock::new() }))
    }

    /// The functions at an address in the file, the innermost inlined one first.
    ///
    /// # Errors
    /// Words for a person, where the unit that describes the address is damaged.
    pub(super) fn locate(&self, value: u64) -> Result<Vec<Found>, String> {
        let units = self.primary.units();
        let read = || Ranges::read(&self.primary.sections.dwarf(), &self.primary.sections, units);
        let ranges = self.ranges.get_or_init(read);
        let reading = Reading { info: self, opened: RefCell::default() };
        let mut line_only = Vec::new();
        let mut damage = None;
        for unit in ranges.at(value) {
            match reading.in_unit(unit, value) {
                Ok(found) if found.iter().any(|found| found.name.is_some()) => return Ok(found),
                Ok(found) if line_only.is_empty() => line_only = found,
                Ok(_) => {}
                Err(trouble) => damage = damage.or(Some(trouble)),
            }
        }
        match damage {
            Some(trouble) if line_only.is_empty() => Err(trouble.to_string()),
            _ => Ok(line_only),
        }
    }

    fn part(&self, which: Which) -> Option<&Part> {
        match which {
            Which::Primary => Some(&self.primary),
            Which::Alternate => self.alternate.as_ref(),
        }
    }
}

/// A unit and the sections that it lies in.
#[derive(Debug)]
struct Opened<'a> {
    dwarf: gimli::Dwarf<Slice<'a>>,
    unit: gimli::Unit<Slice<'a>>,
    /// Whether its language has namespaces and classes.
    has_scopes: bool,
}

/// The search for one address: it opens each unit once.
#[derive(Debug)]
struct Reading<'a> {
    info: &'a DebugInfo,
    opened: RefCell<Vec<(Which, usize, Rc<Opened<'a>>)>>,
}

impl<'a> Reading<'a> {
    /// Opens a unit; `None` where the alternate file is not at hand.
    fn open(&self, which: Which, index: usize) -> Result<Option<Rc<Opened<'a>>>, Trouble> {
        let Some(part) = self.info.part(which) else { return Ok(None) };
        let known = self.opened.borrow().iter().find_map(|(file, unit, opened)| {
            (*file == which && *unit == index).then(|| Rc::clone(opened))
        });
        if known.is_some() {
            return Ok(known);
        }
        let mut dwarf = part.sections.dwarf();
        if let (Which::Primary, Some(alternate)) = (which, &self.info.alternate) {
            dwarf.set_sup(alternate.sections.dwarf());
        }
        let unit = part.units().open(&dwarf, &part.sections, index)?;
        let has_scopes = names::has_scopes(&unit)?;
        let opened = Rc::new(Opened { dwarf, unit, has_scopes });
        self.opened.borrow_mut().push((which, index, Rc::clone(&opened)));
        Ok(Some(opened))
    }

    fn in_unit(&self, index: usize, value: u64) -> Result<Vec<Found>, Trouble> {
        let Some(cached) = self.info.primary.units().get(index) else { return Ok(Vec::new()) };
        let Some(opened) = self.open(Which::Primary, index)? else { return Ok(Vec::new()) };
        let Opened { dwarf, unit, .. } = &*opened;
        let functions = cached.functions.get_or_init(|| Functions::read(unit.unit_ref(dwarf)));
        let lines = cached.lines.get_or_init(|| Lines::read(unit));
        let file = |file: Option<u64>| lines::path(dwarf, unit, file?);
        let line = |line: Option<u64>| line.and_then(|line| u32::try_from(line).ok());
        // Where the lines are damaged, the functions may still serve.
        let here = lines.as_ref().ok().and_then(|lines| lines.at(value));
        let mut innermost = Found {
            file: file(here.map(|(file, _)| file)),
            line: line(here.and_then(|(_, line)| line)),
            ..Found::default()
        };
        let Some(span) = functions.as_ref().map_err(|trouble| *trouble)?.at(value) else {
            return Ok(innermost.file.is_some().then_some(innermost).into_iter().collect());
        };
        let mut found = Vec::new();
        for call in functions::inlined(unit.unit_ref(dwarf), span, value)?.iter().rev() {
            innermost.name = self.name_in(index, call.die)?;
            found.push(innermost);
            let (call_file, call_line) = (file(call.call_file), line(call.call_line));
            innermost = Found { file: call_file, line: call_line, ..Found::default() };
        }
        innermost.name = self.name_in(index, span.die)?;
        innermost.offset = span.offset(value);
        found.push(innermost);
        Ok(found)
    }

    fn name_in(&self, unit: usize, die: usize) -> Result<Option<DwarfName>, Trouble> {
        self.name(Place { which: Which::Primary, unit, die })
    }
}
