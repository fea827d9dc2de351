//! The names of functions in debug information.

use gimli::{AttributeValue, UnitOffset};

use super::sections::Slice;
use super::work::{Trouble, Work};
use super::{Opened, Reading, Which};

/// References from one entry to the next that are followed.
const MOST_STEPS: usize = 16;
/// Longest name that is read, in bytes.
const LONGEST: usize = 4096;
/// Namespaces and classes around a function that are told.
const DEEPEST: usize = 32;

/// A function's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::symbols) enum DwarfName {
    /// As the linker knows it; C++ and Rust names are mangled.
    Linkage(String),
    /// As the source has it, with the namespaces and classes around it.
    Source(String),
}

/// An entry: in which file, unit and where in the unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) which: Which,
    pub(super) unit: usize,
    pub(super) die: usize,
}

/// Whether a unit's language has namespaces and classes: any but C and assembler.
pub(super) fn has_scopes(unit: &gimli::Unit<Slice<'_>>) -> Result<bool, Trouble> {
    let root = unit.entry(unit.header.root_offset())?;
    let language = match root.attr_value(gimli::DW_AT_language) {
        Some(AttributeValue::Language(language)) => language,
        // A partial unit does not say.
        _ => return Ok(true),
    };
    Ok(!matches!(
        language,
        gimli::DW_LANG_C
            | gimli::DW_LANG_C89
            | gimli::DW_LANG_C99
            | gimli::DW_LANG_C11
            | gimli::DW_LANG_C17
            | gimli::DW_LANG_Mips_Assembler
    ))
}

impl<'a> Reading<'a> {
    /// The name of a function's entry, or of the one that it refers to.
    pub(super) fn name(&self, mut place: Place) -> Result<Option<DwarfName>, Trouble> {
        let mut plain = None;
        for _ in 0..MOST_STEPS {
            let Some(opened) = self.open(place.which, place.unit)? else { break };
            let Opened { dwarf, unit, .. } = &*opened;
            let entry = unit.entry(UnitOffset(place.die))?;
            let text = |name| {
                let value = entry.attr_value(name)?;
                let text = dwarf.attr_string(unit, value).ok()?;
                let text = text.slice().get(..LONGEST).unwrap_or(text.slice());
                Some(String::from_utf8_lossy(text).into_owned())
            };
            let linkage = text(gimli::DW_AT_linkage_name);
            if let Some(name) = linkage.or_else(|| text(gimli::DW_AT_MIPS_linkage_name)) {
                return Ok(Some(DwarfName::Linkage(name)));
            }
            plain = text(gimli::DW_AT_name).map(|name| (place, name)).or(plain);
            let origin = entry.attr_value(gimli::DW_AT_abstract_origin);
            let next = origin.or_else(|| entry.attr_value(gimli::DW_AT_specification));
            match next.and_then(|next| self.follow(place, next)) {
                Some(next) => place = next,
                None => break,
            }
        }
        let Some((place, name)) = plain else { return Ok(None) };
        let mut words = self.around(place)?;
        words.push(name);
        Ok(Some(DwarfName::Source(words.join("::"))))
    }

    fn follow(&self, from: Place, to: AttributeValue<Slice<'a>>) -> Option<Place> {
        let (which, at) = match to {
            AttributeValue::UnitRef(offset) => return Some(Place { die: offset.0, ..from }),
            AttributeValue::DebugInfoRef(at) => (from.which, at),
            AttributeValue::DebugInfoRefSup(at) => (Which::Alternate, at),
            _ => return None,
        };
        let unit = self.info.part(which)?.units().holding(at)?;
        let opened = self.open(which, unit).ok()??;
        Some(Place { which, unit, die: at.to_unit_offset(&opened.unit.header)?.0 })
    }

    /// The namespaces and classes around an entry, the outermost first; none in C.
    fn around(&self, place: Place) -> Result<Vec<String>, Trouble> {
        let Some(opened) = self.open(place.which, place.unit)?.filter(|one| one.has_scopes) else {
            return Ok(Vec::new());
        };
        let Opened { dwarf, unit, .. } = &*opened;
        let mut work = Work::of_unit();
        let mut around: Vec<(isize, String)> = Vec::new();
        let mut attributes = Vec::new();
        let mut entries = unit.entries_raw(None)?;
        while !entries.is_empty() && entries.next_offset().0 < place.die {
            let depth = entries.next_depth();
            around.retain(|(above, _)| *above < depth);
            let Some(abbreviation) = entries.read_abbreviation()? else { continue };
            let specified = abbreviation.attributes();
            work.spend(specified.len().saturating_add(1))?;
            let is_scope = matches!(
                abbreviation.tag(),
                gimli::DW_TAG_namespace
                    | gimli::DW_TAG_class_type
                    | gimli::DW_TAG_structure_type
                    | gimli::DW_TAG_union_type
            );
            if !is_scope || !abbreviation.has_children() || around.len() >= DEEPEST {
                entries.skip_attributes(specified)?;
                continue;
            }
            entries.read_attributes(specified, &mut attributes)?;
            let name = attributes.iter().find(|one| one.name() == gimli::DW_AT_name);
            let name = name.and_then(|name| dwarf.attr_string(unit, name.value()).ok());
            let name = name.map(|name| name.to_string_lossy().chars().take(LONGEST).collect());
            let is_namespace = abbreviation.tag() == gimli::DW_TAG_namespace;
            let nameless = is_namespace.then(|| "(anonymous namespace)".to_owned());
            // The class of a lambda has no name; gdb leaves it out, too.
            around.extend(name.or(nameless).map(|name| (depth, name)));
        }
        around.retain(|(above, _)| *above < entries.next_depth());
        Ok(around.into_iter().map(|(_, name)| name).collect())
    }
}
