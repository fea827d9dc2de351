//! Encrypted bundles: decrypted once, into memory up to a limit, beyond it into a temporary file.
//! Neither has a name, so nobody finds the plain text afterwards.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::PathBuf;

use bundle::encrypted::{Identities, OpenError};
use memmap2::Mmap;
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::InputError;
use crate::bytes::map_file;
use crate::num::wide;

/// A longer file holds no keys.
const LARGEST_IDENTITY_FILE: u64 = 1 << 20;

/// What was inside an encrypted file.
#[derive(Debug)]
pub(super) struct Decrypted {
    /// As far as it could be decrypted.
    pub(super) content: Mmap,
    /// Its length in bytes.
    pub(super) length: u64,
    /// Why it ends early, where it does.
    pub(super) ended: Option<String>,
}

/// Decrypts all of `file`, in memory if that is at most `memory` bytes.
///
/// # Errors
/// No identity opens it, or there is no room. What is cut or damaged is kept up to there.
pub(super) fn decrypt(
    file: &[u8],
    identities: &Identities,
    memory: u64,
) -> Result<Decrypted, OpenError> {
    let mut reader = identities.decrypt(file)?;
    let mut plain = nameless(wide(file.len()) <= memory)?;
    let mut buffer = vec![0; 1 << 20];
    let mut length = 0_u64;
    let ended = loop {
        match reader.read(&mut buffer) {
            Ok(0) => break None,
            Ok(read) => {
                plain.write_all(buffer.get(..read).unwrap_or_default())?;
                length = length.saturating_add(wide(read));
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => break Some(error.to_string()),
        }
    };
    Ok(Decrypted { content: map_file(&plain)?, length, ended })
}

/// A file that nobody else can open by a name.
fn nameless(in_memory: bool) -> io::Result<File> {
    if in_memory {
        Ok(memfd_create(c"decrypted", MFdFlags::MFD_CLOEXEC)?.into())
    } else {
        tempfile::tempfile()
    }
}

/// The identities of these files.
///
/// # Errors
/// A file that cannot be read, or is no identity file.
pub fn identities(paths: &[PathBuf]) -> Result<Identities, InputError> {
    let mut identities = Identities::default();
    for path in paths {
        let unreadable = |source| InputError::Unreadable { path: path.clone(), source };
        if !fs::metadata(path).map_err(unreadable)?.is_file() {
            return Err(unreadable(io::Error::other("not a regular file")));
        }
        let mut text = String::new();
        let file = File::open(path).map_err(unreadable)?;
        file.take(LARGEST_IDENTITY_FILE).read_to_string(&mut text).map_err(unreadable)?;
        let added = identities.add_file(&text);
        added.map_err(|why| InputError::BadIdentity { path: path.clone(), why })?;
    }
    Ok(identities)
}
