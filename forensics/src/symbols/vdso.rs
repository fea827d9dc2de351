//! The vDSO: code that the kernel maps into every process, of which there is no file but the image
//! in memory, which is a whole ELF file with its names.

use std::sync::Arc;

use crate::addr::{Addr, AddrRange};
use crate::bytes::Blob;
use crate::memory::Memory as _;
use crate::modules::{Module, ModuleFile};
use crate::num::{narrow, wide};
use crate::process::Process;

/// Type of the auxiliary vector: address of the vDSO.
const AT_SYSINFO_EHDR: u64 = 33;
/// Longest image, in bytes; kernels make two or three pages.
const LONGEST: u64 = 64 << 10;

/// A process's vDSO as a module; `None` where its memory is not known.
pub fn vdso(process: &Process) -> Option<Module> {
    let mut auxv = process.core.notes.auxv.iter();
    let (_, start) = auxv.find(|(kind, _)| *kind == AT_SYSINFO_EHDR)?;
    let start = Addr(*start);
    let end = process.memory.find(start)?.range.end;
    let length = narrow(end.offset_from(start)?.min(LONGEST));
    let mut bytes = Vec::new();
    while bytes.len() < length {
        let reached = start.checked_add(wide(bytes.len()))?;
        let left = length.saturating_sub(bytes.len());
        bytes.extend_from_slice(&process.memory.peek(reached, left).ok()?);
    }
    let file = ModuleFile::read(&Blob::from_bytes(bytes), "[vdso]").ok()?;
    let range = AddrRange { start, end };
    Some(Module {
        path: "[vdso]".to_owned(),
        range,
        image: range,
        segments: file.segments().to_vec(),
        bias: start.0.wrapping_sub(file.lowest_address()),
        build_id: file.build_id.clone(),
        file: Ok(Arc::new(file)),
    })
}
