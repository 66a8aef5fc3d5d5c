//! How large the parts of an artifact may be, so that reading, checking and compiling it stays inside known bounds.
//!
//! What is counted is counted from the headers of the sections alone, in one pass and before anything is validated: an artifact that
//! declares four thousand million of something costs no more than the bytes that say so. What time and memory the compiler takes for
//! an artifact inside these bounds is the node's matter (`sedged compile`).

use super::ArtifactError;
use crate::limits::{
    COMPONENT_ITEMS_MAX, DATA_SEGMENTS_MAX, ELEMENT_SEGMENTS_MAX, FUNCTION_BODY_BYTES_MAX, FUNCTIONS_MAX, MEMORIES_PER_MODULE_MAX,
    MODULE_EXPORTS_MAX, MODULE_GLOBALS_MAX, MODULE_IMPORTS_MAX, MODULE_TYPES_MAX, NESTING_MAX, PARTS_MAX, TABLE_ELEMENTS_MAX,
    TABLES_PER_MODULE_MAX,
};
use wasmparser::{BinaryReaderError, Parser, Payload};

/// Bytes of a page of linear memory.
const PAGE_BYTES: u64 = 64 * 1024;

/// What an artifact is made of.
#[derive(Debug, Default)]
pub(super) struct Size {
    depth: u64,
    parts: u64,
    functions: u64,
    items: u64,
    /// The largest linear memory that a module begins with.
    pub(super) memory_bytes: u64,
}

impl Size {
    /// Counts, and ends at the first bound that is passed.
    pub(super) fn of(bytes: &[u8]) -> Result<Self, ArtifactError> {
        let invalid = |cause: BinaryReaderError| ArtifactError::Invalid(cause.to_string());
        let mut size = Self::default();
        for payload in Parser::new(0).parse_all(bytes) {
            let payload = payload.map_err(invalid)?;
            size.outline(&payload)?;
            size.of_module(payload).map_err(|fault| match fault {
                Fault::Bound(bound) => bound,
                Fault::Invalid(cause) => invalid(cause),
            })?;
        }
        Ok(size)
    }

    /// Nesting, and what components list.
    fn outline(&mut self, payload: &Payload<'_>) -> Result<(), ArtifactError> {
        match payload {
            Payload::Version { .. } => {
                self.depth += 1;
                self.parts += 1;
                at_most("components and modules inside each other", self.depth, NESTING_MAX)?;
                return at_most("components and modules", self.parts, PARTS_MAX);
            }
            Payload::End(_) => self.depth -= 1,
            Payload::InstanceSection(section) => self.items += u64::from(section.count()),
            Payload::CoreTypeSection(section) => self.items += u64::from(section.count()),
            Payload::ComponentInstanceSection(section) => self.items += u64::from(section.count()),
            Payload::ComponentAliasSection(section) => self.items += u64::from(section.count()),
            Payload::ComponentTypeSection(section) => self.items += u64::from(section.count()),
            Payload::ComponentCanonicalSection(section) => self.items += u64::from(section.count()),
            Payload::ComponentImportSection(section) => self.items += u64::from(section.count()),
            Payload::ComponentExportSection(section) => self.items += u64::from(section.count()),
            _ => return Ok(()),
        }
        at_most("instances, types, aliases, imports and exports of components", self.items, COMPONENT_ITEMS_MAX)
    }

    /// What modules list.
    fn of_module(&mut self, payload: Payload<'_>) -> Result<(), Fault> {
        let (what, found, max) = match payload {
            Payload::TypeSection(section) => ("types in a module", section.count(), MODULE_TYPES_MAX),
            Payload::ImportSection(section) => ("imports of a module", section.count(), MODULE_IMPORTS_MAX),
            Payload::ExportSection(section) => ("exports of a module", section.count(), MODULE_EXPORTS_MAX),
            Payload::GlobalSection(section) => ("globals of a module", section.count(), MODULE_GLOBALS_MAX),
            Payload::ElementSection(section) => ("element segments of a module", section.count(), ELEMENT_SEGMENTS_MAX),
            Payload::DataSection(section) => ("data segments of a module", section.count(), DATA_SEGMENTS_MAX),
            Payload::FunctionSection(section) => {
                self.functions += u64::from(section.count());
                return Ok(at_most("functions", self.functions, FUNCTIONS_MAX)?);
            }
            Payload::CodeSectionEntry(body) => {
                let bytes = body.as_bytes().len() as u64;
                return Ok(at_most("bytes of one function's code", bytes, FUNCTION_BODY_BYTES_MAX)?);
            }
            Payload::TableSection(section) => {
                at_most("tables of a module", u64::from(section.count()), TABLES_PER_MODULE_MAX)?;
                for table in section {
                    at_most("elements that a table begins with", table?.ty.initial, TABLE_ELEMENTS_MAX)?;
                }
                return Ok(());
            }
            Payload::MemorySection(section) => {
                at_most("memories of a module", u64::from(section.count()), MEMORIES_PER_MODULE_MAX)?;
                for memory in section {
                    self.memory_bytes = self.memory_bytes.max(memory?.initial.saturating_mul(PAGE_BYTES));
                }
                return Ok(());
            }
            _ => return Ok(()),
        };
        Ok(at_most(what, u64::from(found), max)?)
    }
}

enum Fault {
    Bound(ArtifactError),
    Invalid(BinaryReaderError),
}

impl From<ArtifactError> for Fault {
    fn from(bound: ArtifactError) -> Self {
        Self::Bound(bound)
    }
}

impl From<BinaryReaderError> for Fault {
    fn from(cause: BinaryReaderError) -> Self {
        Self::Invalid(cause)
    }
}

fn at_most(what: &'static str, found: u64, max: u64) -> Result<(), ArtifactError> {
    if found > max { Err(ArtifactError::Bound { what, found, max }) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
