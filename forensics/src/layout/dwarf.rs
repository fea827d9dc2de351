//! Layouts of structures from a module's debug information.
//!
//! Reads `.debug_info` and its companions, compressed or not. A module without them has no
//! structure of any name; damaged debug information is an error that the report states.

use std::borrow::Cow;
use std::collections::BTreeMap;

use gimli::{AttributeValue, EndianSlice, LittleEndian};
use object::{Object as _, ObjectSection as _};

use super::Layout;
use crate::modules::ModuleFile;

type Slice<'a> = EndianSlice<'a, LittleEndian>;
type Entries<'a, 'b> = gimli::EntriesTree<'b, Slice<'a>>;

/// Finds the structures named in `wanted`; those that are not there are left out.
///
/// # Errors
/// Words for a person, where the debug information cannot be read.
pub fn structures(file: &ModuleFile, wanted: &[&str]) -> Result<Vec<Layout>, String> {
    let elf = object::File::parse(file.bytes()).map_err(|error| error.to_string())?;
    if elf.section_by_name(".debug_info").is_none() {
        return Ok(Vec::new());
    }
    let load = |id: gimli::SectionId| -> Result<Cow<'_, [u8]>, String> {
        match elf.section_by_name(id.name()) {
            Some(section) => section.uncompressed_data().map_err(|error| error.to_string()),
            None => Ok(Cow::Borrowed(&[])),
        }
    };
    let sections = gimli::DwarfSections::load(load)?;
    let dwarf = sections.borrow(|section| EndianSlice::new(section, LittleEndian));
    find(&dwarf, wanted).map_err(|error| error.to_string())
}

fn find(dwarf: &gimli::Dwarf<Slice<'_>>, wanted: &[&str]) -> gimli::Result<Vec<Layout>> {
    let mut found: BTreeMap<String, Layout> = BTreeMap::new();
    let mut headers = dwarf.units();
    while let Some(header) = headers.next()? {
        let unit = dwarf.unit(header)?;
        let mut tree = unit.entries_tree(None)?;
        let mut types = tree.root()?.children();
        while let Some(node) = types.next()? {
            let entry = node.entry();
            if entry.tag() != gimli::DW_TAG_structure_type {
                continue;
            }
            let Some(name) = name(dwarf, &unit, entry)? else { continue };
            let size = entry.attr_value(gimli::DW_AT_byte_size).and_then(|size| size.udata_value());
            // A declaration without a size is not the definition.
            if let Some(size) = size.filter(|_| wanted.contains(&name.as_str()))
                && !found.contains_key(&name)
            {
                let offset = entry.offset();
                let mut tree = unit.entries_tree(Some(offset))?;
                let layout = members(dwarf, &unit, &name, size, &mut tree)?;
                found.insert(name, layout);
            }
        }
        if found.len() == wanted.len() {
            break;
        }
    }
    Ok(found.into_values().collect())
}

fn members<'a>(
    dwarf: &gimli::Dwarf<Slice<'a>>,
    unit: &gimli::Unit<Slice<'a>>,
    structure: &str,
    size: u64,
    tree: &mut Entries<'a, '_>,
) -> gimli::Result<Layout> {
    let mut fields = Vec::new();
    let mut children = tree.root()?.children();
    while let Some(child) = children.next()? {
        let entry = child.entry();
        if entry.tag() != gimli::DW_TAG_member {
            continue;
        }
        let offset = match entry.attr_value(gimli::DW_AT_data_member_location) {
            Some(AttributeValue::Exprloc(expression)) => plus_constant(expression, unit.encoding()),
            Some(value) => value.udata_value(),
            None => Some(0),
        };
        if let (Some(name), Some(offset)) = (name(dwarf, unit, entry)?, offset) {
            fields.push((name, offset));
        }
    }
    let fields: Vec<(&str, u64)> =
        fields.iter().map(|(name, offset)| (name.as_str(), *offset)).collect();
    Ok(Layout::new(structure, size, &fields))
}

/// Old compilers write a member's offset as the expression `DW_OP_plus_uconst N`.
fn plus_constant(
    expression: gimli::Expression<Slice<'_>>,
    encoding: gimli::Encoding,
) -> Option<u64> {
    match expression.operations(encoding).next() {
        Ok(Some(gimli::Operation::PlusConstant { value })) => Some(value),
        _ => None,
    }
}

fn name<'a>(
    dwarf: &gimli::Dwarf<Slice<'a>>,
    unit: &gimli::Unit<Slice<'a>>,
    entry: &gimli::DebuggingInformationEntry<Slice<'a>>,
) -> gimli::Result<Option<String>> {
    let Some(value) = entry.attr_value(gimli::DW_AT_name) else { return Ok(None) };
    let text = dwarf.attr_string(unit, value)?;
    Ok(Some(text.to_string_lossy().into_owned()))
}
