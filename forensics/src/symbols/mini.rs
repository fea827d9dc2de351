//! The small symbol table that Fedora and Red Hat leave in stripped files: `.gnu_debugdata`, an
//! ELF file of functions only, compressed with xz.

use std::io::Read;

use liblzma::read::XzDecoder;
use liblzma::stream::Stream;
use object::{Object as _, ObjectSection as _};

use crate::bytes::Blob;
use crate::modules::ModuleFile;

/// Most memory for unpacking, and longest file that comes out, in bytes.
const MEMORY: u64 = 256 << 20;
const LONGEST: u64 = 64 << 20;

/// Unpacks it; `None` in a file without it.
///
/// # Errors
/// Words for a person.
pub(super) fn read(file: &ModuleFile) -> Result<Option<ModuleFile>, String> {
    let elf = object::File::parse(file.bytes()).map_err(|error| error.to_string())?;
    let Some(section) = elf.section_by_name(".gnu_debugdata") else { return Ok(None) };
    let packed = section.data().map_err(|error| error.to_string())?;
    let stream = Stream::new_stream_decoder(MEMORY, 0).map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    XzDecoder::new_stream(packed, stream)
        .take(LONGEST)
        .read_to_end(&mut bytes)
        .map_err(|error| error.to_string())?;
    ModuleFile::read(&Blob::from_bytes(bytes), format!("{} (.gnu_debugdata)", file.origin))
        .map(Some)
}
