//! How a structure lies in memory: its fields by name, and where that knowledge comes from.
//!
//! [`dwarf`] reads it from debug information; allocators bring tables of known layouts of their
//! own and infer which one holds. A report always says which source served.

pub mod dwarf;

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use thiserror::Error;

/// Where a layout comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "source")]
pub enum LayoutSource {
    /// Debug information of this very build.
    Dwarf {
        /// Build ID of the module that carries it.
        build_id: String,
    },
    /// A known layout that the pool's own bytes agree with.
    Inferred {
        /// Which known layout.
        layout: String,
        /// Fragments that chained under it.
        agreeing: u64,
        /// Known layouts that were tried; the others did not chain.
        tried: u32,
        /// Whether the chain reached the pool's own end mark.
        to_the_end: bool,
    },
}

impl fmt::Display for LayoutSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dwarf { build_id } => write!(f, "debug information of build {build_id}"),
            Self::Inferred { layout, agreeing, tried, to_the_end } => {
                let sure = if *to_the_end { "certain" } else { "likely" };
                let end = if *to_the_end { ", to the pool's end mark" } else { "" };
                write!(
                    f,
                    "inferred ({sure}): {layout}; {agreeing} fragments chain{end}; \
                     1 of {tried} known layouts"
                )
            }
        }
    }
}

/// A structure.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// Its name in the source code, for instance `qm_frag`.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
    fields: BTreeMap<String, u64>,
}

/// A field that a layout does not have.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("struct {layout} has no field {field}")]
pub struct NoField {
    /// The structure.
    pub layout: String,
    /// The field.
    pub field: String,
}

impl Layout {
    /// A layout from (field, offset in bytes) pairs.
    pub fn new(name: &str, size: u64, fields: &[(&str, u64)]) -> Self {
        let fields = fields.iter().map(|(name, offset)| ((*name).to_owned(), *offset)).collect();
        Self { name: name.to_owned(), size, fields }
    }

    /// The layout of a structure among several.
    ///
    /// # Errors
    /// [`NoField`] names the structure.
    pub fn find<'a>(layouts: &'a [Self], name: &str) -> Result<&'a Self, NoField> {
        let found = layouts.iter().find(|layout| layout.name == name);
        found.ok_or_else(|| NoField { layout: name.to_owned(), field: "(any)".to_owned() })
    }

    /// Offset of a field from the start of the structure, in bytes.
    ///
    /// # Errors
    /// [`NoField`].
    pub fn offset(&self, field: &str) -> Result<u64, NoField> {
        self.optional(field)
            .ok_or_else(|| NoField { layout: self.name.clone(), field: field.to_owned() })
    }

    /// Offset of a field that only some builds have.
    pub fn optional(&self, field: &str) -> Option<u64> {
        self.fields.get(field).copied()
    }
}
